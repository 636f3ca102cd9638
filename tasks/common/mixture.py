"""One model for several operations: a mixture draws from tasks, and leaves each problem to its own.

A mixture of yours is a frozen dataclass that says which `parts` it has and how often each is drawn
(`shares`): see `tasks/calc.py`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import numpy as np

from addgpt.locality import LocalTrace, Rule
from addgpt.task import Batch, Cell, Explained, HeldOut, Place, Problem, UsageError
from tasks.common.many import SUM, part_of
from tasks.common.rules import EQUALS, PLUS
from tasks.common.sheet import ALPHABET, DIGITS, END

Part = Any  # an `Arithmetic`, or the task `sum`


def of_part(name: str) -> Callable[..., Any]:
    """The method `name` of the task to which the argument, a problem or a cell, belongs."""

    def method(self: Mixture, *args: Any) -> Any:
        part = self.part(next(arg for arg in args if isinstance(arg, Problem | Cell)))
        return getattr(part, name)(*args)

    return method


class Mixture(LocalTrace, HeldOut, Explained):
    """Problems of several operations, each written and judged as its own task does."""

    alphabet: ClassVar[str] = ALPHABET
    end: ClassVar[str] = END

    shares: tuple[float, ...]  # how often each part is drawn
    full: float  # share of a part's problems that are drawn at its longest lengths

    @property
    @abstractmethod
    def parts(self) -> dict[str, Part]:
        """The task of each operation, and `SUM` if it has that."""

    def part(self, asked: Problem | Cell) -> Part:
        """The task to which a problem or a cell belongs."""
        found = self.parts.get(part_of(asked), self.parts.get(asked.op))
        if found is None:
            valid = " ".join(dict.fromkeys(part.op for part in self.parts.values()))
            raise UsageError(f"this model does {valid}, not {asked.op}")
        return found

    prompt, truth, read, rows, is_copy, draw, answer_digits, error_type = map(
        of_part, "prompt truth read rows is_copy draw answer_digits error_type".split()
    )
    equivalent, in_train, in_train_range, in_eval_range, seen, evaluation_set = map(
        of_part, "equivalent in_train in_train_range in_eval_range seen evaluation_set".split()
    )
    cell_of, column_fact = map(of_part, "cell_of column_fact".split())

    @property
    def levels(self) -> tuple[int, ...]:
        return tuple(map(max, *(part.levels for part in self.parts.values())))

    def rules(self) -> dict[int, Rule]:
        """Of all parts, if each is local: no two write rows of the same kind."""
        each = [part.rules() for part in self.parts.values()]
        return {kind: rule for rules in each for kind, rule in rules.items()} if all(each) else {}

    def row_names(self) -> dict[int, str]:
        return {
            kind: name for part in self.parts.values() for kind, name in part.row_names().items()
        }

    def long_cells(self) -> list[Cell]:
        return [cell for part in self.parts.values() for cell in part.long_cells()]

    def cell_like(self, prompt: str) -> Cell:
        return self.part(self.parse(prompt)).cell_like(prompt)

    def parse(self, text: str) -> Problem:
        many = SUM in self.parts and text.count("+") > 1
        return self.parts[SUM].parse(text) if many else super().parse(text)

    @property
    def operands_at_most(self) -> int:
        return max(part.operands_at_most for part in self.parts.values())

    def sheets(self, size: int) -> Iterator[tuple[np.ndarray, list[range], np.ndarray]]:
        for part in self.parts.values():
            yield from part.sheets(size)

    def placed(self, text: str, ids: np.ndarray) -> list[Place]:
        return next(iter(self.parts.values())).placed(text, ids)

    def pairs(
        self, rng: np.random.Generator, size: int, op: str = "+"
    ) -> list[tuple[Problem, Problem, int]]:
        """As of the task of an operation."""
        return self.part(Problem(op, (0, 0))).pairs(rng, size)

    def longest(self) -> int:
        return max(part.longest() for part in self.parts.values())

    def cells(self) -> list[Cell]:
        return [cell for part in self.parts.values() for cell in part.cells()]

    def cascades(self) -> list[Cell]:
        return [cell for part in self.parts.values() for cell in part.cascades()]

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        if cell is not None:
            return self.part(cell).batch(rng, size, split, cell)
        counts = rng.multinomial(size, np.array(self.shares) / sum(self.shares))
        batches = []
        for part, count in zip(self.parts.values(), counts, strict=True):
            most = int(rng.binomial(count, self.full))
            for rows, where in ((most, part.largest(rng)), (count - most, None)):
                if rows:
                    batches.append(part.batch(rng, rows, split, where))
        return Batch.stacked(batches, ALPHABET.index(END))

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        out = np.zeros((len(tokens), tokens.shape[1] + slots, len(self.levels)), np.int16)
        for part, rows in self._by_part(tokens):
            out[rows] = part.positions(tokens[rows], slots)
        return out

    def reference(self, prompts: np.ndarray) -> Batch:
        parts, rows = zip(*self._by_part(prompts), strict=True)
        works = [part.reference(prompts[some]) for part, some in zip(parts, rows, strict=True)]
        return Batch.stacked(works, ALPHABET.index(END)).rows(np.argsort(np.concatenate(rows)))

    def _by_part(self, tokens: np.ndarray) -> Iterator[tuple[Part, np.ndarray]]:
        """Each part, and the rows of (B, T) tokens whose prompts are its own."""
        op = np.take_along_axis(tokens, (tokens >= DIGITS).argmax(1)[:, None], 1)[:, 0]
        if SUM in self.parts:
            prompt = np.arange(tokens.shape[1]) < (tokens == EQUALS).argmax(1)[:, None]
            op = np.where(((tokens == PLUS) & prompt).sum(1) > 1, len(ALPHABET), op)
        for name, part in self.parts.items():
            rows = np.flatnonzero(op == (len(ALPHABET) if name == SUM else ALPHABET.index(name)))
            if len(rows):
                yield part, rows
