"""Sums of more than two numbers, as a part of a mixture that also has sums of two.

Their cells are strata of those: `sum:6`, six numbers of that length, and `sum:6:mixed`, one of that
length and others of any length up to it.
"""

from __future__ import annotations

from addgpt.task import Cell, Problem

SUM = "sum"  # the name of the part
FEWEST = 3  # operands


def stratum(count: int, among: str) -> str:
    """The stratum of sums of so many numbers, and which of them."""
    return f"{SUM}:{count}" + ("" if among == "all" else f":{among}")


def sizes(cell: Cell) -> tuple[int, int, str]:
    """The number of operands in a cell, their length, and which of these sums."""
    _, count, *among = cell.stratum.split(":", 2)
    return int(count), cell.len_b, "".join(among) or "all"


def part_of(asked: Problem | Cell) -> str:
    """The name of the part whose own a problem or a cell is: its operation, or `SUM`."""
    if isinstance(asked, Cell):
        return SUM if asked.stratum.startswith(SUM) else asked.op
    return SUM if asked.op == "+" and len(asked.operands) >= FEWEST else asked.op
