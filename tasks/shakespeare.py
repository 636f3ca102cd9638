"""The next character of Shakespeare, or of any other text.

A row is a window of block + 1 characters from a random place of its split, and every character but
the first, which has nothing before it, is scored. The first 90 % of the text are train, the last
10 % val, as in nanoGPT, so that losses compare; test is val. A corpus other than the default:

    addgpt train --task shakespeare --set corpus='books/*.txt' --set block=256

>>> task = Shakespeare(characters="abc", block=2)
>>> task.decode(task.encode("cab"))
'cab'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Batch, Cell, Recipe, UsageError, setting
from tasks.common.text import CORPUS, Text, text_batch

TOKENS, LOGITS = 1 << 14, 1 << 22  # most of a batch of the whole text, to bound memory


@dataclass(frozen=True)
class Shakespeare(Text):
    end: ClassVar[str] = ""
    splits: ClassVar[tuple[str, ...]] = ("train", "val")

    corpus: str = setting("tinyshakespeare", CORPUS)
    block: int = setting(128, "characters that the model sees before the one to be written", low=1)

    def resolved(self) -> Shakespeare:
        for split in self.splits:
            self._part(split)  # long enough for a block
        return super().resolved()

    def batch(
        self, rng: np.random.Generator, size: int, split: str, cell: Cell | None = None
    ) -> Batch:
        part = self._part(split)
        starts = rng.integers(0, len(part) - self.block, size)
        return self._windows(part, starts, self.block + 1)

    def whole(self, split: str, context: int = 0) -> Iterator[Batch]:
        """The part in consecutive blocks, which start anew with nothing before them.

        With `context` they overlap by as much, and what overlaps is scored in the first of them.
        """
        if not 0 <= context < self.block:
            raise UsageError(f"context must be in 0..{self.block - 1}, not {context}")
        part = self._part(split)
        step, last = self.block - context, len(part) - 1
        starts = np.arange(0, max(1, last - context), step)
        full = starts[starts + self.block <= last]
        rows = max(1, min(TOKENS, LOGITS // len(self.alphabet)) // self.block)
        groups = [(full[at : at + rows], self.block + 1) for at in range(0, len(full), rows)]
        groups += [(starts[i : i + 1], last + 1 - starts[i]) for i in range(len(full), len(starts))]
        for group, length in groups:
            batch = self._windows(part, group, length)
            batch.scored[group > 0, : context + 1] = False
            yield batch

    def num_tokens(self, split: str) -> int:
        return len(self._part(split)) - 1

    def longest(self) -> int:
        return self.block + 1

    def recipe(self) -> Recipe:
        return Recipe(
            model={
                "layers": 4,
                "heads": 2,
                "width": 128,
                "position": "rotary",
                "token_shift": True,
            },
            train={
                "steps": 1500,
                "batch_size": 12,
                "lr": 0.01,
                "muon_lr": 0.02,
                "ema": 0.97,
                "eval_every": 100,
                "eval_size": 256,
            },
        )

    def _part(self, split: str) -> np.ndarray:
        part = self.text.part(split)
        if len(part) <= self.block:
            raise UsageError(
                f"the {split} part of corpus {self.corpus} has {len(part):,} characters, block + 1 "
                f"is {self.block + 1:,}: give a longer text or a smaller block"
            )
        return part

    def _windows(self, part: np.ndarray, starts: np.ndarray, length: int) -> Batch:
        tokens = part[starts[:, None] + np.arange(length)]
        scored = np.ones(tokens.shape, bool)
        scored[:, 0] = False
        return text_batch(tokens, scored)
