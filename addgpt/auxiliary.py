"""The contracts of auxiliary losses: what else a task tells of the slots of a batch.

The losses themselves: `addgpt.training.auxiliary` and `addgpt.training.supervision`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from addgpt.task import Batch


class Auxiliary(ABC):
    """A task that gives the slots of a batch a number to predict, too."""

    @abstractmethod
    def auxiliary(self, batch: Batch) -> np.ndarray:
        """(B, T) float32, about 0 to 1: a number that determines each token; NaN: there is none."""


class Supervised(ABC):
    """A task that knows, by name, intermediate results that a model may be taught to hold while it
    writes a token, without writing them."""

    @abstractmethod
    def supervised(self) -> dict[str, tuple[int, int]]:
        """The names; of each, how many labels a slot has, and of how many classes."""

    @abstractmethod
    def labels_of(self, batch: Batch, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Of each of these names (B, T, labels) int64: what belongs to the slot of each token;
        -1: nothing."""
