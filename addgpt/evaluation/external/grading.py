"""Replies of an external model as outcomes, cell by cell: what eval.csv is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np

from addgpt.config.external import ExternalConfig
from addgpt.evaluation.contamination import Contamination
from addgpt.evaluation.exact_match import CellResult, Outcome
from addgpt.evaluation.external.made_elsewhere import own_cells
from addgpt.evaluation.external.questions import Asked, asked_cells
from addgpt.evaluation.external.reading import digit_match, length_error, read_reply
from addgpt.evaluation.external.replies import Replies
from addgpt.evaluation.mistakes import Mistake, Tally
from addgpt.evaluation.schema import NUMBERS
from addgpt.runs.files import RunError
from addgpt.runs.run import Run
from addgpt.task import Answer, Cell, Explained, Graded, Problem


@dataclass(frozen=True)
class NotKnown(Contamination):
    """It is not known here what an external model was trained on."""

    drawable: int | None = None
    drawn: int = 0
    met: int = 0

    def __str__(self) -> str:
        return "contamination: not checked; what an external model was trained on is not known here"


class Grader:
    """Judges the kept replies of a run that is an external model."""

    def __init__(self, run: Run, task: Graded) -> None:
        assert isinstance(run.config.model, ExternalConfig), run
        self.run, self.task, self.how = run, task, run.config.model
        self.replies = Replies(run.path)
        self.near: list[dict[str, Any]] = []
        self.own = False  # whether problems are those of a file, not of the evaluation set

    def cells(
        self, cells: Iterable[Cell], per_cell: int, split: str, seed: int
    ) -> Iterator[CellResult]:
        """The outcome of each cell. Raises RunError, before any, if a question has no reply."""
        asked = list(asked_cells(self.task, self.how, cells, per_cell, split, seed))
        missing = sum(q.prompt not in self.replies.known for one in asked for q in one.questions)
        if missing and self.how.source.startswith("answers:"):
            asked, self.own = list(own_cells(self.task, self.replies)), True
            if not asked:
                raise RunError(f"{self.how.source} answers no problem of the task's cells")
        elif missing:
            raise RunError(
                f"{self.run.path} has no reply to {missing:,} of "
                f"{sum(len(one.questions) for one in asked):,} problems: "
                f"addgpt eval {self.how.source} asks them, --stored reads what was scored"
            )
        yield from map(self._judged, asked)

    def tally(self) -> Tally:
        """What counts the mistakes."""
        return Tally(self.task) if self.how.answer == "trace" else ReplyTally(self.task, self.how)

    def run_facts(self) -> dict[str, Any]:
        """What stands in every row of eval.csv; None where it is not known here."""
        known = {"run": self.run.name, "task": self.task.name, "params": self.how.params}
        return dict.fromkeys(NUMBERS) | known

    def facts(self) -> dict[str, Any]:
        """What eval.json says of the replies: how close they are, the tokens they took."""
        n = sum(row["n"] for row in self.near)
        mean = {
            name: sum(row[name] * row["n"] for row in self.near) / max(1, n)
            for name in ("digit_match", "length_error")
        }
        problems = "those of the file" if self.own else "the evaluation set"
        told = {"problems": problems} | mean | self.replies.tokens()
        return {"replies": told, "replies_by_cell": self.near}

    def _judged(self, asked: Asked) -> CellResult:
        batch, replies = asked.batch, [self.replies.known[q.prompt] for q in asked.questions]
        targets = [text for _, text in self.task.texts(batch)]
        right = list(map(self.task.truth, batch.problems))
        given = [
            read_reply(self.task, problem, reply.text, self.how.answer, reply.finished)
            for problem, reply in zip(batch.problems, replies, strict=True)
        ]
        correct = np.array([a == b for a, b in zip(right, given, strict=True)])
        trace = correct
        if self.how.answer == "trace":
            end = self.task.end
            same = (
                reply.text.removesuffix(end) == target.removesuffix(end)
                for reply, target in zip(replies, targets, strict=True)
            )
            trace = correct & np.fromiter(same, bool, len(batch))
        cut = [
            one is None and not reply.finished for one, reply in zip(given, replies, strict=True)
        ]
        texts = dict(enumerate(reply.text for reply in replies))
        wrong, detours = ({row: texts[row] for row in np.flatnonzero(kind).tolist()}
                          for kind in (~correct, correct))  # fmt: skip
        pairs = list(zip(right, given, strict=True))
        self.near.append(
            asked.cell._asdict()
            | {"n": len(batch)}
            | {"digit_match": float(np.mean([digit_match(*pair) for pair in pairs]))}
            | {"length_error": float(np.mean([length_error(*pair) for pair in pairs]))}
        )
        outcome = Outcome(correct, trace, np.array(cut), wrong, detours)
        seen = bool(self.task.seen(asked.cell))
        return CellResult(asked.cell, asked.source, seen, batch, outcome)


class ReplyTally(Tally):
    """Counts the mistakes of replies in which a number is the answer, not a trace."""

    def __init__(self, task: Graded, how: ExternalConfig) -> None:
        super().__init__(task)
        self.how = how

    def found(self, result: CellResult) -> Iterator[Mistake]:
        for row, text in sorted(result.outcome.wrong.items()):
            cut = bool(result.outcome.unterminated[row])
            problem, rule = result.batch.problems[row], self.how.answer
            answer = None if cut else read_reply(self.task, problem, text, rule)
            yield _mistake(self.task, problem, text, answer, cut)

    def written(self, result: CellResult, row: int) -> str:
        return str(self.task.truth(result.batch.problems[row]))


def _mistake(
    task: Graded, problem: Problem, text: str, answer: Answer | None, cut: bool
) -> Mistake:
    target, given = str(task.truth(problem)), "" if answer is None else str(answer)
    pairs = zip_longest(target, given)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), len(target))
    kind, digit = ("unterminated" if cut else "unreadable"), ""
    if answer is not None:
        kind, digit = "answer", ""
        if isinstance(task, Explained):
            kind, digit = task.error_type(problem, answer)
    return Mistake(task.text(problem), target, given, kind, digit, None, place, target, text)
