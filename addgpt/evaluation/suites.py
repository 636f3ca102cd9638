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

With `generator = "python"` at the top, the numbers of a problem are those of Python's
`random.Random(seed)` and its `randint`, one problem after the other, as other suites draw them.

A suite knows nothing of what a model was trained on. So a part is scored in two groups: problems
that were held out of training, none of whose operations training can have drawn; and the others,
which may have been seen.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from addgpt.calculator.numbers import Rules
from addgpt.calculator.solver import Calculator
from addgpt.config.errors import UsageError
from addgpt.evaluation.schema import csv_text
from addgpt.runs.files import read_toml, write_checked
from addgpt.runs.run import Run
from addgpt.task import Graded, HeldOut, Problem, Task

FOLDER = Path(__file__).parent / "suite_files"
MAX_PROBLEMS = 1_000_000  # of a suite
COLUMNS = tuple(
    "part n answer_correct held_out_n held_out_answer_correct seen_n seen_answer_correct "
    "published".split()
)
REMAINDER = Rules("remainder")  # what tasks ask of a division
GENERATORS: dict[str, Callable[[Any], Any]] = {
    "numpy": np.random.default_rng,
    "python": random.Random,
}
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
        raise UsageError(f"unknown suite {name!r}; valid: {', '.join(suite_names())}, or a file")
    try:
        data = read_toml(path)
        title, parts = data.get("title", name), data["part"]
        how = data.get("generator", "numpy")
        if how not in GENERATORS:
            raise UsageError(f"generator must be one of {', '.join(GENERATORS)}, not {how!r}")
        rng = GENERATORS[how](data.get("seed", seed))
        if sum(entry.get("n", 0) for entry in parts) > MAX_PROBLEMS:
            raise UsageError(f"n of all parts must be in 1..{MAX_PROBLEMS}")
        parts = [_part(entry, rng) for entry in parts]
        if not parts or not all(part.problems for part in parts):
            raise UsageError("a suite needs parts, and a part problems")
        return str(title), parts
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is not a suite: {error}") from None
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from None


def score_suite(calculator: Calculator, parts: Iterable[Part]) -> list[dict[str, Any]]:
    """Exact match on each part, a row of COLUMNS each.

    `n` and `answer_correct` are over all problems; those with `held_out_` or `seen_` before them
    over the problems that training cannot, or may, have drawn. Where the task cannot tell, problems
    count as seen.

    Raises:
        ValueError: a problem is no expression that the model can be asked.
    """
    rows, posed = [], [(part, calculator.pose(part.problems)) for part in parts]
    for part, jobs in posed:  # before the work
        for job in jobs:
            if job.error:
                raise UsageError(f"{part.name}, {job.text}: {job.error}")
    for part, jobs in posed:
        counts = dict.fromkeys(COLUMNS[1:-1], 0)
        for solution in calculator.work_out(jobs):
            if solution.error:
                raise UsageError(f"{part.name}, {solution.text}: {solution.error}")
            group = "seen_" if may_be_seen(calculator.task, solution.asked) else "held_out_"
            for prefix in ("", group):
                counts[f"{prefix}n"] += 1
                counts[f"{prefix}answer_correct"] += solution.correct is True
        rows.append({"part": part.name, **counts, "published": part.published})
    return rows


def score_runs(runs: Iterable[Run], parts: Iterable[Part]) -> Iterator[tuple[Run, list[dict]]]:
    """`score_suite` of each run, with the number of its model's `params` in the rows."""
    parts = list(parts)
    for run in runs:
        model = run.model()
        rows = score_suite(Calculator(model, run.task(), run.name, rules=REMAINDER), parts)
        yield run, [row | {"params": model.parameter_count()} for row in rows]


def may_be_seen(task: Task, problems: Iterable[Problem]) -> bool:
    """Whether training may have drawn one of some problems: those that an expression asks."""
    if not (isinstance(task, Graded) and isinstance(task, HeldOut)):
        return True
    same = (one for problem in problems for one in task.equivalent(problem))
    return any(task.in_train_range(one) and task.in_train(one) is not False for one in same)


def write_suite(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """Write suite-NAME.csv into a folder; returns its path. Raises RunError."""
    file = folder / f"suite-{Path(name).stem}.csv"
    write_checked(folder, {file.name: csv_text(list(rows[0]), rows)})
    return file


def _part(entry: dict[str, Any], rng: np.random.Generator | random.Random) -> Part:
    published = entry.get("published")
    if "problems" in entry:
        return Part(entry["name"], tuple(map(str, entry["problems"])), published)
    count = entry["n"]
    if not (isinstance(count, int) and 1 <= count <= MAX_PROBLEMS):
        raise UsageError(f"n must be in 1..{MAX_PROBLEMS}, not {count!r}")
    names = [key for key in entry if key not in KEYS]
    if isinstance(rng, random.Random):
        rows = [[rng.randint(*entry[key]) for key in names] for _ in range(count)]
        columns = {key: [row[index] for row in rows] for index, key in enumerate(names)}
    else:
        columns = {key: _values(entry[key], count, rng) for key in names}
    problems = (
        _filled(entry["problem"], {name: column[row] for name, column in columns.items()})
        for row in range(count)
    )
    return Part(entry["name"], tuple(problems), published)


def _filled(pattern: str, values: dict[str, Any]) -> str:
    return re.sub(r"{(\w+)}", lambda match: str(values[match[1]]), pattern)


def _below(limit: int, rng: np.random.Generator) -> int:
    """A number in 0..limit - 1, of any size: drawn again until it is small enough."""
    bits = (limit - 1).bit_length()
    while True:
        number = int.from_bytes(rng.bytes(-(-bits // 8)), "little") >> (-bits % 8)
        if number < limit:
            return number


def _values(choice: list, count: int, rng: np.random.Generator) -> list:
    """`count` draws: whole numbers between two ends, or some of several texts."""
    if all(isinstance(item, int) for item in choice) and len(choice) == 2:
        low, high = choice
        if low > high:
            raise UsageError(f"{choice!r}: the first must not be above the second")
        if -(2**63) <= low and high < 2**63:
            return rng.integers(low, high, count, endpoint=True).tolist()
        return [low + _below(high - low + 1, rng) for _ in range(count)]
    if choice and all(isinstance(item, str) for item in choice):
        return [choice[i] for i in rng.integers(0, len(choice), count)]
    raise UsageError(f"{choice!r} is neither [low, high] nor a list of texts")
