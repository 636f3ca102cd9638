"""Every problem with what a model wrote about it: `addgpt eval --predictions FILE`."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.exact_match import CellResult, answer_of
from addgpt.evaluation.external.reading import read_reply
from addgpt.evaluation.schema import csv_text
from addgpt.runs.files import check_writable, write_atomically
from addgpt.runs.run import Run
from addgpt.task import Cell, Graded

COLUMNS = ("run", *Cell._fields, "problem", "answer", "generated", "correct", "completion",
           "confidence")  # fmt: skip
ENDINGS = (".csv", ".jsonl")


def check_file(path: Path) -> None:
    """Raise UsageError or RunError, before the work, unless predictions can go to a file."""
    if path.suffix not in ENDINGS:
        raise UsageError(f"--predictions takes a .csv or .jsonl file, not {path}")
    check_writable(path.parent)


def predictions(run: Run, result: CellResult) -> Iterable[dict[str, Any]]:
    """A row for each problem of a cell.

    `answer` is the right one, `generated` the model's, empty where it wrote none that can be read;
    `completion` all that it wrote; `confidence` the probability that it gave to just that, as a
    share of the most that its label smoothing in training leaves, None for an external model.
    """
    task, outcome, how = run.task(), result.outcome, run.config.model
    assert isinstance(task, Graded), task
    smoothing = run.config.train.label_smoothing
    surest = 1 - smoothing + smoothing / len(task.alphabet)
    for row, (_, target) in enumerate(task.texts(result.batch)):
        problem = result.batch.problems[row]
        written = outcome.wrong.get(row, outcome.detours.get(row, target))
        answer = None
        if not outcome.unterminated[row]:
            answer = (
                read_reply(task, problem, written, how.answer)
                if isinstance(how, ExternalConfig)
                else answer_of(task, problem, written)
            )
        sure = None
        if outcome.chances is not None:
            surplus = outcome.chances[row] - len(written) * math.log(surest)
            sure = round(math.exp(min(0.0, surplus)), 6)
        yield {
            "run": run.name,
            **result.cell._asdict(),
            "problem": task.text(problem),
            "answer": str(task.truth(problem)),
            "generated": "" if answer is None else str(answer),
            "correct": bool(outcome.answer_correct[row]),
            "completion": written,
            "confidence": sure,
        }


def write_predictions(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as csv or as JSON lines, as the name of the file says. Raises RunError."""
    if path.suffix == ".jsonl":
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        text = csv_text(list(rows[0]) if rows else COLUMNS, rows)
    write_atomically(path, text)
