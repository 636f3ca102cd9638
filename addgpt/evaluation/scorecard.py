"""Scoring a run: the results of `addgpt eval`, and the files it writes.

    eval.csv           exact match of each cell, as counts
    errors.csv         some wrong answers, and why each is wrong (see `addgpt.evaluation.mistakes`)
    error_counts.csv   all wrong answers, counted by cell, kind and place
    examples.csv       some right answers of each operation, with the work that led to them
    eval.json          how, when and where this was scored, and the check for contamination

Another split than test has its name in the names of the files: `eval-val.csv`. A stored
score of the same checkpoint is kept: one with another evaluation seed is written beside it, to
`eval-seed5.csv` and so on, one on fewer problems to `eval-quick.csv`, which a full score removes.
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.contamination import Audit, Contamination
from addgpt.evaluation.exact_match import CellResult, evaluate_cells
from addgpt.evaluation.external.grading import Grader, NotKnown
from addgpt.evaluation.mistakes import COUNT_COLUMNS, ERROR_COLUMNS, EXAMPLE_COLUMNS, Tally
from addgpt.evaluation.predictions import write_predictions
from addgpt.evaluation.schema import COUNTS, EVAL_COLUMNS, csv_text, read_eval
from addgpt.model.build import Model
from addgpt.runs.files import (
    RunError,
    check_writable,
    read_checked,
    remove,
    write_checked,
)
from addgpt.runs.provenance import command_line, versions
from addgpt.runs.run import CONFIG, Run
from addgpt.task import Graded, Task

QUICK = "-quick"  # ends the names of files with a score on fewer problems
CHECKPOINT = ("step", "examples", "seconds")  # columns that say which checkpoint was scored


@dataclass(frozen=True)
class Scorecard:
    """Rows of eval.csv, the mistakes behind them, and what eval.json says besides."""

    run: Run
    split: str
    rows: list[dict[str, Any]]
    mistakes: Tally
    contamination: Contamination
    facts: dict[str, Any]

    def write(self, folder: Path | None = None) -> list[Path]:
        """Write all files into the run folder or another one, eval.csv first; returns their paths.

        They have `-quick` or `-seedN` in their names where another score of this checkpoint is
        stored there that stays. Raises RunError.
        """
        folder = folder or self.run.path
        suffix, _ = self._beside(folder)
        contents = {
            "eval.csv": csv_text(EVAL_COLUMNS, self.rows),
            "errors.csv": csv_text(ERROR_COLUMNS, self.mistakes.sample()),
            "error_counts.csv": csv_text(COUNT_COLUMNS, self.mistakes.counts()),
            "examples.csv": csv_text(EXAMPLE_COLUMNS, self.mistakes.examples()),
            "eval.json": json.dumps(self.facts, indent=2) + "\n",
        }
        paths = [file_of(folder, name, self.split, suffix) for name in contents]
        names = (path.name for path in paths)
        write_checked(folder, dict(zip(names, contents.values(), strict=True)))
        if not suffix.endswith(QUICK):
            remove(*(file_of(folder, name, self.split, suffix + QUICK) for name in contents))
        return paths

    def write_and_tell(self, folder: Path) -> str:
        """`write` into a folder; returns where, and what becomes of another score stored there."""
        _, note = self._beside(folder)
        return f"{self.write(folder)[0]}{note}"

    def check(self) -> None:
        """Raise RunError if the model was scored on what it may have been trained on."""
        check_clean(self.contamination)

    def _beside(self, folder: Path) -> tuple[str, str]:
        """What the names of the files end with, so that what is stored stays; a note about it."""
        suffix, note = "", ""
        stored, seed = self._stored(folder)
        if self._same(stored) and seed not in (None, self.facts["evaluation_seed"]):
            suffix = f"-seed{self.facts['evaluation_seed']}"
            note = f" (the stored score, of --seed {seed}, stays)"
            stored, _ = self._stored(folder, suffix)
        fewer = _largest(self.rows) < _largest(stored)
        if fewer or {*map(_cell, stored)} - {*map(_cell, self.rows)}:
            if self._same(stored):
                return suffix + QUICK, " (a stored score on more problems stays)"
            note = f" (in place of a score on more problems, of step {stored[0]['step']})"
        return suffix, note

    def _stored(self, folder: Path, suffix: str = "") -> tuple[list[dict[str, Any]], int | None]:
        """The rows of a stored score and its evaluation seed, if there are any."""
        try:
            rows = read_eval(file_of(folder, "eval.csv", self.split, suffix))
            return rows, read_facts(folder, self.split, suffix).get("evaluation_seed")
        except RunError:  # none, or damaged: it has nothing to lose
            return [], None

    def _same(self, stored: list[dict[str, Any]]) -> bool:
        """Whether rows are of the same checkpoint."""
        return bool(stored) and all(stored[0][name] == self.rows[0][name] for name in CHECKPOINT)


def score_run(
    run: Run,
    per_cell: int | None = None,
    split: str = "test",
    seed: int = 0,
    on_cell: Callable[[CellResult], None] = lambda result: None,
    show: Callable[[Iterable, int, str], Iterable] = lambda rows, total, what: rows,
    chances: bool = False,
) -> Scorecard:
    """Score all cells of a run, say why answers are wrong, and check for contamination.

    Args:
        per_cell: problems of each cell; `usual_size` by default.
        seed: of the problems.
        on_cell: called with each cell's problems and outcomes.
        show: passes the cells on and shows progress.
        chances: whether `on_cell` needs the probabilities of what the model wrote, if it is ours.

    Raises:
        ValueError: the task has no cells.
        RunError: the run has no sound model, or is of others and lacks replies.
    """
    began = time.perf_counter()
    task = graded(run.task())
    cells, size = task.cells(), per_cell or usual_size(task)
    others = Grader(run, task) if isinstance(run.config.model, ExternalConfig) else None
    if others is None:
        model, progress = run.load()
        facts, tally = run_facts(run, model, progress), Tally(task)
        results = evaluate_cells(model, task, cells, size, split, seed, chances)
    else:
        facts, tally = others.run_facts(), others.tally()
        results = others.cells(cells, size, split, seed)
    audit, rows = Audit(task), []
    for result in show(results, len(cells), f"scoring {run.name}"):
        tally.add(result)
        audit.add(result)
        on_cell(result)
        rows.append(facts | result.row())
    contamination = NotKnown(len(audit.problems)) if others else audit.result(seed)
    found = {
        "run": run.name,
        "task": task.name,
        "split": split,
        "evaluation_seed": seed,
        "per_cell": size,
        **{name: sum(row[name] for row in rows) for name in COUNTS},
        "mistakes": tally.kinds(),
        "contamination": {"summary": str(contamination)} | asdict(contamination),
        "seconds": round(time.perf_counter() - began, 1),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "versions": versions(),
        **(others.facts() if others else {}),
    }
    return Scorecard(run, split, rows, tally, contamination, found)


def check_clean(contamination: Contamination) -> None:
    """Raise RunError if a model was scored on what it may have been trained on."""
    if not contamination.clean:
        found = ", ".join(contamination.found)
        raise RunError(f"CONTAMINATED, the scores do not count: {contamination} ({found})")


def run_facts(run: Run, model: Model, progress: dict[str, Any]) -> dict[str, Any]:
    """What stands in every row of scores of a run: which it is, and how long it was trained."""
    return {
        "run": run.name,
        "task": run.task().name,
        "seed": run.config.seed,
        "params": model.parameter_count(),
        **{key: progress[key] for key in CHECKPOINT},
    }


def graded(task: Task) -> Graded:
    """The task itself. Raises ValueError if it has no cells to score."""
    if not isinstance(task, Graded) or not task.cells():
        raise UsageError(f"task {task.name} has no cells to score; its loss is in metrics.jsonl")
    return task


def usual_size(task: Task) -> int:
    """Problems a cell by default: 1,000, fewer where the task has more than 100 cells."""
    return max(100, min(1000, 100_000 // max(1, len(task.cells()))))


class Store:
    """Where the scores of runs are stored: in their folders, or below another one.

    Those of the shipped run go to the results of whoever scores it.

    Folders are checked before the work; if one cannot be written to, a warning says so and nothing
    is stored.

    Args:
        out: the folder for the scores of one run; of several runs, a folder each in it, with the
            names of the folders above where theirs are the same.
        tell: called with each line for the user.
    """

    def __init__(self, runs: Sequence[Run], out: Path | None, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self.folders: dict[Path, Path] = {}
        self.failure: RunError | None = None
        for run, name in zip(runs, _names(runs), strict=True):
            folder = run.scores if out is None else out / name if len(runs) > 1 else out
            try:
                check_writable(folder)
                if run.path != run.scores == folder and _others(run, folder):
                    raise RunError(f"{folder} holds another run")
                self.folders[run.path] = folder
            except RunError as error:
                tell(f"{error}; scores are shown and not stored: choose an --out")

    def put(self, run: Run, write: Callable[[Path], Path | str], line: str = "") -> None:
        """Have `write` store the scores of a run in its folder, and report where."""
        try:
            if folder := self.folders.get(run.path):
                if run.path != run.scores == folder:  # figures and reports read the settings there
                    write_checked(folder, {CONFIG: (run.path / CONFIG).read_bytes()})
                line += f"written: {write(folder)}"
        except RunError as error:
            self.failure = error
        if line:
            self.tell(line.removesuffix("; "))

    def predict(self, path: Path, rows: list[dict[str, Any]]) -> None:
        """Write predictions into a file, and report where."""
        try:
            write_predictions(path, rows)
            self.tell(f"written: {path}")
        except RunError as error:
            self.failure = error

    def close(self) -> None:
        """Raise what kept scores from being stored, once they are shown."""
        if self.failure:
            raise self.failure


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: that of its folder, as many of those above before it as it takes, and a
    number where even these are the same, joined."""
    parts, depth = [run.path.resolve().parts[1:] for run in runs], 1
    while len({some[-depth:] for some in parts}) < len({*parts}):
        depth += 1
    names = ["-".join(some[-depth:]) for some in parts]
    before = [names[:place].count(name) for place, name in enumerate(names)]
    return [f"{name}-{n + 1}" if n else name for name, n in zip(names, before, strict=True)]


def _others(run: Run, folder: Path) -> bool:
    """Whether a folder holds another run than the one whose scores are to go there."""
    config = folder / CONFIG
    return config.exists() and config.read_bytes() != (run.path / CONFIG).read_bytes()


def read_findings(folder: Path, split: str = "test") -> tuple[list[dict], dict] | None:
    """Rows of error_counts.csv and what eval.json says; None for runs scored before there were any.

    Raises RunError if they are damaged.
    """
    counted, found = file_of(folder, "error_counts.csv", split), read_facts(folder, split)
    if not (counted.is_file() and found):
        return None
    try:
        reader = csv.DictReader(read_checked(counted).splitlines())
        rows = [row | {"n": int(row["n"])} for row in reader]
        if reader.fieldnames != COUNT_COLUMNS or not {*COUNTS, "contamination"} <= set(found):
            raise ValueError("something is missing")
        return rows, found | {"contamination": {"summary": ""} | found["contamination"]}
    except (ValueError, KeyError, TypeError, csv.Error) as error:
        raise RunError(f"{counted} or eval.json is damaged: {error}") from None


def read_facts(folder: Path, split: str = "test", suffix: str = "") -> dict[str, Any]:
    """What eval.json says; nothing where there is none. Raises RunError if it is damaged."""
    file = file_of(folder, "eval.json", split, suffix)
    try:
        return dict(json.loads(read_checked(file))) if file.is_file() else {}
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{file} is damaged: {error}") from None


def contaminated(facts: dict[str, Any]) -> bool:
    """Whether the check in an eval.json found something; False where there was no check."""
    check = facts.get("contamination", {})
    return bool(check.get("drawable") or check.get("met"))


def file_of(folder: Path, name: str, split: str, suffix: str = "") -> Path:
    """A file of an evaluation: `eval.csv`, or `eval-val.csv` of another split than test."""
    stem, _, ending = name.rpartition(".")
    stem += "" if split == "test" else f"-{split}"
    return folder / f"{stem}{suffix}.{ending}"


def _largest(rows: Iterable[dict[str, Any]]) -> int:
    """Problems of the fullest held-out cell; small ones hold all that there are."""
    return max((row["n"] for row in rows if not row["seen"]), default=0)


def _cell(row: dict[str, Any]) -> tuple:
    return tuple(row[name] for name in ("op", "len_a", "len_b", "stratum"))
