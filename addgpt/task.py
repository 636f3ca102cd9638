"""The contract between the library and a task: what is asked, how it is written, what is right."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pkgutil
import typing
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.schema import check_choices, from_dict, parse, setting

__all__ = [
    "Batch", "Cell", "Recipe", "SPLITS", "Slip", "Task", "UsageError",
    "check_choices", "load_task", "setting",
]  # fmt: skip

SPLITS = ("train", "val", "test")


class Cell(NamedTuple):
    """One cell of the evaluation grid: an operation, two operand lengths, a kind of problem."""

    op: str
    len_a: int
    len_b: int
    stratum: str = "all"


class Slip(NamedTuple):
    """How a wrong answer differs from the right one.

    kind    `sign`, `carry` or `borrow` where that alone explains it, else `length` or `digit`
    digit   place value of the lowest wrong digit: "0" for the ones; "" where that says nothing
    """

    kind: str
    digit: str = ""


@dataclass(frozen=True)
class Batch:
    """B problems, written out.

    tokens     (B, T) uint8   prompt, then scratchpad and answer, then the end mark, then padding;
               uint16 where the alphabet has more than 256 characters
    scored     (B, T) bool    the model must predict this token: never in the prompt or padding
    positions  (B, T, L) int16  L >= 0 position-id levels; 0 means "no position"
    cell       (B,) int32     row's index in the task's grid, -1 where there is none
    """

    tokens: np.ndarray
    scored: np.ndarray
    positions: np.ndarray
    cell: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, index: Any) -> Batch:
        """Those rows, cut to the longest of them."""
        scored = self.scored[index]
        used = np.flatnonzero(scored.any(0))
        end = int(used[-1]) + 1 if len(used) else scored.shape[1]
        return Batch(
            self.tokens[index, :end],
            scored[:, :end],
            self.positions[index, :end],
            self.cell[index],
        )

    @property
    def lengths(self) -> np.ndarray:
        """(B,) number of tokens up to and including the last scored one."""
        size = self.scored.shape[1]
        return np.where(self.scored.any(1), size - self.scored[:, ::-1].argmax(1), size)


@dataclass(frozen=True)
class Recipe:
    """Model and training settings known to work for a task: fields of the two configs."""

    model: dict[str, Any]
    train: dict[str, Any]


@dataclass(frozen=True)
class Task(ABC):
    """A frozen dataclass whose fields are its options (`--set digits=3`).

    Token i is `alphabet[i]`; `end` is the character that ends a sequence and pads it. `levels`
    holds the number of position ids on each level (ids run from 0 to that number less one). Running
    text has no end mark: `end` is empty.
    """

    alphabet: ClassVar[str]
    end: ClassVar[str] = "#"
    splits: ClassVar[tuple[str, ...]] = SPLITS  # those it has; the last is what it is scored on
    hidden: ClassVar[str] = ""  # characters that people need not see in what the model writes

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def levels(self) -> tuple[int, ...]:
        return ()

    def settled(self) -> Task:
        """The task with all that it takes from elsewhere filled in, such as a corpus's alphabet.

        A run keeps these options, so that its model can be used where the corpus is not.
        """
        return self

    @abstractmethod
    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        """`size` random problems of a split, all of one cell if given."""

    @abstractmethod
    def longest(self) -> int:
        """The longest sequence the task can write, the end mark included."""

    @abstractmethod
    def recipe(self) -> Recipe:
        """The settings that are known to work for these options."""

    def cells(self) -> list[Cell]:
        """The evaluation grid; empty means that only the loss is reported."""
        return []

    def seen(self, cell: Cell) -> bool:
        """True where a cell is too small to hold problems out, so that all are in train."""
        return False

    def exam(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        """Up to `size` distinct problems of a cell, or all problems of a seen one."""
        return self.batch(rng, size, split, cell)

    def whole(self, split: str, context: int = 0) -> Iterator[Batch]:
        """All of a split of a text, in batches that score each token once.

        Where a text runs on, each scored token but the first ones of the text has at least
        `context` tokens before it. Problems that are drawn have no whole: there are no batches.
        """
        return iter(())

    def whole_size(self, split: str) -> int:
        """How many tokens `whole` scores; 0 where there is no whole."""
        return 0

    def origin(self, text: str) -> str:
        """The split that holds a text which the model wrote, or `new`; empty: not asked."""
        return ""

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        """Position ids of the given tokens and of the slots that follow.

        Args:
            tokens: (B, T), prompts of equal length and whatever has been written after them.
            slots: how many following slots the caller can use.

        Returns:
            (B, T + k, L) int16 with 1 <= k <= slots: as many of the following slots as the given
            tokens already determine. The ids of a slot never depend on the token in it or later.
        """
        return np.zeros((len(tokens), tokens.shape[1] + slots, 0), np.int16)

    def prompt(self, text: str) -> str:
        """What the model is given when a person types `text`. Raises ValueError."""
        return text

    def answer(self, completion: str) -> str:
        """What the person wants back, scratchpad and end mark stripped."""
        return completion.removesuffix(self.end)

    def truth(self, text: str) -> str:
        """The exact right answer to what a person typed, computed by Python."""
        raise ValueError(f"task {self.name} has no right answers")

    def worked_out(self, prompts: np.ndarray) -> Batch | None:
        """A task's own prompts, (B, T) of equal length, with the right work after them.

        Ids are those of `positions`. None where the task does not know the work.
        """
        return None

    def trained_on(self, text: str) -> bool:
        """Whether a problem's operands are within the lengths the task draws."""
        return True

    def covers(self, text: str) -> bool:
        """Whether a problem's operands are of lengths that the task draws or scores."""
        return True

    def problem(self, prompt: str) -> str:
        """What a person would type to get this prompt: the way back from `prompt`."""
        return prompt

    def orders(self, problem: str) -> list[str]:
        """All ways to type a problem that count as one: both orders where operands commute."""
        return [problem]

    def in_train(self, problem: str) -> bool | None:
        """Whether training can draw a problem; None: the task cannot tell.

        To be worked out from the text alone, apart from how `batch` keeps to its split, which it is
        there to check.
        """
        return None

    def lines(self, completion: str) -> list[str]:
        """The completion cut into the lines of its trace and, last, the answer."""
        return [completion]

    def copied(self, problem: str, lines: list[str], line: int, place: int) -> bool:
        """Whether character `place` of a line of a right trace only repeats one before it."""
        return False

    def slip(self, problem: str, answer: str) -> Slip:
        """How a wrong answer differs from the truth. Raises ValueError if it is no answer."""
        return Slip("digit")

    def encode(self, text: str) -> np.ndarray:
        """(T,) token ids, uint8 or uint16. Raises ValueError for what is not in the alphabet."""
        alphabet = self.alphabet
        for char in text:
            if char not in alphabet:
                raise ValueError(f"{char!r} is not in the alphabet of {self.name}")
        kind = np.uint8 if len(alphabet) <= 256 else np.uint16
        return np.array([alphabet.index(char) for char in text], kind)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of (T,) token ids."""
        return "".join(map(self.alphabet.__getitem__, np.asarray(tokens).tolist()))

    @classmethod
    def options(cls) -> dict[str, dataclasses.Field]:
        return {option.name: option for option in dataclasses.fields(cls)}


def task_names() -> list[str]:
    """The tasks there are: one module of `tasks` each."""
    spec = importlib.util.find_spec("tasks")
    ours = Path(__file__).resolve().parents[1] / "tasks"
    found = spec and (spec.origin or ", ".join(spec.submodule_search_locations or []))
    if found and ours.is_dir() and Path(found).resolve() != ours / "__init__.py":
        raise UsageError(
            f"another package is in the way: `tasks` is {found}, not {ours}; "
            "rename it, or keep its folder out of Python's path"
        )
    folders = spec.submodule_search_locations if spec else None
    return sorted(m.name for m in pkgutil.iter_modules(folders or []) if not m.ispkg)


def task_class(name: str) -> type[Task]:
    """The Task that module `tasks.NAME` defines."""
    names = task_names()
    if name not in names:
        raise ValueError(f"unknown task {name!r}; valid: {', '.join(names)}")
    module = importlib.import_module(f"tasks.{name}")
    found = [
        item
        for item in vars(module).values()
        if isinstance(item, type) and issubclass(item, Task) and item.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"tasks/{name}.py must define one Task, not {len(found)}")
    return found[0]


def load_task(name: str, options: dict[str, Any] | None = None) -> Task:
    """The task `name` with these options; text values are parsed by the option's type.

    Raises ValueError naming the valid tasks, options or values.
    """
    cls = task_class(name)
    hints = typing.get_type_hints(cls)
    values = {
        key: parse(key, hints[key], value)
        if isinstance(value, str) and key in hints and hints[key] is not str
        else value
        for key, value in (options or {}).items()
    }
    return from_dict(cls, values)
