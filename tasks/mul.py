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

`trace=whole` writes all products and running sums from the ones upwards, as Deng et al. 2024
(arXiv:2405.14838) do: a product has zeros below it, and the last running sum is the answer.
`reverse_operands=true` writes the operands lowest digit first, too:

>>> task = Mul(digits=3, trace="whole", reverse_operands=True)
>>> sides = np.array([[1, 3, 3]]), np.array([[5, 1, 5]])  # 331 * 515
>>> batch = task.write(*sides, np.array([3]), np.array([3])).batch()
>>> task.decode(batch.tokens[0])  # theirs: 133*515||5561+01330(56940)+005561####564071
'133*515=5561+01330,56940;+005561=564071#'

With `trace_drop=9` the first nine tokens of that work are left out, `0,56940;+005561=564071`: by a
curriculum more and more of it, until the product stands alone (stepwise internalisation).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.auxiliary import Auxiliary, Supervised
from addgpt.locality import Read, Rule
from addgpt.task import Answer, Batch, Problem, Recipe, Row, UsageError, setting
from tasks.common import digits, paper, products
from tasks.common.arithmetic import MAX_ID, Arithmetic, share_setting
from tasks.common.layout import REVERSE_OPERANDS, TRACE_DROP, Layout
from tasks.common.operation import NUMBER, row_of, sizes
from tasks.common.problems import some_full
from tasks.common.recipes import local_recipe, traced_recipe
from tasks.common.rules import COMMA, END, EQUALS, SEMICOLON, carries, of
from tasks.common.sheet import ALL_KINDS, Kind, Sheet

TRACES = ("carry", "rows", "whole", "none")


@dataclass(frozen=True)
class Mul(Arithmetic, Auxiliary, Supervised):
    op: ClassVar[str] = "*"
    commutes: ClassVar[bool] = True
    long: ClassVar = ((40, 40), (300, 2))

    trace: str = setting(
        "carry",
        "carry: products and running sums, each digit followed by its carry; rows: digits alone; "
        "whole: from the ones upwards; none",
        TRACES,
    )
    trace_drop: int = setting(
        0, "tokens left out at the start of the trace", features=TRACE_DROP, low=0, high=MAX_ID
    )
    reverse_operands: bool = setting(
        False, "write operands lowest digit first", features=REVERSE_OPERANDS
    )
    full: float = share_setting(0.0, "both operands of the longest length")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trace_drop and self.trace == "none":
            raise UsageError("trace_drop needs a trace, not trace=none")

    @property
    def layout(self) -> Layout:
        return Layout(self.reverse_operands)

    def lengths(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        lengths = super().lengths(rng, size)
        return some_full(rng, self.full, self.digits, lengths) if self.full else lengths

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
            if self.trace == "whole":
                more = row < len_b[:, None] - 1
                below = np.concatenate([product[:, :0], *lows], 1)
                self._whole(sheet, (below, product, total), columns & here, here, more)
            elif self.trace == "rows":
                self._rows(sheet, row, product, total, columns & here, len_a, here)
            elif self.trace == "carry":
                self._carries(sheet, row, product, shifted, columns & here, here)
            running = np.where(here, total, running)
            lows.append(running[:, :1])
        sheet.drop(self.trace_drop)
        self._answer(sheet, np.concatenate(lows, 1), running, columns, len_a, len_b)
        return sheet

    def _whole(self, sheet: Sheet, rows: tuple, exists, here, more) -> None:
        """A product, and unless it is the last or the first one, the running sum with it.

        `rows` are the settled digits, the product, and the running sum above those; `more` says
        whether another product follows.
        """
        below, product, total = rows
        row = below.shape[1]
        exists = np.concatenate([np.repeat(here, row, 1), exists], 1)
        if row:
            sheet.symbol("+", Kind.OPERATOR, exists=here, step=row + 1)
        partial = np.concatenate([np.zeros_like(below), digits.carried(product)[0]], 1)
        sheet.number(partial, Kind.PRODUCT, exists=exists, step=row + 1)
        if row:
            so_far = np.concatenate([below, total], 1)
            sheet.symbol(",", Kind.PRODUCT, exists=more, step=row + 1)
            sheet.number(so_far, Kind.RUNNING, exists=exists & more, step=row + 1)
            sheet.symbol(";", Kind.RUNNING, exists=more, step=row + 1)

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
        written = self.trace in ("carry", "rows")  # and shifted; else a digit has its own place
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
        if self.trace != "carry" or self.trace_drop or self.reverse_operands:
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

    def auxiliary(self, batch: Batch) -> np.ndarray:
        """As of `Auxiliary`: of each digit of the answer, the sum that it is the last digit of (the
        products of its column, and what the column below carries), in units of 81 `digits`."""
        a, b, there, place = self._answer_places(batch)
        sums = products.running_sums(a, b)
        told = np.take_along_axis(sums, place.clip(0, sums.shape[1] - 1), 1)
        return np.where(there, told / (81 * self.digits), np.nan).astype(np.float32)

    def supervised(self) -> dict[str, tuple[int, int]]:
        """As of `Supervised`: of each digit of the answer, in decimal digits, the products of one
        digit and one digit in its column, their sum, and what is carried into it."""
        return {name: (one.size(self.digits), 10) for name, one in products.RESULTS.items()}

    def labels_of(self, batch: Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
        a, b, there, place = self._answer_places(batch)
        sides = digits.wide(a, self.digits), digits.wide(b, self.digits)
        at, there = place.clip(0, 2 * self.digits - 1)[:, :, None], there[:, :, None]
        found = {name: products.RESULTS[name].decimals(*sides) for name in names}
        return {
            name: np.where(there, np.take_along_axis(labels, at, 1), -1)  # (B, T, labels)
            for name, labels in found.items()
        }

    def _answer_places(self, batch: Batch) -> tuple[np.ndarray, ...]:
        """The operands, (B, n) each; (B, T) whether a token is a digit of the answer; (B, T) of
        which column."""
        a, b, len_a, len_b = self.layout.operands(batch.tokens)
        size = batch.tokens.shape[1]
        start = size - (batch.tokens[:, ::-1] == EQUALS).argmax(1)[:, None]  # after the last =
        place = np.arange(size) - start
        return a, b, (place >= 0) & (place < (len_a + len_b)[:, None]), place

    def kinds(self) -> int:
        return ALL_KINDS if self.trace == "carry" else super().kinds()

    def compute(self, a: int, b: int) -> Answer:
        return Answer(a * b)

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        work = re.escape(self._shape(*sizes(problem))[self.trace_drop :])
        work = re.sub("0+", lambda run: row_of(len(run[0])), work)
        end = "" if self.trace == "none" else "="
        return [self.matched(f"{work}{end}{NUMBER}#", completion)[0][::-1]]

    def _shape(self, a: int, b: int) -> str:
        """The work on numbers of `a` and `b` digits, each digit a 0."""
        one = "0" * (a + 1)
        if self.trace == "rows":
            return f"{one}," + f"{one},{one};" * (b - 1)
        if self.trace == "carry":
            return f"{'0' * (2 * a + 1)},{'0' * (2 * a + 2)};" * b
        if self.trace == "whole":
            rows = [one + "0" * k for k in range(b)]
            sums = "".join(f"+{row},{row};" for row in rows[1:-1])
            return rows[0] + sums + "".join(f"+{row}" for row in rows[max(1, b - 1) :])
        return ""

    def labels(self) -> dict[str, str]:
        return {",": "product", ";": "running"}

    def rows(self, problem: Problem, completion: str) -> list[Row]:
        if self.trace != "whole":
            return super().rows(problem, completion)
        work, equals, answer = completion.rpartition("=")
        pieces = re.findall(r"[^,;+]*(?:;\+?|[,+])|[^,;+]+", work)
        rows = [Row("running" if ";" in piece else "product", piece) for piece in pieces]
        return [*rows, Row("answer", equals + answer)]

    def is_copy(self, problem: Problem, rows: list[Row], row: int, place: int) -> bool:
        """A product by 1 repeats a; a running sum with a product by 0 the one before, the first one
        the first product. A carry is not a copy."""
        if self.trace in ("none", "whole") or self.trace_drop:
            return False
        if self.trace == "carry" and place % 2:
            return False
        if self.trace == "carry" and row == 1:
            return True
        factor = row // 2 if self.trace == "carry" else (row + 1) // 2
        digit = str(problem.operands[1])[::-1][factor]
        return digit == ("0" if rows[row].label == "running" else "1")

    def draw(self, problem: Problem, completion: str) -> str:
        rows = [row for row in self.rows(problem, completion) if row.label != "answer"]
        if self.trace_drop:  # what is left does not say which row it is of
            rows = []
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
            if self.trace == "whole":
                place += label == "product"
                sign, remark = "+" if place > 1 else "", _factor(problem, place - 1)
                if label == "product":
                    yield paper.Line(paper.number(digits), 0, sign, remark)
                else:
                    yield paper.Underline()
                    yield paper.Line(paper.number(digits), remark="so far")
            elif label == "product":
                sign, remark = "+" if place else "", _factor(problem, place) + carries
                yield paper.Line(paper.number(digits), place, sign, remark)
                last = last or digits
                place += 1
            elif self.trace == "rows" or place > 1 or digits != last:
                settled, last = settled + last[:1] * (self.trace == "rows" or place > 1), digits
                yield paper.Underline()
                yield paper.Line(paper.number(settled + digits), remark="so far" + carries)

    def columns(self) -> int:
        return self.digits + 2 if self.trace in ("carry", "rows") else 2 * self.digits + 2

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
