"""Published recipes: settings of a task, a model and its training, by name.

Each is a small TOML file, `addgpt/config/recipes/NAME.toml`: what it is and where it comes from,
and three tables of settings, which go on top of the task's own recipe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addgpt import config
from addgpt.config.errors import UsageError
from addgpt.config.settings import from_dict, unknown
from addgpt.runs.files import read_toml

FOLDER = Path(config.__file__).parent / "recipes"
GROUPS = ("options", "model", "train")


@dataclass(frozen=True)
class Example:
    """A row as the paper shows it, and the same problem as this recipe writes it."""

    paper: str
    problem: str
    here: str


@dataclass(frozen=True)
class Published:
    """A recipe as its file says it.

    about    what it is, in a line
    paper    author, year, arXiv id or address
    reports  what the paper found
    differs  what is not as in the paper
    task     that the settings are for
    flags    of `addgpt train`, without which it does not get there
    """

    about: str
    paper: str
    reports: str
    differs: str
    task: str
    name: str = ""
    flags: str = ""
    example: Example | None = None
    options: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings, as `addgpt.runs.resolve.configure` takes them."""
        return {key: value for group in GROUPS for key, value in getattr(self, group).items()}


def recipe_names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_recipe(name: str) -> Published:
    """The recipe of that name. Raises UsageError, naming the valid ones."""
    if name not in recipe_names():
        raise unknown("recipe", name, recipe_names())
    try:
        return from_dict(Published, read_toml(FOLDER / f"{name}.toml") | {"name": name})
    except ValueError as error:  # of TOML, too
        raise UsageError(f"{name}.toml: {error}") from None


def with_recipe(
    name: str, task: str | None, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The task of a recipe, and its settings with a person's own on top. Raises UsageError."""
    recipe = load_recipe(name)
    if task not in (None, recipe.task):
        raise UsageError(f"recipe {name} is of task {recipe.task}, not {task}")
    return recipe.task, {**recipe.settings, **settings}
