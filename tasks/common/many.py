"""Sums of more than two numbers, as a part of a mixture that has sums of two besides."""

from __future__ import annotations

from addgpt.task import Cell, Problem
from tasks.sum import Sum

SUM = "sum"  # the name of the part, with which the strata of its cells begin


class Many(Sum):
    """Sums of more than two numbers. Their cells are strata of `+`: `sum:6`, six numbers of that
    length, and `sum:6:mixed`, one of that length and others of any length up to it."""

    fewest = 3

    def cell(self, count: int, length: int, stratum: str = "all") -> Cell:
        of = "" if stratum == "all" else f":{stratum}"
        return Cell(self.op, length, length, f"{SUM}:{count}{of}")

    def sizes(self, cell: Cell) -> tuple[int, int, str]:
        _, count, *stratum = cell.stratum.split(":", 2)
        return int(count), cell.len_b, "".join(stratum) or "all"

    def cells(self) -> list[Cell]:
        kinds = ("all", "mixed")
        return [self.cell(*corner, kind) for corner in self.corners for kind in kinds]


def part_of(asked: Problem | Cell) -> str:
    """The name of the part whose own a problem or a cell is: its operation, or `SUM`."""
    if isinstance(asked, Cell):
        return SUM if asked.stratum.startswith(SUM) else asked.op
    return SUM if asked.op == Many.op and len(asked.operands) >= Many.fewest else asked.op
