"""Arithmetic on digit matrices: (B, n) int, least significant digit in column 0, any length.

Those of few columns lie in memory column by column: numpy then works on as many rows at a time as
the processor can, where it would work on short rows one by one.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from addgpt.task import UsageError

FEW = 24  # columns


def order_of(width: int) -> Literal["F", "C"]:
    """How matrices of so many columns lie in memory: by columns or by rows."""
    return "F" if width <= FEW else "C"


def draw(rng: np.random.Generator, lengths: np.ndarray, width: int) -> np.ndarray:
    """(B, width) random numbers with exactly `lengths` digits; one digit may be 0.

    Raises UsageError where a length is not in 1..width.
    """
    if len(lengths) and not (lengths.min() >= 1 and lengths.max() <= width):
        raise UsageError(f"lengths must be in 1..{width}, not {lengths.min()}..{lengths.max()}")
    digits = rng.integers(0, 10, (len(lengths), width), dtype=np.int8)
    digits = np.asarray(digits, order=order_of(width))
    top = rng.integers(1, 10, len(lengths), dtype=np.int8)
    exists = below(lengths, width)
    digits *= exists
    exists[:, :-1] ^= exists[:, 1:]  # the top digits alone
    digits[:, 1:] = choose(exists[:, 1:], top[:, None], digits[:, 1:])
    return digits


def below(counts: np.ndarray, width: int) -> np.ndarray:
    """(B, width) whether a place, counted from 0, is below (B,) counts."""
    if width <= FEW:
        return (np.arange(width, dtype=np.int32)[:, None] < counts.astype(np.int32)).T
    if len(counts) <= width:
        return np.arange(width) < counts[:, None]
    return np.tri(width + 1, width, -1, bool).take(counts, 0, mode="clip")  # four times as fast


def choose(condition: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    """One of two digits each, as `np.where` does, which takes 50 times as long at random."""
    return no + condition * (yes - no)


def rows_of(matrix: np.ndarray, index: np.ndarray) -> np.ndarray:
    """(N, n) some rows of a matrix; or (N,) of a vector."""
    return matrix.take(index, 0) if matrix.flags.c_contiguous else matrix.T.take(index, 1).T


def carried(columns: np.ndarray, width: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Turn column totals of any sign into digits, carrying (or borrowing) upwards.

    Returns:
        (B, width) digits and (B,) what is carried out of the last column: for a negative total,
        the digits are its ten's complement and the carry is below zero.
    """
    rows, size = columns.shape
    width = size if width is None else width
    digits = np.empty((rows, width), np.int8, order_of(width))
    carry = np.zeros(rows, columns.dtype)
    for column in range(width):
        total = carry + columns[:, column] if column < size else carry
        carry = total // 10
        digits[:, column] = total - 10 * carry
    return digits, carry


def wide(digits: np.ndarray, width: int, dtype: type = np.int16) -> np.ndarray:
    """The lowest `width` digits, zeros above, by default as int16, fit for sums and differences."""
    out = np.zeros((len(digits), width), dtype, order_of(width))
    out[:, : digits.shape[1]] = digits[:, :width]
    return out


def length(digits: np.ndarray) -> np.ndarray:
    """(B,) number of digits without leading zeros; zero has one."""
    width = digits.shape[1]
    if width > FEW:
        some = digits != 0
        some[:, 0] = True
        return width - some[:, ::-1].argmax(1)
    found = np.ones(len(digits), np.intp)  # of few columns one by one: ten times as fast
    for place in range(1, width):
        np.maximum(found, (digits[:, place] != 0) * (place + 1), out=found)
    return found


def times(a: np.ndarray, b: np.ndarray, width: int) -> np.ndarray:
    """(B, width) lowest digits of the products."""
    columns = np.zeros((len(a), width), np.int32)
    for place in range(min(width, b.shape[1])):
        size = min(a.shape[1], width - place)
        columns[:, place : place + size] += a[:, :size].astype(np.int32) * b[:, place, None]
    return carried(columns)[0]


def divide(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, n) quotients and (B, m + 1) remainders of a (B, n) by b (B, m). b must not be zero."""
    assert (b != 0).any(1).all(), "division by zero"
    quotient = np.zeros(a.shape, np.int8)
    divisor = wide(b, b.shape[1] + 1)
    rest = np.zeros_like(divisor)
    for place in reversed(range(a.shape[1])):
        rest = np.concatenate([a[:, place : place + 1], rest[:, :-1]], 1).astype(np.int16)
        quotient[:, place], rest = times_it_fits(rest, divisor)
    return quotient, rest


def times_it_fits(rest: np.ndarray, divisor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) quotient, at most 9, and remainder of one step of long division."""
    count = np.zeros(len(rest), np.int8)
    for _ in range(9):
        less, borrow = carried(rest - divisor)
        fits = borrow >= 0
        if not fits.any():
            break
        rest = np.where(fits[:, None], less, rest).astype(np.int16)
        count += fits
    return count, rest


def from_int(value: int, width: int) -> np.ndarray:
    """(width,) digits of a Python integer. Raises UsageError if it does not fit."""
    text = str(value)
    if value < 0 or len(text) > width:
        raise UsageError(f"{value} has no {width}-digit form")
    return np.array([int(c) for c in reversed(text.zfill(width))], np.int8)


def to_int(digits: np.ndarray) -> list[int]:
    """The B numbers as Python integers."""
    text = np.ascontiguousarray(digits[:, ::-1] + ord("0"), np.uint8)
    return list(map(int, text.view(f"S{text.shape[1]}")[:, 0].tolist()))


def longest_chain(a: np.ndarray, b: np.ndarray, borrow: bool = False) -> np.ndarray:
    """(B,) longest run of columns through which one carry (or borrow, for a - b) travels.

    A chain starts where a column makes a carry on its own and goes on while columns pass it along
    (digits that sum to 9, or equal digits for a borrow): 95 + 7 has a chain of 2.
    """
    starts, passes = _carriers(a, b, borrow)
    best = np.zeros(len(a), np.int16)
    run = np.zeros(len(a), np.int16)
    for column in range(a.shape[1]):
        run = np.where(starts[:, column], 1, np.where(passes[:, column] & (run > 0), run + 1, 0))
        best = np.maximum(best, run)
    return best


def longest_idle(a: np.ndarray, b: np.ndarray, borrow: bool = False) -> np.ndarray:
    """(B,) longest run of columns that would pass a carry (or borrow) along, but get none: 3 of
    123 + 876, none of 95 + 7."""
    starts, passes = _carriers(a, b, borrow)
    best, run = np.zeros((2, len(a)), np.int16)
    carry = np.zeros(len(a), bool)
    for column in range(a.shape[1]):
        run = np.where(passes[:, column] & ~carry, run + 1, 0)
        best = np.maximum(best, run)
        carry = starts[:, column] | (passes[:, column] & carry)
    return best


def _carriers(a: np.ndarray, b: np.ndarray, borrow: bool) -> tuple[np.ndarray, np.ndarray]:
    """(B, n) which columns make a carry (or borrow) on their own, and which pass one along."""
    total = a.astype(np.int16) - b if borrow else a.astype(np.int16) + b
    starts = total < 0 if borrow else total > 9
    exists = below(np.maximum(length(a), length(b)), a.shape[1])
    return starts, (total == (0 if borrow else 9)) & exists
