"""Trained until proved: what a model still gets wrong becomes part of what it is trained on.

After the steps that were asked for, all contexts of the trace are judged (addgpt/evaluation/
certificate.py). While some are wrong, or right by little, training goes on in rounds: part of each
batch are problems of the train split that contain them.
"""

from __future__ import annotations

import base64
import dataclasses
from functools import lru_cache

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from addgpt.config.architectures import GPTConfig
from addgpt.config.schema import RunConfig
from addgpt.evaluation.certificate import (
    Judged,
    Listed,
    Proof,
    check_certifiable,
    list_contexts,
    problems_with,
    prove,
)
from addgpt.locality import LocalTrace
from addgpt.model.gpt import GPT
from addgpt.task import Batch
from addgpt.training.distributed import World

ENOUGH = 0.5  # margin at which a context is safe
SHARE = 0.25  # of a batch that are problems with weak contexts
WEAKEST, EACH = 500, 4  # contexts that are trained on in a round, and problems for each
RATE = 0.1  # of the peak rate, at which a round starts
ROUND, MAX_ROUNDS = 0.2, 12  # steps of a round over those asked for; rounds at most
STREAM = 2  # fourth part of a seed, for what is drawn here
POOL = ("tokens", "scored", "positions")


@lru_cache(maxsize=1)
def listed(task: LocalTrace, config: GPTConfig) -> Listed:
    """All contexts, worked out once for the preflight checks and all rounds of a training."""
    return list_contexts(task, config)


class Proving:
    """The rounds of a training. Raises UsageError where nothing can be proved.

    round     0 during the steps that were asked for
    began     the step at which the round began, and `ends` the one at which it ends
    contexts  of the trace, and `wrong` how many of them the model got wrong when last judged
    pool      problems with weak contexts, of which part of each batch is made
    """

    def __init__(self, task, config: RunConfig) -> None:
        check_certifiable(task, config.model)
        self.task, self.config, self.settings = task, config, config.train
        self.round, self.began, self.ends = 0, 0, self.settings.steps
        self.contexts = self.wrong = 0
        self.pool: Batch | None = None

    def rate(self, step: int) -> float:
        """Learning rate in a round, as a share of the peak rate."""
        done = (step - self.began) / (self.ends - self.began)
        return max(self.settings.final_lr, RATE * (1 - done))

    def mixed(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """A batch of which a part are problems with weak contexts."""
        count = int(SHARE * len(batch))
        if self.pool is None or not count:
            return batch
        chosen = self.pool.rows(rng.integers(0, len(self.pool), count))
        return self._joined([batch.rows(np.arange(len(batch) - count)), chosen])

    def judge(self, model: GPT, step: int, world: World) -> None:
        """At the end of a round judge all contexts, and have another round unless all are safe.

        The main worker judges and tells the others, so that all go the same way.
        """
        if world.main:
            self._judge(model, step)
        told = base64.b64encode(save(self.state())).decode() if world.main else ""
        if world.size > 1:
            self.restore(load(base64.b64decode(world.broadcast(told))))

    def _judge(self, model: GPT, step: int) -> None:
        proof = prove(model, self.task, listed(self.task, self.config.model))  # type: ignore[arg-type]
        self.contexts, self.wrong, self.ends = proof.contexts, proof.below(0), step
        if proof.below(ENOUGH) and self.round < MAX_ROUNDS:
            rng = np.random.default_rng((self.config.seed, step, 0, STREAM))
            self.pool = self._weak(proof, rng)
            self.round, self.began = self.round + 1, step
            self.ends = step + max(1, int(ROUND * self.settings.steps))

    def _weak(self, proof: Proof, rng: np.random.Generator) -> Batch | None:
        """Problems as in training that contain the weakest contexts."""
        margins = np.concatenate([some.margin for some in proof.judged])
        weakest = np.argsort(margins, kind="stable")[:WEAKEST]
        chosen = np.zeros(len(margins), bool)
        chosen[weakest] = True
        found: list[Batch] = []
        for some in map(self._in_range, proof.judged):
            rows, chosen = np.flatnonzero(chosen[: len(some.margin)]), chosen[len(some.margin) :]
            for problems in problems_with(self.task, some, rows, rng, EACH):
                found += problems
        return self._joined(found) if found else None

    def _in_range(self, some: Judged) -> Judged:
        """A group with examples of such lengths alone as training draws."""
        task = self.task
        kept = [x for x in some.examples if task.in_train_range(task.parse(x.prompt))]
        return dataclasses.replace(some, examples=kept)

    def _joined(self, batches: list[Batch]) -> Batch:
        joined = Batch.stacked(batches, self.task.alphabet.index(self.task.end))
        return dataclasses.replace(joined, problems=np.empty(0, object))  # no step asks for them

    def state(self) -> dict[str, Tensor]:
        """What resuming needs."""
        asked = self.settings.steps
        numbers = [self.round, self.began, self.ends, self.contexts, self.wrong, asked]
        found = {"proving.numbers": torch.tensor(numbers)}
        if self.pool is not None:
            arrays = {f"proving.{name}": getattr(self.pool, name) for name in POOL}
            found |= {name: torch.from_numpy(array) for name, array in arrays.items()}
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave, and go on for longer if more steps are asked for now;
        for less time only before the first round."""
        if "proving.numbers" in state:
            numbers = state["proving.numbers"].tolist()
            self.round, self.began, self.ends, self.contexts, self.wrong, asked = numbers
            more = self.settings.steps - asked
            self.ends += more if self.ends == asked and not self.round else max(0, more)
            there = "proving.tokens" in state
            arrays = (state[f"proving.{name}"].numpy() for name in POOL)
            self.pool = Batch(*arrays) if there else None
