"""Lines like those of a list, such as names: learn the list, write more like them.

The job of makemore (Karpathy 2022). A row is one line between two newlines; the second is the end
mark:

>>> task = Lines(characters="\\nabc", block=3)
>>> task.begin("ab")
'\\nab'

Every distinct line counts once; blank ones and space around them do not. A stable hash of the line
puts it in train (80 %), val (10 %) or test (10 %), so that no line is in two of them. The default
corpus, `words`, is the distinct words of tinyshakespeare in lower case; a list of your own:

    addgpt train --task lines --set corpus=names.txt
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from addgpt.task import SPLITS, Batch, Cell, Recipe, UsageError, setting
from tasks.common.corpus import code_points
from tasks.common.splits import split_of_text
from tasks.common.text import CORPUS, Text, text_batch

TOKENS = 1 << 14  # most of a batch of a whole split, to bound memory
WORD = re.compile("[a-z]+(?:'[a-z]+)*")


@dataclass(frozen=True)
class Lines(Text):
    end: ClassVar[str] = "\n"

    corpus: str = setting("words", f"words (of tinyshakespeare), or {CORPUS}")
    block: int = setting(
        0,
        "characters of the longest line, filled in from the corpus; given: longer ones are out",
        low=0,
    )

    @property
    def source(self) -> str:
        return "tinyshakespeare" if self.corpus == "words" else self.corpus

    @cached_property
    def by_split(self) -> dict[str, list[str]]:
        """The distinct lines of each split, in the order of the corpus. Raises UsageError."""
        text = self.text.decode(self.text.tokens)
        pieces = WORD.findall(text.lower()) if self.corpus == "words" else text.split("\n")
        found: dict[str, list[str]] = {split: [] for split in SPLITS}
        for line in dict.fromkeys(piece.strip() for piece in pieces):
            if line and not 0 < self.block < len(line):
                found[split_of_text(line)].append(line)
        for split, some in found.items():
            if not some:
                raise UsageError(
                    f"corpus {self.corpus} has no lines for {split}; distinct lines are needed, "
                    f"100 or more" + (f", of at most {self.block} characters" * bool(self.block))
                )
        return found

    def found(self) -> str:
        return "".join(sorted({"\n"}.union(*(set(line) for line in self._every))))

    def resolved(self) -> Lines:
        return replace(super().resolved(), block=max(map(len, self._every)))

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        _, starts, _ = self._encoded[split]
        return self._rows(split, rng.integers(0, len(starts), size))

    def whole(self, split: str, context: int = 0) -> Iterator[Batch]:
        """All lines of a split, by length; each begins anew, so `context` changes nothing."""
        _, _, lengths = self._encoded[split]
        order = np.argsort(lengths, kind="stable")
        while len(order):
            some = max(1, TOKENS // int(lengths[order[: TOKENS // 2]].max() + 2))
            yield self._rows(split, order[:some])
            order = order[some:]

    def num_tokens(self, split: str) -> int:
        _, _, lengths = self._encoded[split]
        return int((lengths + 1).sum())

    def membership(self, text: str) -> str:
        split = split_of_text(text)
        return split if text in self._known[split] else "new"

    def longest(self) -> int:
        return (self.block or max(map(len, self._every))) + 2

    def begin(self, text: str) -> str:
        if "\n" in text:
            raise UsageError("a line has no newline in it")
        return "\n" + text

    def recipe(self) -> Recipe:
        return Recipe(
            model={"layers": 4, "heads": 4, "width": 64, "position": "rotary"},
            train={
                "steps": 1000,
                "batch_size": 64,
                "lr": 3e-3,
                "muon_lr": 0.02,
                "eval_every": 100,
                "eval_size": 1000,
            },
        )

    @property
    def _every(self) -> list[str]:
        return [line for some in self.by_split.values() for line in some]

    @cached_property
    def _known(self) -> dict[str, frozenset[str]]:
        return {split: frozenset(some) for split, some in self.by_split.items()}

    @cached_property
    def _encoded(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """For each split: all its lines as tokens, with a newline before and after each; where the
        newline before a line stands; and the lines' lengths."""
        kind = np.uint8 if len(self.alphabet) <= 256 else np.uint16
        points, found = code_points(self.alphabet), {}
        for split, some in self.by_split.items():
            text = code_points("\n" + "\n".join(some) + "\n")
            lengths = np.array([len(line) for line in some])
            starts = np.concatenate([[0], np.cumsum(lengths + 1)[:-1]])
            found[split] = np.searchsorted(points, text).astype(kind), starts, lengths
        return found

    def _rows(self, split: str, index: np.ndarray) -> Batch:
        tokens, starts, lengths = self._encoded[split]
        length = lengths[index][:, None]
        place = np.arange(int(length.max()) + 2)
        rows = tokens[np.minimum(starts[index][:, None] + place, len(tokens) - 1)]
        rows[place > length] = self.alphabet.index(self.end)
        return text_batch(rows, (place > 0) & (place <= length + 1))
