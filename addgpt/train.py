"""The one training loop. It knows no task: a task is a source of batches."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt import optim
from addgpt.config import RunConfig
from addgpt.device import autocast, pick_device, prepare
from addgpt.evaluate import exact_rows, forward, loss
from addgpt.model import GPT, next_token_loss
from addgpt.runs import Run, RunError, load_weights
from addgpt.task import Batch, Task

LOOK_SEED = 1_000_003  # looks at val use their own stream, whatever the training seed


class Interrupted(Exception):
    """Training was asked to stop (Ctrl-C, SIGTERM); the checkpoint is saved."""


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


def train(run: Run, watch: Watch = lambda moment: None, weights: dict | None = None) -> Moment:
    """Train the model of a run, from its checkpoint if it has one, and save it.

    Batch number `step` is a pure function of (seed, step), so that a resumed run ends with the
    weights of an uninterrupted one.

    Args:
        watch: called after every step.
        weights: what to start from instead of random weights, if the run has no checkpoint.

    Raises:
        Interrupted: after saving, on Ctrl-C or SIGTERM.
        Diverged: the loss is NaN or infinite; the last good checkpoint stays.
    """
    config = run.config
    prepare(config.train.threads)
    with run.locked(), torch.random.fork_rng(devices=[]), _stop_signals() as stopped:
        torch.manual_seed(config.seed)
        loop = _Loop(run, weights)
        while not loop.finished:
            loop.advance()
            if loop.due(config.train.eval_every):
                loop.look()
            if loop.due(config.train.save_every):
                loop.save()
            watch(loop.moment)
            if stopped and not loop.finished:
                loop.save()
                raise Interrupted(f"stopped at step {loop.moment.step}")
        loop.save()
        return loop.moment


def check_startable(config: RunConfig) -> None:
    """Raise ValueError if the model of a config cannot be, or its device is not here."""
    pick_device(config.train.device)
    GPT(config.model)


class _Loop:
    """Model, optimizers and progress of a run in training."""

    def __init__(self, run: Run, weights: dict | None) -> None:
        self.run, self.config = run, run.config
        self.settings = run.config.train
        self.task: Task = run.task()
        self.device = pick_device(self.settings.device)
        self.model = GPT(self.config.model, self.config.seed)
        self.moment = Moment(0, self.settings.steps, 0, 0, 0.0, math.nan, {})
        if weights is not None and not run.started:
            self.model.load_state_dict(weights)
        self.model.to(self.device)
        self.optimizers = optim.build(self.model, self.settings)
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]
        self.exam = self.task.batch(
            np.random.default_rng(LOOK_SEED), self.settings.eval_size, "val"
        )
        self.reached = False
        if run.started:
            self._resume()
        else:  # lines of an attempt that never saved
            run.forget_after(0)

    @property
    def finished(self) -> bool:
        return self.moment.step >= self.settings.steps or self.reached

    def due(self, every: int) -> bool:
        return self.moment.step % every == 0 or self.moment.step == self.settings.steps

    def advance(self) -> None:
        """One optimizer step."""
        began = time.perf_counter()
        self.model.train()
        step = self.moment.step
        rng = np.random.default_rng((self.config.seed, step, 0))
        batch = self.task.batch(rng, self.settings.batch_size, "train")
        value = self._backward(batch)
        if not math.isfinite(value):
            raise _diverged(f"the loss is {value}", step)
        optim.clip(self.optimizers, self.settings.clip)
        share = optim.rate(step, self.settings)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.moment.step += 1
        self.moment.examples += len(batch)
        self.moment.tokens += int(batch.lengths.sum())
        self.moment.loss = value
        self.moment.seconds += time.perf_counter() - began

    def look(self) -> None:
        """Score val and log a line."""
        self.model.eval()
        row = {
            "step": self.moment.step,
            "examples": self.moment.examples,
            "tokens": self.moment.tokens,
            "seconds": round(self.moment.seconds, 3),
            "loss": self.moment.loss,
            "val_loss": loss(self.model, self.exam),
        }
        if self.task.cells():
            row["val_exact"] = float(exact_rows(self.model, self.exam).mean())
            self.reached = self._reached(row["val_exact"])
        self.moment.look = row
        self.run.log(row)

    def _reached(self, exact: float) -> bool:
        return 0 < self.settings.stop_at <= exact

    def save(self) -> None:
        """Write a checkpoint, unless the weights are no longer numbers."""
        if not all(bool(p.isfinite().all()) for p in self.model.parameters()):
            raise _diverged("some weights are no longer numbers", self.moment.step)
        state = {"rng": torch.get_rng_state()}
        for number, optimizer in enumerate(self.optimizers):
            for index, entry in optimizer.state_dict()["state"].items():
                for key, value in entry.items():
                    state[f"optim.{number}.{index}.{key}"] = torch.as_tensor(value)
        progress = {
            "step": self.moment.step,
            "examples": self.moment.examples,
            "tokens": self.moment.tokens,
            "seconds": round(self.moment.seconds, 3),
            "val_exact": self.moment.look.get("val_exact", 0.0),
        }
        self.run.save(self.model, state, progress)

    def _backward(self, batch: Batch) -> float:
        """Gradients of the mean loss over the scored tokens; rows of like length share a pass."""
        rows = self.settings.micro_batch or len(batch)
        order = np.argsort(batch.lengths, kind="stable") if rows < len(batch) else np.arange(rows)
        count = max(1, int(batch.scored[:, 1:].sum()))
        total = 0.0
        for start in range(0, len(batch), rows):
            part = batch if rows >= len(batch) else batch.rows(order[start : start + rows])
            with autocast(self.device, self.settings.precision):
                logits, targets = forward(self.model, part)
            value = next_token_loss(logits, targets) / count
            value.backward()
            total += value.item()
        return total

    def _resume(self) -> None:
        state, progress = self.run.state()
        source = self.run.path / "state.safetensors"
        load_weights(
            self.model,
            {n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")},
            source,
        )
        for number, optimizer in enumerate(self.optimizers):
            entries: dict[int, dict] = {}
            for name, tensor in state.items():
                if name.startswith(f"optim.{number}."):
                    _, _, index, key = name.split(".")
                    entries.setdefault(int(index), {})[key] = tensor
            optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})
        torch.set_rng_state(state["rng"])
        self.reached = self._reached(progress.pop("val_exact"))
        for key, value in progress.items():
            setattr(self.moment, key, value)
        self.run.forget_after(self.moment.step)


def _diverged(what: str, step: int) -> Diverged:
    return Diverged(f"{what} at step {step}; try a lower rate (--set lr=, --set muon_lr=)")


@contextlib.contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM append to, so that a step and its checkpoint are finished.

    A second Ctrl-C stops at once.
    """
    seen: list[int] = []

    def note(number: int, frame: Any) -> None:
        if seen:
            raise KeyboardInterrupt
        seen.append(number)

    try:
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: the caller handles signals
        yield seen
        return
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
