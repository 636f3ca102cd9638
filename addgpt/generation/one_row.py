"""One row of one block of local attention, token by token, in numpy.

A token of such a model is a dozen products of a small matrix and a vector. Torch takes longer to
begin an operation than numpy to do it, so the same formulas (addgpt/model/gpt.py) are written out
here once more, for the default parts alone; logits are the same but for rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import numpy as np
import torch
from torch import Tensor

from addgpt.model.gpt import GPT, Attention, Block
from addgpt.model.hooks import has_hooks
from addgpt.model.kv_cache import LocalCache

AHEAD = 1 << 11  # tokens whose positions are computed together
EPS = np.finfo(np.float32).eps
Step = Callable[[int], np.ndarray]


def can_step(model: torch.nn.Module) -> bool:
    """Whether `stepper` knows all parts of a model, and none has hooks."""
    if type(model) is not GPT or not model.config.plain or not model.config.local:
        return False
    c, first = model.config, next(model.parameters())
    usual = c.depth == 1 and c.norm in ("plain", "none") and c.hidden and c.activation == "relu2"
    usual = usual and c.qk_norm and not {"rotary", "rotary2"} & {c.position, *c.scheme}
    usual = usual and not (c.dropout and model.training)
    there = first.device.type == "cpu" and first.dtype == torch.float32
    return bool(usual and there and not has_hooks(model) and not torch.is_autocast_enabled("cpu"))


def greedy(step: Step, logits: np.ndarray) -> Iterator[tuple[int, float]]:
    """The likeliest next token and its probability, again and again, from the first (V,) logits."""
    while True:
        token = int(logits.argmax())
        yield token, float(1 / np.exp(logits - logits[token]).sum())
        logits = step(token)


def stepper(model: GPT, cache: LocalCache, ids: Tensor) -> Step:
    """A function that reads one token and gives the (V,) logits of the next.

    Args:
        cache: what has been read of one row; it is extended.
        ids: (1, T + 1, L) of all tokens, planned in the cache.
    """
    c, block = model.config, cast(Block, model.blocks[0])
    assert isinstance(block.attention, Attention) and block.attention.gain is not None and block.mlp
    shape = c.heads, c.width // c.heads
    head = model.token if model.head is None else model.head
    linear = block.attention.qkv, block.attention.out, block.mlp.up, block.mlp.down
    embedding, logits, qkv, out, up, down = (
        part.matrix().detach().numpy() for part in (model.token, head, *linear)
    )
    qkv = qkv.reshape(-1, c.width)
    gain = block.attention.gain.detach().numpy()[:, 0]  # (H, 1)
    keys, values = cache.store[0, :, 0].numpy()  # (T, H, D) each, shared with the cache
    plan, first = _plan(model, cache, ids), cache.used

    def norm(x: np.ndarray) -> np.ndarray:
        return x if c.norm == "none" else x / np.sqrt(x.dot(x) / c.width + EPS)

    def unit(x: np.ndarray) -> np.ndarray:
        """(H, D) vectors at length 1."""
        return x / np.maximum(np.sqrt((x * x).sum(1, keepdims=True)), 1e-12)

    def step(token: int) -> np.ndarray:
        nonlocal plan, first
        now = cache.used
        if now - first == len(plan[0]):
            plan, first = _plan(model, cache, ids), now
        added, bias, seen = (part[now - first] for part in plan)  # (C,), (R, H), (R,)
        x = embedding[token] + added
        query, key, value = qkv.dot(norm(x)).reshape(3, *shape)
        keys[now], values[now] = unit(key), value
        products = (keys.take(seen, 0) * (unit(query) * gain)).sum(2) + bias  # (R, H)
        weights = np.exp(products - products.max(0))
        found = (weights[:, :, None] * values.take(seen, 0)).sum(0) / weights.sum(0)[:, None]
        x = x + out.dot(found.ravel())
        x = x + down.dot(np.square(np.maximum(up.dot(norm(x)), 0)))
        cache.used = now + 1
        return logits.dot(norm(x))

    return step


def _plan(model: GPT, cache: LocalCache, ids: Tensor) -> tuple[np.ndarray, ...]:
    """For the next tokens, what positions add to each, to its products, and which keys it sees."""
    last = min(cache.used + AHEAD, ids.shape[1] - 1)
    known = model.positions.slots(ids[:, cache.used : last + 1], cache).known
    assert known is not None and known.angles is None and known.seen is not None
    bias = known.bias.expand(-1, model.config.heads, -1, -1)[0].permute(1, 2, 0)
    parts = known.added[0], bias.contiguous(), known.seen[0].clamp(min=0)
    return tuple(part.numpy() for part in parts)
