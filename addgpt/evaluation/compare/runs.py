"""Groups of runs: found by name, checked to be asked the same problems, read as stored."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from glob import glob
from pathlib import Path

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.compare.statistics import Marks, Scored, cell_of
from addgpt.evaluation.exact_match import CellResult, evaluation_problems
from addgpt.evaluation.schema import is_longer, read_eval
from addgpt.evaluation.scorecard import (
    Scorecard,
    contaminated,
    file_of,
    graded,
    read_facts,
    score_run,
)
from addgpt.runs import recipe
from addgpt.runs.files import RunError, holds_run, saved_step
from addgpt.runs.run import MODEL, Run, run_path
from addgpt.task import Cell, Graded, Task

CELLS_COMPARED = 100  # cells


def find_runs(names: Iterable[str]) -> list[Run]:
    """The runs of some names: run folders, folders that hold runs, patterns like `results/add-*`,
    `calculator`.

    Each run is there once. Raises ValueError for a pattern that no run matches, RunError for a
    folder that is no run and holds none.
    """
    paths: dict[Path, Path] = {}
    for name in names:
        for path in _paths(name):
            paths.setdefault(path.resolve(), path)
    return [Run(path) for path in paths.values()]


def check_apart(a: Sequence[Run], b: Sequence[Run]) -> None:
    """Raises ValueError if a run is in both groups."""
    mine = {run.path.resolve() for run in a}
    both = [str(run.path) for run in b if run.path.resolve() in mine]
    if both:
        raise UsageError(f"{', '.join(both)}: on both sides of --against")


def repeats(runs: Iterable[Run]) -> list[str]:
    """Warnings about runs that repeat another run; only one of them counts."""
    first: dict[tuple[str, int], Path] = {}
    told = []
    for run in runs:
        same = recipe.key_of(run.config), run.config.seed
        if same in first:
            told.append(f"{run.path} repeats {first[same]}, it is not another seed: leave one out")
        first.setdefault(same, run.path)
    return told


def mixtures(runs: Sequence[Run]) -> list[str]:
    """Warnings about runs that are pooled as seeds of one recipe, but differ in more."""
    recipes = [recipe.recipe_of(run.config) for run in runs]
    told: dict[str, str] = {}
    for name in dict.fromkeys(name for one in recipes for name in one):
        values = dict.fromkeys(str(one.get(name, "none")) for one in recipes)
        told |= {name: f"{name} {' and '.join(values)}"} if len(values) > 1 else {}
    causes = [text for name, text in told.items() if name not in recipe.DERIVED]
    names = ", ".join(str(run.path) for run in runs)
    return [f"not seeds of one recipe ({', '.join(causes or told)}): {names}"] if told else []


def score_together(
    runs: Sequence[Run],
    per_cell: int | None = None,
    split: str = "test",
    seed: int = 0,
    show: Callable = lambda rows, total, what: rows,
    keep: Callable[[Run, CellResult], None] | None = None,
) -> Iterator[tuple[Scorecard, Scored]]:
    """Score runs on the same problems, one after the other; several with marks of each problem.

    `keep` is called with each run and cell, outcomes and their probabilities.

    Raises, before any work, ValueError if they would be asked different problems, and RunError
    naming the first one without a saved model.
    """
    several = len(runs) > 1
    if several:
        check_alike(runs, split=split, seed=seed)
    for run in runs if several else ():
        others = isinstance(run.config.model, ExternalConfig)
        if not others and not (run.path / MODEL).is_file():
            raise RunError(
                f"{run.path} has no {MODEL} to score; with --stored, its eval.csv is read"
            )
    for run in runs:
        marker = Marker(graded(run.task()))
        called = [marker.add] if several else []
        called += [partial(keep, run)] if keep else []

        def on_cell(result: CellResult, called: list[Callable] = called) -> None:
            for one in called:
                one(result)

        card = score_run(run, per_cell, split, seed, on_cell, show, keep is not None)
        marks = marker.marks if several else None
        yield card, _as_scored(run, card.rows, marks)


def check_alike(
    runs: Sequence[Run], per_cell: int = 20, split: str = "test", seed: int = 0
) -> None:
    """Raises ValueError naming what differs, if runs would be asked different problems.

    Problems follow from the task and its options, the settings of the evaluation and the cell. Only
    where tasks or options differ, `per_cell` problems are drawn of each cell, or where cells are
    many, of about `CELLS_COMPARED` of them, and compared as a person types them: so runs of
    different formats or traces go together. Afterwards `statistics.check_same` compares
    all that was scored.
    """
    first, *others = runs
    task = first.task()
    wanted: list[str] | None = None
    for run in others:
        other = run.task()
        if other == task:
            continue
        wanted = wanted or _asked(task, per_cell, split, seed)
        if other.cells() != task.cells() or _asked(other, per_cell, split, seed) != wanted:
            difference = _difference(task, other)
            names = f"{first.path} and {run.path}"
            raise UsageError(f"{names} were not scored on the same problems: {difference}")


def read_scored(run: Run, split: str = "test") -> Scored:
    """A run as its eval.csv says that it was scored. Raises RunError."""
    file = file_of(run.scores, "eval.csv", split)
    if not file.is_file():
        raise RunError(f"{run.scores} has no {file.name}; addgpt eval without --stored writes it")
    rows = read_eval(file)
    found = read_facts(run.scores, split)
    facts = file_of(run.scores, "eval.json", split)
    try:
        evaluation_seed = found["evaluation_seed"] if found else None
        leaked = contaminated(found)
    except (KeyError, AttributeError) as error:
        raise RunError(f"{facts} is damaged: {error}") from None
    if leaked:
        raise RunError(f"{facts}: CONTAMINATED, the scores do not count")
    return _as_scored(run, rows, None, evaluation_seed)


def outdated(run: Run, scored: Scored) -> str:
    """That a stored score is of other weights than the run has now; empty where it is not."""
    step, now = scored.rows[0]["step"], saved_step(run.path / MODEL)
    if None in (now, step) or now == step:
        return ""
    what = f"scored at step {step:,}, and its weights are of step {now:,} now"
    return f"{run.path}: {what}; addgpt eval without --stored scores these"


def _as_scored(
    run: Run, rows: list[dict], marks: dict[Cell, Marks] | None, seed: int | None = None
) -> Scored:
    longer = frozenset(cell_of(row) for row in rows if is_longer(row, run.config.trained_options))
    return Scored(str(run.path), run.config.seed, rows, marks, seed, longer)


class Marker:
    """Keeps what a run got right in the cells that are shown to it, problem by problem."""

    def __init__(self, task: Graded) -> None:
        self.task = task
        self.marks: dict[Cell, Marks] = {}

    def add(self, result: CellResult) -> None:
        asked = "\n".join(map(self.task.text, result.batch.problems))
        digest = hashlib.sha256(asked.encode()).hexdigest()
        self.marks[result.cell] = Marks(result.outcome.answer_correct, digest)


def _paths(name: str) -> list[Path]:
    """The run folders of a name, or the name itself, for opening it to say what is wrong."""
    path = run_path(name)
    if path.is_dir() and not (path / "config.json").exists():
        below = [one for one in sorted(path.iterdir()) if holds_run(one)]
        return [run_path(one) for one in below if not one.name.startswith(".")] or [path]
    if path.exists() or not any(sign in name for sign in "*?["):
        return [path]
    found = [Path(match) for match in sorted(glob(name))]
    found = [run_path(folder) for folder in found if holds_run(folder)]
    if not found:
        raise UsageError(f"no run matches {name}")
    return found


def _asked(task: Task, per_cell: int, split: str, seed: int) -> list[str]:
    """The problems of cells all over the grid; each cell's first one with its right answer."""
    assert isinstance(task, Graded), task
    cells = task.cells()
    texts: list[str] = []
    for cell in cells[:: max(1, len(cells) // CELLS_COMPARED)]:
        batch, _ = evaluation_problems(task, cell, per_cell, split, seed)
        texts += map(task.text, batch.problems)
        texts += [str(task.truth(problem)) for problem in batch.problems[:1]]
    return texts


def _difference(one: Task, other: Task) -> str:
    """How two tasks differ."""
    if type(one) is not type(other):
        return f"tasks {one.name} and {other.name}"
    pairs = [
        (field.name, getattr(one, field.name), getattr(other, field.name))
        for field in dataclasses.fields(one)
    ]
    return ", ".join(f"{name} {a} and {b}" for name, a, b in pairs if a != b)
