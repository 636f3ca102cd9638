"""The contract of an auxiliary loss: what a task says of the slots of a batch besides tokens.

What the loss is: `addgpt.training.auxiliary`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from addgpt.task import Batch


class Auxiliary(ABC):
    """A task that says more of the slots of a batch than which token they get."""

    @abstractmethod
    def auxiliary(self, batch: Batch) -> np.ndarray:
        """(B, T) float32, about 0 to 1: a number that each token follows from; NaN: it has none."""
