"""The calculator's mixture: additions, subtractions, products and quotients for one model.

Each problem is written as its own task writes it; the shares of the four say how often each is
drawn in training. Sums and differences may be longer than products and quotients.

>>> task = Calc(digits=3, sum_digits=4)
>>> str(task.truth(task.parse("1 / 3"))), task.prompt(task.parse("5 - 7"))
('0 remainder 1', '5-7=')
>>> str(task.read(task.parse("12*34"), "840,630,040;=8040#"))
'408'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from addgpt.task import (
    Batch,
    Cell,
    Explained,
    Graded,
    HeldOut,
    Problem,
    Recipe,
    UsageError,
    setting,
)
from tasks.add import Add
from tasks.common.arithmetic import MOST_DIGITS, Arithmetic, check_far, traced_recipe
from tasks.common.sheet import ALPHABET, DIGITS, END
from tasks.div import Div
from tasks.mul import Mul
from tasks.sub import Sub

OPS = "+-*/"


def by_part(method: str) -> Callable[..., Any]:
    """A method on problems that leaves each to the task of its operation."""

    def of_part(self: Calc, problem: Problem, *rest: Any) -> Any:
        return getattr(self.part(problem.op), method)(problem, *rest)

    return of_part


@dataclass(frozen=True)
class Calc(Graded, HeldOut, Explained):
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
                raise UsageError(f"{name} must be in 1..{MOST_DIGITS}, not {getattr(self, name)}")
        if len(self.shares) != 4 or min(self.shares) < 0 or not sum(self.shares) > 0:
            raise UsageError(f"shares must be four shares of + - * /, not {self.shares}")
        if not 0 <= self.full <= 1:
            raise UsageError(f"full must be in [0, 1], not {self.full}")
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

    def part(self, op: str) -> Arithmetic:
        """The task of an operation: all that concerns a problem or a cell is left to it."""
        if op not in self.parts:
            raise UsageError(f"this model does {' '.join(OPS)}, not {op}")
        return self.parts[op]

    check, prompt, truth, read = map(by_part, ("check", "prompt", "truth", "read"))
    rows, is_copy, draw = map(by_part, ("rows", "is_copy", "draw"))
    answer_digits, error_type = map(by_part, ("answer_digits", "error_type"))
    equivalent, in_train = map(by_part, ("equivalent", "in_train"))
    in_train_range, in_eval_range = map(by_part, ("in_train_range", "in_eval_range"))

    def parse(self, text: str) -> Problem:
        problem = super().parse(text)
        self.check(problem)
        return problem

    def problem(self, prompt: str) -> Problem:
        return self.part(next(char for char in prompt if char in OPS)).problem(prompt)

    def cells(self) -> list[Cell]:
        return [cell for part in self.parts.values() for cell in part.cells()]

    def seen(self, cell: Cell) -> bool:
        return self.part(cell.op).seen(cell)

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        return self.part(cell.op).evaluation_set(rng, size, split, cell)

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        if cell is not None:
            return self.part(cell.op).batch(rng, size, split, cell)
        shares = np.array(self.shares) / sum(self.shares)
        batches = []
        for op, count in zip(OPS, rng.multinomial(size, shares), strict=True):
            most, part = int(rng.binomial(count, self.full)), self.part(op)
            for rows, where in ((most, part.largest(rng)), (count - most, None)):
                if rows:
                    batches.append(part.batch(rng, rows, split, where))
        return _stacked(batches)

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        shape = (len(tokens), tokens.shape[1] + slots, len(self.levels))
        out = np.zeros(shape, np.int16)
        for part, rows in self._by_op(tokens):
            out[rows] = part.positions(tokens[rows], slots)
        return out

    def reference(self, prompts: np.ndarray) -> Batch:
        shares = list(self._by_op(prompts))
        order = np.argsort(np.concatenate([rows for _, rows in shares]))
        return _stacked([part.reference(prompts[rows]) for part, rows in shares]).rows(order)

    def recipe(self) -> Recipe:
        return traced_recipe(1000 + 700 * self.digits, True)

    def _beyond(self, trained: int) -> tuple[int, ...]:
        return tuple(length for length in self.far if length > trained)

    def _by_op(self, tokens: np.ndarray) -> Iterator[tuple[Arithmetic, np.ndarray]]:
        """Each operation's task, and the rows of (B, T) tokens whose prompts ask for it."""
        op = np.take_along_axis(tokens, (tokens >= DIGITS).argmax(1)[:, None], 1)[:, 0]
        for char, part in self.parts.items():
            rows = np.flatnonzero(op == ALPHABET.index(char))
            if len(rows):
                yield part, rows


def _stacked(batches: list[Batch]) -> Batch:
    """One batch of several, padded to the longest."""
    size = max(batch.tokens.shape[1] for batch in batches)

    def joined(arrays: list[np.ndarray], fill: int) -> np.ndarray:
        pads = [[(0, 0), (0, size - a.shape[1])] + [(0, 0)] * (a.ndim - 2) for a in arrays]
        pairs = zip(arrays, pads, strict=True)
        return np.concatenate([np.pad(a, pad, constant_values=fill) for a, pad in pairs])

    return Batch(
        joined([batch.tokens for batch in batches], ALPHABET.index(END)),
        joined([batch.scored for batch in batches], False),
        joined([batch.positions for batch in batches], 0),
    )
