"""Loss on a held-out text, by one of three rulers.

blocks   all of the text in consecutive blocks as long as those of training, each read by itself
overlap  all of it in blocks that overlap by half, so that half a block is before each character
random   blocks from random places, 200 batches of 12, as nanoGPT estimates its losses
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from addgpt.config.errors import UsageError
from addgpt.evaluation.scorecard import run_facts
from addgpt.model.build import Model
from addgpt.model.forward import forward, next_token_loss
from addgpt.runs.files import write_checked
from addgpt.runs.run import Run
from addgpt.task import Batch, Task, TextTask

Show = Callable[..., Iterable[Batch]]
BATCHES, ROWS = 200, 12  # of random blocks


def silently(batches: Iterable[Batch], *about: object) -> Iterable[Batch]:
    """The batches, without any progress shown."""
    return batches


@dataclass(frozen=True)
class Score:
    """Loss on `n` characters.

    context    characters that each one but the first ones had before it, at least
    nats       mean cross-entropy of a character
    half       half the width of its 95 % interval where batches are drawn at random, else None
    """

    split: str
    context: int
    n: int
    nats: float
    ruler: str = "blocks"
    half: float | None = None

    @property
    def bits(self) -> float:
        """Mean cross-entropy of a character in bits."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """exp(nats): among how many equally likely characters the model would be as unsure."""
        return math.exp(self.nats)

    def row(self) -> dict[str, Any]:
        return {
            "split": self.split,
            "ruler": self.ruler,
            "context": self.context,
            "n": self.n,
            "nats": self.nats,
            "half": self.half,
            "bits": self.bits,
            "perplexity": self.perplexity,
        }


@torch.inference_mode()
def score_text(
    model: Model, task: Task, split: str, context: int = 0, show: Show = silently
) -> Score:
    """The loss on all of a split. Raises ValueError if the task is no text.

    A running text is cut into consecutive blocks as long as those of training, each read by itself:
    its k-th character is predicted from k - 1 before it. With `context`, blocks overlap by that
    many characters, and every character but the first `context` is predicted from at least as many.
    `show` passes the batches on and shows progress (`progress.counted`).
    """
    model.eval()
    total, count = 0.0, 0
    if not isinstance(task, TextTask):
        raise UsageError(f"task {task.name} has no text to score")
    size = task.num_tokens(split)
    for batch in show(task.whole(split, context), size, f"scoring {size:,} characters", _predicted):
        logits, targets = forward(model, batch)
        total += float(next_token_loss(logits, targets))
        count += _predicted(batch)
    if not count:
        raise UsageError(f"task {task.name} has no text to score")
    return Score(split, context, count, total / count, "overlap" if context else "blocks")


@torch.inference_mode()
def sample_text(
    model: Model, task: Task, split: str, seed: int = 0, show: Show = silently
) -> Score:
    """The mean loss of random batches of a split, as nanoGPT reports it, with a 95 % interval.

    Blocks may overlap, and the lowest of several such means, one for each validation in training,
    is lower than the true loss. Raises ValueError if the task is no text.
    """
    model.eval()
    if not isinstance(task, TextTask):
        raise UsageError(f"task {task.name} has no text to score")
    rng = np.random.default_rng(seed)
    losses, count = [], 0
    batches = (task.batch(rng, ROWS, split) for _ in range(BATCHES))
    for batch in show(batches, BATCHES, f"scoring {BATCHES} random batches"):
        logits, targets = forward(model, batch)
        losses.append(float(next_token_loss(logits, targets)) / _predicted(batch))
        count += _predicted(batch)
    half = 1.96 * float(np.std(losses, ddof=1)) / math.sqrt(BATCHES)
    return Score(split, 0, count, float(np.mean(losses)), "random", half)


def _predicted(batch: Batch) -> int:
    return int(batch.scored[:, 1:].sum())


def score_loss(
    run: Run,
    split: str = "test",
    show: Show = silently,
    rulers: Sequence[str] = (),
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The loss of a run's model on a split, a row for each of some rulers.

    Without any named: blocks and, for running text, overlap. A task without that split is scored on
    its last one, val. `seed` is that of random batches. Raises UsageError.
    """
    task = run.task()
    split = split if split in task.splits else task.splits[-1]
    block = task.longest() - 1
    lines = bool(task.end) or block < 2
    if lines and "overlap" in rulers:
        raise UsageError("overlap is for running text; valid for this task: blocks, random")
    model, progress = run.load()
    facts = run_facts(run, model, progress)
    found = []
    for ruler in rulers or (("blocks",) if lines else ("blocks", "overlap")):
        if ruler == "random":
            score = sample_text(model, task, split, seed, show)
        else:
            score = score_text(model, task, split, block // 2 * (ruler == "overlap"), show)
        found.append(facts | score.row())
    return found


def write_loss(
    folder: Path, rows: list[dict[str, Any]], task: Task, rulers: Sequence[str] = ()
) -> Path:
    """Write the rows of `score_loss` to `loss_file`; returns its path. Raises RunError."""
    split = rows[0]["split"]
    file = loss_file(folder, "" if split == task.splits[-1] else split, rulers)
    write_checked(folder, {file.name: json.dumps(rows, indent=2) + "\n"})
    return file


def loss_file(folder: Path, split: str, rulers: Sequence[str] = ()) -> Path:
    """loss.json holds the loss on the text's last split, loss-train.json, for example, that on what
    was trained on, and loss-random.json that by the ruler `random` alone."""
    parts = ["loss", *([split] if split else []), *rulers]
    return folder / f"{'-'.join(parts)}.json"
