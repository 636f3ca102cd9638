"""What a results folder holds, run by run, for the report: damage in one does not hide the rest.

All of it may come from a stranger's folder. What cannot be read becomes one line that says so.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from addgpt.runs import recipe
from addgpt.runs.files import RunError, saved_step
from addgpt.task_lookup import short
from analysis import load

# How foreign files fail: not parsing, or holding something other than what is expected.
DAMAGE = (
    ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError,
    RunError,
)  # fmt: skip
ERRORS = ("op", "problem", "truth", "answer", "kind", "target", "written")
EXAMPLES = ("op", "problem", "truth", "written")
MOST_SETTINGS = 5  # in the title of a group

Progress = Callable[[Iterable, int, str], Iterable]


@dataclass(frozen=True)
class RunData:
    """One run folder. Tables without rows stand for files that are missing or damaged.

    `recipe` holds the settings that runs of a group share, see `addgpt.runs.recipe`; `metrics`,
    `evals` and `losses` are the tables of `analysis.load`; `errors`, `error_counts`, `examples` are
    rows of the files so named, as text; `protocol` is eval.json, flat; `faults` says in one line
    each what could not be read; `changed` is the day its newest file is from; `step` is that of its
    weights, if they are there.
    """

    name: str
    path: Path
    config: dict[str, Any]
    recipe: dict[str, Any]
    metrics: pd.DataFrame
    evals: pd.DataFrame
    losses: pd.DataFrame
    error_counts: pd.DataFrame
    errors: list[dict[str, str]]
    examples: list[dict[str, str]]
    protocol: dict[str, Any]
    faults: tuple[str, ...]
    changed: str
    step: int | None

    def part(self, name: str) -> dict[str, Any]:
        """A part of the config, such as `model`: empty where the file has none."""
        return self.config.get(name) or {}


@dataclass(frozen=True)
class Group:
    """Runs of the same settings, which differ in their seed; `title` tells groups apart."""

    title: str
    runs: tuple[RunData, ...]


def chosen(folder: Path) -> tuple[dict[str, Path], int]:
    """The runs in a folder that are shown, by name, and how many are not.

    Reference runs, in a folder `reference`, are left out, so that your own are not mixed with them;
    they are shown where there are no others, or if their folder is asked for.
    """
    found = load.find(folder)
    own = {name: path for name, path in found.items() if not name.startswith("reference/")}
    return (own, len(found) - len(own)) if own else (found, 0)


def read(folder: Path, progress: Progress) -> tuple[list[RunData], list[str]]:
    """The runs in a folder, by name, and one line for each that cannot be shown at all.

    Reference runs are left out beside others, see `chosen`. Raises ValueError if there is no such
    folder or no run in it.
    """
    (found, _), runs, faults = chosen(folder), [], []
    for name, path in progress(found.items(), len(found), "reading"):
        try:
            runs.append(_run(name, path))
        except DAMAGE as error:
            faults.append(f"{name}: {_line(error)}")
    return runs, faults


def group(runs: list[RunData]) -> list[Group]:
    """Groups of runs that differ only in the seed, in order of task, then of name."""
    together: dict[str, list[RunData]] = {}
    for run in runs:
        together.setdefault(json.dumps(run.recipe, sort_keys=True), []).append(run)
    parts = sorted(together.values(), key=lambda part: str(part[0].config["task"]))
    return [Group(_title(part[0], [other[0] for other in parts]), tuple(part)) for part in parts]


def table(group: Group, name: str) -> pd.DataFrame:
    """A table of all runs of a group: `evals`, `losses` or `error_counts`."""
    return pd.concat([getattr(run, name) for run in group.runs], ignore_index=True)


def _run(name: str, path: Path) -> RunData:
    faults: list[str] = []
    mine = path.resolve().name

    def attempt(read_file: Callable, *arguments: Any, missing: Any) -> Any:
        try:
            return read_file(*arguments)
        except DAMAGE as error:
            faults.append(f"{name}: {_line(error)}")
            return missing

    def own(read_table: Callable) -> pd.DataFrame:
        rows = read_table(path)
        return rows[rows["run"] == mine].assign(run=name)  # not those of runs further down

    nothing, config = pd.DataFrame(), load.read_config(path)
    return RunData(
        name=name,
        path=path,
        config=config,
        recipe=recipe.recipe(load.flat(config)),
        metrics=attempt(own, load.metrics, missing=nothing),
        evals=attempt(own, load.evals, missing=nothing),
        losses=attempt(own, load.losses, missing=nothing),
        error_counts=attempt(own, load.error_counts, missing=nothing),
        errors=attempt(_rows, path / "errors.csv", ERRORS, missing=[]),
        examples=attempt(_rows, path / "examples.csv", EXAMPLES, missing=[]),
        protocol=attempt(_protocol, path / "eval.json", missing={}),
        faults=tuple(dict.fromkeys(faults)),
        changed=_changed(path),
        step=saved_step(path / "model.safetensors"),
    )


def _rows(file: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of a csv file that has at least those columns; none if there is no such file."""
    return list(load.csv_rows(file, columns)) if file.is_file() else []


def _protocol(file: Path) -> dict[str, Any]:
    return load.flat(load.read_json(file, dict)) if file.is_file() else {}


def _changed(path: Path) -> str:
    names = ("config.json", "metrics.jsonl", "eval.csv", "eval.json", "loss.json")
    newest = max((path / name).stat().st_mtime for name in names if (path / name).is_file())
    return datetime.datetime.fromtimestamp(newest, datetime.UTC).date().isoformat()


def _title(run: RunData, others: list[RunData]) -> str:
    """The task, its number of digits, and in what it differs from other groups of the task."""
    mine = run.recipe
    peers = [one.recipe for one in others if one.config["task"] == run.config["task"]]
    told = [key for key in mine if key not in recipe.DERIVED]
    differing = [key for key in told if any(peer.get(key) != mine[key] for peer in peers)]
    keys = [key for key in mine if key.startswith("options.") and key.endswith("digits")]
    keys = list(dict.fromkeys([*keys, *differing]))
    parts = [f"{key.rpartition('.')[2]}={mine[key]}" for key in keys[:MOST_SETTINGS]]
    more = [f"{len(keys) - MOST_SETTINGS} more"] if len(keys) > MOST_SETTINGS else []
    return ", ".join([short(str(run.config["task"])), *parts, *more])


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
