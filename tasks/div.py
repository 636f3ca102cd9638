"""Division of non-negative integers with remainder: long division without guessing.

The default trace first doubles the divisor three times (2, 4 and 8 times, each row ends with `,`).
Then, for each digit of the quotient, highest first, the next digit of the dividend is brought down
and 8 times the divisor is taken away; then 4, 2 and 1 times, taken away where the row before ended
positive (`+`), added where it ended negative (`-`), as in non-restoring binary division. A negative
row is written as ten's complement, and each digit of a row is followed by what its column carries
or borrows. The four signs determine the digit of the quotient, which comes next; last comes the
rest, with the divisor added once more if the row before was negative. Every token is a copy, a
doubling or a one-digit sum or difference; how many there are follows from the lengths of the
operands alone.

>>> import numpy as np
>>> task = Div(digits=2)
>>> a, b = np.array([[7, 1]]), np.array([[5, 0]])  # 17 / 5, lowest digit first
>>> batch = task.write(a, b, np.array([2]), np.array([1])).batch()
>>> for step in task.decode(batch.tokens[0]).split(";"):
...     print(step)
17/5=01,02,04,1061-1080-1090-6090-0,11
7071-7090-7001+2000+3,20
=03r2#

Other traces: `doubling` writes the same rows without what is carried, and the digit of the quotient
after the rest; `none` writes quotient and remainder only:

>>> task = Div(digits=2, trace="doubling")
>>> task.decode(task.write(a, b, np.array([2]), np.array([1])).batch().tokens[0])
'17/5=01,02,04,16-18-19-69-10;77-79-70+20+23;=03r2#'
>>> task = Div(digits=2, trace="none")
>>> task.read(task.parse("17/5"), "03r2#"), task.truth(task.parse("15/5"))
(Answer(whole=3, rest=2), Answer(whole=3, rest=0))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.locality import Rule
from addgpt.task import Answer, Cell, ErrorType, Problem, Recipe, Row, UsageError, setting
from tasks.common import digits, paper
from tasks.common import division_drawn as drawn
from tasks.common.arithmetic import Arithmetic
from tasks.common.division_rules import CARRY_OF, MULTIPLES, SIGN_OF, TRIES, division_rules
from tasks.common.errors import lowest_wrong
from tasks.common.operation import NUMBER, row_of, sizes
from tasks.common.recipes import local_recipe, traced_recipe
from tasks.common.rules import carries
from tasks.common.sheet import ALL_KINDS, SIGNS, Kind, Sheet

TRACES = ("carry", "doubling", "none")


@dataclass(frozen=True)
class Div(Arithmetic):
    op: ClassVar[str] = "/"
    borrows: ClassVar[bool] = True
    least_b: ClassVar[int] = 1
    long: ClassVar = ((40, 20), (100, 2))

    trace: str = setting(
        "carry",
        "carry: 8, 4, 2, 1 times the divisor, each digit followed by its carry; "
        "doubling: digits alone; none",
        TRACES,
    )

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        count = np.maximum(len_a - len_b + 1, 0)[:, None]  # digits of the quotient
        place = np.arange(a.shape[1])
        later = place < count  # digits of the dividend that are brought down
        carry = self.trace == "carry"  # steps are counted from 2: the digits before have 1
        cols = np.where(later, 1, place - count + 1)
        steps = np.where(later, count - place + carry, carry)
        kinds = (np.where(later & carry, Kind.DOWN, Kind.A), Kind.B)
        ids = {"cols": (cols, None), "steps": (steps, 0), "kinds": kinds}
        sheet = self.start(a, b, len_a, len_b, **ids)
        width = int(len_b.max()) + 1
        columns = np.arange(width) <= len_b[:, None]
        work = _Work(sheet, b, len_b[:, None], width, columns, carry)
        table = [digits.wide(b, width)]
        if self.trace in ("doubling", "carry"):
            table = work.doublings(table[0])
        rest = _top_digits(a, count, len_b[:, None] - 1, width)
        quotient = []
        for step in range(1, int(count.max()) + 1):
            here = step <= count
            down = np.take_along_axis(a, np.maximum(count - step, 0), 1)
            current = np.concatenate([down, rest[:, : width - 1]], 1).astype(np.int16)
            one_step = {
                "doubling": work.by_doubling,
                "carry": work.by_doubling,
                "none": work.unseen,
            }[self.trace]
            after, digit = one_step(table, current, step + carry, here)
            rest = np.where(here, after, rest)
            quotient.append(np.where(here[:, 0], digit, 0))
        self._answer(sheet, quotient, rest, count, np.minimum(len_a, len_b)[:, None])
        return sheet

    def _answer(self, sheet: Sheet, quotient, rest, count, size) -> None:
        if self.trace != "none":
            sheet.symbol("=", Kind.EQUALS if self.trace == "carry" else Kind.QUOTIENT)
        quotient = quotient or [np.zeros(sheet.rows, np.int16)]
        step = np.arange(1, len(quotient) + 1)
        exists = step <= np.maximum(count, 1)
        if self.trace == "carry":
            step, count = step + 1, count + 1
        sheet.number(np.stack(quotient, 1), Kind.QUOTIENT, exists=exists, col=0, step=step)
        sheet.symbol("r", Kind.OPERATOR if self.trace == "carry" else Kind.REMAINDER)
        exists = np.arange(rest.shape[1]) < size
        sheet.number(rest, Kind.REMAINDER, exists=exists, step=count)
        end = 0 if self.trace == "carry" else size + 1
        sheet.symbol("#", Kind.REMAINDER, col=end, step=count)

    def local_rules(self) -> dict[int, Rule]:
        return division_rules() if self.trace == "carry" else {}

    def kinds(self) -> int:
        return ALL_KINDS if self.trace == "carry" else super().kinds()

    def compute(self, a: int, b: int) -> Answer:
        return Answer(*divmod(a, b))

    def check(self, problem: Problem) -> tuple[int, int]:
        a, b = super().check(problem)
        if b == 0:
            raise UsageError("division by zero")
        return a, b

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        a, b = sizes(problem)
        one, two = row_of(b + 1), row_of(2 * b + 2)
        count = max(a - b + 1, 0)  # digits of the quotient
        work = {
            "doubling": f"(?:{one},){{3}}(?:(?:{one}[-+]){{4}}{one};){{{count}}}=",
            "carry": f"(?:{one},){{3}}(?:(?:{two}[-+]){{4}}[0-9],{row_of(2 * b)};){{{count}}}=",
            "none": "",
        }[self.trace]
        quotient, rest = self.matched(f"{work}{NUMBER}r{NUMBER}#", completion)
        return [quotient, rest[::-1]]

    def labels(self) -> dict[str, str]:
        return {",": "multiple", "+": "try", "-": "try", ";": "rest"}

    def rows(self, problem: Problem, completion: str) -> list[Row]:
        rows = super().rows(problem, completion)
        if self.trace != "carry":
            return rows
        after = range(len(MULTIPLES), len(rows))  # a comma there ends a digit of the quotient
        digits = {place: "digit" for place in after if rows[place].label == "multiple"}
        return [row._replace(label=digits.get(place, row.label)) for place, row in enumerate(rows)]

    def is_copy(self, problem: Problem, rows: list[Row], row: int, place: int) -> bool:
        """A rest copies the last try where that is positive; a carry is not a copy."""
        if rows[row].label != "rest":
            return False
        if self.trace == "carry":  # the digit of the quotient stands between
            return rows[row - 2].text.endswith("+") and not place % 2
        return rows[row - 1].text.endswith("+") and place < len(rows[row].text) - 2

    def error_type(self, problem: Problem, answer: Answer) -> ErrorType:
        """The digit has a q before it where the quotient is wrong, else an r for the remainder."""
        right = self.truth(problem)
        part, pair = "q", (right.whole, answer.whole)
        if right.whole == answer.whole:
            part, pair = "r", (right.rest, answer.rest)
        one, other = map(str, pair)
        kind = "digit" if len(one) == len(other) else "length"
        return ErrorType(kind, part + lowest_wrong(one, other))

    def draw(self, problem: Problem, completion: str) -> str:
        rows = self.rows(problem, completion)
        table = {1: str(problem.operands[1])}
        multiples = [paper.number(row.text) for row in rows if row.label == "multiple"]
        table |= dict(zip((2, 4, 8), multiples, strict=False))
        width = max(map(len, table.values())) + 1
        a, b = map(str, problem.operands)
        lines = [f"{a} / {b}", ""]
        if len(table) > 1:
            lines += [f"{n} * {b} = {table[n]:>{width}}" for n in table if n > 1] + [""]
        count = max(len(a) - len(b) + 1, 0)  # digits of the quotient
        down, rest = a[len(a) - count :], a[: len(a) - count]
        rows = drawn.digits_alone(rows) if self.trace == "carry" else rows
        for place, work in enumerate(drawn.steps(rows)):
            digit = down[place] if place < len(down) else paper.MISSING
            current = (rest + digit).lstrip("0") or "0"
            lines.append(f"{current:>{width + 2}}   bring down {digit}")
            more, rest = drawn.tries(work, table, width)
            lines += [*more, ""]
        return "\n".join([*lines, f"= {self.shown(problem, completion)}"])

    def valid(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (b != 0).any(1)

    def steps(self) -> int:
        return self.digits + (self.trace == "carry")

    def lengths(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Mostly divisors that are not longer than the dividend."""
        len_a = rng.integers(1, self.digits + 1, size)
        len_b = 1 + (rng.random(size) * len_a).astype(np.int64)
        longer = rng.random(size) < 0.05
        return len_a, np.where(longer, rng.integers(1, self.digits + 1, size), len_b)

    def largest(self, rng: np.random.Generator) -> Cell:
        return Cell(self.op, self.digits, int(rng.integers(1, self.digits + 1)))

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        return np.full(self.digits, self.digits), np.arange(1, self.digits + 1)

    def strata(self) -> list[Cell]:
        half = (self.op, self.digits, (self.digits + 1) // 2)
        full = (self.op, self.digits, self.digits)
        return [
            *(Cell(*half, name) for name in ("zeros", "nines", "power")),
            *(Cell(*half, name) for name in ("exact", "zero_digit")),
            *(Cell(*full, name) for name in ("equal", "exact", "zero_quotient")),
        ]

    def propose(self, rng, len_a, len_b, stratum: str, train: bool):
        a, b = super().propose(rng, len_a, len_b, stratum, train)
        if stratum in ("exact", "zero_digit"):
            return _multiples(rng, a, b, len_a, len_b, stratum == "zero_digit"), b
        if train and self.edges:
            chosen = rng.random(len(a)) < self.edges
            zeros = rng.random(len(a)) < 0.5
            for sparse in (False, True):
                rows = np.flatnonzero(chosen & (zeros == sparse))
                a[rows] = _multiples(rng, a[rows], b[rows], len_a[rows], len_b[rows], sparse)
        return a, b

    def belongs(self, stratum: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if stratum not in ("exact", "zero_digit", "zero_quotient"):
            return super().belongs(stratum, a, b)
        safe = b.copy()
        safe[~(b != 0).any(1), 0] = 1
        quotient, rest = digits.divide(a, safe)
        if stratum == "exact":
            return ~rest.any(1)
        if stratum == "zero_quotient":
            return ~quotient.any(1)
        inside = np.arange(quotient.shape[1]) < digits.length(quotient)[:, None]
        return ((quotient == 0) & inside).any(1) & quotient.any(1)

    def recipe(self) -> Recipe:
        if self.rules():
            return local_recipe(600 + 150 * self.digits)
        return traced_recipe(1000 + 400 * self.digits, self.digits > 3)


@dataclass(frozen=True)
class _Work:
    """Writes the steps of long divisions by (B, n) divisors b of (B, 1) digits `len_b`."""

    sheet: Sheet
    b: np.ndarray
    len_b: np.ndarray
    width: int
    columns: np.ndarray
    carries: bool  # whether each digit is followed by what its column carries

    def doublings(self, divisor: np.ndarray) -> list[np.ndarray]:
        """Write 2, 4 and 8 times the divisor; return 1, 2, 4 and 8 times."""
        table = [divisor]
        for kind in MULTIPLES:
            double, _ = digits.carried(2 * table[-1].astype(np.int16))
            self.sheet.number(double, kind, exists=self.columns)
            self.sheet.symbol(",", kind, col=0 if self.carries else self.len_b + 2)
            table.append(double.astype(np.int16))
        return table

    def by_doubling(self, table, current, step: int, here) -> tuple[np.ndarray, np.ndarray]:
        """One digit of the quotient by tries of 8, 4, 2 and 1 times the divisor."""
        negative = np.zeros((len(current), 1), bool)
        digit = np.zeros(len(current), np.int16)
        for multiple, weight, kind in TRIES:
            change = np.where(negative, 1, -1).astype(np.int16)
            digit -= weight * change[:, 0]
            columns = current + change * table[multiple]
            current, carry = digits.carried(columns)
            current = current.astype(np.int16)
            # A negative row stands as ten's complement: adding makes it positive by carrying out.
            negative = np.where(negative[:, 0], carry <= 0, carry < 0)[:, None]
            if self.carries:
                self.row_with_carries(current, columns, negative, kind, step, here)
            else:
                self.row(current, negative, kind, step, here)
        return self.rest(current, negative, table[0], digit - negative[:, 0], step, here)

    def unseen(self, table, current, step: int, here) -> tuple[np.ndarray, np.ndarray]:
        """One digit of the quotient, nothing written."""
        digit, rest = digits.times_it_fits(current, table[0])
        return rest, digit

    def row(self, number, negative, kind: Kind, step: int, here) -> None:
        """A signed row: digits, then the sign."""
        self.sheet.number(number, kind, exists=self.columns & here, step=step)
        sign = np.where(negative, SIGNS[1], SIGNS[0])
        self.sheet.symbol(sign, kind, exists=here, col=self.len_b + 2, step=step)

    def row_with_carries(self, number, columns, negative, kind: Kind, step: int, here) -> None:
        """The same, each digit followed by what its column carries or borrows."""
        carried = np.abs(carries(columns)[1])
        kinds, exists = (kind, CARRY_OF[kind]), self.columns & here
        self.sheet.pairs(number, carried, kinds, exists=exists, step=step)
        sign = np.where(negative, SIGNS[1], SIGNS[0])
        self.sheet.symbol(sign, SIGN_OF[kind], exists=here, step=step)

    def rest(self, current, negative, divisor, digit, step: int, here):
        """What is left after the step, and the digit of the quotient."""
        columns = current + np.where(negative, divisor, 0).astype(np.int16)
        rest, _ = digits.carried(columns)
        exists = self.columns[:, 1:] & here
        if self.carries:
            digit_ids = {"exists": here, "col": 0, "step": step}
            self.sheet.number(digit[:, None], Kind.DIGIT, **digit_ids)
            self.sheet.symbol(",", Kind.CARRY_REST, exists=here, step=step)
            pairs = rest[:, :-1], carries(columns)[1][:, :-1]
            kinds = Kind.REST, Kind.CARRY_REST
            self.sheet.pairs(*pairs, kinds, exists=exists, step=step)
            self.sheet.symbol(";", Kind.REST, exists=here, step=step)
            return rest, digit
        self.sheet.number(rest[:, : self.width - 1], Kind.REST, exists=exists, step=step)
        self.sheet.number(digit[:, None], Kind.DIGIT, exists=here, col=0, step=step)
        self.sheet.symbol(";", Kind.REST, exists=here, col=self.len_b + 2, step=step)
        return rest, digit


def _multiples(rng, a, b, len_a, len_b, sparse: bool) -> np.ndarray:
    """Dividends b q (with `sparse`, q mostly zeros, plus a rest) where they have len_a digits."""
    width = a.shape[1]
    digit_count = np.maximum(len_a - len_b + rng.integers(0, 2, len(a)), 1)
    q = digits.draw(rng, digit_count, width + 1)
    if sparse:
        keep = (rng.random(q.shape) < 1 / 3) | (np.arange(width + 1) == digit_count[:, None] - 1)
        q = np.where(keep, q, 0).astype(np.int8)
    product = digits.times(q, b, width)
    if sparse:
        _, rest = digits.divide(a, np.where((b != 0).any(1)[:, None], b, 1))
        product, _ = digits.carried(product.astype(np.int16) + rest[:, :width], width)
    fits = (digits.length(product) == len_a) & (digits.length(q) + len_b <= width + 1)
    return np.where(fits[:, None], product, a)


def _top_digits(a: np.ndarray, skip: np.ndarray, count: np.ndarray, width: int) -> np.ndarray:
    """(B, width) the digits of a above the lowest (B, 1) `skip`: what the first step starts from.

    Where a has fewer digits than the divisor (`skip` 0), all of a.
    """
    place = np.arange(width)
    index = skip + place
    inside = index < a.shape[1]
    return np.where(inside, np.take_along_axis(a, np.minimum(index, a.shape[1] - 1), 1), 0)
