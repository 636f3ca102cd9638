"""Attention masks, biases and scaling, and the weighted sum of values.

Shapes: B rows, H heads, G heads of keys and values, T tokens, S of them as queries, K keys (of
these tokens and of those read before), D channels a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

from addgpt.model.kv_cache import Cache
from addgpt.model.layers import gather, rows_at, softmax
from addgpt.model.rotary import Angles, apply_rotary

FEW_KEYS = 80  # of which all products with many queries take less than gathering those seen


@dataclass(frozen=True, kw_only=True)
class AttentionContext:
    """Which keys the queries of one pass see, and how positions enter; the same in every block.

    In the last block it may be narrower. Where only some places' logits are wanted, `at` makes a
    context whose queries stand at those places: the block then reads x (B, T, C), whose keys and
    values are all used, but computes only S places and returns (B, S, C). This saves nearly all
    of the last block while a prompt is read. A model that is called without `at` has T queries
    in each block, and the same logits: hooks on activations rely on that.

    start             which key, counted from 0, is the first query's own; each sees the keys up to
                      its own
    key_count         K
    places            (B, S) which keys are the queries' own; None: those from `start` on, in order
    prompt_lengths    (B or 1,) keys that all queries of the prompt see; None: there are none
    angles            of queries, (B or 1, 1, S, P), and of keys, (B or 1, 1, T, P): what they are
                      rotated by; None: no rotation
    bias              (B or 1, H, S, K) what is added to the products of queries and keys, or
                      all there is in position-only attention; with `seen`, (B, 1 or H, S, R) of
                      those keys. None: nothing
    reference_length  length at which log scaling changes nothing; 0: no log scaling
    device            where new tensors go
    cache             keys and values of earlier tokens; None: there are none
    seen              (B, S, R) which keys local attention shows each query, its own among them;
                      any, with a bias of -inf, where there are fewer. None: all up to its own
    rows              (B,) which row of `bias` and `seen` is whose, where many have the same; None:
                      each has its own, as in all that blocks are given
    """

    start: int
    key_count: int
    places: Tensor | None = None
    prompt_lengths: Tensor | None = None
    angles: tuple[Angles, Angles] | None = None
    bias: Tensor | None = None
    reference_length: int = 0
    device: torch.device | None = None
    cache: Cache | None = None
    seen: Tensor | None = None
    rows: Tensor | None = None

    def wanted(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, S, C): the places whose output is wanted."""
        return x if self.places is None else gather(x, self.places)

    def rotate(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        """Queries (B, H, S, D) and keys (B, G, T, D) turned by their angles."""
        if self.angles is None:
            return query, key
        return apply_rotary(query, self.angles[0]), apply_rotary(key, self.angles[1])

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """(B, H, S, D) weighted sums of values (B, G, K, D), by queries (B, H, S, D) and keys."""
        if self.logit_scale is not None:
            query = query * self.logit_scale
        if self.seen is not None and self.bias is not None:
            return attend_few(query, key, value, self.seen, self.bias, scale)
        return attend(query, key, value, self.mask, scale)

    @cached_property
    def visible(self) -> Tensor:
        """(B or 1, S) how many keys, from the first, each query sees."""
        own = self.places
        if own is None:
            own = torch.arange(self.start, self.key_count, device=self.device)[None]
        prompt = self.prompt_lengths
        return own + 1 if prompt is None else torch.maximum(own + 1, prompt[:, None])

    @cached_property
    def mask(self) -> Tensor | None:
        """The one place that hides keys: (B or 1, H or 1, S, T), true where a key is seen, or the
        biases of all keys, -inf where it is not. None: plain causal attention, no bias."""
        causal = self.places is None and self.start in (0, self.key_count - 1)
        if self.bias is None and self.prompt_lengths is None and causal:
            return None
        seen = torch.arange(self.key_count, device=self.device) < self.visible[:, None, :, None]
        if self.bias is None:
            return seen
        bias = self.bias if self.logit_scale is None else self.bias * self.logit_scale
        return bias.masked_fill(~seen, -torch.inf)

    @cached_property
    def logit_scale(self) -> Tensor | None:
        """(B or 1, 1, S, 1) factors of products and biases: log-length scaling. None: off.

        log n (Chiang and Cholak 2022, arXiv:2202.12172) over the log of the reference length. With
        `qk_norm` each head has a trained gain besides, as in Nakanishi 2025, arXiv:2501.19399.
        """
        if not self.reference_length:
            return None
        return (self.visible.log() / math.log(max(2, self.reference_length)))[:, None, :, None]

    def weigh(self, value: Tensor) -> Tensor:
        """(B, H, S, D) sums of values (B, G, K, D), weighted by biases alone: position-only
        attention."""
        if self.seen is not None:
            assert self.bias is not None
            return _sum_few(self.bias, value, self.seen)
        return weighted_sum(self.weights, value)

    @cached_property
    def weights(self) -> Tensor:
        """(B or 1, H, S, T) attention weights by position alone."""
        mask = self.mask
        assert mask is not None
        return softmax(mask)

    def of_rows(self) -> AttentionContext:
        """The same with a row of `bias` and `seen` for each row of the text."""
        if self.rows is None:
            return self
        bias, seen = (x if x is None else rows_at(x, self.rows) for x in (self.bias, self.seen))
        return replace(self, bias=bias, seen=seen, rows=None)

    def at(self, places: Tensor) -> AttentionContext:
        """The context of the queries at (B, S) alone, where this one has a query for each key."""
        angles, bias = self.angles, self.bias
        if angles is not None:
            rows = (part[:, 0].expand(len(places), -1, -1) for part in angles[0])
            cos, sin = (gather(part, places)[:, None] for part in rows)
            angles = (cos, sin), angles[1]
        if bias is not None:
            bias = self._queries(bias.transpose(1, 2), places).transpose(1, 2)
        seen = self.seen if self.seen is None else self._queries(self.seen, places)
        return replace(self, places=places, angles=angles, bias=bias, seen=seen, rows=None)

    def _queries(self, x: Tensor, places: Tensor) -> Tensor:
        """(B, S, ...) the places (B, S) of x (B or 1, T, ...), of whose rows `rows` may tell."""
        length, rows = x.shape[1], self.rows
        if rows is None:
            rows = torch.arange(len(places), device=places.device)
        index = places + (rows[:, None] * length if len(x) > 1 else 0)
        return rows_at(x.flatten(0, 1), index.flatten()).unflatten(0, places.shape)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, S, D) weighted sums of values: softmax(query key^T scale + mask) value.

    Args:
        query: (B, H, S, D).
        key, value: (B, G, T, D); G divides H, and groups of heads share them (Ainslie et al. 2023,
            arXiv:2305.13245).
        mask: as from `AttentionContext.mask`.
        scale: factor of the products of queries and keys.
    """
    added = mask is not None and mask.dtype != torch.bool
    if mask is not None and added:
        mask = mask.to(query.dtype)
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] == 1 and (added or mask is None):
        return _attend_one(query, key, value, mask, scale)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if query.device.type == "cpu" and (query.dtype == torch.bfloat16 or _asked_of(mask)):
        with torch.autocast("cpu", enabled=False):  # which would take the softmax to float32
            return _attend_plainly(query, key, value, mask, scale)
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale
    )


def _asked_of(mask: Tensor | None) -> bool:
    """Whether there is to be a gradient of the biases."""
    return mask is not None and mask.requires_grad and torch.is_grad_enabled()


def attend_few(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor, bias: Tensor, scale: float
) -> Tensor:
    """`attend`, but each query sees the keys at `seen` (B, S, R) alone; bias (B, 1 or H, S, R)."""
    rows, heads, count, _ = query.shape
    groups, keys = heads // key.shape[1], key.shape[2]
    # One row with more queries than keys: a batch as one text (distinct.py). What a query does not
    # see must not reach it, as a value that is no number would.
    if not (rows == 1 and FEW_KEYS >= keys < count and value.isfinite().all()):
        return _sum_few(few_logits(query, key, seen, bias, scale), value, seen)
    key, value = (x.repeat_interleave(groups, 1) if groups > 1 else x for x in (key, value))
    at = seen[:, None].expand(-1, heads, -1, -1)
    weights = softmax((query @ key.mT).gather(3, at) * scale + bias.to(query.dtype))
    return weights.new_zeros(1, heads, count, keys).scatter_add(3, at, weights) @ value


def few_logits(query: Tensor, key: Tensor, seen: Tensor, bias: Tensor, scale: float) -> Tensor:
    """(B, H, S, R) products of queries (B, H, S, D) and the keys at `seen`, and the bias."""
    rows, heads, count, size = query.shape
    keys = _few(key, seen)  # (B, S, R, G, 1, D)
    query = query.transpose(1, 2).reshape(rows, count, 1, key.shape[1], -1, size)
    products = (query * keys).sum(-1).flatten(3).permute(0, 3, 1, 2)  # (B, H, S, R)
    if scale != 1:
        products = products * scale
    return products + bias.to(query.dtype)


def _sum_few(logits: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """(B, H, S, D) sums of the values at `seen`, weighted by the softmax of (B, H, S, R) logits."""
    weights = softmax(logits).permute(0, 2, 3, 1).unflatten(3, (value.shape[1], -1))[..., None]
    return (weights * _few(value, seen)).sum(2).flatten(2, 3).transpose(1, 2)


def _few(x: Tensor, seen: Tensor) -> Tensor:
    """(B, S, R, G, 1, D) the entries at `seen` (B, S, R) of x (B, G, K, D)."""
    rows, groups, count, size = x.shape
    if rows > 1:
        seen = seen + torch.arange(rows, device=x.device)[:, None, None] * count
    flat = x.transpose(1, 2).reshape(rows * count, -1)  # a view of a `LocalCache`, else a copy
    return flat.index_select(0, seen.flatten()).view(*seen.shape, groups, 1, size)


def weighted_sum(weights: Tensor, value: Tensor) -> Tensor:
    """(B, H, S, D) of values (B, G, T, D) by given weights (B or 1, H, S, T)."""
    groups = weights.shape[1] // value.shape[1]
    return weights @ (value if groups == 1 else value.repeat_interleave(groups, 1))


def _attend_plainly(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """`attend` by plain products: the CPU's fused kernel is slow at gradients in bfloat16, and none
    has a gradient for biases."""
    return plain_weights(query, key, mask, scale) @ value


def plain_weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, S, K) attention weights of queries (B, H, S, D) over keys (B, H, K, D)."""
    products = query @ key.mT * scale  # (B, H, S, T)
    if mask is None:  # causal
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask.dtype == torch.bool:
        products = products.masked_fill(~mask, -torch.inf)
    else:
        products = products + mask
    return softmax(products)


def _attend_one(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, scale: float
) -> Tensor:
    """`attend` for one query a row: plain products beat the fused kernel there."""
    shape, groups = query.shape, key.shape[1]
    grouped = groups < shape[1]
    if grouped:  # heads with the same keys are as many queries of one
        query = query.reshape(len(query), groups, -1, shape[-1])
        if bias is not None:  # (B or 1, 1 or H, 1, T)
            bias = bias.expand(-1, shape[1], -1, -1).reshape(len(bias), groups, -1, key.shape[2])
    products = query @ key.mT * scale  # (B, G, H / G, T)
    if bias is not None:
        products = products + bias
    found = softmax(products) @ value
    return found.reshape(shape) if grouped else found
