"""Drawing operands: by length first, then digits; of one split; of one stratum.

A *stratum* is a kind of problem that deserves a score of its own:

    all             any problem of the cell
    carry:K         the longest carry (or borrow) chain is K columns: one makes it, and it runs
                    through K - 1 whose digits sum to nine (or are equal)
    idle:K          K such columns in a row are not run through, and no more: nothing is carried to
                    them. Not scored, but asked by `addgpt inspect --ablate --cascades`
    zeros           digits that are mostly zero; 0 itself where the length allows
    equal           both operands are the same number
    nines           an operand is all nines
    power           an operand is a power of ten, or one off it
    exact           the divisor divides
    zero_digit      the quotient has a zero among its digits
    zero_quotient   the dividend is smaller than the divisor
"""

from __future__ import annotations

import numpy as np

from addgpt.task import UsageError
from tasks.common import digits

EDGES = ("zeros", "equal", "nines", "power")


def chain_heavy(rng: np.random.Generator, a: np.ndarray, b: np.ndarray, borrow: bool) -> np.ndarray:
    """b changed so that a random subset of its columns passes a carry (or borrow) along."""
    chosen = rng.random(a.shape) < rng.random((len(a), 1))
    chosen = np.asarray(chosen, order=digits.order_of(a.shape[1]))
    passing = a if borrow else 9 - a
    changed = digits.choose(chosen, passing, b)
    lengths = digits.length(b)
    changed *= digits.below(lengths, b.shape[1])
    same_length = digits.length(changed) == lengths
    return digits.choose(same_length[:, None], changed, b)


def of_stratum(
    rng: np.random.Generator,
    stratum: str,
    a: np.ndarray,
    b: np.ndarray,
    len_a: np.ndarray,
    len_b: np.ndarray,
    borrow: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Operands changed towards a stratum of any operation. What comes out may still miss it."""
    name = stratum.partition(":")[0]
    if name in ("carry", "idle"):
        return a, chain_heavy(rng, a, b, borrow)
    if name == "equal":
        return a, np.where((len_a == len_b)[:, None], a, b)
    which = rng.random((len(a), 1)) < 0.5
    if name == "zeros":
        return _mostly_zero(rng, a, len_a), np.where(which, b, _mostly_zero(rng, b, len_b))
    special = _nines if name == "nines" else _near_power
    return (
        np.where(which, a, special(rng, a.shape, len_a)),
        np.where(which, special(rng, b.shape, len_b), b),
    )


def some_full(rng: np.random.Generator, share: float, most: int, lengths: tuple) -> tuple:
    """Operand lengths, in a share of the problems the longest."""
    longest = rng.random(len(lengths[0])) < share
    return tuple(np.where(longest, most, some) for some in lengths)


def edge_cases(rng, share: float, a, b, len_a, len_b) -> tuple[np.ndarray, np.ndarray]:
    """A share of the rows changed to one of the strata of `EDGES` each, lengths kept."""
    changed = np.flatnonzero(rng.random(len(a)) < share)
    pick = rng.integers(0, len(EDGES), len(a)).take(changed)
    for number, name in enumerate(EDGES):
        rows = changed[pick == number]
        sides = (digits.rows_of(part, rows) for part in (a, b, len_a, len_b))
        a[rows], b[rows] = of_stratum(rng, name, *sides, False)
    return a, b


def in_stratum(stratum: str, a: np.ndarray, b: np.ndarray, borrow: bool) -> np.ndarray:
    """(B,) whether problems belong to a stratum of `carry:K`, `idle:K`, or `EDGES`.

    Raises UsageError for a name it does not know.
    """
    name, _, value = stratum.partition(":")
    if name == "all":
        return np.ones(len(a), bool)
    if name in ("carry", "idle") and value.isdecimal():
        longest = digits.longest_chain if name == "carry" else digits.longest_idle
        return longest(a, b, borrow) == int(value)
    if name == "equal":
        return (a == b).all(1)
    if name in ("zeros", "nines", "power"):
        test = {"zeros": _is_mostly_zero, "nines": _is_nines, "power": _is_near_power}[name]
        return test(a) | test(b)
    raise UsageError(
        f"unknown stratum {stratum!r}; valid: all, carry:K, idle:K, {', '.join(EDGES)}"
    )


def joined(kept: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, ...]:
    """Concatenate drawn operands, whose matrices may differ in width."""
    if len(kept) == 1:
        return kept[0]
    width = max(part[0].shape[1] for part in kept)
    a, b = (
        np.concatenate([np.pad(p[i], ((0, 0), (0, width - p[i].shape[1]))) for p in kept])
        for i in (0, 1)
    )
    return a, b, np.concatenate([p[2] for p in kept]), np.concatenate([p[3] for p in kept])


def _mostly_zero(rng: np.random.Generator, number: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Two thirds of the digits below the top one set to zero; a single digit set to 0."""
    place = np.arange(number.shape[1])
    top = place == lengths[:, None] - 1
    hit = (rng.random(number.shape) < 2 / 3) & ~top
    return np.where(hit | (top & (lengths == 1)[:, None]), 0, number).astype(np.int8)


def _is_mostly_zero(number: np.ndarray) -> np.ndarray:
    lengths = digits.length(number)
    zeros = ((number == 0) & digits.below(lengths, number.shape[1])).sum(1)
    return 2 * zeros >= lengths


def _nines(rng: np.random.Generator, shape: tuple[int, int], lengths: np.ndarray) -> np.ndarray:
    return digits.below(lengths, shape[1]) * np.int8(9)


def _is_nines(number: np.ndarray) -> np.ndarray:
    return (number == _nines(None, number.shape, digits.length(number))).all(1)


def _near_power(rng: np.random.Generator, shape: tuple[int, int], lengths: np.ndarray):
    """10^k, 10^k + 1 or 10^k - 1 with the given number of digits (never 10^0 - 1 = 0)."""
    place = np.arange(shape[1])
    power = (place == lengths[:, None] - 1).astype(np.int8)
    one_up = power + (place == 0)
    pick = rng.integers(0, 3, (shape[0], 1))
    return np.where(pick == 0, power, np.where(pick == 1, one_up, _nines(rng, shape, lengths)))


def _is_near_power(number: np.ndarray) -> np.ndarray:
    lengths = digits.length(number)
    top = number[np.arange(len(number)), lengths - 1]
    rest = number.sum(1, dtype=np.int32) - top
    power = (top == 1) & ((rest == 0) | ((rest == 1) & (number[:, 0] == 1)))
    return power | ((number[:, 0] == 2) & (lengths == 1)) | _is_nines(number)


def distinct(a: np.ndarray, b: np.ndarray, commutes: bool) -> np.ndarray:
    """The first row of each problem; operands that commute make one problem in either order."""
    pairs = np.concatenate([a, b], 1)
    if commutes and len(a):
        swapped = np.concatenate([b, a], 1)
        place = (pairs != swapped).argmax(1)[:, None]
        less = np.take_along_axis(pairs, place, 1) <= np.take_along_axis(swapped, place, 1)
        pairs = np.where(less, pairs, swapped)
    return np.sort(np.unique(pairs, axis=0, return_index=True)[1])
