"""Problems of our tasks, for other programs: csv, JSON lines, a task of lm-evaluation-harness."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.evaluation.exact_match import check_reference
from addgpt.evaluation.schema import csv_text, digits_of
from addgpt.task import SPLITS, Graded, HeldOut, Problem, Task

ENOUGH_ROUNDS = 50  # of drawing, from which on it ends where a round finds little that is new
LITTLE = 0.01  # of what a round draws


class Drawn(NamedTuple):
    """A problem, the right answer, and its operand lengths or group, to be scored apart."""

    problem: str
    answer: str
    group: str


def draw(task: Task, split: str, count: int, seed: int = 0) -> list[Drawn]:
    """`count` distinct problems of a split, drawn as training draws. Raises UsageError."""
    if not isinstance(task, Graded):
        raise UsageError(f"task {task.name} has no problems with right answers")
    rng = np.random.default_rng((SPLITS.index(split), seed))
    found: dict[Problem, Problem] = {}
    for rounds in itertools.count(1):
        known, batch = len(found), task.batch(rng, min(count, 4096), split)
        check_reference(task, batch)
        for problem in batch.problems:
            if split != "train" and isinstance(task, HeldOut) and task.in_train(problem):
                raise UsageError(f"these options hold no problems out: {problem} is in training")
            same = task.equivalent(problem) if isinstance(task, HeldOut) else [problem]
            found.setdefault(min(same), problem)
        if len(found) >= count:
            break
        if rounds >= ENOUGH_ROUNDS and len(found) - known < LITTLE * len(batch):
            raise UsageError(
                f"only {len(found):,} distinct problems were found, not {count:,}: lower --n"
            )
    return [_drawn(task, problem) for problem in list(found.values())[:count]]


def digest(drawn: Sequence[Drawn]) -> str:
    """The SHA-256 of the lines `problem=answer`, each ended by a newline."""
    text = "".join(f"{one.problem}={one.answer}\n" for one in drawn)
    return hashlib.sha256(text.encode()).hexdigest()


def as_text(drawn: Sequence[Drawn], form: str) -> str:
    """The problems as `csv` or `jsonl`."""
    rows = [one._asdict() for one in drawn]
    if form == "csv":
        return csv_text(Drawn._fields, rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def lm_eval(drawn: Sequence[Drawn], name: str) -> dict[str, str]:
    """The files of a task of lm-evaluation-harness, by their names.

    The problems are named as they stand below the folder that lm-eval is started in.
    """
    settings = harness_task(name, f"{name}.jsonl", "{{problem}}=", "{{answer}}", "\n")
    settings["metadata"]["sha256"] = digest(drawn)
    return {f"{name}.yaml": as_yaml(settings), f"{name}.jsonl": as_text(drawn, "jsonl")}


def harness_task(name: str, file: str, asked: str, target: str, end: str) -> dict[str, Any]:
    """The settings of a task of lm-evaluation-harness, scored by exact match of all written.

    Args:
        file: of its problems, JSON lines.
        asked, target: templates of a line; nothing stands between them, not even a space.
        end: what ends an answer.
    """
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": file}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": asked,
        "doc_to_target": target,
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {"until": [end], "do_sample": False},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }


def as_yaml(settings: dict[str, Any]) -> str:
    return json.dumps(settings, indent=2) + "\n"  # JSON is YAML


def _drawn(task: Graded, problem: Problem) -> Drawn:
    cell = task.cell_of(problem)
    group = digits_of(*cell[:3]) or cell.stratum
    return Drawn(task.text(problem), str(task.truth(problem)), group)
