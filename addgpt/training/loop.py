"""The one training loop. It knows no task: a task is a source of batches."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from addgpt.device import (
    compute_dtype,
    pick_device,
    prepare,
    seed_dropout,
    threads_by_user,
    usable_cores,
)
from addgpt.model.build import build
from addgpt.model.forward import loss_and_exact
from addgpt.model.gpt import GPT
from addgpt.runs.checkpoint import load_weights
from addgpt.runs.curriculum import curriculum
from addgpt.runs.files import checksums
from addgpt.runs.run import MODEL, STATE, Run, RunError
from addgpt.task import Task
from addgpt.training import optim
from addgpt.training.distributed import ALONE, WorkerLost, World
from addgpt.training.learners import Diverged, learner
from addgpt.training.proving import Proving
from addgpt.training.signals import stop_requests
from addgpt.training.supervision import auxiliary_losses

__all__ = ["Diverged", "Interrupted", "TrainState", "VAL_SEED", "WorkerLost", "train"]

VAL_SEED = 1_000_003  # the evaluation set has its own stream, whatever the training seed
KEPT_APART = 2**0.25  # ratio of successive steps that `keep=log` keeps
DROPOUT = 1  # fourth part of a seed: the model's random numbers (dropout), not those of problems


class Interrupted(Exception):
    """Training was asked to stop (Ctrl-C, SIGTERM, a closed terminal); the checkpoint is saved."""


@dataclass
class TrainState:
    """How far training is.

    contexts    how many the trace has, and `wrong` how many of them the model got wrong when it was
                last judged: in training until proved
    validation  the last line of metrics.jsonl
    val_size    how many problems of val it is about
    """

    step: int
    steps: int
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    loss: float = math.nan
    contexts: int = 0
    wrong: int = 0
    validation: dict[str, Any] = field(default_factory=dict)
    val_size: int = 0


OnStep = Callable[[TrainState], None]


def train(
    run: Run,
    on_step: OnStep = lambda state: None,
    weights: dict[str, torch.Tensor] | None = None,
    world: World = ALONE,
) -> TrainState:
    """Train the model of a run, from its checkpoint if it has one, and save it.

    Batch number `step` is a pure function of (seed, step), and what the model draws in it of
    (seed, step, rank), so that a resumed run ends with the weights of an uninterrupted one.

    Args:
        on_step: called after every step.
        weights: initial weights instead of random ones, if the run has no checkpoint.
        world: the workers that train together. All of them call this; the main one writes.

    Raises:
        Interrupted: after saving, on Ctrl-C, SIGTERM, SIGHUP or SIGUSR1.
        Diverged: the loss is NaN or infinite; the last good checkpoint stays.
        WorkerLost: another worker stopped; all steps up to then are saved.
    """
    config = run.config
    device = pick_device(config.train.device, world.local)
    lock = run.locked() if world.main else contextlib.nullcontext()
    randomness = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with lock, randomness, stop_requests() as stop:
        loop = Loop(run, weights, world)
        try:
            loop.prove()  # of a run that had been trained without
            while not loop.finished:
                loop.advance()
                if loop.due(config.train.eval_every):
                    loop.validate()
                loop.prove()
                if loop.due(config.train.save_every):
                    loop.save()
                loop.keep()
                on_step(loop.state)
                if world.any(bool(stop)) and not loop.finished:
                    loop.save()
                    raise Interrupted(f"stopped at step {loop.state.step}")
        except WorkerLost as error:  # before the next update: the weights are those of this step
            if loop.validated:
                loop.save()
            raise WorkerLost(f"{error} at step {loop.state.step}") from None
        loop.save()
        return loop.state


class Loop:
    """Model, learner and progress of a run in training."""

    def __init__(
        self, run: Run, weights: dict[str, torch.Tensor] | None = None, world: World = ALONE
    ) -> None:
        self.run, self.config, self.world = run, run.config, world
        self.settings = run.config.train
        self.task: Task = run.task()
        self.curriculum = curriculum(self.task, self.settings.curriculum)
        self.device = pick_device(self.settings.device, world.local)
        checkpoint = run.state() if run.started else None  # before a model as the config says
        self.model = build(self.config.model, self.config.seed)
        self.threads = self._threads(checkpoint)
        self.state = TrainState(0, self.settings.steps)
        if weights is not None and checkpoint is None:
            self.model.load_state_dict(weights)
        self.model.to(self.device)
        # What is scored and kept: the weights in training, or their running average.
        self.kept = copy.deepcopy(self.model) if self.settings.ema else self.model
        self.dtype = self._compute_dtype(checkpoint)
        auxiliary = auxiliary_losses(self.task, self.model, self.settings)
        self.learner = learner(self.model, self.settings, self.dtype, world, auxiliary)
        rng = np.random.default_rng(VAL_SEED)
        self.evaluation_set = self.task.batch(rng, self.settings.eval_size, "val")
        self.state.val_size = len(self.evaluation_set)
        self.reached = False
        self.proving: Proving | None = None
        if self.settings.until_certified:
            self.proving = Proving(self.task, self.config)
        self.saved: int | None = None  # step of what this process saved last
        if checkpoint is not None:
            self._resume(*checkpoint)
        world.sum([0.0])  # all have read the checkpoint before the main worker writes anything
        if world.main:  # of lines after the checkpoint, or of an attempt that never saved
            run.truncate_log(self.state.step)
        if weights is not None and checkpoint is None:
            self.save()  # or resuming before the first checkpoint would start at random

    def _threads(self, checkpoint: tuple | None) -> int:
        """As many as asked for, or as before the checkpoint, or as pay off and are free."""
        asked = self.settings.threads
        if not asked and checkpoint is not None:  # more would change the last bits of sums
            most = threads_by_user() or usable_cores()
            asked = min(int(checkpoint[1].get("threads", 0)), most)
        rows = self.settings.micro_batch or -(-self.settings.batch_size // self.world.size)
        weights = self.model.parameter_count()
        return prepare(asked, weights, rows * self.task.longest()).number

    def _compute_dtype(self, checkpoint: tuple | None) -> torch.dtype:
        """The type of matrix products: for `auto`, the one used up to the checkpoint."""
        asked = self.settings.precision
        if asked == "auto" and checkpoint is not None:
            asked = "bfloat16" if checkpoint[1].get("bfloat16") else "float32"
        return compute_dtype(self.device, asked, self.config.model)

    @property
    def finished(self) -> bool:
        return self.state.step >= self.state.steps or (self.reached and self.proving is None)

    @property
    def validated(self) -> bool:
        """Whether the validation that is due at this step, if any, has been made."""
        return not self.due(self.settings.eval_every) or (
            self.state.validation.get("step", 0) == self.state.step
        )

    def due(self, every: int) -> bool:
        return self.state.step % every == 0 or self.state.step == self.state.steps

    def advance(self) -> None:
        """One training step."""
        began = time.perf_counter()
        if not self.model.training:  # to say so again takes a while
            self.model.train()
        state, step = self.state, self.state.step
        rng = np.random.default_rng((self.config.seed, step, 0))
        seed_dropout(self.device, _dropout_seed(self.config.seed, step, self.world.rank))
        batch = self.curriculum.at(step).batch(rng, self.settings.batch_size, "train")
        share = optim.rate(step, self.settings)
        if self.proving is not None and self.proving.round:
            batch, share = self.proving.mixed(batch, rng), self.proving.rate(step)
        if self.settings.score_prompt:
            batch = batch.with_prompt_scored()
        value = self.learner.learn(batch, step, share)
        state.step += 1
        if self.settings.ema:
            optim.average(self.kept, self.model, state.step, self.settings.ema)
        state.examples += len(batch)
        state.tokens += int(batch.lengths.sum())
        state.loss = value
        state.seconds += time.perf_counter() - began

    def validate(self) -> None:
        """Score val in one pass over it, and log a line."""
        self.kept.eval()
        mine, state = self.world.shard(self.evaluation_set), self.state
        summed, right = loss_and_exact(self.kept, mine)
        scored = int(mine.scored[:, 1:].sum())
        total, count, exact = self.world.sum([summed, scored, int(right.sum())])
        row = {
            "step": state.step,
            "examples": state.examples,
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "loss": state.loss,
            "val_loss": total / max(1, count),
        }
        if self.task.cells():
            row["val_exact"] = exact / len(self.evaluation_set)
            self.reached = self._good_enough(row["val_exact"])
        state.validation = row
        if self.world.main:
            self.run.log(row)

    def prove(self) -> None:
        """At the end of the steps, or of a round of training until proved: judge, and go on if need
        be. `stop_at` ends the steps that were asked for, not the rounds after them."""
        proving, state = self.proving, self.state
        if proving is None or not (
            state.step >= state.steps or (self.reached and not proving.round)
        ):
            return
        self.kept.eval()
        assert isinstance(self.kept, GPT)
        proving.judge(self.kept, state.step, self.world)
        state.steps, state.contexts, state.wrong = proving.ends, proving.contexts, proving.wrong
        if not self.finished:
            self.save()

    def _good_enough(self, exact: float) -> bool:
        return 0 < self.settings.stop_at <= exact

    def save(self) -> None:
        """Write a checkpoint, unless it is there or the weights are no longer numbers."""
        if self.saved == self.state.step:
            return
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise Diverged("some weights are no longer numbers", self.state.step)
        self.saved = self.state.step
        if not self.world.main:
            return
        tensors = self.learner.state() | (self.proving.state() if self.proving else {})
        if self.settings.ema:
            tensors |= {f"average.{n}": tensor for n, tensor in self.kept.state_dict().items()}
            tensors |= {f"model.{n}": tensor for n, tensor in self.model.state_dict().items()}
        progress = {
            "step": self.state.step,
            "examples": self.state.examples,
            "tokens": self.state.tokens,
            "seconds": round(self.state.seconds, 3),
            "val_exact": self.state.validation.get("val_exact", 0.0),
            "threads": self.threads,
            "bfloat16": int(self.dtype == torch.bfloat16),
        }
        self.run.save(self.kept, tensors, progress)

    def keep(self) -> None:
        """Write the weights of this step to `kept/`, if it is one to keep."""
        if self.settings.keep == "log" and self.world.main and is_kept(self.state.step):
            self.run.keep(self.kept, {"step": self.state.step, "examples": self.state.examples})

    def _resume(self, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        source, state = self.run.path / STATE, self.state
        load_weights(self.model, _below("model.", tensors), source)
        if self.settings.ema:  # also where the training so far had no average
            average = _below("average.", tensors) or _below("model.", tensors)
            load_weights(self.kept, average, source)
        try:
            self.learner.restore(tensors)
            if self.proving is not None:
                self.proving.restore(tensors)
                state.steps = self.proving.ends
                state.contexts, state.wrong = self.proving.contexts, self.proving.wrong
            for key in ("step", "examples", "tokens"):
                setattr(state, key, int(progress[key]))
            state.seconds = float(progress["seconds"])
            self.reached = self._good_enough(float(progress["val_exact"]))
        except (ValueError, KeyError, IndexError):
            raise RunError(f"{source} does not fit this optimizer and these settings") from None
        lines = [row for row in self.run.metrics() if row.get("step", 0) <= state.step]
        state.validation = lines[-1] if lines else {}
        with contextlib.suppress(RunError):  # or they are written anew
            whole = {MODEL, STATE} <= {*checksums(self.run.path)}
            self.saved = state.step if whole and self.run.progress()["step"] == state.step else None


def is_kept(step: int) -> bool:
    """Whether `keep=log` keeps a step: each about a fifth later than the one before, from 1 on."""
    place = math.log(step, KEPT_APART)
    return any(round(KEPT_APART**k) == step for k in (math.floor(place), math.ceil(place)))


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names start with a prefix, by the rest of their names."""
    found = {n: tensor for n, tensor in tensors.items() if n.startswith(prefix)}
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _dropout_seed(seed: int, step: int, rank: int) -> int:
    """The seed of what the model draws in a step on a worker."""
    return int(np.random.SeedSequence((seed, step, rank, DROPOUT)).generate_state(1)[0])
