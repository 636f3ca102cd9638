"""Which runs a sweep is made of: a small TOML file, in `addgpt/sweep/grids` or anywhere.

`addgpt sweep --help` shows one. Folders are seen from where the command is run. A combination's
settings go on top of [set]; without [grid] and [[case]] there is one: [set] itself.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.settings import as_text, check_settings, from_dict, setting, unknown
from addgpt.runs.files import read_toml
from addgpt.runs.published import with_recipe

FOLDER = Path(__file__).parent / "grids"
MOST = 10_000  # runs
LONGEST_NAME = 200  # characters; file systems end at 255 bytes


@dataclass(frozen=True)
class Combination:
    """Settings that are run with every seed; its runs are in the folders `stem` + seed."""

    name: str
    stem: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A [[case]]: its settings go on top of those of a published recipe, if it names one."""

    name: str
    recipe: str = ""
    set: dict[str, Any] = field(default_factory=dict)

    def combination(self, task: str) -> Combination:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9._+-]*", self.name):
            raise UsageError(f"a case is named by letters, digits and . _ + -, not {self.name!r}")
        try:
            settings = with_recipe(self.recipe, task, self.set)[1] if self.recipe else self.set
        except ValueError as error:
            raise UsageError(f"case {self.name}: {error}") from None
        return Combination(self.name, f"{self.name}-s", _texts(settings))


@dataclass(frozen=True)
class Grid:
    """A sweep as its file says it.

    `cases_of` is a grid in the same folder whose cases are taken, too, but for those `without`.
    """

    name: str
    task: str = ""
    seeds: tuple[int, ...] = setting((0,), "of the runs of each combination", low=0, high=2**63 - 1)
    out: str = ""
    eval: bool = True
    per_cell: int | None = setting(None, "problems a cell in scoring", low=1)
    set: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)
    case: tuple[Case, ...] = ()
    cases_of: str = ""
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.task:
            raise UsageError("task is missing; `addgpt tasks` lists the tasks")
        if not 0 < len(self.seeds) == len({*self.seeds}):
            raise UsageError(f"seeds must be different whole numbers, not {[*self.seeds]}")
        # A stranger's file writes nowhere else.
        if ".." in Path(self.out).parts or "\0" in self.out:
            raise UsageError(f"out must be a folder's name without .., not {self.out!r}")
        for key, values in self.grid.items():
            if not (isinstance(values, list) and values):
                raise UsageError(f"{key} in [grid] must be a list of values, not {values!r}")

    @property
    def folder(self) -> Path:
        """Where its runs go."""
        return Path(self.out or f"results/{self.name}")

    @property
    def common(self) -> dict[str, Any]:
        """The settings of all runs."""
        return _texts(self.set)

    @cached_property
    def combinations(self) -> tuple[Combination, ...]:
        """Raises ValueError if there are too many, or two in the same place."""
        runs = (math.prod(map(len, self.grid.values())) + len(self.case)) * len(self.seeds)
        if runs > MOST:
            raise UsageError(f"the grid has more than {MOST:,} runs")
        found: dict[str, Combination] = {}
        cases = (case.combination(self.task) for case in self.case)
        for one in [*_products(self.grid), *cases] or [Combination("all", "seed=", {})]:
            if found.setdefault(one.stem.lower(), one) is not one:  # for some file systems the same
                raise UsageError(f"{one.name!r} appears twice; each combination needs its own name")
            if len(one.stem) > LONGEST_NAME:
                raise UsageError(f"{one.name!r} is too long for a folder; make it a [[case]]")
        return tuple(found.values())


def grid_names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_grid(name: str) -> Grid:
    """A grid by its name or the path of its file. Raises ValueError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        what = "is no file NAME.toml" if Path(name).exists() else "is not there"
        raise UsageError(f"{name} {what}, nor a grid that comes along: {', '.join(grid_names())}")
    try:
        grid = _read(path)
        if grid.without and not grid.cases_of:
            raise UsageError("without leaves out cases of another grid; cases_of must name it")
        if grid.cases_of:
            grid = replace(grid, case=grid.case + _cases_of(grid, path.parent))
        assert grid.combinations  # or it says what is wrong with them
    except ValueError as error:  # of TOML and Unicode too
        raise UsageError(f"{path}: {error}") from None
    return grid


def _read(path: Path) -> Grid:
    data = read_toml(path)
    if "name" in data:
        raise UsageError("name is not a key: the name of a grid is that of its file")
    return from_dict(Grid, data | {"name": path.stem})


def _cases_of(grid: Grid, folder: Path) -> tuple[Case, ...]:
    """The cases of another grid, but for those that are not wanted."""
    others = {file.stem: file for file in folder.glob("*.toml") if file.is_file()}
    if grid.cases_of not in others:
        raise unknown("grid", grid.cases_of, others, f" in cases_of (the files in {folder})")
    other = _read(others[grid.cases_of])
    if other.cases_of or not other.case:
        raise UsageError(f"cases_of takes the [[case]]s of {other.name}, which must have its own")
    names = [case.name for case in other.case]
    for name in set(grid.without) - {*names}:
        raise unknown("case", name, names, f" of {other.name} in without")
    return tuple(case for case in other.case if case.name not in grid.without)


def _products(grid: dict[str, Any]) -> Iterator[Combination]:
    """Every combination; keys sorted, so that their order in the file does not change names."""
    keys = sorted(grid)
    for values in itertools.product(*(grid[key] for key in keys)) if grid else ():
        texts = [as_text(value) for value in values]
        plain = [re.sub("[^A-Za-z0-9._-]", "+", text) for text in texts]
        name, stem = (",".join(map("=".join, zip(keys, t, strict=True))) for t in (texts, plain))
        yield Combination(name, f"{stem},seed=", _texts(dict(zip(keys, values, strict=True))))


def _texts(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as --set takes them, but for lists: `[1]` is no way to write 1."""
    return {k: v if isinstance(v, list) else as_text(v) for k, v in settings.items()}
