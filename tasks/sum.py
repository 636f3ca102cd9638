"""Sums of many numbers: two operands or more, of any lengths, added up one after the other.

For each operand but the first a row: the running sum with it, lowest digit first, each digit
followed by the carry it leaves, with as many digits as the largest sum of operands of these lengths
has. Rows end with `;`, the last one, which holds the answer, with `#`:

>>> import numpy as np
>>> task = Sum(operands=3, digits=3)
>>> operands = np.array([[[2, 1, 0], [5, 4, 3], [6, 0, 0]]])  # 12 + 345 + 6, lowest digit first
>>> batch = task.write(operands, np.array([[2, 3, 1]])).batch()
>>> task.decode(batch.tokens[0])  # 12 + 345 = 0357; 0357 + 6 = 0363, the ones carry 1
'12+345+6=70503000;31603000#'
>>> problem = task.parse("12 + 345 + 6")
>>> task.read(problem, "70503000;31603000#"), task.truth(problem)
(Answer(whole=363, rest=0), Answer(whole=363, rest=0))

The first operand counts as the running sum of step 1, and operand j has the step of its row, j. So
a digit and its carry both follow from three tokens at most: the operand's digit in the column, the
running sum's one step before, and the carry of the column below; and what ends a row from whether
there is a `+` before another operand.

With `trace=sums` the rows are those of Cho et al. 2025 (arXiv:2410.15787): zero and then the sum
with each operand, without carries; all numbers have as many digits as the largest sum can have:

>>> task = Sum(trace="sums")
>>> prompt = task.prompt(task.parse("57+48+96"))
>>> "".join(task.texts(task.reference(task.encode(prompt)[None]))[0])  # theirs: > for ;
'057+048+096=000;750;501;102#'

`offset` moves the ids of both levels, columns and steps, in training.

In cells, `len_a` is the number of operands and `len_b` their length in digits, all the same; in
those of the stratum `mixed` one operand is as long and others have any length up to it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from addgpt.config.errors import quoted
from addgpt.locality import LocalTrace, Rule
from addgpt.task import (
    MAX_CHARACTERS,
    SPLITS,
    Answer,
    Batch,
    Cell,
    Problem,
    Recipe,
    UsageError,
    setting,
)
from tasks.common import digits, many, paper, running, splits
from tasks.common.arithmetic import MAX_ID, MAX_ROUNDS, NUMBERS, check_far, length_setting
from tasks.common.ids import ALPHABET, OFFSET
from tasks.common.operation import Operation, sizes
from tasks.common.rules import EQUALS, PLUS
from tasks.common.sheet import LEVELS, Kind, Sheet

MAX_OPERANDS = 1000
ALL_ORDERS = 5  # operands of which all orders are listed
NUMBER = f"[0-9]{{1,{MAX_CHARACTERS}}}"
SUM = re.compile(rf"\s*{NUMBER}(?:\s*\+\s*{NUMBER})+\s*=?\s*", re.ASCII)
LIKE = "like:"  # of a stratum with given lengths, such as like:1,3,2


@dataclass(frozen=True)
class Sum(Operation, LocalTrace):
    op: ClassVar[str] = "+"
    commutes: ClassVar[bool] = True
    alphabet: ClassVar[str] = ALPHABET
    operands_at_most: ClassVar[int] = MAX_OPERANDS

    operands: int = setting(4, "most operands", low=2, high=MAX_OPERANDS)
    digits: int = length_setting(4, "longest operand")
    far: tuple[int, ...] = length_setting(
        (), "more operands, and longer ones, to score, such as 10,30"
    )
    trace: str = setting(
        "carry",
        "carry: each digit followed by its carry; sums: digits alone, from zero on, all of one "
        "length",
        ("carry", "sums"),
    )
    offset: int = setting(
        0, "largest random offset of columns' and steps' ids in training", features=OFFSET,
        low=0, high=MAX_ID,
    )  # fmt: skip
    part: bool = setting(
        False, "as a part of a mixture: three operands or more, and cells are strata of a + b"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_far(self.far, max(self.operands, self.digits))

    def write(self, operands: np.ndarray, lengths: np.ndarray) -> Sheet:
        """The whole work for (B, K, n) operands, lowest digit first, with (B, K) lengths.

        The last ones of a row may be missing: their length is 0. Slots and ids follow from lengths,
        which are those that are written.
        """
        more = max(0, int(lengths.max()) - operands.shape[2])
        operands = np.pad(operands, ((0, 0), (0, 0), (0, more)))
        most, width = operands.shape[1:]
        sheet = Sheet(*lengths.T)
        here = lengths > 0
        place = np.arange(width)
        for index in range(most):
            kind, step = Kind.B if index else Kind.SUBTOTAL, index + 1
            if index:
                sheet.symbol("+", Kind.OPERATOR, exists=here[:, index, None], step=step)
            exists = place < lengths[:, index, None]
            sheet.number(
                operands[:, index], kind, exists=exists, step=step, most_significant_first=True
            )
        sheet.equals(Kind.STOP, step=1)  # it stands before a row as `;` does
        write = running.write_sums if self.trace == "sums" else running.write_carries
        write(sheet, operands, lengths)
        return sheet

    def rules(self) -> dict[int, Rule]:
        return running.RULES if self.trace == "carry" else {}

    # The problems there are.

    def prompt(self, problem: Problem) -> str:
        operands = self.check(problem)
        width = running.widest(len(operands), max(sizes(problem))) if self.trace == "sums" else 0
        return f"{self.op.join(str(operand).zfill(width) for operand in operands)}="

    def parse(self, text: str) -> Problem:
        if not SUM.fullmatch(text):
            raise UsageError(f"{quoted(text)} is not a problem like 12+34+5")
        operands = re.sub(r"[\s=]", "", text).split(self.op)
        problem = Problem(self.op, tuple(map(int, operands)))
        self.check(problem)
        return problem

    def compute(self, *operands: int) -> Answer:
        return Answer(sum(operands))

    def cell(self, count: int, length: int, stratum: str = "all") -> Cell:
        """The cell of `count` operands of one length."""
        stratum = many.stratum(count, stratum) if self.part else stratum
        return Cell(self.op, length if self.part else count, length, stratum)

    def sizes(self, cell: Cell) -> tuple[int, int, str]:
        """The inverse of `cell`."""
        return many.sizes(cell) if self.part else cell[1:]

    def cell_of(self, problem: Problem) -> Cell:
        return self.cell(len(problem.operands), len(str(max(problem.operands))))

    @property
    def span(self) -> tuple[int, ...]:
        return (*range(1, self.digits + 1), *self.far)

    @property
    def fewest(self) -> int:
        """The fewest operands."""
        return many.FEWEST if self.part else 2

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of operands that are scored."""
        return (*range(self.fewest, self.operands + 1), *self.far)

    @property
    def corners(self) -> list[tuple[int, int]]:
        """The largest sums of training, and those scored beyond it."""
        return [(self.operands, self.digits), *((size, size) for size in self.far)]

    def cells(self) -> list[Cell]:
        scored = self.corners if self.part else itertools.product(self.counts, self.span)
        mixed = (self.cell(*corner, "mixed") for corner in self.corners)
        return [*(self.cell(*size) for size in scored), *mixed]

    def largest(self, rng: np.random.Generator) -> Cell:
        """A cell of sums as long as they come."""
        return self.cell(self.operands, self.digits)

    def long_cells(self) -> list[Cell]:
        return [self.cell(*size) for size in ((30, 30), (3, 500), (200, 2))]

    def in_train_range(self, problem: Problem) -> bool:
        return len(problem.operands) <= self.operands and super().in_train_range(problem)

    def in_eval_range(self, problem: Problem) -> bool:
        count, length, _ = self.sizes(self.cell_of(problem))
        return count in self.counts and length in self.span

    def seen(self, cell: Cell) -> bool:
        count, length, _ = self.sizes(cell)
        return int(NUMBERS.take(length, mode="clip")) ** count < splits.SMALL

    def equivalent(self, problem: Problem) -> list[Problem]:
        """All orders; of more than `ALL_ORDERS` operands, as it is and sorted."""
        operands = self.check(problem)
        some = itertools.permutations(operands) if len(operands) <= ALL_ORDERS else ()
        return [Problem(self.op, x) for x in dict.fromkeys((operands, *some, (*sorted(operands),)))]

    # Drawing and writing.

    @property
    def levels(self) -> tuple[int, ...]:
        columns = len(str(self.operands * (10**self.digits - 1)))
        steps = self.operands + (self.trace == "sums")
        return (columns + 1 + self.offset, steps + 1 + self.offset, len(Kind) + 1)

    def longest(self) -> int:
        lengths = self._lengths_written(np.full((1, self.operands), self.digits))
        zeros = np.zeros((*lengths.shape, self.digits), np.int8)
        return self.write(zeros, lengths).positions().shape[1]

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        """As of `Task`; there are no train problems like one that is longer than those."""
        if split == "train" and cell and self.sizes(cell)[2].startswith(LIKE):
            count, length, _ = self.sizes(cell)
            size = size if count <= self.operands and length <= self.digits else 0
        batch = self._written(*self._draw(rng, size, split, cell))
        if self.offset and split == "train":
            for level in (0, 1):
                ids = batch.positions[:, :, level]
                ids += (ids > 0) * rng.integers(0, self.offset + 1, (len(ids), 1), np.int16)
        return batch

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        if self.seen(cell) and self.sizes(cell)[2] == "all":
            every = np.array([*itertools.product(range(10), repeat=2)], np.int8)  # no other is seen
            return self._written(every[:, :, None], np.ones(every.shape, int))
        operands, lengths = self._draw(rng, 2 * size, split, cell)
        # A sum is the same problem in any order.
        keys = (b"".join(sorted(map(bytes, row))) for row in operands)
        first = list({key: place for place, key in reversed([*enumerate(keys)])}.values())
        keep = np.sort(np.array(first, int))[:size]
        return self._written(operands[keep], lengths[keep])

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        _, lengths = running.written_lengths(tokens)
        zeros = np.zeros((*lengths.shape, int(lengths.max())), np.int8)
        return self.write(zeros, lengths).positions(tokens.shape[1] + slots)

    def reference(self, prompts: np.ndarray) -> Batch:
        ends, lengths = running.written_lengths(prompts)
        place = np.arange(int(lengths.max()))
        index = np.maximum(ends[:, :, None] - 1 - place, 0).reshape(len(prompts), -1)
        operands = np.take_along_axis(prompts, index, 1).reshape(*lengths.shape, -1)
        operands = np.where(place < lengths[:, :, None], operands, 0).astype(np.int8)
        return self.write(operands, lengths).batch()

    def cell_like(self, prompt: str) -> Cell:
        lengths = [len(operand) for operand in prompt.rstrip("=").split(self.op)]
        return self.cell(len(lengths), max(lengths), LIKE + ",".join(map(str, lengths)))

    def sheets(self, size: int) -> Iterator[tuple[np.ndarray, list[range], np.ndarray]]:
        """As of `LocalTrace`; a larger size has more operands, too.

        A slot sees a column of one row and the carry below it. So of the operands before it matters
        how long the longest is, and how often a carry may have gone into the column above that: up
        to ten times, then all digits can stand there. A longer operand covers that column: it is as
        if the sum began there.
        """
        most = 2 * size + 2
        for other in range(1, size + 1):
            for count in range(self.fewest, most + 1) if other == 1 else [most]:
                yield self._sheet([size, *[other] * (count - 1)])
        for first, count in itertools.product(range(1, size), range(self.fewest, most + 1)):
            yield self._sheet([first, *[1] * (count - 2), size])

    def _sheet(self, lengths: list[int]) -> tuple[np.ndarray, list[range], np.ndarray]:
        zeros = np.zeros((1, len(lengths), max(lengths)), np.int8)
        prompt = self.encode(self.op.join("1" * length for length in lengths) + "=")
        values: list[range] = []
        for length in lengths:
            values += [range(length > 1, 10)] + [range(10)] * (length - 1) + [range(PLUS, PLUS + 1)]
        values[-1] = range(EQUALS, EQUALS + 1)
        return prompt, values, self.write(zeros, np.array([lengths])).positions()[0]

    def _draw(self, rng: np.random.Generator, size: int, split: str, cell: Cell | None):
        """(size, K, n) operands and their (size, K) lengths, of a split and cell."""
        wanted = SPLITS.index(split)
        share = (100 - splits.VAL - splits.TEST, splits.VAL, splits.TEST)[wanted] / 100
        most, width, _ = self.sizes(cell or self.largest(rng))
        kept, have = [], 0
        for _ in range(MAX_ROUNDS):
            lengths = self._lengths(rng, int((size - have) / share * 1.1) + 16, cell)
            operands = digits.draw(rng, np.maximum(lengths, 1).ravel(), width)
            operands = operands.reshape(-1, most, width) * (lengths > 0)[:, :, None]
            index = np.flatnonzero(self._allowed(operands, lengths, wanted))[: size - have]
            kept.append((operands[index], lengths[index]))
            have += len(index)
            if have >= size:
                break
        return tuple(map(np.concatenate, zip(*kept, strict=True)))

    def _lengths(self, rng: np.random.Generator, size: int, cell: Cell | None) -> np.ndarray:
        """(size, K) lengths; 0 where there is no operand."""
        if cell is None:
            counts = rng.integers(self.fewest, self.operands + 1, size)[:, None]
            lengths = rng.integers(1, self.digits + 1, (size, self.operands))
            return lengths * (np.arange(self.operands) < counts)
        count, length, stratum = self.sizes(cell)
        if stratum == "mixed":
            lengths = rng.integers(1, length + 1, (size, count))
            lengths[np.arange(size), rng.integers(0, count, size)] = length
            return lengths
        given = stratum.removeprefix(LIKE).split(",") if stratum.startswith(LIKE) else [length]
        return np.tile(np.array(given, int), (size, count // len(given)))

    def _allowed(self, operands: np.ndarray, lengths: np.ndarray, split: int) -> np.ndarray:
        """(B,) which problems may be drawn in a split; small cells are in train only."""
        if self.digits == 1 and self.operands == 2:
            return np.ones(len(operands), bool)
        good = splits.split_of_many(operands, (lengths > 0).sum(1), ord(self.op)) == split
        with np.errstate(over="ignore"):
            sizes = np.where(lengths > 0, NUMBERS.take(lengths, mode="clip"), 1.0).prod(1)
        return np.where(sizes < splits.SMALL, split == 0, good)

    def _written(self, operands: np.ndarray, lengths: np.ndarray) -> Batch:
        if len(operands):
            there = lengths > 0

            def asked() -> np.ndarray:
                numbers = iter(digits.to_int(operands[there]))
                counts = there.sum(1).tolist()
                rows = (Problem(self.op, (*itertools.islice(numbers, count),)) for count in counts)
                return np.fromiter(rows, object, len(counts))

            lengths = self._lengths_written(lengths)
            return replace(self.write(operands, lengths).batch(), problems=asked)
        levels = np.zeros((0, 1, LEVELS), np.int16)
        return Batch(np.zeros((0, 1), np.uint8), np.zeros((0, 1), bool), levels)

    def _lengths_written(self, lengths: np.ndarray) -> np.ndarray:
        return running.padded(lengths) if self.trace == "sums" else lengths

    # Completions.

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        count, longest = len(self.check(problem)), max(sizes(problem))
        if self.trace == "sums":
            pattern, step = running.sums_pattern(count, running.widest(count, longest)), 1
        else:
            nines = [10**size - 1 for size in sizes(problem)]
            largest = [*itertools.accumulate(nines)][1:]
            pattern, step = running.carries_pattern([len(str(one)) for one in largest]), 2
        return [self.matched(f"{pattern}#", completion)[0][::step][::-1]]

    def labels(self) -> dict[str, str]:
        return {";": "sum"}

    def draw(self, problem: Problem, completion: str) -> str:
        first, *others = (paper.Line(str(operand)) for operand in problem.operands)
        lines: list[paper.Line | paper.Underline] = [first]
        rows = self.rows(problem, completion)
        alone = self.trace == "sums"  # then zero and the first operand come before
        rows = rows[2:] if alone else rows
        for place, other in enumerate(others):
            text = paper.digits(rows[place].text) if place < len(rows) else ""
            last = place == len(others) - 1
            found = paper.number(text if alone else text[::2])
            number = self.shown(problem, completion) if last else found
            carried = "" if alone else text[1::2][::-1].lstrip("0")
            remark = f"carries {carried}" if carried else ""
            lines += [
                other._replace(sign=self.op),
                paper.Underline(),
                paper.Line(number, remark=remark),
            ]
        return paper.drawn(lines)

    def recipe(self) -> Recipe:
        return Recipe(
            model={
                "layers": 1,
                "width": 64,
                "norm": "plain",
                "attention": "reads" if self.rules() else "full",
                "level_position": ("relative", "relative", "learned"),
            },
            train={
                "steps": 500,
                "batch_size": 64,
                "muon_lr": 0.02,
                "lr": 3e-3,
                "eval_every": 100,
            },
        )
