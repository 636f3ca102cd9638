"""How queries look at keys: which ones they see, and what sways them besides the content.

Shapes: B rows, H heads, G heads of keys and values, S queries, T keys, D channels a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

Angles = tuple[Tensor, Tensor]  # cosines and sines


@dataclass(frozen=True)
class Sight:
    """What the queries of one pass see; the same in every block.

    start   which key, counted from 0, is the first query's own; each sees the keys up to its own
    keys    T
    some    (B, S) which keys are the queries' own; None: those from `start` on, in order
    prompt  (B or 1,) how many keys the queries among them all see; None: no such keys
    ahead   (B, 1, S, P) angles that queries turn by; None: nothing turns
    own     (B, 1, T, P) angles that keys turn by
    bias    (B or 1, H, S, T) what is added to the products of queries and keys, or
            all there is where content has no say; None: nothing
    usual   length at which attention is as sharp as without log scaling; 0: no such scaling
    device  where new tensors go
    """

    start: int
    keys: int
    some: Tensor | None = None
    prompt: Tensor | None = None
    ahead: Angles | None = None
    own: Angles | None = None
    bias: Tensor | None = None
    usual: int = 0
    device: torch.device | None = None

    @cached_property
    def seen(self) -> Tensor:
        """(B or 1, S) how many keys, from the first, each query sees."""
        some = self.some
        if some is None:
            some = torch.arange(self.start, self.keys, device=self.device)[None]
        seen = some + 1
        return seen if self.prompt is None else torch.maximum(seen, self.prompt[:, None])

    @cached_property
    def mask(self) -> Tensor | None:
        """Which keys are seen, or what is added to products; None: causality says it all."""
        in_order = self.some is None and (self.start == 0 or self.start == self.keys - 1)
        if self.bias is None and self.prompt is None and in_order:
            return None
        visible = torch.arange(self.keys, device=self.device) < self.seen[:, None, :, None]
        if self.bias is None:
            return visible
        bias = self.bias if self.sharpness is None else self.bias * self.sharpness
        return bias.masked_fill(~visible, -torch.inf)

    @cached_property
    def sharpness(self) -> Tensor | None:
        """(B or 1, 1, S, 1) factors of products and biases: log-length scaling, None if none.

        log n (Chiang and Cholak 2022, arXiv:2202.12172) over the log of the usual length. With
        `qk_norm` each head has a trained gain besides, as in Nakanishi 2025, arXiv:2501.19399.
        """
        if not self.usual:
            return None
        return (self.seen.log() / math.log(max(2, self.usual)))[:, None, :, None]

    @cached_property
    def weights(self) -> Tensor:
        """(B or 1, H, S, T) how much each query looks at each key, where content has no say.

        There must be a bias.
        """
        return self.mask.softmax(-1)

    def at(self, some: Tensor) -> Sight:
        """The sight of (B, S) of the queries alone, where this is of a query for each key."""
        ahead = self.ahead and tuple(pick(part[:, 0], some)[:, None] for part in self.ahead)
        bias = self.bias
        if bias is not None:
            rows = torch.arange(len(some), device=some.device)[:, None]
            bias = bias.expand(len(some), -1, -1, -1)[rows, :, some].transpose(1, 2)
        return replace(self, some=some, ahead=ahead, bias=bias)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, S, D) mixtures of the values that each query looks at.

    Args:
        query: (B, H, S, D).
        key, value: (B, G, T, D); G divides H, and groups of heads share them (Ainslie et al. 2023,
            arXiv:2305.13245).
        mask: as of `Sight`.
        scale: what products of queries and keys are multiplied with.
    """
    added = mask is not None and mask.dtype != torch.bool
    mask = mask.to(query.dtype) if added else mask
    groups = query.shape[1] // key.shape[1]
    if query.shape[2] == 1 and (added or mask is None):
        return _mixed(query, key, value, mask, scale)
    if groups > 1:
        key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        with torch.autocast("cpu", enabled=False):  # which would take the softmax to float32
            return _plain(query, key, value, mask, scale)
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale
    )


def _plain(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """`attend` in plain products: the fused kernel of the CPU is slow at gradients in bfloat16."""
    products = query @ key.mT * scale  # (B, H, S, T)
    if mask is None:  # causal
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).tril()
    if mask.dtype == torch.bool:
        products = products.masked_fill(~mask, -torch.inf)
    else:
        products = products + mask
    return products.softmax(-1) @ value


def mix(weights: Tensor, value: Tensor) -> Tensor:
    """(B, H, S, D) mixtures of values (B, G, T, D) by given weights (B or 1, H, S, T)."""
    groups = weights.shape[1] // value.shape[1]
    return weights @ (value if groups == 1 else value.repeat_interleave(groups, 1))


def _mixed(query: Tensor, key: Tensor, value: Tensor, added: Tensor | None, scale: float) -> Tensor:
    """`attend` for one query a row: plain products beat the fused kernel there."""
    shape, groups = query.shape, key.shape[1]
    grouped = groups < shape[1]
    if grouped:  # heads with the same keys are as many queries of one
        query = query.reshape(len(query), groups, -1, shape[-1])
        added = added if added is None else added.reshape(len(added), groups, -1, key.shape[2])
    products = query @ key.mT * scale  # (B, G, H / G, T)
    if added is not None:
        products = products + added
    mixed = products.softmax(-1) @ value
    return mixed.reshape(shape) if grouped else mixed


def pick(x: Tensor, at: Tensor) -> Tensor:
    """(B, S, C) the places (B, S) of x (B, T, C)."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[-1]))
