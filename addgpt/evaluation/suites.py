"""Named sets of problems: a small TOML file each in `addgpt/evaluation/suite_files`, or anywhere.

A suite has parts; a part draws `n` problems from a pattern, and says what others scored on it:

    title = "..."
    [[part]]
    name = "2D+"
    problem = "{a}+{b}"
    n = 2000
    a = [0, 99]                    # uniform, both ends included
    b = [0, 99]
    op = ["+", "-", "*"]           # or one of some texts
    published = 100.0              # per cent
    problems = ["0+0", "1+1"]      # fixed ones, instead of a pattern
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addgpt.runs.files import read_toml

FOLDER = Path(__file__).parent / "suite_files"
MOST = 1_000_000  # problems in a part
KEYS = ("name", "problem", "problems", "n", "published")


@dataclass(frozen=True)
class Part:
    """Some problems of a suite, and the exact match that was published for them, in per cent."""

    name: str
    problems: tuple[str, ...]
    published: float | None


def suite_names() -> list[str]:
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_suite(name: str, seed: int = 0) -> tuple[str, list[Part]]:
    """Title and parts of a suite, by its name or the path of its file. Raises ValueError."""
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise ValueError(f"unknown suite {name!r}; valid: {', '.join(suite_names())}, or a file")
    try:
        data = read_toml(path)
        title, parts = data.get("title", name), data["part"]
        rng = np.random.default_rng(data.get("seed", seed))
        if sum(entry.get("n", 0) for entry in parts) > MOST:
            raise ValueError(f"n of all parts must be in 1..{MOST}")
        parts = [_part(entry, rng) for entry in parts]
        if not parts or not all(part.problems for part in parts):
            raise ValueError("a suite needs parts, and a part problems")
        return str(title), parts
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a suite: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _part(entry: dict[str, Any], rng: np.random.Generator) -> Part:
    published = entry.get("published")
    if "problems" in entry:
        return Part(entry["name"], tuple(map(str, entry["problems"])), published)
    count = entry["n"]
    if not (isinstance(count, int) and 1 <= count <= MOST):
        raise ValueError(f"n must be in 1..{MOST}, not {count!r}")
    names = [key for key in entry if key not in KEYS]
    columns = {key: _values(entry[key], count, rng) for key in names}
    problems = (
        re.sub(r"{(\w+)}", lambda match, row=row: str(columns[match[1]][row]), entry["problem"])
        for row in range(count)
    )
    return Part(entry["name"], tuple(problems), published)


def _values(choice: list, count: int, rng: np.random.Generator) -> list:
    """`count` draws: whole numbers between two ends, or some of several texts."""
    if all(isinstance(item, int) for item in choice) and len(choice) == 2:
        low, high = choice
        return rng.integers(low, high, count, endpoint=True).tolist()
    if choice and all(isinstance(item, str) for item in choice):
        return [choice[i] for i in rng.integers(0, len(choice), count)]
    raise ValueError(f"{choice!r} is neither [low, high] nor a list of texts")
