"""Answers made elsewhere: a file of problems, as of `--problems`, with what was `generated`."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.evaluation.external.questions import Asked, Question
from addgpt.evaluation.external.replies import Replies, Reply
from addgpt.evaluation.problem_files.records import Columns, records
from addgpt.evaluation.problem_files.wording import spoken
from addgpt.runs.files import RunError
from addgpt.task import Batch, Graded, Problem

KNOWN = Columns()
GENERATED = "generated"  # the column of what a model wrote


class MadeElsewhere:
    """The answers of a file, by problem; any table or JSON that `--problems` reads will do.

    Raises UsageError, naming the line, for a file without `problem` and `generated`, a problem that
    the task does not know, or two answers to one.
    """

    def __init__(self, path: Path, task: Graded) -> None:
        self.task, self.path = task, path
        self.answers: dict[Problem, str] = {}
        for record in records(path, KNOWN):
            where, row = f"{path}, {record.where}", record.fields
            name = KNOWN.name("problem", row)
            if record.fault or name is None or row.get(GENERATED) is None:
                what = record.fault or f"found: {', '.join(row)}; valid: problem, {GENERATED}"
                raise UsageError(f"{where}: {what}")
            try:
                problem, answer = _problem(task, str(row[name])), str(row[GENERATED])
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from None
            if self.answers.setdefault(problem, answer) != answer:
                raise UsageError(f"{where}: {task.text(problem)} has two answers")
        if not self.answers:
            raise UsageError(f"{path} holds no answers")

    def keep(self, replies: Replies) -> None:
        """Store the answers in a folder. Raises RunError if it holds others."""
        new = []
        for problem, answer in self.answers.items():
            text = self.task.text(problem)
            old = replies.known.get(text)
            if old is None:
                new.append((text, text, Reply(answer)))
            elif old.text != answer:
                raise RunError(
                    f"{replies.path} holds another answer to {text} than {self.path}; "
                    "choose another --out"
                )
        replies.add(new)


def _problem(task: Graded, text: str) -> Problem:
    """The problem of a text, also of an equation or a question in words. Raises UsageError."""
    try:
        return task.parse(text)
    except UsageError:
        with contextlib.suppress(UsageError):
            return task.parse(spoken(text).text)
        raise


def own_cells(task: Graded, replies: Replies) -> Iterator[Asked]:
    """The problems that there are answers to, by cell, in the order of the task's grid.

    Those in no cell of the grid are left out.
    """
    groups: dict[tuple, list[Problem]] = defaultdict(list)
    for text in replies.known:
        problem = task.parse(text)
        groups[task.cell_of(problem)].append(problem)
    for cell in task.cells():
        problems = groups.get(cell, [])
        if problems and cell.stratum == "all":
            batch = _written(task, problems)
            asked = [Question(text, text, 0) for text in map(task.text, batch.problems)]
            yield Asked(cell, "train" if task.seen(cell) else "test", batch, asked)


def _written(task: Graded, problems: list[Problem]) -> Batch:
    """Problems of one cell with their reference completions. Raises UsageError."""
    prompts = np.stack([task.encode(task.prompt(problem)) for problem in problems])
    batch = task.reference(prompts)
    if batch is None:
        raise UsageError(f"task {task.name} does not write out given problems")
    asked = np.fromiter(problems, object, len(problems))
    return replace(batch, problems=asked)
