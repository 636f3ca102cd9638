"""Multiplication of two non-negative integers, as a person does it on paper.

For each digit of b, lowest first: a times that digit (ends with `,`), then the running sum (ends
with `;`), each digit followed by what its column carries; the top digit of a product is the last
carry. A running sum is written from the place of its own digit upwards: what lies below is settled.
All numbers are written lowest digit first, shifted by their position ids, not by zeros:

>>> import numpy as np
>>> task = Mul(digits=2)
>>> a, b = np.array([[2, 1]]), np.array([[4, 3]])  # 12 * 34, lowest digit first
>>> batch = task.write(a, b, np.array([2]), np.array([2])).batch()
>>> task.decode(batch.tokens[0])  # 12*4 = 048; 12*3 = 036; 36 + 4 (of 48) = 040; answer 0408
'12*34=80400,804000;60300,014000;=8040#'
>>> problem = task.parse("12*34")
>>> task.read(problem, "80400,804000;60300,014000;=8040#"), task.truth(problem)
(Answer(whole=408, rest=0), Answer(whole=408, rest=0))

With `trace=rows` the carries are left out, and the first running sum, which is the first product:

>>> task = Mul(digits=2, trace="rows")
>>> task.decode(task.write(a, b, np.array([2]), np.array([2])).batch().tokens[0])
'12*34=840,630,040;=8040#'

With `trace=none` only the product is written (`12*34=8040#`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.locality import Read, Rule
from addgpt.task import Answer, Problem, Recipe, Row, setting
from tasks.common import digits, paper
from tasks.common.arithmetic import Arithmetic, local_recipe, traced_recipe
from tasks.common.operation import NUMBER, row_of, sizes
from tasks.common.rules import COMMA, END, EQUALS, SEMICOLON, carries, of
from tasks.common.sheet import ALL_KINDS, Kind, Sheet

TRACES = ("carry", "rows", "none")


@dataclass(frozen=True)
class Mul(Arithmetic):
    op: ClassVar[str] = "*"
    commutes: ClassVar[bool] = True
    long: ClassVar = ((40, 40), (300, 2))

    trace: str = setting(
        "carry",
        "carry: products and running sums, each digit followed by its carry; rows: digits alone; "
        "none",
        TRACES,
    )

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        ids = {}
        if self.trace != "none":
            ids = {"cols": (None, 0), "steps": (0, np.arange(b.shape[1]) + 1)}
        sheet = self.start(a, b, len_a, len_b, **ids)
        width = int(len_a.max()) + 1
        columns = np.arange(width) <= len_a[:, None]
        running = np.zeros((len(a), width), np.int16)
        lows = []
        for row in range(int(len_b.max())):
            here = (row < len_b)[:, None]
            product = digits.wide(a, width) * b[:, row : row + 1]
            shifted = np.pad(running[:, 1:], ((0, 0), (0, 1)))
            total, _ = digits.carried(product + shifted)
            if self.trace == "rows":
                self._rows(sheet, row, product, total, columns & here, len_a, here)
            elif self.trace == "carry":
                self._carries(sheet, row, product, shifted, columns & here, here)
            running = np.where(here, total, running)
            lows.append(running[:, :1])
        self._answer(sheet, np.concatenate(lows, 1), running, columns, len_a, len_b)
        return sheet

    def _rows(self, sheet: Sheet, row: int, product, total, exists, len_a, here) -> None:
        step = row + 1
        after = len_a[:, None] + 2
        partial, _ = digits.carried(product)
        sheet.number(partial, Kind.PRODUCT, exists=exists, step=step)
        sheet.symbol(",", Kind.PRODUCT, exists=here, col=after, step=step)
        if row:
            sheet.number(total, Kind.RUNNING, exists=exists, step=step)
            sheet.symbol(";", Kind.RUNNING, exists=here, col=after, step=step)

    def _carries(self, sheet: Sheet, row: int, product, above, exists, here) -> None:
        """The product, then the running sum, each digit followed by what its column carries."""
        step, top = row + 1, exists & ~np.pad(exists[:, 1:], ((0, 0), (0, 1)))
        partial, tens = carries(product)
        kinds = Kind.PRODUCT, Kind.TENS
        sheet.pairs(partial[:, :-1], tens[:, :-1], kinds, exists=exists[:, 1:], step=step)
        sheet.number(partial, Kind.PRODUCT, exists=top, step=step)  # which the last carry fills
        sheet.symbol(",", Kind.PRODUCT, exists=here, step=step)
        sums = carries(partial + above)
        sheet.pairs(*sums, (Kind.RUNNING, Kind.SUM_CARRY), exists=exists, step=step)
        sheet.symbol(";", Kind.RUNNING, exists=here, step=step)

    def _answer(self, sheet: Sheet, lows, running, columns, len_a, len_b) -> None:
        """The product: low digits from each running sum, the rest from the last one."""
        if self.trace != "none":
            sheet.symbol("=", Kind.LOW)
        place = np.arange(lows.shape[1])
        last = len_b[:, None]
        written = self.trace != "none"
        low_ids = {"col": 1, "step": place + 1} if written else {"col": place + 1}
        sheet.number(lows, Kind.LOW, exists=place < last - 1, **low_ids)
        top = np.arange(1, running.shape[1] + 1)
        top_ids = {"col": top, "step": last} if written else {"col": top + last - 1}
        sheet.number(running, Kind.TOP, exists=columns, **top_ids)
        end = len_a[:, None] + 2 + (0 if written else last - 1)
        if self.trace == "carry":
            end = 0
        sheet.symbol("#", Kind.TOP, col=end, step=last if written else 0)

    def local_rules(self) -> dict[int, Rule]:
        if self.trace != "carry":
            return {}
        column = (Read(Kind.A), Read(Kind.B, None, 0), Read(Kind.TENS, 1, 0))
        sums = (Read(Kind.PRODUCT, 0, 0), Read(Kind.RUNNING, -1, 1), Read(Kind.SUM_CARRY, 1, 0))
        copied = (Read(Kind.RUNNING, 0, 0),)
        return {
            Kind.PRODUCT: Rule(column, _product),
            Kind.TENS: Rule(column, lambda a, b, c: (of(a) * of(b) + of(c)) // 10),
            Kind.RUNNING: Rule(sums, _sum),
            Kind.SUM_CARRY: Rule(sums, lambda p, r, c: (of(p) + of(r) + of(c)) // 10),
            Kind.LOW: Rule(copied, lambda r: EQUALS if r is None else r),
            Kind.TOP: Rule(copied, lambda r: END if r is None else r),
        }

    def kinds(self) -> int:
        return ALL_KINDS if self.trace == "carry" else super().kinds()

    def compute(self, a: int, b: int) -> Answer:
        return Answer(a * b)

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        a, b = sizes(problem)
        one = row_of(a + 1)
        work = {
            "rows": f"{one},(?:{one},{one};){{{b - 1}}}=",
            "carry": f"(?:{row_of(2 * a + 1)},{row_of(2 * a + 2)};){{{b}}}=",
            "none": "",
        }[self.trace]
        return [self.matched(f"{work}{NUMBER}#", completion)[0][::-1]]

    def labels(self) -> dict[str, str]:
        return {",": "product", ";": "running"}

    def is_copy(self, problem: Problem, rows: list[Row], row: int, place: int) -> bool:
        """A product by 1 repeats a; a running sum with a product by 0 the one before, the first one
        the first product. A carry is not a copy."""
        if self.trace == "none" or (self.trace == "carry" and place % 2):
            return False
        if self.trace == "carry" and row == 1:
            return True
        factor = row // 2 if self.trace == "carry" else (row + 1) // 2
        digit = str(problem.operands[1])[::-1][factor]
        return digit == ("0" if rows[row].label == "running" else "1")

    def draw(self, problem: Problem, completion: str) -> str:
        rows = [row for row in self.rows(problem, completion) if row.label != "answer"]
        below = [*self._drawn(problem, rows), paper.Underline("=")] if rows else []
        return self.on_paper(problem, completion, below=below)

    def _drawn(self, problem: Problem, rows: list[Row]) -> Iterator[paper.Line | paper.Underline]:
        """Products and running sums, each product one place further left."""
        settled = last = ""  # digits below the running sum, lowest first; the row before
        place = 0
        for label, text in rows:
            digits, carries = paper.digits(text), ""
            if self.trace == "carry":
                digits, carries = digits[::2], digits[1::2][::-1]
            carries = f", carries {carries}" if carries.strip("0") else ""
            if label == "product":
                sign, remark = "+" if place else "", _factor(problem, place) + carries
                yield paper.Line(paper.number(digits), place, sign, remark)
                last = last or digits
                place += 1
            elif self.trace == "rows" or place > 1 or digits != last:
                settled, last = settled + last[:1] * (self.trace == "rows" or place > 1), digits
                yield paper.Underline()
                yield paper.Line(paper.number(settled + digits), remark="so far" + carries)

    def columns(self) -> int:
        return self.digits + 2 if self.trace != "none" else 2 * self.digits + 2

    def steps(self) -> int:
        return self.digits if self.trace != "none" else 0

    def recipe(self) -> Recipe:
        if self.rules():
            return local_recipe(300 + 150 * self.digits)
        return traced_recipe(900 + 300 * self.digits, self.digits > 3)


def _product(a, b, carry) -> np.ndarray | int:
    """A digit of a product; above the last one, which the carry fills, the row ends."""
    return COMMA if a is None and carry is None else (of(a) * of(b) + of(carry)) % 10


def _sum(product, above, carry) -> np.ndarray | int:
    """A digit of a running sum, or the end of its row."""
    return SEMICOLON if product is None else (of(product) + of(above) + of(carry)) % 10


def _factor(problem: Problem, place: int) -> str:
    """The digit that a row multiplies by; a question mark in a row too many."""
    a, b = map(str, problem.operands)
    return f"{a} * {b[-1 - place]}" if place < len(b) else paper.MISSING
