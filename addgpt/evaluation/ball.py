"""Ball arithmetic: numbers in float64, each with a bound on how far off exact arithmetic it can be.

The bounds hold whatever the order of sums (Higham 2002, Accuracy and Stability of Numerical
Algorithms, chapter 3: a sum of n products is off by at most n u / (1 - n u) of the sum of their
sizes). The term is that of van der Hoeven 2009 and of Johansson 2017 (Arb, arXiv:1611.02831).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

U = 1.001 * 2.0**-53  # of float64, with room: n U is more than n u / (1 - n u)
GELU = np.vectorize(lambda x: x * (1 + math.erf(x / 2**0.5)) / 2, otypes=[float])


class Ball(NamedTuple):
    """Numbers in float64, and how far off exact arithmetic each can be."""

    value: np.ndarray
    error: np.ndarray

    def plus(self, other: np.ndarray, off: np.ndarray | float = 0.0) -> Ball:
        value, error = self.value + other, self.error + off
        return Ball(value, error + U * (np.abs(value) + error))

    def times(self, by: np.ndarray, n: int, rule: str, off: np.ndarray | float = 0.0) -> Ball:
        """Sums of n products, by a rule of `np.einsum`, with numbers that can be `off`, too."""
        x, y = np.abs(self.value), np.abs(by)
        error = np.einsum(rule, n * U * x + (1 + n * U) * self.error, y + off, optimize=True)
        more = np.einsum(rule, x, np.broadcast_to(off, y.shape), optimize=True)
        return Ball(np.einsum(rule, self.value, by, optimize=True), error + more)

    def on_sphere(self, radius: float, eps: float = 0.0) -> Ball:
        """The vectors at another length: RMS norm (radius sqrt n), norm of queries and keys."""
        n = self.value.shape[-1]
        size, off = (np.linalg.norm(x, axis=-1, keepdims=True) for x in self)
        value = self.value * radius / np.sqrt(size**2 + n * eps)
        moved = self.error + np.abs(self.value) * off / np.maximum(size, 1e-30)
        least = np.maximum(size - off, 1e-30)  # of the true length
        return Ball(value, moved * radius / least + (n + 10) * U * np.abs(value))

    def softmax(self) -> Ball:
        """Along axis 1; it changes by at most exp(2 e) - 1 of itself and of what all others get."""
        weights = np.exp(self.value - self.value.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        most = (self.error + 4 * U * np.abs(self.value)).max(1, keepdims=True)
        apart = np.expm1(2 * most) * np.minimum(weights, 1 - weights) * np.exp(2 * most)
        return Ball(weights, apart + (weights.shape[1] + 8) * U * weights)

    def of(self, function: Callable[[np.ndarray], np.ndarray], slope: float = 1.0) -> Ball:
        """A function of each number that is nowhere steeper, worked out to a few units."""
        value = function(self.value)
        return Ball(value, slope * self.error + 8 * U * (np.abs(self.value) + 1))


def activated(one: Ball, other: Ball | None = None) -> Ball:
    """GELU of one times the other (GEGLU); of one alone, squared ReLU."""
    one = one.of(GELU, 1.13) if other else one.of(lambda x: np.maximum(x, 0))
    other = other or one
    return one.times(other.value, 1, "nd,nd->nd", other.error)


def arc(points: int, radius: float, start: float, step: float) -> Ball:
    """(points, 2) on an arc, at equal steps from an angle on."""
    number = np.arange(points)[:, None]
    angle = Ball(number * step + start, 3 * U * (np.abs(start) + np.abs(step) * number))
    x, y = angle.of(np.cos), angle.of(np.sin)
    unit = Ball(np.hstack((x.value, y.value)), np.hstack((x.error, y.error)))
    return unit.times(np.array(radius), 1, "nc,->nc")
