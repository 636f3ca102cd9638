"""A curriculum: the task's options change as training goes on (Bengio et al. 2009,
doi:10.1145/1553374.1553380).

It is data: `0:carry=0.9 digits=2;500:carry=0.3` trains on sums of two digits, most of them with
long carries, before step 500, and then on those of the run's own task but for `carry`.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from addgpt.config.errors import UsageError
from addgpt.config.settings import unknown, with_settings
from addgpt.task import Task

FORM = "STEP:option=value option=value;STEP:..., steps from 0 rising"


@dataclass(frozen=True)
class Curriculum:
    """From each of `steps` on, the task that problems of training are of."""

    steps: tuple[int, ...]
    tasks: tuple[Task, ...]

    def at(self, step: int) -> Task:
        """The task of a step, which counts from 0."""
        return self.tasks[bisect_right(self.steps, step) - 1]


def curriculum(task: Task, text: str) -> Curriculum:
    """The stages that a text describes; before the first of them, the task is as it is.

    Raises UsageError for what is no such text, and for a stage whose problems the model of `task`
    cannot be given: they are longer, or need other tokens or position ids.
    """
    steps, tasks = [0], [task]
    for stage in filter(None, text.split(";")):
        number, colon, pairs = stage.strip().partition(":")
        step = int(number) if number.isascii() and number.isdecimal() else -1
        options = dict(pair.partition("=")[::2] for pair in pairs.split())
        rises = step > steps[-1] or (step == 0 and tasks == [task])
        if not (colon and options and all(options.values()) and rises):
            raise UsageError(f"curriculum must be {FORM}, not {text!r}")
        for name in options:
            if name not in task.options():
                raise unknown("option", name, task.options(), " in curriculum")
        changed = with_settings(task, options)
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
        "is longer than": stage.longest() > task.longest(),
    }.items():
        if wrong:
            raise UsageError(f"curriculum: stage {text!r} {what} the task that is learned")
