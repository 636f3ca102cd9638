"""Problems and answers of a file of your own: learned with the prompt masked, scored by group.

A file that `addgpt eval --problems` reads (docs/problem_files.md), each item with an answer:

    addgpt train --task file --set path=mine.jsonl
    addgpt eval results/file

A stable hash of the problem puts it in train (80 %), val or test (10 % each), so that no problem is
in two of them. Only the answer is learned. Groups (a column `group`, nested keys) are scored apart.
Tabs and newlines inside a text become spaces: a row is problem, tab, answer, newline. A curriculum
can go from short problems to long ones: `curriculum=0:train_up_to=5;500:train_up_to=9`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from addgpt.evaluation.problem_files.records import Columns, records
from addgpt.task import SPLITS, Cell, Recipe, UsageError, setting
from tasks.common.in_out import InOut

MOST_GROUPS = 50  # more are scored as one


@dataclass(frozen=True)
class File(InOut):
    between: ClassVar[str] = "\t"
    end: ClassVar[str] = "\n"

    path: str = setting("", "the file: csv, json, jsonl, ... with problems and answers")
    columns: str = setting("", "its columns, such as problem=Q,answer=A,group=G")
    train_up_to: int = setting(0, "characters of the longest problem to train on (0: all)", low=0)
    block: int = setting(0, "characters of the longest row; filled in from the file", low=0)
    letters: str = setting("", "the characters; filled in from the file when a run is made")
    sha256: str = setting("", "checksum of the file; filled in likewise")

    @property
    def characters(self) -> str:  # type: ignore[override]
        return self.letters or "".join(sorted({c for pair in self.answers.items() for c in
                                               "".join(pair)}))  # fmt: skip

    @cached_property
    def items(self) -> dict[str, tuple[str, str]]:
        """Answer and group of each problem, in the order of the file. Raises UsageError."""
        if not self.path:
            raise UsageError("path is missing: --set path=mine.jsonl")
        path, columns = Path(self.path).expanduser(), Columns.parse(self.columns)
        found: dict[str, tuple[str, str]] = {}
        for record in records(path, columns):
            names = (columns.name("problem", record.fields), columns.name("answer", record.fields))
            problem, answer = (_line(record.fields.get(str(name))) for name in names)
            if record.fault or not problem or not answer:
                columns_found = f"columns: {', '.join(record.fields)}; --set columns names others"
                what = f"no {'answer' if problem else 'problem'}; {columns_found}"
                what = record.fault or what
                raise UsageError(f"{path}, {record.where}: {what}")
            key = columns.name("group", [name for name in record.fields if name not in names])
            group = " ".join([*record.path, *([_line(record.fields[key])] if key else [])])
            if found.setdefault(problem, (answer, group or "all"))[0] != answer:
                raise UsageError(
                    f"{path}, {record.where}: the same problem stands above with another answer"
                )
        if self.sha256 not in ("", _digest(path)):
            raise UsageError(f"{path} has changed since the run began")
        return found

    @cached_property
    def answers(self) -> dict[str, str]:
        return {problem: answer for problem, (answer, _) in self.items.items()}

    @cached_property
    def by_split(self) -> dict[str, list[str]]:
        """The problems of each split. Raises UsageError if one is empty."""
        found: dict[str, list[str]] = {split: [] for split in SPLITS}
        for problem in self.items:
            split = self.split(problem)
            if split != "train" or len(problem) <= (self.train_up_to or len(problem)):
                found[split].append(problem)
        for split, some in found.items():
            if not some:
                short = self.train_up_to and split == "train"
                raise UsageError(
                    f"{self.path} has no problems for {split}; it needs about 100 distinct ones"
                    + f", some of up to train_up_to={self.train_up_to} characters" * bool(short)
                )
        return found

    @cached_property
    def members(self) -> dict[tuple[str, str], list[str]]:
        """The problems of each split and group."""
        found: dict[tuple[str, str], list[str]] = {}
        for split, some in self.by_split.items():
            for problem in some:
                found.setdefault((split, self.group(problem)), []).append(problem)
        return found

    def resolved(self) -> File:
        path = Path(self.path).expanduser().resolve()
        rows = (len(problem) + len(answer) + 2 for problem, answer in self.answers.items())
        facts = {"block": max(rows), "letters": self.characters, "sha256": _digest(path)}
        return replace(self, path=str(path), **facts)

    def draw(self, rng: np.random.Generator) -> str:
        every = list(self.items)
        return every[rng.integers(0, len(every))]

    def problems(self, rng: np.random.Generator, split: str, cell: Cell | None) -> Iterator[str]:
        some = self.members.get((split, cell.stratum), []) if cell else self.by_split[split]
        while some:
            for index in rng.permutation(len(some)):
                yield some[index]

    def answer(self, text: str) -> str:
        if text not in self.answers:
            raise UsageError(f"{text!r} is not in {self.path}: its answer is not known")
        return self.answers[text]

    @cached_property
    def _groups(self) -> tuple[str, ...]:
        every = tuple(dict.fromkeys(group for _, group in self.items.values()))
        return every if len(every) <= MOST_GROUPS else ("all",)

    def groups(self) -> Sequence[str]:
        return self._groups

    def group(self, text: str) -> str:
        group = self.items.get(text, ("", "all"))[1]
        return group if group in self._groups else "all"

    def longest(self) -> int:
        return self.block or max(len(p) + len(a) + 2 for p, a in self.answers.items())

    def recipe(self) -> Recipe:
        model = {"layers": 4, "heads": 4, "width": 128, "position": "rotary"}
        train = {"steps": 2000, "batch_size": 64, "lr": 3e-3, "muon_lr": 0.02, "eval_size": 1000}
        return Recipe(model=model, train=train)


def _line(value: object) -> str:
    """A text on one line, without space around it."""
    return "" if value is None else " ".join(str(value).split())


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
