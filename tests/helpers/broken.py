"""Tasks that break their contract, each in one way, and what `tasks --check` says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from addgpt.task import Answer, Cell, Row
from tasks.add import Add
from tasks.mul import Mul


class Nonsense(Add):
    def compute(self, a, b):
        return Answer(a + b + 1)


class WrongOnce(Add):
    """Wrong for one problem in a hundred."""

    def compute(self, a, b):
        return Answer(a + b + (a % 100 == 99))


class Leaky(Add):
    """Its ids tell how many digits the sum has."""

    def batch(self, rng, size, split, cell=None):
        batch = super().batch(rng, size, split, cell)
        positions = np.where(np.cumsum(batch.scored, 1)[..., None] > 0, 1, batch.positions)
        return replace(batch, positions=positions.astype(np.int16))


class OneSlot(Add):
    def positions(self, tokens, slots):
        return super().positions(tokens, slots)[:, : tokens.shape[1] + 1]


class Short(Add):
    def longest(self):
        return super().longest() - 1


class Unseeded(Add):
    def batch(self, rng, size, split, cell=None):
        return super().batch(np.random.default_rng(), size, split, cell)


class Wide(Add):
    def batch(self, rng, size, split, cell=None):
        batch = super().batch(rng, size, split, cell)
        return replace(batch, tokens=batch.tokens.astype(np.int64))


class HighIds(Add):
    @property
    def levels(self):
        return (3, *super().levels[1:])


class Endless(Add):
    def batch(self, rng, size, split, cell=None):
        batch = super().batch(rng, size, split, cell)
        return replace(batch, tokens=np.where(batch.tokens == 15, 0, batch.tokens).astype(np.uint8))


class Overlapping(Add):
    """Evaluates on what it trains on."""

    def evaluation_set(self, rng, size, split, cell):
        return super().evaluation_set(rng, size, "train", cell)


class Lopsided(Add):
    """a + b is in train, b + a is not."""

    def in_train(self, problem):
        return super().in_train(problem) and problem.operands[0] >= problem.operands[1]


class Swapped(Add):
    """Takes differences for equal whose operands change places."""

    op: ClassVar[str] = "-"

    def compute(self, a, b):
        return Answer(a - b if a > b else a + b)


class Forgetful(Add):
    def equivalent(self, problem):
        return super().equivalent(problem)[1:]


class Unfinished(Add):
    def read(self, problem, completion):
        return super().read(problem, completion.rstrip("#") + "#")


class Elsewhere(Add):
    """Problems of other lengths than the cell says."""

    def evaluation_set(self, rng, size, split, cell):
        return super().evaluation_set(rng, size, split, Cell(cell.op, 1, 1))


class Lossy(Add):
    def rows(self, problem, completion):
        return [Row("answer", completion.rstrip("#"))]


class Fragile(Add):
    def draw(self, problem, completion):
        return str(self.read(problem, completion))


class Misquoted(Add):
    def prompt(self, problem):
        return f"{problem.operands[1]}+{problem.operands[0]}="


class Careless(Add):
    def reference(self, prompts):
        batch = super().reference(prompts)
        return replace(batch, tokens=np.where(batch.tokens == 1, 2, batch.tokens))


class Unsaid(Add):
    def _written(self, *operands):
        return replace(super()._written(*operands), problems=np.empty(0, object))


class Highest(Mul):
    """Labels beyond the last class."""

    def labels_of(self, batch, names):
        return {name: x + 1 for name, x in super().labels_of(batch, names).items()}


class Few(Mul):
    """One label of each slot, however many there are."""

    def labels_of(self, batch, names):
        return {name: x[:, :, :1] for name, x in super().labels_of(batch, names).items()}


class Gregarious(Mul):
    """Labels of the first row for all."""

    def labels_of(self, batch, names):
        return {
            name: x[:1].repeat(len(x), 0) for name, x in super().labels_of(batch, names).items()
        }


class Centred(Mul):
    """Numbers less their mean over the batch."""

    def auxiliary(self, batch):
        told = super().auxiliary(batch)
        return told - np.nanmean(told)


class Precise(Mul):
    def auxiliary(self, batch):
        return super().auxiliary(batch).astype(np.float64)


BROKEN = [
    (Nonsense, "but computes"),
    (WrongOnce, "but computes"),
    (Leaky, "are not those of its prompt"),
    (OneSlot, "positions of"),
    (Short, "longest() is"),
    (Unseeded, "the same generator gives other tokens"),
    (Wide, "tokens is int64"),
    (HighIds, "on level 0, which has 3"),
    (Endless, "does not end with '#'"),
    (Overlapping, "in_train says"),
    (Lopsided, "in train in one form and not in another"),
    (Swapped, "has other answers than its equivalents"),
    (Forgetful, "is not among its equivalent problems"),
    (Unfinished, "is read, and has no end mark"),
    (Elsewhere, "problems of"),
    (Lossy, "are not all of it"),
    (Fragile, "is not a finished"),
    (Misquoted, "a batch has"),
    (Careless, "a batch has another"),
    (Unsaid, "0 problems for 30 rows"),
]
WRONG_LABELS = [
    (Highest, "products: labels 0..10, not -1..9"),
    (Few, "products is int64 (200, "),
    (Gregarious, "depends on the batch that it is in"),
    (Centred, "depends on the batch that it is in"),
    (Precise, "auxiliary is float64"),
]
