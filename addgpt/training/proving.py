"""Trained until proved: what a model still gets wrong becomes part of what it is trained on.

After the steps that were asked for, all contexts of the trace are judged (addgpt/evaluation/
certificate.py). While some are wrong, or won by little, training goes on in rounds: part of each
batch are problems of the train split that contain them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from addgpt.config.schema import TrainConfig
from addgpt.evaluation.certificate import Proof, problems_with, prove
from addgpt.locality import LocalTrace
from addgpt.model.gpt import GPT
from addgpt.task import Batch

ENOUGH = 0.5  # margin at which a context is safe
SHARE = 0.25  # of a batch that are problems with weak contexts
WEAKEST, EACH = 500, 4  # contexts that are trained on in a round, and problems for each
RATE = 0.1  # of the peak rate, at which a round starts
ROUND, MAX_ROUNDS = 0.2, 12  # steps of a round over those asked for; rounds at most
STREAM = 2  # fourth part of a seed, for what is drawn here


class Proving:
    """The rounds of a training. Its state are arrays, kept in the checkpoint."""

    def __init__(self, task: LocalTrace, settings: TrainConfig, seed: int) -> None:
        self.task, self.settings, self.seed = task, settings, seed
        self.round, self.began, self.ends = 0, 0, settings.steps
        self.end = task.alphabet.index(task.end)
        self.pool: Batch | None = None
        self.proof: Proof | None = None

    @property
    def proved(self) -> bool:
        return self.proof is not None and self.proof.smallest > ENOUGH

    def rate(self, step: int) -> float:
        """Learning rate in a round, as a share of the peak rate."""
        done = (step - self.began) / (self.ends - self.began)
        return max(self.settings.final_lr, RATE * (1 - done))

    def mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """A batch of which a part are problems with weak contexts."""
        if self.pool is None or not len(self.pool):
            return batch
        count = int(SHARE * len(batch))
        chosen = self.pool.rows(rng.integers(0, len(self.pool), count))
        batch = replace(batch, problems=chosen.problems)  # which no step asks for
        return Batch.stacked([batch.rows(np.arange(len(batch) - count)), chosen], self.end)

    def judge(self, model: GPT) -> bool:
        """Judge all contexts; start another round and say so, unless all are safe."""
        self.proof = prove(model, self.task)
        if self.proved or self.round >= MAX_ROUNDS:
            return False
        rng = np.random.default_rng((self.seed, self.ends, 0, STREAM))
        self.pool = self._weak(rng)
        self.round, self.began = self.round + 1, self.ends
        self.ends += max(1, int(ROUND * self.settings.steps))
        return True

    def _weak(self, rng: np.random.Generator) -> Batch | None:
        """Problems of train that contain the weakest contexts."""
        assert self.proof is not None
        margins = np.sort(np.concatenate([some.margin for some in self.proof.judged]))
        limit = float(margins[min(WEAKEST, len(margins) - 1)])
        found: list[Batch] = []
        for some in self.proof.judged:
            rows = np.flatnonzero(some.margin <= limit)
            if len(rows):
                for problems in problems_with(self.task, some, rows, rng, EACH):
                    found += problems
        if not found:
            return None
        return replace(Batch.stacked(found, self.end), problems=np.empty(0, object))

    def state(self) -> dict[str, Tensor]:
        """What resuming needs."""
        numbers = torch.tensor([self.round, self.began, self.ends])
        found = {"proving.round": numbers}
        if self.pool is not None:
            for name in ("tokens", "scored", "positions"):
                found[f"proving.{name}"] = torch.from_numpy(getattr(self.pool, name))
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave."""
        if "proving.round" in state:
            self.round, self.began, self.ends = state["proving.round"].tolist()
        if "proving.tokens" in state:
            names = ("tokens", "scored", "positions")
            self.pool = Batch(*(state[f"proving.{name}"].numpy() for name in names))
