"""All that `addgpt eval` finds out about a run, and the files it writes into the run folder.

    eval.csv           exact match of each cell, as counts
    errors.csv         some wrong answers, and why each is wrong (see `addgpt.evaluation.mistakes`)
    error_counts.csv   all wrong answers, counted by cell, kind and place
    examples.csv       some right answers of each operation, with the work that led to them
    eval.json          how, when and where this was scored, and the check for contamination

Another split than test has its name in the names of the files: `eval-val.csv`.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from addgpt.evaluation.contamination import Audit, Contamination
from addgpt.evaluation.exact_match import CellResult
from addgpt.evaluation.mistakes import COUNT_COLUMNS, ERROR_COLUMNS, EXAMPLE_COLUMNS, Tally
from addgpt.evaluation.schema import EVAL_COLUMNS
from addgpt.evaluation.scoring import eval_rows, usual_size
from addgpt.runs.files import (
    RunError,
    csv_text,
    read_checked,
    write_atomically,
    write_checked,
    write_csv,
)
from addgpt.runs.provenance import command_line, versions
from addgpt.runs.run import Run

TOTALS = ("n", "answer_correct", "trace_correct", "unterminated")


@dataclass(frozen=True)
class Scorecard:
    """Rows of eval.csv, the mistakes behind them, and what eval.json says besides."""

    run: Run
    split: str
    rows: list[dict[str, Any]]
    mistakes: Tally
    contamination: Contamination
    facts: dict[str, Any]

    def write(self) -> list[Path]:
        """Write all files, eval.csv first; returns their paths. Raises RunError."""
        tables = {
            "errors": (ERROR_COLUMNS, self.mistakes.sample()),
            "error_counts": (COUNT_COLUMNS, self.mistakes.counts()),
            "examples": (EXAMPLE_COLUMNS, self.mistakes.examples()),
        }
        paths = [write_eval(self.run.path, self.rows, self.split)]
        for name, (columns, rows) in tables.items():
            paths.append(self._path(f"{name}.csv"))
            write_csv(paths[-1], columns, rows)
        paths.append(self._path("eval.json"))
        write_atomically(paths[-1], json.dumps(self.facts, indent=2) + "\n")
        return paths

    def check(self) -> None:
        """Raise RunError if the model was scored on what it may have been trained on."""
        if not self.contamination.clean:
            found = ", ".join(self.contamination.found)
            raise RunError(f"CONTAMINATED, the scores do not count: {self.contamination} ({found})")

    def _path(self, name: str) -> Path:
        return file_of(self.run.path, name, self.split)


def score_run(
    run: Run,
    per_cell: int | None = None,
    split: str = "test",
    seed: int = 0,
    watch: Callable[[CellResult], None] = lambda result: None,
    show: Callable[[Iterable, int, str], Iterable] = lambda rows, total, what: rows,
) -> Scorecard:
    """Score all cells of a run, say why answers are wrong, and check for contamination.

    `watch` is shown each cell's problems and outcomes, `show` tells a person how far it is. Raises
    ValueError if the task has no cells.
    """
    began = time.perf_counter()
    task = run.task()
    tally, audit = Tally(task), Audit(task)

    def see(result: CellResult) -> None:
        tally.add(result)
        audit.add(result)
        watch(result)

    rows = eval_rows(run, per_cell, split, seed, see)
    rows = list(show(rows, len(task.cells()), f"scoring {run.name}"))
    contamination = audit.result(seed)
    facts = {
        "run": run.name,
        "task": task.name,
        "split": split,
        "evaluation_seed": seed,
        "per_cell": per_cell or usual_size(task),
        **{name: sum(row[name] for row in rows) for name in TOTALS},
        "mistakes": tally.kinds(),
        "contamination": {"summary": str(contamination)} | asdict(contamination),
        "seconds": round(time.perf_counter() - began, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": versions(),
    }
    return Scorecard(run, split, rows, tally, contamination, facts)


def write_eval(folder: Path, rows: Iterable[dict[str, Any]], split: str = "test") -> Path:
    """Write eval.csv, or eval-SPLIT.csv for another split than test; returns its path."""
    file = file_of(folder, "eval.csv", split)
    write_checked(file, csv_text(EVAL_COLUMNS, rows))
    return file


def read_findings(folder: Path, split: str = "test") -> tuple[list[dict], dict] | None:
    """Rows of error_counts.csv and what eval.json says; None for runs scored before there were any.

    Raises RunError if they are damaged.
    """
    counted, facts = (file_of(folder, name, split) for name in ("error_counts.csv", "eval.json"))
    if not (counted.is_file() and facts.is_file()):
        return None
    try:
        reader = csv.DictReader(read_checked(counted).splitlines())
        rows = [row | {"n": int(row["n"])} for row in reader]
        found = json.loads(read_checked(facts))
        if reader.fieldnames != COUNT_COLUMNS or not {*TOTALS, "contamination"} <= set(found):
            raise ValueError("something is missing")
        return rows, found | {"contamination": {"summary": ""} | found["contamination"]}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{counted} or {facts.name} is damaged: {error}") from None


def contaminated(facts: dict[str, Any]) -> bool:
    """Whether the check in an eval.json found something; not where there was none."""
    check = facts.get("contamination", {})
    return bool(check.get("drawable") or check.get("met"))


def file_of(folder: Path, name: str, split: str) -> Path:
    """A file of an evaluation: `eval.csv`, or `eval-val.csv` of another split than test."""
    stem, _, ending = name.rpartition(".")
    return folder / (name if split == "test" else f"{stem}-{split}.{ending}")
