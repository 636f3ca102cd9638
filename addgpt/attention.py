"""How queries look at keys: which ones they see, and what sways them besides the content.

Shapes: B rows, H heads, G heads of keys and values, S queries, T keys, D channels a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

Angles = tuple[Tensor, Tensor]  # cosines and sines


@dataclass(frozen=True)
class Sight:
    """What the queries of one pass see; the same in every block.

    seen    (B or 1, S) how many keys, from the first, each query sees
    keys    T
    ahead   (B, 1, S, P) angles that queries turn by; None: nothing turns
    own     (B, 1, T, P) angles that keys turn by
    bias    (B or 1, H, S, T) what is added to the products of queries and keys; None: nothing
    masked  False where each query sees the keys up to its own, which needs no mask
    usual   length at which attention is as sharp as without log scaling; 0: no such scaling
    """

    seen: Tensor
    keys: int
    ahead: Angles | None = None
    own: Angles | None = None
    bias: Tensor | None = None
    masked: bool = False
    usual: int = 0

    @cached_property
    def mask(self) -> Tensor | None:
        """Which keys are seen, or what is added to products; None: causality says it all."""
        if self.bias is None and not self.masked:
            return None
        places = torch.arange(self.keys, device=self.seen.device)
        visible = places < self.seen[:, None, :, None]  # (B or 1, 1, S, T)
        return visible if self.bias is None else self.bias.masked_fill(~visible, -torch.inf)

    @cached_property
    def sharpness(self) -> Tensor | None:
        """(B or 1, 1, S, 1) factors of the products: log-length scaling, None if there is none.

        log n (Chiang and Cholak 2022, arXiv:2202.12172) over the log of the usual length. With
        `qk_norm` each head has a trained gain besides, as in Nakanishi 2025, arXiv:2501.19399.
        """
        if not self.usual:
            return None
        return (self.seen.log() / math.log(max(2, self.usual)))[:, None, :, None]

    def at(self, places: Tensor) -> Sight:
        """The sight of the queries at (B, S) places alone."""
        ahead = self.ahead and tuple(pick(part[:, 0], places)[:, None] for part in self.ahead)
        bias = None if self.bias is None else self.bias[0][:, places].transpose(0, 1)
        seen = self.seen.expand(len(places), -1).gather(1, places)
        return Sight(seen, self.keys, ahead, self.own, bias, True, self.usual)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """(B, H, S, D) mixtures of the values that each query looks at.

    Args:
        query: (B, H, S, D).
        key, value: (B, G, T, D); G divides H, and groups of heads share them (Ainslie et al. 2023,
            arXiv:2305.13245).
        mask: as of `Sight`.
        scale: what products of queries and keys are multiplied with.
    """
    rows, heads, count, size = query.shape
    groups = key.shape[1]
    added = mask is not None and mask.dtype != torch.bool
    if added:
        mask = mask.to(query.dtype)
    if count == 1 and (added or mask is None):
        # Plain products beat the fused kernel here. Heads with the same keys are queries of one.
        products = query.reshape(rows, groups, -1, size) @ key.mT * scale  # (B, G, H / G, T)
        if added:
            products = products + mask.reshape(len(mask), groups, -1, key.shape[2])
        return (products.softmax(-1) @ value).reshape(query.shape)
    if groups < heads:
        key, value = (x.repeat_interleave(heads // groups, 1) for x in (key, value))
    return F.scaled_dot_product_attention(
        query, key, value, mask, is_causal=mask is None, scale=scale
    )


def pick(x: Tensor, at: Tensor) -> Tensor:
    """(B, S, C) the places (B, S) of x (B, T, C)."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[-1]))
