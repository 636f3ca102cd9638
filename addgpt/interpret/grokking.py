"""Progress measures of grokking in modular sums (Nanda et al. 2023, arXiv:2301.05217).

The logits of a model that has understood a + b mod p are waves in a + b at a few key frequencies.
Two losses show how much of that a model has before its accuracy does: on held-out problems if only
those waves are left of its logits (*restricted*), and on training problems if they are removed
(*excluded*).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from addgpt.config.errors import UsageError
from addgpt.interpret.activations import run
from addgpt.interpret.sample import of_batch
from addgpt.interpret.subject import Subject
from addgpt.model.gpt import GPT
from addgpt.runs.run import KEPT, Run

KEY = 0.05  # share of the power of all waves from which on a frequency is a key frequency
SIGN = {"+": 1, "-": -1}


def grokking(opened: Run) -> list[dict[str, Any]]:
    """A row for each model that a run kept: `step`, `train_exact`, `val_exact` (shares), and losses
    in nats: `train_loss`, `val_loss`, `restricted`, `excluded`. Key frequencies are those of the
    last model. Raises UsageError for a run of another task, or that kept no models."""
    task: Any = opened.task()
    if getattr(task, "op", None) not in SIGN or not hasattr(task, "table"):
        raise UsageError("progress measures are of sums and differences of --task modular")
    models = list(opened.kept())
    if not models:
        raise UsageError(f"{opened.path} has no {KEPT}/: train it with --set keep=log")
    logits = [(step, logits_of(Subject(_gpt(model), task))) for step, model in models]
    keys = key_frequencies(logits[-1][1], SIGN[task.op])
    return [{"step": step} | dict(_measures(some, task, keys)) for step, some in logits]


def logits_of(of: Subject) -> np.ndarray:
    """(p, p, p) logits of each residue for each pair a, b."""
    task: Any = of.task
    p = task.p
    pairs = np.stack(np.divmod(np.arange(p * p), p), 1)
    some, found = of_batch(of, task.written(pairs)), []
    for part in some.parts():
        out = run(of.model, part.tokens, part.ids, part.prompt)
        found.append(out[:, 2, :p].float().cpu().numpy())
    return np.concatenate(found).reshape(p, p, p)


def waves(p: int, frequency: int, sign: int = 1) -> np.ndarray:
    """(2, p, p) cosine and sine of 2 pi k (a + b) / p, of length 1 over all pairs; `sign` of b. At
    half of an even p there is no sine: zeros."""
    a, b = np.divmod(np.arange(p * p).reshape(p, p), p)
    angle = 2 * np.pi * frequency * (a + sign * b) / p
    both = np.stack([np.cos(angle), np.sin(angle) * (2 * frequency != p)])
    return both / np.sqrt(np.square(both).sum((1, 2), keepdims=True)).clip(np.finfo(float).tiny)


def projected(logits: np.ndarray, frequencies: list[int], sign: int = 1) -> np.ndarray:
    """(p, p, p) the part of logits, less their mean over pairs, that is waves of such
    frequencies."""
    centred = logits - logits.mean((0, 1))
    out = np.zeros_like(centred)
    for frequency in frequencies:
        both = waves(len(logits), frequency, sign)
        out += np.einsum("wab,wc->abc", both, np.einsum("wab,abc->wc", both, centred))
    return out


def key_frequencies(logits: np.ndarray, sign: int = 1) -> list[int]:
    """The frequencies that hold `KEY` or more of the power of all waves in a + b."""
    p = len(logits)
    centred = logits - logits.mean((0, 1))
    power = np.array(
        [
            np.square(np.einsum("wab,abc->wc", waves(p, k, sign), centred)).sum()
            for k in range(1, p // 2 + 1)
        ]
    )
    return [k for k, share in enumerate(power / power.sum(), 1) if share >= KEY]


def _measures(logits: np.ndarray, task: Any, keys: list[int]) -> Iterator[tuple[str, float]]:
    pairs = {split: task.table[split] for split in ("train", "val")}
    right = {split: task.written(some).tokens[:, 3].astype(int) for split, some in pairs.items()}

    def loss(values: np.ndarray, split: str) -> float:
        chosen = torch.from_numpy(values[tuple(pairs[split].T)])
        return float(F.cross_entropy(chosen, torch.from_numpy(right[split])))

    for split in pairs:
        best = logits[tuple(pairs[split].T)].argmax(-1)
        yield f"{split}_exact", float((best == right[split]).mean())
    for split in pairs:
        yield f"{split}_loss", loss(logits, split)
    part = projected(logits, keys, SIGN[task.op])
    yield "restricted", loss(part + logits.mean((0, 1)), "val")
    yield "excluded", loss(logits - part, "train")


def _gpt(model: Any) -> GPT:
    if not isinstance(model, GPT):
        raise UsageError("progress measures need a run of architecture=gpt")
    return model
