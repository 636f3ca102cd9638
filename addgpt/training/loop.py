"""The one training loop. It knows no task: a task is a source of batches."""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt.device import autocast, pick_device, prepare, product_type, seed_chance, usable_cores
from addgpt.model.baselines import Counts
from addgpt.model.build import build
from addgpt.model.forward import exact_rows, forward, loss, next_token_loss
from addgpt.runs.checkpoint import load_weights
from addgpt.runs.run import STATE, Run, RunError
from addgpt.task import Batch, Task
from addgpt.training import optim
from addgpt.training.distributed import Lost, World

LOOK_SEED = 1_000_003  # looks at val use their own stream, whatever the training seed
CHANCE = 1  # fourth part of a seed, which tells what the model draws (dropout) from its problems
STOPPING = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(Exception):
    """Training was asked to stop (Ctrl-C, SIGTERM, a closed terminal); the checkpoint is saved."""


class Diverged(RunError):
    """The loss is no longer a number."""


@dataclass
class Moment:
    """How far training is. `look` holds the last line of metrics.jsonl."""

    step: int
    steps: int
    examples: int
    tokens: int
    seconds: float
    loss: float
    look: dict[str, Any]


Watch = Callable[[Moment], None]


def train(
    run: Run,
    watch: Watch = lambda moment: None,
    weights: dict | None = None,
    world: World = World(),  # noqa: B008, it is frozen
) -> Moment:
    """Train the model of a run, from its checkpoint if it has one, and save it.

    Batch number `step` is a pure function of (seed, step), and what the model draws in it of
    (seed, step, rank), so that a resumed run ends with the weights of an uninterrupted one.

    Args:
        watch: called after every step.
        weights: what to start from instead of random weights, if the run has no checkpoint.
        world: the workers that train together. All of them call this; the main one writes.

    Raises:
        Interrupted: after saving, on Ctrl-C, SIGTERM or SIGHUP.
        Diverged: the loss is NaN or infinite; the last good checkpoint stays.
        Lost: another worker is gone; what was learned up to then is saved.
    """
    config = run.config
    device = pick_device(config.train.device, world.local)
    lock = run.locked() if world.main else contextlib.nullcontext()
    randomness = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with lock, randomness, _stop_signals() as stopped:
        loop = _Loop(run, weights, world)
        try:
            while not loop.finished:
                loop.advance()
                if loop.due(config.train.eval_every):
                    loop.look()
                if loop.due(config.train.save_every):
                    loop.save()
                watch(loop.moment)
                if world.any(bool(stopped)) and not loop.finished:
                    loop.save()
                    raise Interrupted(f"stopped at step {loop.moment.step}")
        except Lost as error:  # before the optimizers' next step: the weights are those of this one
            if loop.looked:
                loop.save()
            raise Lost(f"{error} at step {loop.moment.step}") from None
        loop.save()
        return loop.moment


class _Loop:
    """Model, optimizers and progress of a run in training."""

    def __init__(self, run: Run, weights: dict | None, world: World = World()) -> None:  # noqa: B008
        self.run, self.config, self.world = run, run.config, world
        self.settings = run.config.train
        self.task: Task = run.task()
        self.device = pick_device(self.settings.device, world.local)
        checkpoint = run.state() if run.started else None  # before a model as the config says
        self.model = build(self.config.model, self.config.seed)
        self.threads = self._threads(checkpoint)
        self.moment = Moment(0, self.settings.steps, 0, 0, 0.0, math.nan, {})
        if weights is not None and checkpoint is None:
            self.model.load_state_dict(weights)
        self.model.to(self.device)
        # What is scored and kept: the weights in training, or their running average.
        self.kept = copy.deepcopy(self.model) if self.settings.ema else self.model
        self.counts = isinstance(self.model, Counts)  # instead of following gradients
        self.dtype = self._products(checkpoint)
        self.optimizers = optim.build(self.model, self.settings, self.dtype)
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.exam = self.task.batch(
            np.random.default_rng(LOOK_SEED), self.settings.eval_size, "val"
        )
        self.reached = False
        self.saved: int | None = None  # step of what this process saved last
        if checkpoint is not None:
            self._resume(*checkpoint)
        world.sum([0.0])  # all have read the checkpoint before the main worker writes anything
        if world.main:  # of lines after the checkpoint, or of an attempt that never saved
            run.forget_after(self.moment.step)
        if weights is not None and checkpoint is None:
            self.save()  # or resuming before the first checkpoint would start at random

    def _threads(self, checkpoint: tuple | None) -> int:
        """As many as are asked for, or as until the checkpoint, or as pay and are free."""
        asked = self.settings.threads
        if not asked and checkpoint is not None:  # more would change the last bits of sums
            asked = min(int(checkpoint[1].get("threads", 0)), usable_cores())
        rows = self.settings.micro_batch or -(-self.settings.batch_size // self.world.size)
        weights = sum(parameter.numel() for parameter in self.model.parameters())
        return prepare(asked, weights, rows * self.task.longest()).number

    def _products(self, checkpoint: tuple | None) -> torch.dtype:
        """What matrices are multiplied in: where `auto` is to choose, as until the checkpoint."""
        asked = self.settings.precision
        if asked == "auto" and checkpoint is not None:
            before = checkpoint[1].get("bfloat16", self.device.type != "cpu")  # of older versions
            asked = "bfloat16" if before else "float32"
        return product_type(self.device, asked, self.config.model)

    @property
    def finished(self) -> bool:
        return self.moment.step >= self.settings.steps or self.reached

    @property
    def looked(self) -> bool:
        """Whether the look that is due at this step, if any, has been made."""
        return not self.due(self.settings.eval_every) or (
            self.moment.look.get("step", 0) == self.moment.step
        )

    def due(self, every: int) -> bool:
        return self.moment.step % every == 0 or self.moment.step == self.settings.steps

    def advance(self) -> None:
        """One optimizer step."""
        began = time.perf_counter()
        self.model.train()
        step = self.moment.step
        rng = np.random.default_rng((self.config.seed, step, 0))
        seed_chance(self.device, _chance(self.config.seed, step, self.world.rank))
        batch = self.task.batch(rng, self.settings.batch_size, "train")
        count = max(1, int(batch.scored[:, 1:].sum()))
        (value,) = self.world.sum([self._backward(self.world.share(batch), count)])
        self.world.add_gradients(list(self.model.parameters()))
        if not math.isfinite(value):
            raise _diverged(f"the loss is {value}", step)
        self._update(step)
        self.moment.step += 1
        if self.settings.ema:
            optim.average(self.kept, self.model, self.moment.step, self.settings.ema)
        self.moment.examples += len(batch)
        self.moment.tokens += int(batch.lengths.sum())
        self.moment.loss = value
        self.moment.seconds += time.perf_counter() - began

    def look(self) -> None:
        """Score val and log a line."""
        self.kept.eval()
        exam, n = self.world.share(self.exam), len(self.exam)
        scored = int(exam.scored[:, 1:].sum())
        sums = [loss(self.kept, exam) * scored, scored, 0]
        if self.task.cells():
            sums[-1] = int(exact_rows(self.kept, exam).sum())
        total, scored, exact = self.world.sum(sums)
        row = {
            "step": self.moment.step,
            "examples": self.moment.examples,
            "tokens": self.moment.tokens,
            "seconds": round(self.moment.seconds, 3),
            "loss": self.moment.loss,
            "val_loss": total / max(1, scored),
        }
        if self.task.cells():
            row["val_exact"] = exact / n
            self.reached = self._reached(row["val_exact"])
        self.moment.look = row
        if self.world.main:
            self.run.log(row)

    def _reached(self, exact: float) -> bool:
        return 0 < self.settings.stop_at <= exact

    def save(self) -> None:
        """Write a checkpoint, unless it is there or the weights are no longer numbers."""
        if self.saved == self.moment.step:
            return
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise _diverged("some weights are no longer numbers", self.moment.step)
        self.saved = self.moment.step
        if not self.world.main:
            return
        state = {}
        for number, optimizer in enumerate(self.optimizers):
            for index, entry in optimizer.state_dict()["state"].items():
                for key, value in entry.items():
                    state[f"optim.{number}.{index}.{key}"] = torch.as_tensor(value)
        if self.settings.ema:
            state |= {f"average.{n}": tensor for n, tensor in self.kept.state_dict().items()}
            state |= {f"model.{n}": tensor for n, tensor in self.model.state_dict().items()}
        progress = {
            "step": self.moment.step,
            "examples": self.moment.examples,
            "tokens": self.moment.tokens,
            "seconds": round(self.moment.seconds, 3),
            "val_exact": self.moment.look.get("val_exact", 0.0),
            "threads": self.threads,
            "bfloat16": int(self.dtype == torch.bfloat16),
        }
        self.run.save(self.kept, state, progress)

    def _backward(self, batch: Batch, count: int) -> float:
        """Gradients of the summed loss over `count`; rows of like length share a pass."""
        if self.counts:
            self.model.tally(batch)
            return loss(self.model, batch) * int(batch.scored[:, 1:].sum()) / count
        rows = self.settings.micro_batch or len(batch)
        order = np.argsort(batch.lengths, kind="stable") if rows < len(batch) else np.arange(rows)
        total = 0.0
        for start in range(0, len(batch), rows):
            part = batch if rows >= len(batch) else batch.rows(order[start : start + rows])
            with autocast(self.device, self.dtype):
                logits, targets = forward(self.model, part)
            smoothing, z_loss = self.settings.label_smoothing, self.settings.z_loss
            value = next_token_loss(logits, targets, smoothing, z_loss) / count
            value.backward()
            total += value.item()
        return total

    def _update(self, step: int) -> None:
        """Change the weights by what the step found."""
        if self.counts:
            self.model.add()
        optim.clip(self.optimizers, self.settings.clip)
        share = optim.rate(step, self.settings)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def _resume(self, state: dict, progress: dict) -> None:
        source = self.run.path / STATE
        load_weights(self.model, _below("model.", state), source)
        if self.settings.ema:  # also where the training so far had no average
            load_weights(self.kept, _below("average.", state) or _below("model.", state), source)
        try:
            for number, optimizer in enumerate(self.optimizers):
                entries = _entries(state, f"optim.{number}.", optimizer)
                optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})
            for key in ("step", "examples", "tokens"):
                setattr(self.moment, key, int(progress[key]))
            self.moment.seconds = float(progress["seconds"])
            self.reached = self._reached(float(progress["val_exact"]))
        except (ValueError, KeyError, IndexError):
            raise RunError(f"{source} is not the checkpoint of such a training") from None
        self.run.check_log(self.moment.step, progress.get("log"))
        looks = [row for row in self.run.metrics() if row.get("step", 0) <= self.moment.step]
        self.moment.look = looks[-1] if looks else {}


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors whose names start with a prefix, by the rest of their names."""
    found = {n: tensor for n, tensor in tensors.items() if n.startswith(prefix)}
    return {name.removeprefix(prefix): tensor for name, tensor in found.items()}


def _entries(state: dict, prefix: str, optimizer: torch.optim.Optimizer) -> dict[int, dict]:
    """An optimizer's state of each parameter. Raises ValueError, IndexError if it cannot be."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict] = {}
    for name, tensor in state.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split(".")
            if tensor.shape not in (parameters[int(index)].shape, ()):
                raise ValueError(name)
            entries.setdefault(int(index), {})[key] = tensor
    return entries


def _chance(seed: int, step: int, rank: int) -> int:
    """The seed of what the model draws in a step on a worker."""
    return int(np.random.SeedSequence((seed, step, rank, CHANCE)).generate_state(1)[0])


def _diverged(what: str, step: int) -> Diverged:
    return Diverged(f"{what} at step {step}; try a lower rate (--set lr=, --set muon_lr=)")


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that Ctrl-C, SIGTERM and SIGHUP append to: a step and its checkpoint are finished.

    A second Ctrl-C stops at once; other signals may well come twice, as from a launcher and from
    whoever it has them from. Signals that are ignored (nohup) stay so.
    """
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT in seen:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        heard = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
        heard = [s for s in heard if signal.getsignal(s) is not signal.SIG_IGN]
        old = {s: signal.signal(s, note) for s in heard}
    except ValueError:  # not in the main thread: the caller handles signals
        yield seen
        return
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
