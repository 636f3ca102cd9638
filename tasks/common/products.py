"""What the digits of a product are made of: products of two digits, sums of columns, carries.

Shapes: B rows, operands (B, n), lowest digit first; a product has 2n columns, column k those pairs
of digits whose places add up to k.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


def pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, 2n, n) for each column k and each place i of `a`: digit i of `a` times digit k - i of
    `b`, 0 where there is none."""
    width = a.shape[1]
    found = np.zeros((len(a), 2 * width, width), np.int64)
    for place in range(width):
        found[:, place : place + width, place] = a[:, place, None].astype(np.int64) * b
    return found


def running_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, 2n) for each column the products of digits that are in it, and what the column below
    carries."""
    return _carried(pairs(a, b).sum(2))


def column_sums(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, 2n) for each column the units of its products, and the tens of those of the column
    below: at most 17 n, where sums of whole products reach 81 n."""
    found = pairs(a, b)
    tens = (found // 10).sum(2)
    return (found % 10).sum(2) + np.pad(tens, ((0, 0), (1, 0)))[:, :-1]


def carries_in(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(B, 2n) what is carried into each column of `column_sums`: at most 17 n / 9."""
    sums = column_sums(a, b)
    return _carried(sums) - sums


def _carried(sums: np.ndarray) -> np.ndarray:
    """Sums (B, n) of columns, each with what the one below carries."""
    sums = sums.copy()
    for place in range(1, sums.shape[1]):
        sums[:, place] += sums[:, place - 1] // 10
    return sums


class Result(NamedTuple):
    """A number, or several, that each column has; `count` says how many, `largest` how large, for
    operands of n digits."""

    compute: Callable[[np.ndarray, np.ndarray], np.ndarray]
    count: Callable[[int], int]
    largest: Callable[[int], int]

    def size(self, n: int) -> int:
        """How many decimal digits they have together."""
        return self.count(n) * len(str(self.largest(n)))

    def decimals(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(B, 2n, size) their decimal digits, those of each number lowest first."""
        found = self.compute(a, b).reshape(len(a), 2 * a.shape[1], -1, 1)
        powers = 10 ** np.arange(len(str(self.largest(a.shape[1]))))
        return (found // powers % 10).reshape(*found.shape[:2], -1)


RESULTS = {
    "products": Result(pairs, lambda n: n, lambda n: 81),
    "columns": Result(column_sums, lambda n: 1, lambda n: 17 * n),
    "carries": Result(carries_in, lambda n: 1, lambda n: 17 * n // 9),
}
