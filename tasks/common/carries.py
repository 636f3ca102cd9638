"""Carries and borrows of single columns, and pairs of problems that differ in one of them.

>>> from addgpt.task import Problem
>>> [column_fact("carry", Problem("+", (128, 367)), column) for column in (1, 2, 3, 4)]
[0, 1, 0, 0]
>>> [column_fact("borrow", Problem("-", (42, 17)), column) for column in (1, 2)]
[0, 1]
>>> column_fact("sum", Problem("+", (128, 367)), 2)  # of the two digits alone
8
"""

from __future__ import annotations

import numpy as np

from addgpt.task import Problem, UsageError

FACTS = {"+": ("carry", "sum"), "-": ("borrow", "sum")}
TRIES = 1000  # draws, for each pair that is wanted


def column_fact(name: str, problem: Problem, column: int) -> int:
    """What a column is carried (`carry`) or must lend (`borrow`), 0 or 1, or the sum of its two
    digits (`sum`). Columns count from 1. Raises UsageError where the operation has no such fact."""
    if len(problem.operands) != 2:
        raise UsageError(
            f"columns have carries in problems of two numbers, not {len(problem.operands)}"
        )
    valid = FACTS.get(problem.op, ())
    if name not in valid:
        there = ", ".join(valid) or "nothing"
        raise UsageError(f"columns of {problem.op} have {there}, not {name}")
    a, b = problem.operands
    below = 10 ** (column - 1)
    if name == "sum":
        return a // below % 10 + b // below % 10
    low_a, low_b = a % below, b % below
    return int(low_a + low_b >= below) if name == "carry" else int(low_a < low_b)


def pairs(
    rng: np.random.Generator, size: int, op: str, digits: int
) -> list[tuple[Problem, Problem, int]]:
    """Two problems that differ in one digit, and the column into which the second carries (or of
    which it borrows) and the first does not. All other carries are the same. The operands have
    `digits` digits. Raises UsageError for another operation."""
    if op not in FACTS:
        raise UsageError(f"only + and - have pairs that differ in one carry, not {op}")
    if digits < 2:
        raise UsageError("pairs that differ in one carry need two digits or more")
    name, found = FACTS[op][0], []
    for _ in range(TRIES * size):
        if len(found) == size:
            return found
        low = 10 ** (digits - 1)
        a, b = rng.integers(low, 10 * low, 2).tolist()
        column = int(rng.integers(2, digits + 1))
        place = 10 ** (column - 2)  # of the digit of b that is changed
        digit = int(rng.integers(0, 10))
        other = b + (digit - b // place % 10) * place
        first, second = Problem(op, (a, b)), Problem(op, (a, other))
        facts = [
            [column_fact(name, problem, c) for c in range(1, digits + 2)]
            for problem in (first, second)
        ]
        changed = [c + 1 for c, (x, y) in enumerate(zip(*facts, strict=True)) if x != y]
        if changed == [column] and facts[1][column - 1]:
            found.append((first, second, column))
    raise UsageError(f"no {size} pairs of {digits} digits were found")
