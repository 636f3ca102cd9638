"""A curriculum: the task's options change as training goes on (Bengio et al. 2009,
doi:10.1145/1553374.1553380).

It is data: `0:carry=0.9 digits=2;500:carry=0.3` trains on sums of two digits, most of them with
long carries, before step 500, and then on those of the run's own task but for `carry`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.settings import unknown, with_settings
from addgpt.task import HeldOut, Task

SEED, SAMPLE = 0, 100  # held-out problems of which no stage may train on any
FORM = "STEP:option=value option=value;STEP:..., steps from 0 rising"


@dataclass(frozen=True)
class Curriculum:
    """From each of `steps` on, the task that problems of training are of."""

    steps: tuple[int, ...]
    tasks: tuple[Task, ...]

    @property
    def longest(self) -> int:
        """The longest sequence of any stage."""
        return max(task.longest() for task in self.tasks)

    def at(self, step: int) -> Task:
        """The task of a step, which counts from 0."""
        return self.tasks[bisect_right(self.steps, step) - 1]


def curriculum(task: Task, text: str) -> Curriculum:
    """The stages that a text describes; before the first of them, the task is as it is.

    Raises UsageError for what is no such text, for a stage whose problems the model of `task`
    cannot be given as they need other tokens or position ids, and for one that trains on what
    `task` holds out.
    """
    steps, tasks, last = [0], [task], -1
    for stage in filter(None, text.split(";")):
        number, colon, pairs = stage.strip().partition(":")
        step = int(number) if number.isascii() and number.isdecimal() else -1
        given = [pair.partition("=")[::2] for pair in pairs.split()]
        options = dict(given)
        once = len(options) == len(given)
        if not (colon and options and all(options.values()) and once and step > last):
            raise UsageError(f"curriculum must be {FORM}, not {text!r}")
        for name in options:
            if name not in task.options():
                raise unknown("option", name, task.options(), " in curriculum")
        last, changed = step, with_settings(task, options)
        _check_fits(task, changed, stage.strip())
        if step == 0:
            tasks[0] = changed
        else:
            steps.append(step)
            tasks.append(changed)
    return Curriculum(tuple(steps), tuple(tasks))


def _check_fits(task: Task, stage: Task, text: str) -> None:
    """Raise UsageError unless the model of a task can read the problems of a stage."""
    wider = len(stage.levels) != len(task.levels) or any(
        one > most for one, most in zip(stage.levels, task.levels, strict=True)
    )
    for what, wrong in {
        "has another alphabet than": stage.alphabet != task.alphabet,
        "needs other position ids than": wider,
    }.items():
        if wrong:
            raise UsageError(f"curriculum: stage {text!r} {what} the task that is learned")
    if _trains_on_held_out(task, stage):
        raise UsageError(f"curriculum: stage {text!r} trains on problems that the task holds out")


def _trains_on_held_out(task: Task, stage: Task) -> bool:
    """Whether training can draw in a stage some of samples of what the task holds out."""
    if not isinstance(task, HeldOut) or not isinstance(stage, HeldOut):
        return False
    rng = np.random.default_rng(SEED)
    held_out = [p for split in ("val", "test") for p in task.batch(rng, SAMPLE, split).problems]
    try:
        return any(stage.in_train(problem) for problem in held_out)
    except UsageError:  # the stage has another operation
        return False
