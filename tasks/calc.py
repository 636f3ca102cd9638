"""The calculator's mixture: additions, subtractions, products and quotients for one model.

Each problem is written as its own task writes it; the shares of the four say how often each is
drawn in training. Sums and differences may be longer than products and quotients.

>>> task = Calc(digits=3, sum_digits=4)
>>> task.truth("12*34"), task.truth("1 / 3"), task.prompt("5 - 7")
('408', '0 remainder 1', '5-7=')
>>> task.answer("840,630,040;=8040#")
'408'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from addgpt.task import Batch, Cell, Recipe, Slip, Task, setting
from tasks.add import Add
from tasks.common.arithmetic import (
    EQUALS,
    MOST_DIGITS,
    PROBLEM,
    Arithmetic,
    check_far,
    traced_recipe,
)
from tasks.common.sheet import ALPHABET, END
from tasks.div import Div
from tasks.mul import Mul
from tasks.sub import Sub

OPS = "+-*/"


@dataclass(frozen=True)
class Calc(Task):
    alphabet: ClassVar[str] = ALPHABET
    end: ClassVar[str] = END

    digits: int = setting(4, "longest operand of * and /")
    sum_digits: int = setting(8, "longest operand of + and -")
    shares: tuple[float, ...] = setting((0.15, 0.2, 0.3, 0.35), "how often +, -, *, / are drawn")
    far: tuple[int, ...] = setting((), "longer operand lengths to score, such as 20,50")
    full: float = setting(0.25, "share of problems drawn at the longest lengths")
    mul_trace: str = setting("rows", "trace of *: as in the task mul")
    div_trace: str = setting("doubling", "trace of /: as in the task div")

    def __post_init__(self) -> None:
        for name in ("digits", "sum_digits"):
            if not 1 <= getattr(self, name) <= MOST_DIGITS:
                raise ValueError(f"{name} must be in 1..{MOST_DIGITS}, not {getattr(self, name)}")
        if len(self.shares) != 4 or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise ValueError(f"shares must be four shares of + - * /, not {self.shares}")
        if not 0 <= self.full <= 1:
            raise ValueError(f"full must be in [0, 1], not {self.full}")
        check_far(self.far, min(self.digits, self.sum_digits))
        _ = self.parts

    @cached_property
    def parts(self) -> dict[str, Arithmetic]:
        """The task of each operation; each scores of `far` what is longer than it is trained on."""
        sums = {"digits": self.sum_digits, "far": self._beyond(self.sum_digits)}
        others = {"digits": self.digits, "far": self._beyond(self.digits)}
        return {
            "+": Add(**sums),
            "-": Sub(**sums),
            "*": Mul(**others, trace=self.mul_trace),
            "/": Div(**others, trace=self.div_trace),
        }

    @property
    def levels(self) -> tuple[int, ...]:
        every = [part.levels for part in self.parts.values()]
        return tuple(max(sizes) for sizes in zip(*every, strict=True))

    def longest(self) -> int:
        return max(part.longest() for part in self.parts.values())

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        if cell is not None:
            return self._placed(cell.op, self.parts[cell.op].batch(rng, size, split, cell))
        shares = np.array(self.shares) / sum(self.shares)
        counts = rng.multinomial(size, shares)
        batches = []
        for op, count in zip(OPS, counts, strict=True):
            most = int(rng.binomial(count, self.full))
            part = self.parts[op]
            for rows, where in ((most, part.largest(rng)), (count - most, None)):
                if rows:
                    batches.append(part.batch(rng, rows, split, where))
        return _stacked(batches)

    def exam(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        return self._placed(cell.op, self.parts[cell.op].exam(rng, size, split, cell))

    def cells(self) -> list[Cell]:
        return [cell for part in self.parts.values() for cell in part.cells()]

    def seen(self, cell: Cell) -> bool:
        return self.parts[cell.op].seen(cell)

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        prompts = tokens[:, : int((tokens == EQUALS).argmax(1).max()) + 1]
        size = tokens.shape[1] + slots
        out = np.zeros((len(tokens), size, len(self.levels)), np.int16)
        for part, rows in self._shared_out(prompts):
            out[rows] = part.positions(tokens[rows], slots)
        return out

    def worked_out(self, prompts: np.ndarray) -> Batch:
        shares = list(self._shared_out(prompts))
        order = np.argsort(np.concatenate([rows for _, rows in shares]))
        return _stacked([part.worked_out(prompts[rows]) for part, rows in shares]).rows(order)

    def prompt(self, text: str) -> str:
        return self._part(text).prompt(text)

    def truth(self, text: str) -> str:
        return self._part(text).truth(text)

    def trained_on(self, text: str) -> bool:
        return self._part(text).trained_on(text)

    def covers(self, text: str) -> bool:
        return self._part(text).covers(text)

    def answer(self, completion: str) -> str:
        return self._part_of(completion).answer(completion)

    def problem(self, prompt: str) -> str:
        return self._part(prompt).problem(prompt)

    def orders(self, problem: str) -> list[str]:
        return self._part(problem).orders(problem)

    def in_train(self, problem: str) -> bool:
        return self._part(problem).in_train(problem)

    def lines(self, completion: str) -> list[str]:
        return self._part_of(completion).lines(completion)

    def copied(self, problem: str, lines: list[str], line: int, place: int) -> bool:
        return self._part(problem).copied(problem, lines, line, place)

    def slip(self, problem: str, answer: str) -> Slip:
        return self._part(problem).slip(problem, answer)

    def _beyond(self, trained: int) -> tuple[int, ...]:
        return tuple(length for length in self.far if length > trained)

    def _part_of(self, completion: str) -> Arithmetic:
        """Each operation ends in its own way: with r, after =, after a sign, or plainly."""
        signs = (("r", "/"), ("=", "*"), ("+", "-"), ("-", "-"))
        return self.parts[next((op for sign, op in signs if sign in completion), "+")]

    def _shared_out(self, prompts: np.ndarray) -> Iterator[tuple[Arithmetic, np.ndarray]]:
        """Each operation's task, and the rows of (B, T) prompts that ask for it."""
        for op, part in self.parts.items():
            rows = np.flatnonzero((prompts == ALPHABET.index(op)).any(1))
            if len(rows):
                yield part, rows

    def _placed(self, op: str, batch: Batch) -> Batch:
        """A part's batch, with its cells counted in the grid of the mixture."""
        first = sum(len(self.parts[earlier].cells()) for earlier in OPS[: OPS.index(op)])
        cell = np.where(batch.cell < 0, -1, batch.cell + first).astype(np.int32)
        return replace(batch, cell=cell)

    def _part(self, text: str) -> Arithmetic:
        match = PROBLEM.fullmatch(text)
        if match is None:
            raise ValueError(f"{text.strip()!r} is not a problem like 12*34")
        return self.parts[match[2]]

    def recipe(self) -> Recipe:
        return traced_recipe(1000 + 700 * self.digits, True)


def _stacked(batches: list[Batch]) -> Batch:
    """One batch of several, padded to the longest."""
    size = max(batch.tokens.shape[1] for batch in batches)

    def padded(array: np.ndarray, fill: int) -> np.ndarray:
        pad = [(0, 0), (0, size - array.shape[1])] + [(0, 0)] * (array.ndim - 2)
        return np.pad(array, pad, constant_values=fill)

    return Batch(
        np.concatenate([padded(b.tokens, ALPHABET.index(END)) for b in batches]),
        np.concatenate([padded(b.scored, False) for b in batches]),
        np.concatenate([padded(b.positions, 0) for b in batches]),
        np.full(sum(len(b) for b in batches), -1, np.int32),
    )
