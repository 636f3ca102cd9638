"""Which runs a sweep is made of: a small TOML file, in `addgpt/sweep/grids` or anywhere.

    task = "add"
    seeds = [0, 1, 2]             # default [0]
    out = "results/formats"       # folder of the runs; default results/NAME-OF-THE-FILE
    eval = true                   # score each run once it is trained (default)
    per_cell = 500                # problems a cell in scoring; default as `addgpt eval`

    [set]                         # settings of all runs, as --set
    digits = 3

    [grid]                        # every combination of these values
    format = ["plain", "reverse"]
    width = [32, 64]

    [[case]]                      # besides them, combinations with a name
    name = "small"
    set = {width = 16}

    cases_of = "features"         # besides them, the cases of another file in the same folder,
    without = ["gelu"]            # but for these

Folders are seen from where the command is run. A combination's settings go on top of [set].
Without [grid] and [[case]] there is one: [set] itself.
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
from addgpt.runs.files import read_toml

FOLDER = Path(__file__).parent / "grids"
KEYS = ("task", "seeds", "out", "eval", "per_cell", "set", "grid", "case", "cases_of", "without")
NAME = "[A-Za-z0-9][A-Za-z0-9._+-]*"
MOST = 10_000  # runs
LONGEST_NAME = 200  # characters; file systems end at 255 bytes


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
        data = read_toml(path)
        if "cases_of" in data or "without" in data:
            own = _typed(data, "case", list, [])
            data["case"] = own + _cases_of(data, path.parent)
        return _grid(path.stem, data)
    except ValueError as error:  # of TOML and Unicode too
        raise UsageError(f"{path}: {error}") from None


def _grid(name: str, data: dict[str, Any]) -> Grid:
    _check_keys(data, KEYS, "the file")
    if "task" not in data:
        raise UsageError("task is missing; `addgpt tasks` lists the tasks")
    per_cell = data.get("per_cell")
    if per_cell is not None and not (_whole(per_cell) and per_cell >= 1):
        raise UsageError(f"per_cell must be a whole number from 1, not {per_cell!r}")
    out = Path(_typed(data, "out", str, f"results/{name}"))
    if ".." in out.parts:  # a file from a stranger keeps to its place
        raise UsageError(f"out must not climb out of a folder by .., as {str(out)!r} does")
    seeds = _seeds(data.get("seeds", [0]))
    return Grid(
        name,
        _typed(data, "task", str, ""),
        seeds,
        out,
        _typed(data, "eval", bool, True),
        per_cell,
        _texts(_typed(data, "set", dict, {})),
        _combinations(data, MOST // len(seeds)),
    )


def _cases_of(data: dict[str, Any], folder: Path) -> list[Any]:
    """The cases of another grid, but for those that are not wanted."""
    name, without = data.get("cases_of"), data.get("without", [])
    if not (isinstance(name, str) and re.fullmatch(NAME, name)):
        raise UsageError(f"cases_of must be the name of a grid in {folder}, not {name!r}")
    path = folder / f"{name}.toml"
    if not path.is_file():
        raise UsageError(f"cases_of must be the name of a grid in {folder}, not {name!r}")
    other = read_toml(path)
    cases = _typed(other, "case", list, [])
    if not cases or "cases_of" in other:
        raise UsageError(f"cases_of takes the [[case]]s of {name}, which must have its own")
    names = [case.get("name") if isinstance(case, dict) else case for case in cases]
    if not (isinstance(without, list) and all(one in names for one in without)):
        raise UsageError(f"without must be a list of cases of {name}, not {without!r}")
    return [case for case, known in zip(cases, names, strict=True) if known not in without]


def _combinations(data: dict[str, Any], most: int) -> tuple[Combination, ...]:
    grid, cases = _typed(data, "grid", dict, {}), _typed(data, "case", list, [])
    for key, values in grid.items():
        if not (isinstance(values, list) and values):
            raise UsageError(f"{key} in [grid] must be a list of values, not {values!r}")
    if math.prod(len(values) for values in grid.values()) + len(cases) > most:
        raise UsageError(f"the grid has more than {MOST:,} runs")
    found = [*_products(grid), *(_case(entry) for entry in cases)]
    found = found or [Combination("all", "seed=", {})]
    stems = set()
    for one in found:
        if one.stem.lower() in stems:  # some file systems take no notice of case
            raise UsageError(f"{one.name!r} is there twice; each combination needs its own name")
        stems.add(one.stem.lower())
        if len(one.stem) > LONGEST_NAME:
            raise UsageError(f"{one.name!r} is too long for a folder; make it a [[case]] instead")
    return tuple(found)


def _products(grid: dict[str, list]) -> Iterator[Combination]:
    """Every combination; keys sorted, so that their order in the file does not change names."""
    if not grid:
        return
    keys = sorted(grid)
    for values in itertools.product(*(grid[key] for key in keys)):
        settings = _texts(dict(zip(keys, values, strict=True)))
        name = ",".join(
            f"{key}={re.sub('[^A-Za-z0-9._-]', '+', text)}" for key, text in settings.items()
        )
        yield Combination(name, f"{name},seed=", settings)


def _case(entry: Any) -> Combination:
    if not isinstance(entry, dict):
        raise UsageError(f"a [[case]] must be a table with name and set, not {entry!r}")
    _check_keys(entry, ("name", "set"), "a [[case]]")
    name = entry.get("name")
    if not (isinstance(name, str) and re.fullmatch(NAME, name)):
        raise UsageError(f"a [[case]] needs a name of letters, digits and . _ + -, not {name!r}")
    return Combination(name, f"{name}-s", _texts(_typed(entry, "set", dict, {})))


def _seeds(seeds: Any) -> tuple[int, ...]:
    whole = isinstance(seeds, list) and all(_whole(seed) and seed >= 0 for seed in seeds)
    if not (whole and seeds and len(set(seeds)) == len(seeds)):
        raise UsageError(f"seeds must be a list of different whole numbers from 0, not {seeds!r}")
    return tuple(seeds)


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    """Settings as --set would be given them."""
    return {key: _text(key, value) for key, value in settings.items()}


def _text(key: str, value: Any) -> str:
    if isinstance(value, list):
        return ",".join(_text(key, item) for item in value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise UsageError(f"{key} must be a text, a number, true or false, not {value!r}")


def _typed(data: dict[str, Any], key: str, kind: type, default: Any) -> Any:
    words = {str: "a text", bool: "true or false", dict: "a table", list: "written [[case]]"}
    value = data.get(key, default)
    if not isinstance(value, kind) or value == "":
        raise UsageError(f"{key} must be {words[kind]}, not {value!r}")
    return value


def _check_keys(data: dict[str, Any], valid: tuple[str, ...], where: str) -> None:
    for key in data:
        if key not in valid:
            raise UsageError(f"unknown key {key!r} in {where}; valid: {', '.join(valid)}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
