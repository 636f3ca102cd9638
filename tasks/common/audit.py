"""The split of one problem by Python integers: a second opinion on `splits`.

It shares with `splits` the definition alone, which it states again, constants included: neither
code nor numpy nor digit matrices. So a slip in either shows as soon as both are compared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

MASK = (1 << 64) - 1
CHUNK = 10**18
HELD_OUT = 20  # of 100 problems
SMALL = 1000  # cells of fewer problems are not split


def in_train(operands: Sequence[int], op: str, commutes: bool) -> bool:
    """Whether `a op b`, or `a op b op c`, belongs to train."""
    if math.prod(map(_count, operands)) < SMALL:
        return True
    *others, last = sorted(map(_hash, operands)) if commutes else map(_hash, operands)
    salt = 0
    for byte in op.encode()[:7]:
        salt = 256 * salt + byte
    state = _mix(last + salt)
    for other in reversed(others):
        state = _mix(3 * other + state)
    return state % 100 < 100 - HELD_OUT


def _count(number: int) -> int:
    """How many numbers have as many digits; a single digit may be 0."""
    return 9 * 10 ** (len(str(number)) - 1) if number > 9 else 10


def _hash(number: int) -> int:
    chunks = []
    while number:
        number, chunk = divmod(number, CHUNK)
        chunks.append(chunk)
    state = 0
    for chunk in reversed(chunks):
        state = _mix(state + chunk * 0x9E3779B97F4A7C15)
    return state


def _mix(x: int) -> int:
    """The finaliser of MurmurHash3 (Appleby 2011)."""
    x &= MASK
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & MASK
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 33)
