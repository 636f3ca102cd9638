"""The contract of an auxiliary loss: a number for each slot of a batch, besides its token.

The loss itself: `addgpt.training.auxiliary`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from addgpt.task import Batch


class Auxiliary(ABC):
    """A task that gives the slots of a batch a number to predict, too."""

    @abstractmethod
    def auxiliary(self, batch: Batch) -> np.ndarray:
        """(B, T) float32, about 0 to 1: a number that determines each token; NaN: there is none."""
