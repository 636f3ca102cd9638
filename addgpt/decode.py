"""Batched generation with a key-value cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from addgpt.model import GPT, Cache

WORTH = 0.75  # share of unfinished rows below which the finished ones are dropped

Positions = Callable[[np.ndarray, int], np.ndarray]  # Task.positions


@dataclass(frozen=True)
class Generated:
    """What a model wrote after B prompts.

    tokens       (B, T) uint8   written tokens, the end mark included, then end marks
    length       (B,) int       how many of them count (up to and including the end mark)
    terminated   (B,) bool      whether the end mark came before the limit
    probability  (B, T) float32 the model's probability of each written token
    """

    tokens: np.ndarray
    length: np.ndarray
    terminated: np.ndarray
    probability: np.ndarray


@torch.inference_mode()
def generate(
    model: GPT,
    positions: Positions,
    prompts: np.ndarray,
    limit: int,
    end: int,
    temperature: float = 0.0,
    top_k: int = 0,
    rng: torch.Generator | None = None,
) -> Generated:
    """Continue (B, T) prompts of equal length up to the end mark, or by `limit` tokens.

    Greedy at temperature 0, else sampled from the `top_k` likeliest tokens (0: from all). Finished
    rows leave the batch, several at a time, so that a long one does not make the others wait.
    """
    device = next(model.parameters()).device
    rows, start = prompts.shape
    limit = max(1, limit)
    tokens = np.full((rows, start + limit), end, np.uint8)
    tokens[:, :start] = prompts
    probability = np.ones((rows, limit), np.float32)
    length = np.full(rows, limit)
    terminated = np.zeros(rows, bool)
    inside = np.arange(rows)  # rows that are still in the cache, finished or not
    cache = Cache(model.config, rows, start + limit, device)
    ids = positions(prompts, limit)
    read = 0
    for now in range(start, start + limit):
        if ids.shape[1] <= now:
            ids = positions(tokens[inside, :now], start + limit - now)
        logits = model(
            torch.from_numpy(tokens[inside, read:now].astype(np.int64)).to(device),
            torch.from_numpy(ids[:, read : now + 1].astype(np.int64)).to(device),
            cache,
        )[:, -1].float()
        read = now
        chosen, chance = _choose(logits, temperature, top_k, rng)
        open_ = ~terminated[inside]
        alive = inside[open_]
        tokens[alive, now] = chosen[open_]
        probability[alive, now - start] = chance[open_]
        done = alive[chosen[open_] == end]
        length[done] = now - start + 1
        terminated[done] = True
        left = np.flatnonzero(~terminated[inside])
        if not len(left):
            break
        if len(left) <= WORTH * len(inside):
            inside, ids = inside[left], ids[left]
            cache.keep(torch.from_numpy(left).to(device))
    return Generated(tokens[:, start:], length, terminated, probability)


def _choose(
    logits: Tensor, temperature: float, top_k: int, rng: torch.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Next tokens of (B, V) logits and the model's probability of each."""
    chances = logits.softmax(-1)
    if temperature <= 0:
        chosen = logits.argmax(-1)
    else:
        scaled = logits / temperature
        if 0 < top_k < scaled.shape[-1]:
            least = scaled.topk(top_k).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        chosen = torch.multinomial(scaled.softmax(-1), 1, generator=rng)[:, 0]
    chance = chances.gather(1, chosen[:, None])[:, 0]
    return chosen.cpu().numpy(), chance.cpu().numpy()
