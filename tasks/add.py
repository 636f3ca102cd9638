"""Addition of two non-negative integers.

The default writes the answer least significant digit first, as carries travel (Lee et al. 2023,
arXiv:2307.03381), leading zeros left out:

>>> import numpy as np
>>> task = Add(digits=3)
>>> a, b = np.array([[8, 2, 1]]), np.array([[7, 6, 3]])  # 128 + 367, lowest digit first
>>> batch = task.write(a, b, np.array([3]), np.array([3])).batch()
>>> task.decode(batch.tokens[0])
'128+367=594#'
>>> "".join("x" if scored else "." for scored in batch.scored[0])
'........xxxx'
>>> batch.positions[0, :, 0].tolist()  # digits of the same place value share an id
[3, 2, 1, 0, 3, 2, 1, 0, 1, 2, 3, 4]
>>> problem = task.parse("128 + 367")
>>> task.read(problem, "594#"), task.truth(problem)
(Answer(whole=495, rest=0), Answer(whole=495, rest=0))

With `format=plain` the same sum reads `128+367=495#`, with `format=padded` `128+367=5940#`.

With `trace=carry` each digit of the sum is followed by the carry it leaves: `128+367=519040#`.
This is the simplified scratchpad of Lee et al.; `format=plain` adds the sum as people read it, as
theirs does:

>>> task = Add(digits=3, trace="carry", format="plain")  # theirs: A->5, C->1; A->9, C->0; ... 495
>>> task.decode(task.write(a, b, np.array([3]), np.array([3])).batch().tokens[0])
'128+367=519040=495#'

With `trace_drop=4` the first four tokens of that work are left out, `128+367=40=495#`: by a
curriculum more and more of it (stepwise internalisation, Deng et al. 2024, arXiv:2405.14838).

`trace=detailed` is their detailed scratchpad. A line for each column says what is left of the
operands, the digits found so far and the carry; then the column's sum in two digits; then the digit
found and the carry it leaves:

>>> task = Add(digits=3, trace="detailed", format="plain")
>>> batch = task.write(a, b, np.array([3]), np.array([3])).batch()
>>> for line in task.decode(batch.tokens[0]).split(";"):
...     print(line)
128+367=128+367,,0,8+7+0=15,5,1
12+36,5,1,2+6+1=09,9,0
1+3,95,0,1+3+0=04,4,0
+,495,0=495#

Theirs also states how many digits the operands have and names what it writes (`A->5 , C->1`), and
has no zero before a column's sum.

`trace=turing` is a Turing program (Hou et al. 2024, arXiv:2407.03310): after each column the tape
of the machine that adds, copied from the line before but for what the head has changed. A letter,
`a` to `j`, is a digit under the head; then come the carry and the sum so far:

>>> task = Add(digits=3, trace="turing", format="plain")
>>> batch = task.write(a, b, np.array([3]), np.array([3])).batch()
>>> task.decode(batch.tokens[0])
'128+367=12i+36h,1,5;1c+3g,0,95;b+d,0,495;=495#'

The problem can be written in other ways, too, alone or together. `reverse_operands=true` writes
both numbers lowest digit first, `pad=equal` with zeros to equal length, `pad=4` to 4 digits at
least, and `begin=true` puts a mark before it. With `format=padded`, whose sum has all of its
digits, rows are as several papers have them:

>>> task = Add(digits=3, reverse_operands=True, pad="4", format="padded", begin=True)
>>> task.decode(task.write(a, b, np.array([3]), np.array([3])).batch().tokens[0])
'$8210+7630=59400#'

With `hints=true` a letter before each digit says its column (index hints, Zhou et al. 2023,
arXiv:2310.16028), so that a model without position ids (`--set level_position=none,none,none`) can
find what belongs together:

>>> task = Add(digits=3, hints=True)
>>> task.decode(task.write(a, b, np.array([3]), np.array([3])).batch().tokens[0])
'C1B2A8+C3B6A7=A5B9C4#'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.locality import Read, Rule, Values
from addgpt.task import (
    MAX_CHARACTERS,
    Answer,
    Batch,
    Cell,
    Problem,
    Recipe,
    Row,
    UsageError,
    setting,
)
from tasks.common import digits, paper
from tasks.common.arithmetic import MAX_ID, Arithmetic, share_setting
from tasks.common.ids import ALPHABET, HINTS, WRITTEN
from tasks.common.layout import (
    BEGIN,
    BLANK,
    BLANKS,
    PAD,
    PADS,
    REVERSE_OPERANDS,
    TRACE_DROP,
    Layout,
    parse_pad,
    spaced,
)
from tasks.common.operation import NUMBER, row_of, sizes
from tasks.common.problems import some_full
from tasks.common.rules import END, either, of
from tasks.common.scratchpads import (
    UNDER_HEAD,
    detailed_pattern,
    turing_pattern,
    write_detailed,
    write_turing,
)
from tasks.common.sheet import Kind, Sheet

# Traces of a line for each column: how they are written, and the pattern of them.
LINES = {
    "detailed": (write_detailed, detailed_pattern),
    "turing": (write_turing, turing_pattern),
}


def _digit(a: Values, b: Values, carry: Values) -> np.ndarray | int:
    """A column's digit; above the operands, the last carry or the end."""
    if a is None and b is None:
        return either(of(carry) == 1, 1, END)
    return (of(a) + of(b) + of(carry)) % 10


def _carry(a: Values, b: Values, carry: Values) -> np.ndarray | int:
    """What a column carries."""
    return (of(a) + of(b) + of(carry)) // 10


def _received(both: np.ndarray | int, digit: Values) -> np.ndarray | int:
    """What a column was carried, from its two digits' sum and the digit that it has got."""
    return 0 if digit is None else (of(digit) - both) % 10


def _receives_a_carry(a, b, a_before, b_before, digit_before) -> np.ndarray:
    """The column before was carried 0 or 1: two digits and 1 are below 20."""
    return np.asarray(_received(of(a_before) + of(b_before), digit_before) < 2)


def _digit_alone(a, b, a_before, b_before, digit_before) -> np.ndarray | int:
    """As `_digit`; what the column before has carried follows from its digits."""
    both = of(a_before) + of(b_before)
    received = _received(both, digit_before)
    return _digit(a, b, np.asarray((both + received) // 10))


@dataclass(frozen=True)
class Add(Arithmetic):
    op: ClassVar[str] = "+"
    commutes: ClassVar[bool] = True

    format: str = setting("reverse", "how the sum is written", ("plain", "reverse", "padded"))
    trace: str = setting(
        "none",
        "none; carry: each digit followed by its carry; detailed: a line for each column; turing: "
        "the tape of a Turing machine after each column",
        ("none", "carry", *LINES),
    )
    trace_drop: int = setting(
        0, "tokens left out at the start of the trace", features=TRACE_DROP, low=0, high=MAX_ID
    )
    hints: bool = setting(False, "write each digit's column before it", features=WRITTEN)
    reverse_operands: bool = setting(
        False, "write operands lowest digit first", features=REVERSE_OPERANDS
    )
    pad: str = setting("none", f"pad operands with zeros: {PADS}, at least", features=PAD)
    begin: bool = setting(False, f"a {BEGIN} before each problem")
    blanks: float = setting(
        0.0, "probability of a blank before a token of a training problem", features=BLANKS,
        low=0, below=1,
    )  # fmt: skip
    full: float = share_setting(0.0, "both operands of the longest length")
    equal: float = share_setting(0.0, "operands of equal length")

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_pad(self.pad)  # which refuses what it is not
        worked = self.trace == "carry" and self.format == "plain" and not self.hints
        if self.trace_drop and not worked:
            raise UsageError("trace_drop needs trace=carry, format=plain and hints=false")
        if self.hints and self.ids != "coupled":
            raise UsageError("hints=true writes the place value: it needs ids=coupled")
        if self.hints and self.trace in LINES:
            raise UsageError(f"hints=true goes with trace=none or trace=carry, not {self.trace}")
        most = len(HINTS) - bool(self.begin) - bool(self.blanks)  # tokens are bytes
        if self.hints and self.letters > most:
            asked = f"digits, far, pad, offset and spread ask for {self.letters}"
            raise UsageError(f"hints=true has letters for {most} columns; {asked}")

    @property
    def alphabet(self) -> str:
        letters = UNDER_HEAD if self.trace == "turing" else HINTS[: self.letters]
        own = (letters, BEGIN if self.begin else "", BLANK if self.blanks else "")
        return ALPHABET + "".join(own)

    def used(self) -> tuple[int, ...]:
        own = self.alphabet[len(ALPHABET) :] + (",;" if self.trace in LINES else "")
        return tuple(sorted(map(self.alphabet.index, f"0123456789+=#{own}")))

    @property
    def hidden(self) -> str:
        return HINTS if self.hints else ""

    @property
    def letters(self) -> int:
        """How many columns have a letter."""
        if not self.hints:
            return 0
        return max(self._longest() + 1 + self.offset, self.spread, *(n + 1 for n in self.far))

    @property
    def layout(self) -> Layout:
        begin = BEGIN if self.begin else ""
        return Layout(self.reverse_operands, parse_pad(self.pad), self.hints, begin)

    def _longest(self) -> int:
        """The digits that the longest operand of training is written with."""
        return self.layout.lengths(self.digits, self.digits)[0]

    def lengths(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        len_a, len_b = super().lengths(rng, size)
        if self.full:
            len_a, len_b = some_full(rng, self.full, self.digits, (len_a, len_b))
        if self.equal:
            len_b = np.where(rng.random(size) < self.equal, len_a, len_b)
        return len_a, len_b

    def columns(self) -> int:
        return self._longest() + 2

    def longest(self) -> int:
        return super().longest() * (2 if self.blanks else 1)

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        batch = super().batch(rng, size, split, cell)
        if not self.blanks or split != "train" or not len(batch):
            return batch
        blank, end = map(self.alphabet.index, (BLANK, self.end))
        return spaced(batch, rng, self.blanks, blank, end)

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        len_a, len_b = self.layout.lengths(len_a, len_b)
        a, b = (digits.wide(x, max(x.shape[1], int(len_a.max())), np.int8) for x in (a, b))
        sheet = self.start(a, b, len_a, len_b)
        longest = np.maximum(len_a, len_b)
        longer, width = longest[:, None], int(longest.max()) + 1
        columns = digits.wide(a, width, np.int8) + digits.wide(b, width, np.int8)
        total, _ = digits.carried(columns)
        place = np.arange(width)
        exists = digits.below(longest + 1, width)
        used = exists if self.format == "padded" else digits.below(digits.length(total), width)
        # a column's sum less its digit is 10 times the carry it leaves, less the one it receives
        carry = columns > total if self.trace != "none" else columns
        plain = self.format == "plain"
        if self.trace == "carry":
            pairs = (place < longer, True) if plain else (exists, used)
            self._pairs(sheet, total, carry, *pairs)
            if plain:
                sheet.drop(self.trace_drop)
                sheet.symbol("=", Kind.EQUALS)
        elif self.trace in LINES:
            write, _ = LINES[self.trace]
            write(sheet, (a, b), (len_a, len_b), total, carry)
        if plain or self.trace != "carry":
            sheet.number(total, Kind.TOTAL, exists=exists, used=used, most_significant_first=plain)
        sheet.symbol("#", Kind.TOTAL, col=longer + 2)
        return sheet

    def _pairs(self, sheet: Sheet, total, carry, exists, used) -> None:
        """Each digit, followed by the carry it leaves."""
        used = exists & used
        for column in range(total.shape[1]):
            one = slice(column, column + 1)
            here = {"exists": exists[:, one], "used": used[:, one], "col": column + 1}
            sheet.number(total[:, one], Kind.TOTAL, **here)
            sheet.number(carry[:, one], Kind.CARRY, **here)

    def local_rules(self) -> dict[int, Rule]:
        usual = self.layout in (Layout(), Layout(pad=0)) and self.format == "reverse"
        if not usual or self.trace in LINES:
            return {}
        here, before = (Read(Kind.A), Read(Kind.B)), (Read(Kind.A, 1), Read(Kind.B, 1))
        if self.trace == "carry":
            reads = (*here, Read(Kind.CARRY, 1))
            return {Kind.TOTAL: Rule(reads, _digit), Kind.CARRY: Rule(reads, _carry)}
        reads = (*here, *before, Read(Kind.TOTAL, 1))
        return {Kind.TOTAL: Rule(reads, _digit_alone, _receives_a_carry)}

    def steps(self) -> int:
        return self._longest() + 1 if self.trace in LINES else 0

    def compute(self, a: int, b: int) -> Answer:
        return Answer(a + b)

    def prompt(self, problem: Problem) -> str:
        a, b = self.check(problem)
        longest = len(str(max(a, b)))
        if self.hints and longest > self.letters:
            size = f"{self.letters} columns, the operand {longest} digits"
            raise UsageError(f"this model has hints for {size}")
        return super().prompt(problem)

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        """As of `Operation`. Hints, if there are any, stand before each digit."""
        hints = self.hidden
        if hints and re.search(f"[{hints}]", completion):
            self.matched(f"(?:[{hints}][0-9]|=)*#", completion)
        plain = self.format == "plain"
        pairs = self.trace == "carry" and not plain
        number = f"(?=0#|[1-9]){NUMBER}" if plain else NUMBER
        number = f"((?:{row_of(2)}){{1,{MAX_CHARACTERS}}})" if pairs else number
        pattern = f"{self._work(problem)}{number}#"
        shown = [place for place, char in enumerate(completion) if char not in hints]
        text = "".join(completion[place] for place in shown)
        places = self.matched(pattern, text)[0]
        places = [shown[place] for place in (places[::2] if pairs else places)]
        return [places if plain else places[::-1]]

    def _work(self, problem: Problem) -> str:
        """The pattern of what stands before the sum."""
        if self.trace not in LINES and not (self.trace == "carry" and self.format == "plain"):
            return ""
        a, b = self.layout.lengths(*sizes(problem))
        if self.trace in LINES:
            return LINES[self.trace][1](a, b)
        return f"{row_of(max(0, 2 * max(a, b) - self.trace_drop))}="

    def rows(self, problem: Problem, completion: str) -> list[Row]:
        work, equals, answer = completion.rpartition("=")
        column = {"carry": "carries", "none": "work"}.get(self.trace, "column")
        rows = [Row(column, row.text) for row in paper.cut(work, {";": column}) if work]
        return [*rows, Row("answer", equals + answer)]

    def is_copy(self, problem: Problem, rows: list[Row], row: int, place: int) -> bool:
        """A detailed line repeats all but the two digits of its column's sum."""
        computed = rows[row].text.find("=") + 1
        return self.trace == "detailed" and not (computed and 0 <= place - computed < 2)

    def draw(self, problem: Problem, completion: str) -> str:
        above = []
        if self.trace == "carry" and self.format != "plain":
            above = paper.carried(paper.digits(completion)[1::2], "carried")
        return self.on_paper(problem, completion, above)

    def strata(self) -> list[Cell]:
        return super().strata() + self.chains()

    def recipe(self) -> Recipe:
        long = self.trace in LINES
        return Recipe(
            model={
                "layers": 1,
                "width": 64,
                "heads": 4,
                "norm": "plain",
                "activation": "geglu",
                "attention": "window" if self.rules() else "full",
                "level_position": ("relative", "relative" if long else "none", "learned"),
            },
            train={
                "steps": 900 + 100 * self.digits,
                "batch_size": 24 if long else 128,
                "muon_lr": 0.03,
                "lr": 0.01,
                "label_smoothing": 0.1,
                "eval_every": 25,
            },
        )
