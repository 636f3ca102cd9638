"""Which runs a sweep is made of: a small TOML file, in `addgpt/sweep/grids` or anywhere.

`addgpt sweep --help` shows one. Further keys: `cases_of = "features"` has the cases of another file
in the same folder besides its own, `without = ["gelu"]` but for these; `recipe = "NAME"` in a case
has the settings of a published recipe below its own. Folders are seen from where
the command is run. A combination's settings go on top of [set]; without [grid] and [[case]] there
is one: [set] itself.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.settings import as_text
from addgpt.runs.files import read_toml
from addgpt.runs.published import with_recipe

FOLDER = Path(__file__).parent / "grids"
NAME = "[A-Za-z0-9][A-Za-z0-9._+-]*"
MOST = 10_000  # runs
LONGEST_NAME = 200  # characters; file systems end at 255 bytes
KEYS: dict[str, tuple[type, str]] = {  # of the file: type, and what they must be
    "task": (str, "a text"),
    "seeds": (list, "a list of different whole numbers from 0"),
    "out": (str, "a text"),
    "eval": (bool, "true or false"),
    "per_cell": (int, "a whole number from 1"),
    "set": (dict, "a table"),
    "grid": (dict, "a table"),
    "case": (list, "written [[case]]"),
    "cases_of": (str, "the name of a grid in {folder}"),
    "without": (list, "a list of cases of {cases_of}"),
}
CASE: dict[str, tuple[type, str]] = {
    "name": (str, "a text"),
    "recipe": (str, "the name of a published recipe; `addgpt recipes` lists them"),
    "set": (dict, "a table"),
}


@dataclass(frozen=True)
class Combination:
    """Settings that are run with every seed; its runs are in the folders `stem` + seed."""

    name: str
    stem: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Grid:
    """A sweep as its file says it."""

    name: str
    task: str
    seeds: tuple[int, ...]
    out: Path
    score: bool
    per_cell: int | None
    common: dict[str, str]
    combinations: tuple[Combination, ...]


def grid_names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_grid(name: str) -> Grid:
    """A grid by its name or the path of its file. Raises ValueError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"unknown grid {name!r}; valid: {', '.join(grid_names())}, or a toml file")
    try:
        return _grid(path, read_toml(path))
    except ValueError as error:  # of TOML and Unicode too
        raise UsageError(f"{path}: {error}") from None


def _grid(path: Path, data: dict[str, Any]) -> Grid:
    _check_keys(data, KEYS, "the file")
    if "task" not in data:
        raise UsageError("task is missing; `addgpt tasks` lists the tasks")
    seeds, per_cell = data.get("seeds", [0]), data.get("per_cell")
    good = all(type(seed) is int and seed >= 0 for seed in seeds)  # true is an int, too
    if not (good and seeds and len(set(seeds)) == len(seeds)):
        raise _wrong("seeds", seeds)
    if per_cell is not None and per_cell < 1:
        raise _wrong("per_cell", per_cell)
    out = Path(data.get("out", f"results/{path.stem}"))
    if ".." in out.parts:  # a file from a stranger keeps to its place
        raise UsageError(f"out must not contain .., as {str(out)!r} does")
    cases = data.get("case", []) + _cases_of(data, path.parent)
    found = [_case(case, data["task"]) for case in cases]
    combinations = _combinations(data.get("grid", {}), found, MOST // len(seeds))
    common, score = _texts(data.get("set", {})), data.get("eval", True)
    return Grid(path.stem, data["task"], tuple(seeds), out, score, per_cell, common, combinations)


def _cases_of(data: dict[str, Any], folder: Path) -> list[Any]:
    """The cases of another grid, but for those that are not wanted."""
    if "cases_of" not in data and "without" not in data:
        return []
    name, without = data.get("cases_of", ""), data.get("without", [])
    path = folder / f"{name}.toml"
    if not (re.fullmatch(NAME, name) and path.is_file()):
        raise _wrong("cases_of", name, folder=folder)
    other = read_toml(path)
    cases = other.get("case")
    if not (cases and isinstance(cases, list)) or "cases_of" in other:
        raise UsageError(f"cases_of takes the [[case]]s of {name}, which must have its own")
    names = [case.get("name") if isinstance(case, dict) else None for case in cases]
    if not all(name in names for name in without):
        raise _wrong("without", without, cases_of=name)
    return [case for name, case in zip(names, cases, strict=True) if name not in without]


def _combinations(
    grid: dict[str, Any], cases: list[Combination], most: int
) -> tuple[Combination, ...]:
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            raise UsageError(f"{key} in [grid] must be a list of values, not {values!r}")
    if math.prod(map(len, grid.values())) + len(cases) > most:
        raise UsageError(f"the grid has more than {MOST:,} runs")
    found: dict[str, Combination] = {}
    for one in [*_products(grid), *cases] or [Combination("all", "seed=", {})]:
        if found.setdefault(one.stem.lower(), one) is not one:  # for some file systems the same
            raise UsageError(f"{one.name!r} appears twice; each combination needs its own name")
        if len(one.stem) > LONGEST_NAME:
            raise UsageError(f"{one.name!r} is too long for a folder; make it a [[case]] instead")
    return tuple(found.values())


def _products(grid: dict[str, list]) -> Iterator[Combination]:
    """Every combination; keys sorted, so that their order in the file does not change names."""
    keys = sorted(grid)
    for values in itertools.product(*(grid[key] for key in keys)) if grid else ():
        settings = _texts(dict(zip(keys, values, strict=True)))
        plain = (re.sub("[^A-Za-z0-9._-]", "+", text) for text in settings.values())
        name = ",".join(map("=".join, zip(keys, plain, strict=True)))
        yield Combination(name, f"{name},seed=", settings)


def _case(entry: Any, task: str) -> Combination:
    if not isinstance(entry, dict):
        raise UsageError(f"a [[case]] must be a table with name and set, not {entry!r}")
    name = entry.get("name")
    if not (isinstance(name, str) and re.fullmatch(NAME, name)):
        raise UsageError(f"a [[case]] needs a name of letters, digits and . _ + -, not {name!r}")
    _check_keys(entry, CASE, "a [[case]]")
    settings = entry.get("set", {})
    if "recipe" in entry:
        _, settings = with_recipe(entry["recipe"], task, settings)
    return Combination(name, f"{name}-s", _texts(settings))


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as --set would be given them."""
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in settings.items()}
    for key, value in found.items():
        for part in value if isinstance(value, tuple) else [value]:
            if not isinstance(part, str | int | float):
                raise UsageError(f"{key} must be a text, a number, true or false, not {part!r}")
    return {key: as_text(value) for key, value in found.items()}


def _check_keys(data: dict[str, Any], known: dict[str, tuple[type, str]], where: str) -> None:
    for key, value in data.items():
        if key not in known:
            raise UsageError(f"unknown key {key!r} in {where}; valid: {', '.join(known)}")
        if type(value) is not known[key][0] or value == "":
            raise _wrong(key, value, folder="its folder", cases_of=data.get("cases_of"))


def _wrong(key: str, value: Any, **names: Any) -> UsageError:
    return UsageError(f"{key} must be {(KEYS | CASE)[key][1].format(**names)}, not {value!r}")
