"""Which split a problem belongs to: a stable hash of its operands, or of its text."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from addgpt.task import SPLITS

VAL, TEST = 10, 10  # per cent; the rest is train
CHUNK = 18  # decimal digits that fit into 64 bits
FEW = 4  # digits of numbers whose hashes are looked up
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio
SMALL = 1000  # cells with fewer distinct problems are not split


def salt_of(op: str) -> int:
    """The number of an operation: its name, up to seven bytes of it, as one."""
    return int.from_bytes(op.encode()[:7], "big")


def split_of(a: np.ndarray, b: np.ndarray, salt: int, commutes: bool) -> np.ndarray:
    """(B,) 0 train, 1 val, 2 test for the problems of two digit matrices.

    Leading zeros do not matter, nor does the order of the operands where they commute.
    """
    first, second = _hash(a), _hash(b)
    if commutes:
        first, second = np.minimum(first, second), np.maximum(first, second)
    with np.errstate(over="ignore"):
        return _split(_mix(first * np.uint64(3) + _mix(second + np.uint64(salt))))


def split_of_many(operands: np.ndarray, counts: np.ndarray, salt: int) -> np.ndarray:
    """(B,) the same for sums of the first `counts` of (B, K, n) operands, in any order.

    Of two operands it is what `split_of` says.
    """
    rows, most, width = operands.shape
    there = np.arange(most) < counts[:, None]
    hashes = _hash(operands.reshape(rows * most, width)).reshape(rows, most)
    # Largest first. What is not there is sorted among zeros, of which the hash is 0.
    hashes = np.sort(np.where(there, hashes, np.uint64(0)), 1)[:, ::-1]
    with np.errstate(over="ignore"):
        state = _mix(hashes[:, 0] + np.uint64(salt))
        for place in range(1, most):
            mixed = _mix(hashes[:, place] * np.uint64(3) + state)
            state = np.where(there[:, place], mixed, state)
    return _split(state)


def split_of_text(text: str) -> str:
    """The split of a problem that is a text, such as a line of a list.

    >>> split_of_text("abc")
    'test'
    """
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    share = int.from_bytes(digest, "little") % 100
    return SPLITS[(share >= 100 - VAL - TEST) + (share >= 100 - TEST)]


def _split(hashes: np.ndarray) -> np.ndarray:
    share = hashes - hashes // np.uint64(100) * np.uint64(100)  # quicker than % in numpy
    return (share >= 100 - VAL - TEST).astype(np.int8) + (share >= 100 - TEST)


def _hash(digits: np.ndarray) -> np.ndarray:
    """(B,) uint64; folds from the top, where zeros leave the hash at zero."""
    width = digits.shape[1]
    if width <= FEW:
        return _hashes().take(_value(digits, np.int16))
    state = np.zeros(len(digits), np.uint64)
    starts = range(0, width, CHUNK)
    for start in reversed(starts):
        value = _value(digits[:, start : start + CHUNK], np.int64)
        state = _mix(state + value.view(np.uint64) * GOLDEN)
    return state


@cache
def _hashes() -> np.ndarray:
    """(10^FEW,) of all small numbers."""
    return _mix(np.arange(10**FEW, dtype=np.uint64) * GOLDEN)


def _value(digits: np.ndarray, dtype: type) -> np.ndarray:
    """(B,) the numbers, in an integer type that is wide enough."""
    value = np.zeros(len(digits), dtype)
    for column in reversed(range(digits.shape[1])):
        value *= 10
        value += digits[:, column]
    return value


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of MurmurHash3 (Appleby 2011): spreads every bit, and keeps 0 at 0."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        x = (x ^ (x >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
        return x ^ (x >> np.uint64(33))
