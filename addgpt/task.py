"""The contract between the library and a task: its problems, their text, the right answers.

Training needs a `Task` alone, and reports its loss. What a task can do besides is a class of its
own, named for what becomes possible: a `Graded` task is scored by exact match, the problems of a
`HeldOut` one are checked against those of training, the work of an `Explained` one is shown and its
errors are classified. A `TextTask` is scored by its loss on a whole text.

A task refuses what it cannot do with a UsageError of one line. Any other exception is not caught:
it is a bug, and is reported with its file and line.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from addgpt.batch import Batch
from addgpt.config.errors import UsageError, quoted
from addgpt.config.schema import check_settings, setting

__all__ = [
    "Answer", "Batch", "Cell", "ErrorType", "Explained", "Graded", "HeldOut", "Place", "Problem",
    "Recipe", "Row", "SPLITS", "Task", "TextTask", "UsageError", "setting",
]  # fmt: skip

SPLITS = ("train", "val", "test")
PROBLEM = re.compile(r"\s*([0-9]+)\s*([-+*/])\s*([0-9]+)\s*=?\s*", re.ASCII)
MAX_CHARACTERS = 4000  # of a problem or a number; Python converts no longer text to a number
MAX_DIGITS = 1000  # of an operand
TOO_LARGE = 10**MAX_DIGITS


class Problem(NamedTuple):
    """An operation on two non-negative integers, or the sum of more. As text, `12+34`.

    In a task on text the only operand is the text itself.
    """

    op: str
    operands: tuple[Any, ...]

    def __str__(self) -> str:
        return self.op.join(map(str, self.operands))


class Answer(NamedTuple):
    """An integer; of a quotient, also the remainder. As text, `3` or `3 remainder 2`.

    In a task on text it is a text.
    """

    whole: Any
    rest: int = 0

    def __str__(self) -> str:
        return f"{self.whole} remainder {self.rest}" if self.rest else str(self.whole)


class Cell(NamedTuple):
    """One cell of the evaluation grid: an operation, two operand lengths, a stratum.

    Lengths are in decimal digits; for an operation on one operand, `len_b` is 0. For sums of many
    numbers, `len_a` is how many there are and `len_b` the length of the longest. Where cells are
    not told apart by length, lengths are 0 and the stratum says which it is: `all` if there is only
    one.
    """

    op: str
    len_a: int
    len_b: int
    stratum: str = "all"


class ErrorType(NamedTuple):
    """How a wrong answer differs from the right one.

    kind    `sign`, `carry` or `borrow` where that alone explains it, else `length` or `digit`
    digit   place value of the lowest wrong digit: "0" for the ones; "" where there is none to name
    """

    kind: str
    digit: str = ""


class Row(NamedTuple):
    """A row of a trace: what it is, `product` or `answer`, and its characters."""

    label: str
    text: str


class Place(NamedTuple):
    """Where a token stands on paper: rows from the top, columns to the right; `small`: a mark."""

    row: int
    column: int
    small: bool = False


@dataclass(frozen=True)
class Recipe:
    """Model and training settings known to work for a task: fields of the two configs."""

    model: dict[str, Any]
    train: dict[str, Any]


@dataclass(frozen=True)
class Task(ABC):
    """What training needs. A frozen dataclass; its fields are its options (`--set digits=3`).

    Token i is `alphabet[i]`; `end` is the character that ends a sequence and pads it. `levels`
    holds the number of position ids on each level (ids run from 0 to that number less one). Running
    text has no end mark: `end` is empty.
    """

    alphabet: ClassVar[str]
    end: ClassVar[str] = "#"
    splits: ClassVar[tuple[str, ...]] = SPLITS  # those it has; the last is what it is scored on

    def __post_init__(self) -> None:
        """Check each option against what its field declares; subclasses then check combinations."""
        check_settings(self)

    @property
    def name(self) -> str:
        return type(self).__module__.rpartition(".")[2]

    @property
    def levels(self) -> tuple[int, ...]:
        return ()

    def resolved(self) -> Task:
        """The task with everything filled in that it takes from elsewhere, such as an alphabet.

        A run keeps these options, so that its model can be used where the corpus is not.
        """
        return self

    @abstractmethod
    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        """`size` random problems of a split (fewer where it has no more), of a cell if given."""

    @abstractmethod
    def longest(self) -> int:
        """The longest sequence the task can write, the end mark included."""

    def used(self) -> tuple[int, ...]:
        """The tokens that occur in its texts, in order; by default all of the alphabet."""
        return tuple(range(len(self.alphabet)))

    @abstractmethod
    def recipe(self) -> Recipe:
        """The settings that are known to work for these options."""

    def cells(self) -> list[Cell]:
        """The evaluation grid of a graded task; empty: only the loss is reported."""
        return []

    def positions(self, tokens: np.ndarray, slots: int) -> np.ndarray:
        """Position ids of given tokens and of the slots that follow.

        Args:
            tokens: (B, T), prompts of equal length and whatever has been written after them.
            slots: how many following slots to give ids for.

        Returns:
            (B, T + slots, L) int16. They follow from the prompts, never from what is written after.
        """
        return np.zeros((len(tokens), tokens.shape[1] + slots, len(self.levels)), np.int16)

    def encode(self, text: str) -> np.ndarray:
        """(T,) token ids, uint8 or uint16. Raises UsageError for what is not in the alphabet."""
        alphabet = self.alphabet
        for char in text:
            if char not in alphabet:
                raise UsageError(f"{char!r} is not in the alphabet of {self.name}")
        kind = np.uint8 if len(alphabet) <= 256 else np.uint16
        return np.array([alphabet.index(char) for char in text], kind)

    def decode(self, tokens: np.ndarray) -> str:
        """The text of (T,) token ids."""
        return "".join(map(self.alphabet.__getitem__, np.asarray(tokens).tolist()))

    def texts(self, batch: Batch) -> list[tuple[str, str]]:
        """The prompt and the completion of each row."""
        if not len(batch):
            return []
        chars = np.array(list(self.alphabet))[batch.tokens]
        lines = chars.view(f"U{chars.shape[1]}")[:, 0].tolist()
        parts = zip(lines, batch.scored.argmax(1), batch.lengths, strict=True)
        return [(line[:start], line[start:end]) for line, start, end in parts]

    @classmethod
    def options(cls) -> dict[str, dataclasses.Field]:
        return {option.name: option for option in dataclasses.fields(cls)}


class Graded(Task):
    """A task with right answers: scored by exact match, cell by cell.

    A *prompt* is the text that the model gets, `12+34=`; a *completion* the text after it, end mark
    included. Its batches say which `problems` they ask: no prompt is ever read back.
    """

    operands_at_most: ClassVar[int] = 2  # of a problem
    hidden: ClassVar[str] = ""  # characters that people need not see in what the model writes

    @abstractmethod
    def cells(self) -> list[Cell]:
        """The evaluation grid."""

    @abstractmethod
    def prompt(self, problem: Problem) -> str:
        """What the model is given. Raises UsageError for a problem that it cannot be asked."""

    @abstractmethod
    def truth(self, problem: Problem) -> Answer:
        """The right answer by Python integers. Raises UsageError where there is none."""

    @abstractmethod
    def read(self, problem: Problem, completion: str) -> Answer:
        """The answer that a completion gives.

        Raises UsageError unless it is a finished trace of that operation: then there is no answer.
        Any other error, such as the ValueError of `int("")`, is a bug of the task, not an answer.
        """

    def parse(self, text: str) -> Problem:
        """The problem that a person typed. Raises UsageError unless it can be asked."""
        match = PROBLEM.fullmatch(text)
        if match is None or len(text) > MAX_CHARACTERS:
            example = f"12{self.cells()[0].op}34"
            raise UsageError(f"{quoted(text)} is not a problem like {example}")
        problem = Problem(match[2], (int(match[1]), int(match[3])))
        self.prompt(problem)  # which refuses what cannot be asked
        return problem

    def text(self, problem: Problem) -> str:
        """A problem as a person types it: the inverse of `parse`."""
        return str(problem)

    def seen(self, cell: Cell) -> bool:
        """True where a cell is too small to hold problems out, so that all are in train."""
        return False

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        """Up to `size` distinct problems of a cell, or all problems of a seen one."""
        return self.batch(rng, size, split, cell)

    def reference(self, prompts: np.ndarray) -> Batch | None:
        """A task's own prompts, (B, T) of equal length, with the reference completions after them.

        Ids are those of `positions`. None where the task does not know the work.
        """
        return None

    def cell_of(self, problem: Problem) -> Cell:
        """The cell that a problem is in."""
        a, b = (*(len(str(operand)) for operand in problem.operands), 0)[:2]
        return Cell(problem.op, a, b)

    def in_train_range(self, problem: Problem) -> bool:
        """Whether the operands are of lengths that training draws."""
        return True

    def in_eval_range(self, problem: Problem) -> bool:
        """Whether the operands are of lengths that training draws or the evaluation grid has."""
        return True


class HeldOut(ABC):
    """A graded task that knows which problems training can draw, for the contamination check."""

    @abstractmethod
    def equivalent(self, problem: Problem) -> list[Problem]:
        """All problems that count as this one: both orders where operands commute."""

    @abstractmethod
    def in_train(self, problem: Problem) -> bool | None:
        """Whether training can draw a problem; None: the task cannot tell.

        To be computed from the problem alone, and not by the code of `batch`, which this checks.
        """


class Explained(ABC):
    """A graded task that knows the rows of its traces and how its answers go wrong."""

    @abstractmethod
    def rows(self, problem: Problem, completion: str) -> list[Row]:
        """A completion, right or wrong, cut into the rows of its trace and, last, the answer.

        Nothing is left out: the texts of the rows, joined, are the completion.
        """

    @abstractmethod
    def answer_digits(self, problem: Problem, completion: str) -> list[int]:
        """Where in a completion each digit of its answer stands, as a person reads the answer.

        Raises UsageError where `read` does.
        """

    @abstractmethod
    def draw(self, problem: Problem, completion: str) -> str:
        """The work as on paper, no newline at the end. Never raises, even for a wrong trace."""

    def placed(self, text: str, ids: np.ndarray) -> list[Place]:
        """Where each token of prompt and completion stands on paper, from (T, L) position ids."""
        return [Place(0, place) for place in range(len(ids))]

    def is_copy(self, problem: Problem, rows: list[Row], row: int, place: int) -> bool:
        """Whether character `place` of a row of a right trace only repeats one before it."""
        return False

    def error_type(self, problem: Problem, answer: Answer) -> ErrorType:
        """How a wrong answer differs from the right one."""
        return ErrorType("digit")


class TextTask(Task):
    """A task that learns a text, scored by the loss on all of it."""

    def begin(self, text: str) -> str:
        """The prompt from which the model continues `text`. Raises UsageError."""
        return text

    @abstractmethod
    def whole(self, split: str, context: int = 0) -> Iterator[Batch]:
        """All of a split, in batches that score each token once.

        Where a text runs on, each scored token but the first ones of the text has at least
        `context` tokens before it.
        """

    @abstractmethod
    def num_tokens(self, split: str) -> int:
        """How many tokens `whole` scores."""

    def membership(self, text: str) -> str:
        """The split that contains a text the model wrote, or `new`; empty: not known."""
        return ""
