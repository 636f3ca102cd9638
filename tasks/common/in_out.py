"""Text in, text out: the base class of tasks that do not work on digit matrices.

A task says how a problem is drawn and what its answer is; the rest, splits and scores included,
follows:

>>> from dataclasses import dataclass
>>> from typing import ClassVar
>>> @dataclass(frozen=True)
... class Reverse(InOut):
...     characters: ClassVar[str] = "abc"
...
...     def draw(self, rng):
...         return "".join(rng.choice(list("abc"), rng.integers(1, 8)))
...
...     def answer(self, text):
...         return text[::-1]
>>> task = Reverse()
>>> task.texts(task.batch(np.random.default_rng(0), 2, "train"))
[('bbaaaa=', 'aaaabb#'), ('a=', 'a#')]
>>> task.split("abc"), task.truth(task.parse("abc"))
('test', Answer(whole='cba', rest=0))
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Answer, Batch, Cell, Graded, HeldOut, Problem, Recipe, UsageError
from tasks.common.splits import split_of_text

TRIES = 2000  # draws in vain, after which there is nothing more to be found
AGAIN = 200  # draws of what was drawn before, after which a group is taken to be whole


@dataclass(frozen=True)
class InOut(Graded, HeldOut):
    """Problems and answers that are texts; a stable hash of a problem puts it in its split.

    characters  all characters of problems, work and answers
    between     stands between a problem and what the model writes; `end` ends that
    most        characters of the longest row: problem, work, answer and these two
    """

    characters: ClassVar[str]
    between: ClassVar[str] = "="
    most: ClassVar[int] = 64

    # What a task says of itself.

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> str:
        """A problem."""

    @abstractmethod
    def answer(self, text: str) -> str:
        """The right answer to a problem. Raises UsageError where there is none."""

    def completion(self, text: str) -> str:
        """What the model is to write: by default the answer alone, or else work that ends in it."""
        return self.answer(text)

    def found(self, completion: str) -> str:
        """The answer in what the model wrote: the inverse of `completion`."""
        return completion

    def groups(self) -> Sequence[str]:
        """The groups that are scored apart."""
        return ("all",)

    def group(self, text: str) -> str:
        """The group of a problem: one of `groups`."""
        return "all"

    def recipe(self) -> Recipe:
        model = {"layers": 2, "width": 64, "position": "rotary"}
        return Recipe(model=model, train={"steps": 1000})

    # The contract of Task.

    @property
    def alphabet(self) -> str:
        return "".join(dict.fromkeys(self.characters + self.between + self.end))

    def split(self, text: str) -> str:
        """The split of a problem."""
        return split_of_text(text)

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        drawn = self.problems(rng, split, cell)
        texts = [text for _, text in zip(range(size), drawn, strict=False)]
        if len(texts) < size:
            where = f" of group {cell.stratum}" if cell else ""
            raise UsageError(f"task {self.name} draws no problems{where} that are in {split}")
        return self.rows(texts)

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        found: dict[str, None] = {}
        again = 0
        for text in self.problems(rng, split, cell):
            again = again + 1 if text in found else 0
            found[text] = None
            if len(found) == size or again > AGAIN:
                break
        return self.rows(list(found))

    def problems(self, rng: np.random.Generator, split: str, cell: Cell | None) -> Iterator[str]:
        """Endless problems of a split, and group if given; it ends after many misses in a row."""
        vain = 0
        while vain < TRIES:
            text = self.draw(rng)
            if self.split(text) == split and (cell is None or self.group(text) == cell.stratum):
                vain = 0
                yield text
            vain += 1

    def rows(self, texts: Sequence[str]) -> Batch:
        """Problems, written out."""
        prompts = [text + self.between for text in texts]
        lines = [p + self.completion(t) + self.end for p, t in zip(prompts, texts, strict=True)]
        size = max(map(len, lines), default=1)
        if size > self.longest():
            what = f"a row of {size} characters, and at most {self.longest()} are declared (most)"
            raise UsageError(f"task {self.name}: {what}")
        kind = np.uint8 if len(self.alphabet) <= 256 else np.uint16
        tokens = np.full((len(lines), size), self.alphabet.index(self.end), kind)
        table = {char: token for token, char in enumerate(self.alphabet)}
        for row, line in enumerate(lines):
            try:
                tokens[row, : len(line)] = [table[char] for char in line]
            except KeyError:
                self.encode(line)  # which says what is wrong
                raise
        place = np.arange(size)
        start, end = (np.array([len(x) for x in some], int)[:, None] for some in (prompts, lines))
        problems = np.empty(len(texts), object)
        problems[:] = [self.problem(text) for text in texts]
        ids = np.zeros((*tokens.shape, 0), np.int16)
        return Batch(tokens, (place >= start) & (place < end), ids, problems)

    def longest(self) -> int:
        return self.most

    def cells(self) -> list[Cell]:
        return [Cell(self.name, 0, 0, group) for group in self.groups()]

    def cell_of(self, problem: Problem) -> Cell:
        return Cell(self.name, 0, 0, self.group(self.asked(problem)))

    def problem(self, text: str) -> Problem:
        return Problem(self.name, (text,))

    def asked(self, problem: Problem) -> str:
        """The text of a problem. Raises UsageError for one of another task."""
        if problem.op != self.name:
            raise UsageError(f"this model does {self.name}, not {problem.op}")
        return str(problem.operands[0])

    def prompt(self, problem: Problem) -> str:
        prompt = self.asked(problem) + self.between
        self.encode(prompt)  # which refuses strange characters
        if len(prompt) >= self.longest():
            size = f"{len(prompt)} characters of {self.longest()} in a row"
            raise UsageError(f"too long: {size} leave no room for an answer")
        return prompt

    def parse(self, text: str) -> Problem:
        problem = self.problem(text.strip().removesuffix(self.between))
        self.prompt(problem)
        return problem

    def truth(self, problem: Problem) -> Answer:
        return Answer(self.answer(self.asked(problem)))

    def read(self, problem: Problem, completion: str) -> Answer:
        if completion.find(self.end) != len(completion) - 1:
            raise UsageError(f"{completion!r} does not end with {self.end!r}")
        return Answer(self.found(completion.removesuffix(self.end)))

    def equivalent(self, problem: Problem) -> list[Problem]:
        return [problem]

    def in_train(self, problem: Problem) -> bool:
        return self.split(self.asked(problem)) == "train"
