"""Subtraction of two non-negative integers; the difference may be negative.

The sign is known only once the last borrow is, and the digits of a negative difference depend on
the sign. So the default trace first writes the difference as if the borrow could be paid (ten's
complement), lowest digit first, each digit followed by what its column borrows; then the sign, then
the magnitude:

>>> import numpy as np
>>> task = Sub(digits=3)
>>> a, b = np.array([[2, 1, 0]]), np.array([[5, 4, 3]])  # 12 - 345, lowest digit first
>>> batch = task.write(a, b, np.array([2]), np.array([3])).batch()
>>> task.decode(batch.tokens[0])  # 12 - 345 + 1000 = 667, negative, 1000 - 667 = 333
'12-345=716161-333#'
>>> problem = task.parse("12 - 345")
>>> task.read(problem, "716161-333#"), task.truth(problem)
(Answer(whole=-333, rest=0), Answer(whole=-333, rest=0))

With `trace=borrow` the borrows are left out:

>>> task = Sub(digits=3, trace="borrow")
>>> task.decode(task.write(a, b, np.array([2]), np.array([3])).batch().tokens[0])
'12-345=766-333#'

With `trace=none` only the sign and the magnitude are written, in the order that `sign` says:
`12-345=-333#` (before) or `12-345=333-#` (after).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.locality import LAST, Read, Rule
from addgpt.task import Answer, Cell, Problem, Recipe, Row, setting
from tasks.common import digits, paper
from tasks.common.arithmetic import Arithmetic
from tasks.common.operation import NUMBER, row_of, sizes
from tasks.common.rules import END, MINUS, PLUS, carries, either, of
from tasks.common.sheet import ALL_KINDS, SIGNS, Kind, Sheet


def _size(digit, before, written, sign) -> np.ndarray | int:
    """A digit of the size of a difference from the signed one: 10 - d, above the lowest that is not
    0 it is 9 - d, if the sign is negative."""
    if sign is None or digit is None:
        return END
    lowest = True if before is None else (of(before) == 0) & (of(written) == 0)
    turned = np.where(lowest, (10 - of(digit)) % 10, 9 - of(digit))
    return np.where(sign == MINUS, turned, of(digit))


@dataclass(frozen=True)
class Sub(Arithmetic):
    op: ClassVar[str] = "-"
    borrows: ClassVar[bool] = True

    trace: str = setting(
        "carry",
        "carry: the signed difference first, each digit followed by its borrow; "
        "borrow: digits alone; none",
        ("carry", "borrow", "none"),
    )
    sign: str = setting("before", "where the sign stands with trace=none", ("before", "after"))

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        sheet = self.start(a, b, len_a, len_b)
        longer = np.maximum(len_a, len_b)[:, None]
        width = int(longer.max())
        exists = np.arange(width) < longer
        difference = digits.wide(a, width) - digits.wide(b, width)
        signed, borrow = digits.carried(difference)
        negative = (borrow < 0)[:, None]
        magnitude, _ = digits.carried(np.where(negative, -difference, difference))
        sign = np.where(negative, SIGNS[1], SIGNS[0])
        if self.trace == "carry":
            kinds = Kind.SIGNED, Kind.BORROW
            sheet.pairs(signed, -carries(difference)[1], kinds, exists=exists)
            sheet.symbol(sign, Kind.SIGN)
            sheet.number(magnitude, Kind.MAGNITUDE, exists=exists)
            sheet.symbol("#", Kind.MAGNITUDE)
            return sheet
        if self.trace == "borrow":
            sheet.number(signed, Kind.SIGNED, exists=exists)
        if self.trace == "borrow" or self.sign == "before":
            sheet.symbol(sign, Kind.SIGNED, col=longer + 1)
        sheet.number(magnitude, Kind.MAGNITUDE, exists=exists)
        if self.trace == "none" and self.sign == "after":
            sheet.symbol(sign, Kind.SIGNED, col=longer + 1)
        sheet.symbol("#", Kind.MAGNITUDE, col=longer + 1)
        return sheet

    def local_rules(self) -> dict[int, Rule]:
        if self.trace != "carry":
            return {}
        column = (Read(Kind.A), Read(Kind.B), Read(Kind.BORROW, 1))
        sizes = (Read(Kind.SIGNED), Read(Kind.SIGNED, 1), Read(Kind.MAGNITUDE, 1))
        return {
            Kind.SIGNED: Rule(column, lambda a, b, w: (of(a) - of(b) - of(w)) % 10),
            Kind.BORROW: Rule(column, lambda a, b, w: of(a) - of(b) - of(w) < 0),
            Kind.SIGN: Rule((LAST,), lambda last: either(last == 1, MINUS, PLUS)),
            Kind.MAGNITUDE: Rule((*sizes, Read(Kind.SIGN, None)), _size),
        }

    def kinds(self) -> int:
        return ALL_KINDS if self.trace == "carry" else super().kinds()

    def compute(self, a: int, b: int) -> Answer:
        return Answer(a - b)

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        """As of `Operation`; there is no negative zero."""
        rows = {"borrow": 1, "carry": 2, "none": 0}[self.trace]
        signed = row_of(rows * max(sizes(problem))) if rows else ""
        after = self.trace == "none" and self.sign == "after"
        before = rf"{signed}(?:\+|-(?=0*[1-9])){NUMBER}#"
        pattern = rf"(?=0*[1-9]|0+\+){NUMBER}[-+]#" if after else before
        return [self.matched(pattern, completion)[0][::-1]]

    def read(self, problem: Problem, completion: str) -> Answer:
        size = super().read(problem, completion).whole
        return Answer(-size if "-" in completion else size)

    def rows(self, problem: Problem, completion: str) -> list[Row]:
        """The signed digits; then the sign and the magnitude, which are the answer."""
        signed, *rest = re.split("(?=[-+])", completion, maxsplit=1)
        if self.trace == "none" or not rest:
            return [Row("answer", completion)]
        return [Row("signed", signed), Row("answer", *rest)]

    def draw(self, problem: Problem, completion: str) -> str:
        first, answer = (row.text for row in (self.rows(problem, completion) * 2)[:2])
        above, below = [], []
        if self.trace != "none" and first != answer:
            signed = paper.digits(first)
            if self.trace == "carry":
                above, signed = paper.carried(signed[1::2], "borrowed"), signed[::2]
            signed = signed[::-1]
            if answer.startswith("-"):
                # Ten's complement: the last borrow was from a column that is not there.
                remark = f"with 1{'0' * len(signed)} borrowed; without it:"
                below = [paper.Line(signed, remark=remark)]
            elif signed != paper.digits(answer)[::-1]:
                below = [paper.Line(signed)]
        return self.on_paper(problem, completion, above, below)

    def strata(self) -> list[Cell]:
        return super().strata() + self.chains()

    def recipe(self) -> Recipe:
        return Recipe(
            model={
                "layers": 1 if self.rules() else 2,
                "width": 64,
                "norm": "plain",
                "attention": "reads" if self.rules() else "full",
                "level_position": ("relative", "none", "learned"),
            },
            train={"steps": 1200, "batch_size": 128, "muon_lr": 0.03, "lr": 0.01},
        )
