"""What studies have in common: what a sweep planned, the spread of seeds, tables as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from analysis import load


def gather(
    places: Sequence[str | Path], collect: Callable[[Path], pd.DataFrame], columns: Sequence[str]
) -> pd.DataFrame:
    """The rows of several folders of runs, as `collect` makes them, or of files of such rows.

    Raises ValueError if a folder cannot be used, or a file lacks one of the columns.
    """
    paths = [Path(place) for place in places]
    tables = [read(path, columns) if path.is_file() else collect(path) for path in paths]
    return pd.concat(tables, ignore_index=True)


def read(file: str | Path, columns: Sequence[str]) -> pd.DataFrame:
    """A table that `addgpt study NAME --csv FILE` wrote. Raises ValueError."""
    return load.read_table(file, columns)[list(columns)]


def planned(folder: str | Path) -> pd.DataFrame:
    """The runs of a sweep's folder: `run`, `task`, `case`, `seed`, and whether it is `done`.

    Raises ValueError unless the folder has a sound sweep.json.
    """
    file = Path(folder) / "sweep.json"
    if not file.is_file():
        raise UsageError(f"{folder} is not the folder of a sweep: it has no sweep.json")
    plan = load.read_json(file, dict)
    try:
        rows = [
            (str(row["run"]), str(plan["task"]), str(row["combination"]), int(row["seed"]),
             row["state"] == "done")
            for row in plan["runs"]
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{file} is damaged: {error!r}") from None
    table = pd.DataFrame(rows, columns=["run", "task", "case", "seed", "done"])
    if table.empty:
        raise UsageError(f"{file} has no run")
    if table.duplicated(["case", "seed"]).any():
        raise UsageError(f"{file} is damaged: a case has a seed twice")
    return table


def over_seeds(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per value of `by`: `median`, `worst`, `best` accuracy (shares) of `seeds` runs.

    `n` is the least number of problems that a run was asked. Takes a row per run. Raises UsageError
    where two runs of one seed would count as one run's seeds.
    """
    if "seed" in runs and (twice := runs.duplicated([*by, "seed"])).any():
        first = runs[twice].iloc[0]
        line = ", ".join(str(first[name]) for name in by)
        raise UsageError(f"two runs of seed {first['seed']} would be one line: {line}")
    groups = runs.groupby(list(by), sort=False)
    found = groups["accuracy"].agg(median="median", worst="min", best="max", seeds="count")
    return found.assign(n=groups["n"].min()).reset_index()


def shares(curve: pd.DataFrame, along: str, values: Iterable[Any]) -> list[str]:
    """`median (worst)` in percent for each value of the column `along`; "" where it has none."""
    at = curve.set_index(along)
    return [
        f"{percent(at.loc[value, 'median'], 1)} ({percent(at.loc[value, 'worst'], 1)})"
        if value in at.index
        else ""
        for value in values
    ]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    ruled = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)
