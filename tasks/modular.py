"""Arithmetic modulo a number: sums, differences or products of two residues, the table of grokking.

A fixed share of the table of all pairs is train; of the rest half is val, half test. Each residue
is one token (Power et al. 2022, arXiv:2201.02177). People type `12+34`, the model reads the tokens
of 12 and 34:

>>> task = Modular(p=53)
>>> task.truth(task.parse("40+20"))
Answer(whole=7, rest=0)
>>> task.prompt(task.parse("40+20")), task.read(task.parse("40+20"), "7#").whole
('eK=', 7)
>>> Modular(p=53, op="-").truth(Problem("-", (3, 5))).whole
51
"""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np

from addgpt.task import (
    SPLITS,
    Answer,
    Batch,
    Cell,
    Graded,
    HeldOut,
    Problem,
    Recipe,
    UsageError,
    setting,
)

LETTERS = string.ascii_uppercase + string.ascii_lowercase
SYMBOLS = string.digits + LETTERS + "".join(map(chr, range(192, 256)))  # one for each residue
OPERATIONS = ("+", "-", "*")
TABLE_SEED = 2201  # which pairs are train does not depend on the training seed


@dataclass(frozen=True)
class Modular(Graded, HeldOut):
    """a + b, a - b or a * b modulo p."""

    end: ClassVar[str] = "#"

    p: int = setting(53, "modulus", low=5, high=len(SYMBOLS))
    op: str = setting("+", "operation", OPERATIONS)
    train_share: float = setting(0.5, "share of the table to train on", low=0.05, high=0.9)

    @property
    def alphabet(self) -> str:
        return SYMBOLS[: self.p] + "=#"

    @property
    def residues(self) -> int:
        """How many of the first tokens are numbers, in order."""
        return self.p

    @cached_property
    def table(self) -> dict[str, np.ndarray]:
        """(N, 2) the pairs of each split."""
        pairs = np.stack(np.divmod(np.arange(self.p**2), self.p), 1)
        pairs = np.random.default_rng(TABLE_SEED).permutation(pairs)
        train = round(self.train_share * len(pairs))
        val = (train + len(pairs)) // 2
        return dict(zip(SPLITS, np.split(pairs, [train, val]), strict=True))

    @cached_property
    def _trained(self) -> set[tuple[int, ...]]:
        return set(map(tuple, self.table["train"].tolist()))

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        """Random pairs of a split; a split as large as `size` or smaller comes whole."""
        pairs = self._in_cell(split, cell)
        if len(pairs) > size:
            pairs = pairs[rng.choice(len(pairs), size, replace=False)]
        return self.written(pairs)

    def written(self, pairs: np.ndarray) -> Batch:
        """The rows of (N, 2) pairs: `a b = c #`."""
        a, b = pairs.T
        answers = self._computed(a, b)
        tokens = np.empty((len(pairs), 5), np.uint8)
        tokens[:, 0], tokens[:, 1], tokens[:, 3] = a, b, answers
        tokens[:, 2], tokens[:, 4] = self.p, self.p + 1
        scored = np.zeros(tokens.shape, bool)
        scored[:, 3:] = True
        asked = np.empty(len(pairs), object)
        asked[:] = [Problem(self.op, tuple(pair)) for pair in pairs.tolist()]
        return Batch(tokens, scored, np.zeros((*tokens.shape, 0), np.int16), asked)

    def longest(self) -> int:
        return 5

    def cells(self) -> list[Cell]:
        sizes = range(1, len(str(self.p - 1)) + 1)
        return [Cell(self.op, len_a, len_b) for len_a in sizes for len_b in sizes]

    def prompt(self, problem: Problem) -> str:
        a, b = self._checked(problem)
        return f"{SYMBOLS[a]}{SYMBOLS[b]}="

    def truth(self, problem: Problem) -> Answer:
        return Answer(int(self._computed(*self._checked(problem))))

    def read(self, problem: Problem, completion: str) -> Answer:
        self._checked(problem)
        if len(completion) != 2 or completion[1] != "#" or completion[0] not in SYMBOLS[: self.p]:
            raise UsageError(f"{completion!r} is not one residue and the end mark")
        return Answer(SYMBOLS.index(completion[0]))

    def reference(self, prompts: np.ndarray) -> Batch:
        return self.written(prompts[:, :2].astype(int))

    def in_train_range(self, problem: Problem) -> bool:
        return max(problem.operands) < self.p

    def in_eval_range(self, problem: Problem) -> bool:
        return self.in_train_range(problem)

    def equivalent(self, problem: Problem) -> list[Problem]:
        """The pair alone: a + b and b + a are two entries of the table, as in the papers."""
        return [problem]

    def in_train(self, problem: Problem) -> bool:
        return self._checked(problem) in self._trained

    def recipe(self) -> Recipe:
        """Grokking in minutes: all of train is right long before val is (docs/grokking.md)."""
        return Recipe(
            model={
                "layers": 1,
                "width": 64,
                "norm": "none",
                "activation": "relu",
                "position": "learned",
                "qk_norm": False,
            },
            train={
                "steps": 3000,
                "batch_size": 512,
                "muon_lr": 0.02,
                "lr": 3e-3,
                "weight_decay": 0.3,
                "schedule": "wsd",
                "precision": "float32",
                "eval_every": 50,
            },
        )

    def _checked(self, problem: Problem) -> tuple[int, int]:
        if problem.op != self.op or len(problem.operands) != 2:
            raise UsageError(f"this model does {self.op} of two numbers, such as 12{self.op}34")
        if not all(0 <= operand < self.p for operand in problem.operands):
            raise UsageError(f"operands must be in 0..{self.p - 1}")
        a, b = problem.operands
        return a, b

    def _computed(self, a, b):
        if self.op == "+":
            return (a + b) % self.p
        return (a - b) % self.p if self.op == "-" else a * b % self.p

    def _in_cell(self, split: str, cell: Cell | None) -> np.ndarray:
        pairs = self.table[split]
        if cell is None:
            return pairs
        lengths = np.where(pairs > 9, np.where(pairs > 99, 3, 2), 1)
        return pairs[(lengths == (cell.len_a, cell.len_b)).all(1)]
