"""Whether a model was scored on problems that it could have been trained on. There must be none.

Two checks of every held-out problem that was scored. Neither relies on the code that draws:

1.  The split is computed again, one problem at a time, with the operands in either order where
    they commute (`HeldOut.in_train`). For arithmetic that is a second implementation of the same
    rule, on Python integers. It finds problems drawn into the wrong split or written wrongly.
2.  Problems are drawn as training draws them (`Task.batch`), and the scored ones are searched for
    among them. That relies on no rule at all, but finds a rare leak only by chance.

Problems of cells too small to be held out (`seen`) are left out: those are all in train.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from addgpt.evaluation.exact_match import CellResult
from addgpt.task import Graded, HeldOut, Problem

DRAWN = 100_000  # training problems
AT_ONCE = 2000  # of them in a batch
DRAW_SEED = 7_919  # not the streams of training, which start with the seed of the run
NAMED = 3  # offending problems in a message


@dataclass(frozen=True)
class Contamination:
    """The result of the checks.

    problems  held-out problems that were scored; all were checked
    drawable  how many of them training can draw; None: the task cannot tell
    drawn     how many problems were drawn as training draws them
    met       how many of the held-out problems were among these
    found     some offending problems
    """

    problems: int
    drawable: int | None
    drawn: int
    met: int
    found: tuple[str, ...] = ()

    @property
    def clean(self) -> bool:
        return not self.drawable and not self.met

    def __str__(self) -> str:
        if not self.problems:
            return "contamination: no held-out problem was scored"
        rule = f"{self.problems:,} held-out problems"
        if self.drawable is None:
            rule += ": the task cannot tell which of them can be drawn in training"
        else:
            how = "can be drawn in training (split recomputed one by one)"
            rule = f"{self.drawable:,} of {rule} {how}"
        return f"{rule}; {self.met:,} met in {self.drawn:,} drawn"


class Audit:
    """Collects the held-out problems of the cells that are shown to it."""

    def __init__(self, task: Graded) -> None:
        self.task = task
        self.problems: list[Problem] = []

    def add(self, result: CellResult) -> None:
        if not result.seen and result.split != "train":
            self.problems += result.batch.problems.tolist()

    def result(self, seed: int = 0, draw: int = DRAWN) -> Contamination:
        """Check all problems, against `draw` training problems among others."""
        task = self.task
        held_out = task if isinstance(task, HeldOut) else None
        same = [held_out.equivalent(p) if held_out else [p] for p in self.problems]
        verdicts = [[held_out and held_out.in_train(p) for p in some] for some in same]
        known = held_out is not None and all(None not in some for some in verdicts)
        drawable = [any(some) for some in verdicts]
        drawn = drawn_in_training(task, seed, draw) if self.problems else set()
        met = [not drawn.isdisjoint(some) for some in same]
        bad = [p for p, *how in zip(self.problems, drawable, met, strict=True) if any(how)]
        return Contamination(
            problems=len(self.problems),
            drawable=sum(drawable) if known else None,
            drawn=draw if self.problems else 0,
            met=sum(met),
            found=tuple(map(task.text, bad[:NAMED])),
        )


def drawn_in_training(task: Graded, seed: int, count: int) -> set[Problem]:
    """The problems among `count` that are drawn as training draws them."""
    rng = np.random.default_rng((DRAW_SEED, seed))
    drawn: set[Problem] = set()
    for start in range(0, count, AT_ONCE):
        drawn.update(task.batch(rng, min(AT_ONCE, count - start), "train").problems)
    return drawn
