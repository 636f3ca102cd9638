"""Loss on a whole held-out text, each of its characters predicted once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from addgpt.config.errors import UsageError
from addgpt.evaluation.scorecard import run_facts
from addgpt.model.build import Model
from addgpt.model.forward import forward, next_token_loss
from addgpt.runs.files import write_checked
from addgpt.runs.run import Run
from addgpt.task import Batch, Task, TextTask

Show = Callable[..., Iterable[Batch]]


def silently(batches: Iterable[Batch], *about: object) -> Iterable[Batch]:
    """The batches, and not a word about how far it is."""
    return batches


@dataclass(frozen=True)
class Score:
    """Loss on `n` characters.

    context    characters that each one but the first ones had before it, at least
    nats       mean cross-entropy of a character
    """

    split: str
    context: int
    n: int
    nats: float

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
            "context": self.context,
            "n": self.n,
            "nats": self.nats,
            "bits": self.bits,
            "perplexity": self.perplexity,
        }


@torch.inference_mode()
def score_text(
    model: Model, task: Task, split: str, context: int = 0, show: Show = silently
) -> Score:
    """The loss on all of a split. Raises ValueError if the task is no text.

    A running text is cut into consecutive blocks as long as those of training, each read by itself:
    its k-th character is predicted from k - 1 before it. With `context`, blocks overlap by so much
    and every character but the first `context` is predicted from at least so many. `show` passes
    the batches on and tells a person how far it is (`progress.counted`).
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
    return Score(split, context, count, total / count)


def _predicted(batch: Batch) -> int:
    return int(batch.scored[:, 1:].sum())


def score_loss(run: Run, split: str = "test", show: Show = silently) -> list[dict[str, Any]]:
    """The loss of a run's model on a whole split, a row for each way of scoring it.

    Two rows for running text: consecutive blocks, and blocks that overlap by half. A task without
    that split is scored on its last one, val.
    """
    task = run.task()
    split = split if split in task.splits else task.splits[-1]
    model, progress = run.load()
    facts = run_facts(run, model, progress)
    block = task.longest() - 1
    contexts = (0,) if task.end or block < 2 else (0, block // 2)
    return [facts | score_text(model, task, split, context, show).row() for context in contexts]


def write_loss(folder: Path, rows: list[dict[str, Any]], split: str = "test") -> Path:
    """Write the rows of `score_loss` to `loss_file`; returns its path. Raises RunError."""
    file = loss_file(folder, split)
    write_checked(folder, {file.name: json.dumps(rows, indent=2) + "\n"})
    return file


def loss_file(folder: Path, split: str) -> Path:
    """loss.json holds the loss on held-out text, loss-train.json that on what was trained on."""
    return folder / ("loss-train.json" if split == "train" else "loss.json")
