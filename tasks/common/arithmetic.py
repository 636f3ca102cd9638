"""What tasks of one binary operation have in common; a task adds how its work is written."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import repeat
from typing import Any, ClassVar

import numpy as np

from addgpt.locality import LocalTrace, Rule
from addgpt.task import MAX_DIGITS, SPLITS, Batch, Cell, Problem, UsageError, setting
from tasks.common import carries, digits, problems, splits
from tasks.common.ids import ALPHABET, IDS, OFFSET, SPREAD, moved
from tasks.common.layout import Layout
from tasks.common.operation import Operation
from tasks.common.sheet import END, KINDS, LEVELS, Sheet, start

NUMBERS = np.array([0, 10, 90, 900, 9000])  # how many there are with 0, 1, 2, ... digits
MAX_ROUNDS = 50  # of drawing, after which a rare stratum is as full as it gets
MAX_POOL = 100_000
MAX_ID = 10_000
POOL_SEED = 2307  # pools do not depend on the training seed: runs of several seeds share them
POOL_DRAWS = tuple(1024 << turn for turn in range(11))  # sizes of the draws that fill a pool


def length_setting(default: int | tuple[int, ...], help: str) -> Any:
    """An option that is a number of digits, or several."""
    return setting(default, help, low=1, high=MAX_DIGITS)


def share_setting(default: float, what: str) -> Any:
    """An option that is the share of training problems of a kind."""
    return setting(default, f"share of training problems with {what}", low=0, high=1)


@dataclass(frozen=True)
class Arithmetic(Operation, LocalTrace):
    """Problems `a op b` with operands of 1 to `digits` digits, lengths drawn before digits."""

    alphabet: ClassVar[str] = ALPHABET
    end: ClassVar[str] = END
    borrows: ClassVar[bool] = False
    long: ClassVar[tuple[tuple[int, int], ...]] = ((1000, 1000), (40, 1000))
    least_b: ClassVar[int] = 0  # of a second operand of one digit
    hints: ClassVar[bool] = False  # whether each digit has an index hint before it
    letters: ClassVar[int] = 0  # how many such hints there are

    digits: int = length_setting(3, "longest operand")
    carry: float = share_setting(0.3, "long carry or borrow chains")
    edges: float = share_setting(0.1, "zeros, nines, equal operands, ...")
    pool: int = setting(
        0, "train only on this many distinct problems (0: unlimited)", low=0, high=MAX_POOL
    )
    ids: str = setting(
        "coupled", "col id of a digit: its place value, or its index within its number", IDS
    )
    far: tuple[int, ...] = length_setting((), "longer operand lengths to score, such as 20,50")
    offset: int = setting(
        0, "largest random offset of the col ids in training", features=OFFSET, low=0, high=MAX_ID
    )
    spread: int = setting(
        0, "training draws increasing col ids from 1..N at random (0: off)",
        features=SPREAD, low=0, high=MAX_ID,
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        check_far(self.far, self.digits)
        if self.spread and self.offset:
            raise UsageError("offset and spread exclude each other: spread shifts ids, too")
        if self.spread and self.spread < self._columns():
            valid = f"{self._columns()}..{MAX_ID}, or 0 for none"
            raise UsageError(f"spread must be in {valid}, not {self.spread}")
        most = 100**self.digits // 4  # so that the train split has that many
        if self.pool > most:
            raise UsageError(f"pool must be in 0..{most} at digits={self.digits}, not {self.pool}")

    # What a task says of itself.

    @abstractmethod
    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        """The whole work for (B, n) operands: prompt, trace, answer, end mark.

        Which slots there are, and their ids, must follow from the lengths alone: they are
        computed from zeros.
        """

    def start(self, a, b, len_a, len_b, **ids: Any) -> Sheet:
        """A sheet with the prompts on it: see `sheet.start`."""
        ids |= {"ids": self.ids, "hints": self.hints, "reverse": self.layout.reverse}
        if self.layout.begin:
            ids["begin"] = self.alphabet.index(self.layout.begin)
        return start(self.char, (a, b), (len_a, len_b), **ids)

    @property
    def layout(self) -> Layout:
        """How the problem itself is written."""
        return Layout(hints=self.hints)

    def prompt(self, problem: Problem) -> str:
        return self.layout.text(self.char, *self.check(problem))

    def columns(self) -> int:
        """The largest `col` id that `write` uses for operands of full length."""
        return self.digits + 2

    def steps(self) -> int:
        """The largest `step` id that `write` uses for operands of full length."""
        return 0

    def kinds(self) -> int:
        """How many kinds of rows there are, 0 included."""
        return KINDS

    def lengths(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Operand lengths of `size` training problems."""
        return rng.integers(1, self.digits + 1, size), rng.integers(1, self.digits + 1, size)

    def largest(self, rng: np.random.Generator) -> Cell:
        """A cell of operands as long as they come."""
        return Cell(self.op, self.digits, self.digits)

    def extremes(self) -> tuple[np.ndarray, np.ndarray]:
        """Operand lengths, (N,) each; one of these pairs has the longest sequence."""
        return np.array([self.digits]), np.array([self.digits])

    def strata(self) -> list[Cell]:
        """Cells of special problems, scored in addition to the grid."""
        return [Cell(self.op, self.digits, self.digits, name) for name in problems.EDGES]

    def chains(self) -> list[Cell]:
        """The longest carry or borrow chain, from none to all columns, at the largest cell."""
        full = (self.op, self.digits, self.digits)
        return [Cell(*full, f"carry:{k}") for k in range(self.digits + 1)]

    def cascades(self) -> list[Cell]:
        """`chains`, and as many columns in a row that would pass a carry on but get none."""
        if self.op not in carries.FACTS:
            return []
        full = (self.op, self.digits, self.digits)
        return self.chains() + [Cell(*full, f"idle:{k + 1}") for k in range(self.digits)]

    def propose(
        self,
        rng: np.random.Generator,
        len_a: np.ndarray,
        len_b: np.ndarray,
        stratum: str,
        train: bool,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Operands of these lengths; those that miss the stratum are dropped by the caller."""
        a = digits.draw(rng, len_a, int(len_a.max()))
        b = digits.draw(rng, len_b, int(len_b.max()))
        width = max(a.shape[1], b.shape[1])
        a, b = (digits.wide(x, width, np.int8) for x in (a, b))
        if stratum != "all":
            a, b = problems.of_stratum(rng, stratum, a, b, len_a, len_b, self.borrows)
        elif train:
            rows = np.flatnonzero(rng.random(len(a)) < self.carry)
            sides = (digits.rows_of(x, rows) for x in (a, b))
            b[rows] = problems.chain_heavy(rng, *sides, self.borrows)
            a, b = problems.edge_cases(rng, self.edges, a, b, len_a, len_b)
        return a, b

    def belongs(self, stratum: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """(B,) whether problems are of a stratum."""
        return problems.in_stratum(stratum, a, b, self.borrows)

    def valid(self, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
        """(B,) which problems can be asked at all; None: all of them."""
        return None

    # The contract of Task.

    @property
    def levels(self) -> tuple[int, ...]:
        return (max(self._columns() + self.offset, self.spread) + 1, self.steps() + 1, self.kinds())

    def _columns(self) -> int:
        """The largest `col` id of a problem, before it is moved."""
        return self.longest() if self.ids == "abacus" else self.columns()

    def longest(self) -> int:
        len_a, len_b = self.extremes()
        zeros = np.zeros((len(len_a), self.digits), np.int8)
        return self.write(zeros, zeros, len_a, len_b).positions().shape[1]

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        """As of `Task`; a train cell that the pool has nothing of gives no rows."""
        if self.pool and split == "train":
            rows = self._in_pool(cell)
            index = rows[rng.integers(0, len(rows), size)] if len(rows) else rows
            drawn = tuple(part.take(index, 0) for part in self.pooled)
        else:
            drawn = self._draw(rng, size, split, cell)
        batch = self._written(*drawn)
        if (self.offset or self.spread) and split == "train" and len(batch):
            moved(batch, rng, self.offset, self.spread, self.letters)
        return batch

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        """As of `Task`; for a train cell, problems of the pool, if there is one.

        Small cells are scored whole all the same, so that runs with different pools compare.
        """
        if self.seen(cell) and cell.stratum == "all":
            a, b = self._every(cell)
        elif self.pool and split == "train" and not self.seen(cell):
            index = rng.permutation(self._in_pool(cell))[:size]
            a, b = (part.take(index, 0) for part in self.pooled[:2])
        else:
            a, b, _, _ = self._draw(rng, 2 * size, split, cell)
            keep = problems.distinct(a, b, self.commutes)[:size]
            a, b = a[keep], b[keep]
        return self._written(a, b, digits.length(a), digits.length(b))

    def cells(self) -> list[Cell]:
        return [Cell(self.op, n, m) for n in self.span for m in self.span] + self.strata()

    def seen(self, cell: Cell) -> bool:
        return _count(cell.len_a) * _count(cell.len_b) < splits.SMALL

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        len_a, len_b = self.layout.written(tokens)
        zeros = np.zeros((len(tokens), int(max(len_a.max(), len_b.max()))), np.int8)
        one = zeros.copy()
        one[:, 0] = 1  # nothing can be divided by 0
        return self.write(zeros, one, len_a, len_b).positions(tokens.shape[1] + slots)

    def reference(self, prompts: np.ndarray) -> Batch:
        return self.write(*self.layout.operands(prompts)).batch()

    @cached_property
    def pooled(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The problems that `pool` leaves to train on: a, b, len_a, len_b.

        They follow from the options of the task alone, drawn as training draws, the first of each
        problem kept (`a + b` and `b + a` are one). A small pool is the start of a larger one. Small
        cells count as seen although a pool may miss some of their problems. Raises UsageError if
        there are too few distinct problems.
        """
        rng = np.random.default_rng(POOL_SEED)
        drawn = []
        for size in POOL_DRAWS:
            drawn.append(self._draw(rng, size, "train", None))
            parts = problems.joined(drawn)
            keep = problems.distinct(*parts[:2], self.commutes)[: self.pool]
            if len(keep) == self.pool:
                return tuple(part[keep] for part in parts)
        raise UsageError(f"pool={self.pool} is too large: {len(keep)} distinct problems were found")

    def rules(self) -> dict[int, Rule]:
        """As of `LocalTrace`: none where ids do not tell columns apart by their difference."""
        return self.local_rules() if self.ids == "coupled" and not self.spread else {}

    def local_rules(self) -> dict[int, Rule]:
        """The rules of a trace that is local; by default it is not."""
        return {}

    def long_cells(self) -> list[Cell]:
        return [Cell(self.op, *lengths) for lengths in self.long]

    def cell_like(self, prompt: str) -> Cell:
        a, b = prompt.rstrip("=").split(self.char)
        return Cell(self.op, *(len(number.lstrip("0")) or 1 for number in (a, b)))

    def sheets(self, size: int) -> Iterator[tuple[np.ndarray, list[range], np.ndarray]]:
        for len_a, len_b in itertools.product(range(1, size + 1), repeat=2):
            if max(len_a, len_b) == size:
                yield self.sheet(len_a, len_b)

    def sheet(self, len_a: int, len_b: int) -> tuple[np.ndarray, list[range], np.ndarray]:
        """One of `sheets`, by the lengths of the operands."""
        one = np.ones((1, max(len_a, len_b)), np.int8)
        sheet = self.write(one, one, np.array([len_a]), np.array([len_b]))
        ones = (int("1" * length) for length in (len_a, len_b))
        prompt = self.encode(self.layout.text(self.char, *ones))
        values = [range(token, token + 1) for token in prompt.tolist()]
        first, second = self.layout.lengths(len_a, len_b)  # with the zeros above, if any
        sides = (first, len_a, 0), (first + 1 + second, len_b, self.least_b)
        for end, length, least in sides:
            values[end - length : end] = [range(10)] * length
            values[end - length] = range(least if length == 1 else 1, 10)
        return prompt, values, sheet.positions()[0]

    # How it is done.

    @property
    def span(self) -> tuple[int, ...]:
        """The operand lengths that are scored."""
        return (*range(1, self.digits + 1), *self.far)

    def _in_pool(self, cell: Cell | None) -> np.ndarray:
        """(N,) rows of the pool that are in a cell; without one, all."""
        a, b, len_a, len_b = self.pooled
        if cell is None:
            return np.arange(self.pool)
        there = (len_a == cell.len_a) & (len_b == cell.len_b)
        return np.flatnonzero(there & self.belongs(cell.stratum, a, b))

    def _draw(self, rng: np.random.Generator, size: int, split: str, cell: Cell | None):
        """Operands and their lengths, (size, n) and (size,), of a split and cell."""
        wanted = SPLITS.index(split)
        share = (100 - splits.VAL - splits.TEST, splits.VAL, splits.TEST)[wanted] / 100
        stratum = cell.stratum if cell else "all"
        kept, have = [], 0
        for turn in range(MAX_ROUNDS):
            tries = int((size - have) / share * 1.1) + 16
            len_a, len_b = self._lengths(rng, tries, cell)
            a, b = self.propose(rng, len_a, len_b, stratum, split == "train")
            good = self._allowed(a, b, len_a, len_b, wanted)
            if stratum != "all":
                good &= self.belongs(stratum, a, b)
                good &= (digits.length(a) == len_a) & (digits.length(b) == len_b)
            index = np.flatnonzero(good)[: size - have]
            kept.append(tuple(digits.rows_of(part, index) for part in (a, b, len_a, len_b)))
            have += len(index)
            if have >= size or (turn > MAX_ROUNDS // 5 and not have):
                break
        return problems.joined(kept)

    def _lengths(self, rng: np.random.Generator, size: int, cell: Cell | None):
        if cell is None:
            return self.lengths(rng, size)
        return np.full(size, cell.len_a), np.full(size, cell.len_b)

    def _allowed(self, a, b, len_a, len_b, split: int) -> np.ndarray:
        """(B,) which problems may be drawn in a split; small cells are in train only."""
        good = splits.split_of(a, b, splits.salt_of(self.op), self.commutes) == split
        if self.digits > 1:
            small = _count(len_a) * _count(len_b) < splits.SMALL
            good = good & ~small if split else good | small
        else:
            good[:] = True
        valid = self.valid(a, b)
        return good if valid is None else good & valid

    def _every(self, cell: Cell) -> tuple[np.ndarray, np.ndarray]:
        """All problems of a cell."""
        a, b = (range(10 ** (n - 1) if n > 1 else 0, 10**n) for n in (cell.len_a, cell.len_b))
        width = max(cell.len_a, cell.len_b)
        table = {n: digits.from_int(n, width) for n in {*a, *b}}
        pairs = [(table[x], table[y]) for x in a for y in b]
        first, second = (np.stack(side) for side in zip(*pairs, strict=True))
        valid = self.valid(first, second)
        return (first, second) if valid is None else (first[valid], second[valid])

    def _written(self, a, b, len_a, len_b) -> Batch:
        if len(a):

            def asked() -> np.ndarray:
                pairs = zip(repeat(self.op), zip(digits.to_int(a), digits.to_int(b), strict=True))
                return np.fromiter(map(Problem._make, pairs), object, len(a))

            return replace(self.write(a, b, len_a, len_b).batch(), problems=asked)
        levels = np.zeros((0, 1, LEVELS), np.int16)
        return Batch(np.zeros((0, 1), np.uint8), np.zeros((0, 1), bool), levels)


def check_far(far: tuple[int, ...], digits: int) -> None:
    """Raise UsageError unless these are different lengths, longer than those trained on."""
    if len({*far}) < len(far) or not all(digits < length <= MAX_DIGITS for length in far):
        raise UsageError(f"far must hold different lengths above {digits}, at most {MAX_DIGITS}")


def _count(length):
    """How many numbers have this many digits (0 has one); any more than four count as four."""
    return NUMBERS.take(length, mode="clip")
