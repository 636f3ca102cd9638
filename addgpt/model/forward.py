"""Batches through a model: logits, targets, the loss, and which rows are right throughout."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from addgpt.config.architectures import ModelConfig
from addgpt.model.build import Model, cache_of
from addgpt.model.distinct import context_logits, sees_contexts, slot_logits
from addgpt.model.gpt import GPT
from addgpt.model.kv_cache import LocalCache
from addgpt.task import Batch

# Bound memory: rows are processed in groups of about this many tokens, or query-key pairs.
TOKENS_AT_ONCE = 1 << 15
PAIRS_AT_ONCE = 1 << 24
CPU_TOKENS_AT_ONCE = 1 << 12  # on a CPU: its caches then hold what a block works on
SAME = 32  # times as many, where each context is worked on once: more of them are alike
SAME_CHANNELS = 1 << 11  # as many times the width of the model at most: what is added to each token
FEW_TOKENS = 512  # of which it does not pay to look for those with the same context
PADDED = 64  # slots of a pass in bfloat16 are a multiple of this
NARROW_BELOW = 0.7  # share of scored places below which only their logits are computed


def forward(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, S, V) and targets (B, S), -1 where not scored.

    S is T - 1, or where the scored tokens are few, just enough places to hold those of each row.
    """
    tokens, ids, targets = tensors(batch, next(model.parameters()).device)
    prompt = None
    if model.config.prefix:
        prompt = torch.from_numpy(batch.scored.argmax(1)).to(tokens.device)
    places = wanted_places(batch)
    if places is None:
        return model(tokens, ids, prompt=prompt), targets
    at = torch.from_numpy(places).to(tokens.device)
    return model(tokens, ids, at=at, prompt=prompt), targets.gather(1, at)


def scored_logits(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and targets as of `forward`, for training: where attention is local in one block, of
    the scored tokens alone, in one row."""
    row, place = batch.scored[:, 1:].nonzero()
    if not len(row) or not sees_contexts(model):
        return forward(model, batch)
    targets = batch.tokens[row, place + 1].astype(np.int64)
    if torch.is_autocast_enabled("cpu"):  # a new number of slots would have new kernels made
        more = -len(row) % PADDED
        row, place = (np.pad(x, (0, more), "edge") for x in (row, place))
        targets = np.pad(targets, (0, more), constant_values=-1)
    ids = torch.from_numpy(batch.positions.astype(np.int64))
    logits = slot_logits(model, batch.tokens[:, :-1], ids, (row, place))
    return logits[None], torch.from_numpy(targets)[None]


def wanted_places(batch: Batch) -> np.ndarray | None:
    """(B, S) the places whose logits `forward` gives; None: all T - 1 of them."""
    length, most = batch.scored.shape[1] - 1, int((batch.scored[:, 1:].sum(1)).max(initial=1))
    if most > NARROW_BELOW * length:
        return None
    first = np.minimum(batch.scored[:, 1:].argmax(1), length - most)
    return first[:, None] + np.arange(most)


def tensors(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs and targets: tokens (B, T-1), position ids (B, T, L), targets (B, T-1)."""
    targets = np.where(batch.scored, batch.tokens.astype(np.int64), -1)
    return (
        torch.from_numpy(batch.tokens[:, :-1].astype(np.int64)).to(device),
        torch.from_numpy(batch.positions.astype(np.int64)).to(device),
        torch.from_numpy(targets[:, 1:]).to(device),
    )


def next_token_loss(
    logits: Tensor, targets: Tensor, smoothing: float = 0.0, z_loss: float = 0.0
) -> Tensor:
    """Summed cross-entropy of (B, T, V) logits against (B, T) targets, -1 meaning "not scored".

    Args:
        smoothing: share of each target that is spread over all tokens (Szegedy et al. 2016,
            arXiv:1512.00567).
        z_loss: weight of log(Z)^2, Z the sum of the softmax (Chowdhery et al. 2022,
            arXiv:2204.02311).
    """
    logits, targets = logits.flatten(0, 1).float(), targets.flatten()
    loss = F.cross_entropy(
        logits, targets, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    )
    if z_loss:
        loss = loss + z_loss * logits[targets >= 0].logsumexp(-1).square().sum()
    return loss


def loss(model: Model, batch: Batch) -> float:
    """Mean cross-entropy of the scored tokens, in nats."""
    total, _ = loss_and_exact(model, batch)
    return total / max(1, int(batch.scored[:, 1:].sum()))


def exact_rows(model: Model, batch: Batch) -> np.ndarray:
    """(B,) whether every scored token is the argmax, given the true tokens before it."""
    right = np.zeros(len(batch), bool)
    for index, logits, targets in passes(model, batch):
        right[index] = all_hit(logits, targets)
    return right


def exact_chances(model: Model, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """`exact_rows`, and (B,) the log of the probability of all scored tokens of each row."""
    right, chances = np.zeros(len(batch), bool), np.zeros(len(batch))
    for index, logits, targets in passes(model, batch):
        right[index] = all_hit(logits, targets)
        each = logits.float().log_softmax(-1).gather(2, targets.clamp(min=0)[:, :, None])[:, :, 0]
        chances[index] = each.where(targets >= 0, 0).sum(1).cpu().numpy()
    return right, chances


def loss_and_exact(model: Model, batch: Batch) -> tuple[float, np.ndarray]:
    """Cross-entropy in nats, summed over the scored tokens, and `exact_rows`, from one pass."""
    total, right = 0.0, np.zeros(len(batch), bool)
    for index, logits, targets in passes(model, batch):
        total += float(next_token_loss(logits, targets))
        right[index] = all_hit(logits, targets)
    return total, right


def all_hit(logits: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """(B,) whether each target (B, S) that is scored is the argmax of its logits (B, S, V)."""
    return ((logits.argmax(-1) == targets) | (targets < 0)).all(1).cpu().numpy()


@torch.inference_mode()
def passes(model: Model, batch: Batch) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """The rows of a batch in groups of bounded size: which they are, and `forward` of them."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    size = CPU_TOKENS_AT_ONCE if on_cpu else TOKENS_AT_ONCE
    # A single row in a window has few contexts twice: looking for them would take longer.
    again = len(batch) > 1 or getattr(model.config, "attention", "") == "reads"
    once = model if again and sees_contexts(model) else None
    same = 1 if once is None else max(1, min(SAME, SAME_CHANNELS // once.config.width))
    tokens = size * same
    for index in groups(model.config, batch, np.arange(len(batch)), tokens):
        rows = batch.rows(index)
        if model.config.local and rows.tokens.shape[1] > tokens:
            yield index, *_in_pieces(model, rows, size)
        elif once is not None and rows.tokens.size >= FEW_TOKENS and rows.scored[:, 1:].any():
            yield index, *_by_context(once, rows, size)
        else:
            yield index, *forward(model, rows)


def _by_context(model: GPT, batch: Batch, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`forward` of the scored places alone, those of each row side by side."""
    row, place = scored = batch.scored[:, 1:].nonzero()
    ids = torch.from_numpy(batch.positions.astype(np.int64))
    logits, which = context_logits(model, batch.tokens[:, :-1], ids, scored, size)
    order = batch.scored[:, 1:].cumsum(1)[scored] - 1
    shape = len(batch), int(order.max(initial=0)) + 1
    contexts, targets = np.zeros(shape, np.int64), np.full(shape, -1)
    contexts[row, order], targets[row, order] = which, batch.tokens[row, place + 1]
    return logits[torch.from_numpy(contexts)], torch.from_numpy(targets)


def _in_pieces(model: Model, batch: Batch, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`forward` of a few long rows, `size` tokens at a time: only a cache grows with their length,
    where attention is local."""
    tokens, ids, targets = tensors(batch, next(model.parameters()).device)
    rows, length = tokens.shape
    cache = cache_of(model.config, rows, length, tokens.device)
    assert isinstance(cache, LocalCache), cache
    cache.plan(ids)
    pieces = [slice(start, start + size) for start in range(0, length, size)]
    logits = [model(tokens[:, p], ids[:, p.start : p.stop + 1], cache) for p in pieces]
    return torch.cat(logits, 1), targets


def pairs_at_once(config: ModelConfig) -> int:
    """How many pairs of query and key a pass may hold; local attention holds none."""
    return sys.maxsize if config.local else PAIRS_AT_ONCE


def groups(
    config: ModelConfig,
    batch: Batch,
    rows: np.ndarray,
    tokens: int,
    equal_prompts: bool = False,
) -> Iterator[np.ndarray]:
    """Rows in groups of at most `tokens` tokens, of similar (if asked for, equal prompt) length."""
    lengths, prompt = batch.lengths, batch.scored.argmax(1)
    order = rows[np.lexsort((lengths[rows], prompt[rows] if equal_prompts else lengths[rows]))]
    start = 0
    while start < len(order):
        longest = int(lengths[order[start:]].max())
        size = max(1, min(tokens // longest, pairs_at_once(config) // longest**2))
        group = order[start : start + size]
        if equal_prompts:
            group = group[prompt[group] == prompt[group[0]]]
        yield group
        start += len(group)
