"""What tasks that learn a text have in common: the alphabet comes from the text, not the task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from addgpt.task import Batch, TextTask, UsageError, setting
from tasks.common import sources
from tasks.common.corpus import Corpus, load

CORPUS = f"the text: {sources.VALID}"


@dataclass(frozen=True)
class Text(TextTask):
    """A task on the text `corpus`.

    A run keeps the alphabet, so that its model can write without the text, and the checksum, so
    that it is not trained or scored on a text that has changed since.
    """

    corpus: str = setting("", CORPUS)
    characters: str = setting("", "the alphabet; filled in from the corpus when a run is made")
    sha256: str = setting("", "checksum of the corpus; filled in likewise")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.characters)) < len(self.characters):
            raise UsageError("characters has one more than once")

    @property
    def alphabet(self) -> str:
        return self.characters or self.found()

    @cached_property
    def text(self) -> Corpus:
        """The corpus. Raises UsageError if it is not the one that the run began with, OSError."""
        corpus = load(self.source)
        if self.sha256 not in ("", corpus.sha256):
            raise UsageError(f"corpus {self.corpus} has changed since the run began")
        return corpus

    @property
    def source(self) -> str:
        """What `load` is to load."""
        return self.corpus

    def found(self) -> str:
        """The alphabet that the text turns out to have."""
        return self.text.alphabet

    def resolved(self) -> Text:
        if self.characters not in ("", self.found()):
            raise UsageError(f"characters is not the alphabet of corpus {self.corpus}")
        return replace(self, characters=self.found(), sha256=self.text.sha256)


def text_batch(tokens: np.ndarray, scored: np.ndarray) -> Batch:
    """A batch of (B, T) tokens without position ids."""
    return Batch(tokens, scored, np.zeros((*tokens.shape, 0), np.int16))
