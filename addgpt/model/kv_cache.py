"""What attention keeps of the tokens it has read, so that decoding reads each one once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from addgpt.config.architectures import GPTConfig
from addgpt.model.layers import rows_at

Angles = tuple[Tensor, Tensor]  # as of addgpt/model/rotary.py
SPARE_TOKENS = 3  # that a cache has room for: with 4 it took twice as long to read


class Effects(NamedTuple):
    """What positions do to T tokens, computed beforehand.

    added   (B, T, C) what is added to the embeddings
    angles  of queries, and of keys; None: no rotation
    bias    (B, 1 or H, T, R) what is added to the products of queries and keys
    seen    (B, T, R) which keys these are; None: all T, those that are not seen with a bias of -inf
    """

    added: Tensor
    angles: tuple[Angles, Angles] | None
    bias: Tensor
    seen: Tensor | None

    def part(self, first: int, last: int) -> Effects:
        """Those of some tokens."""
        angles, part = self.angles, slice(first, last)
        if angles is not None:
            (a, b), (c, d) = angles
            angles = (a[:, :, part], b[:, :, part]), (c[:, :, part], d[:, :, part])
        seen = self.seen if self.seen is None else self.seen[:, part]
        return Effects(self.added[:, part], angles, self.bias[:, :, part], seen)

    def of_rows(self, which: Tensor) -> Effects:
        """Those of more rows, each like the one at `which` (B,): but for biases and keys, which
        `AttentionContext` has of these."""

        def rows(x: Tensor) -> Tensor:
            return x if len(x) == 1 else rows_at(x, which)

        angles = self.angles
        if angles is not None:
            (a, b), (c, d) = angles
            angles = (rows(a), rows(b)), (rows(c), rows(d))
        return self._replace(added=rows(self.added), angles=angles)

    def masked(self) -> Effects:
        """The same as biases of all T keys, where R of them are seen."""
        assert self.seen is not None
        rows, length, _ = self.seen.shape
        place = self.seen.masked_fill(self.seen < 0, length)  # what is not there goes beyond
        place = place[:, None].expand(-1, self.bias.shape[1], -1, -1)
        hidden = self.bias.new_full((rows, self.bias.shape[1], length, length + 1), -torch.inf)
        return self._replace(bias=hidden.scatter(3, place, self.bias)[..., :length], seen=None)


class Cache:
    """Keys and values of the tokens already read (values alone where there are no keys), their ids
    where attention asks for those, and with token shift what the last one had in each block.

    Room is made for a few tokens at a time: were there much room between what is kept of one row
    and of the next, reading it would take more than twice as long (CPUs fetch ahead in order).
    """

    def __init__(self, config: GPTConfig, rows: int, length: int, device: torch.device) -> None:
        c = config
        shape = (c.depth, 1 + c.content, rows, c.key_heads, 0, c.width // c.heads)
        self.store = torch.empty(shape, device=device)
        self.ids: Tensor | None = None
        self.last: dict[int, Tensor] = {}  # by depth, (B, 1, C)
        self.length, self.used = length, 0

    def extend(self, depth: int, *parts: Tensor) -> tuple[Tensor, ...]:
        """Append (B, G, T, D) keys and values; return all of them so far."""
        end = self.used + parts[0].shape[2]
        if end > self.store.shape[4]:
            self._make_room(end)
        for kept, part in zip(self.store[depth], parts, strict=True):
            kept[:, :, self.used : end] = part
        return self.store[depth, :, :, :, :end].unbind()

    def remember(self, ids: Tensor) -> Tensor:
        """Append the ids (B, T, L) of what is read next; return (B, used + T, L) all so far."""
        self.ids = ids if self.ids is None else torch.cat((self.ids[:, : self.used], ids), 1)
        return self.ids

    def shift(self, depth: int, x: Tensor) -> Tensor:
        """(B, T, C) what the token before each of x (B, T, C) had; the first of a text: zeros."""
        before = self.last.get(depth, torch.zeros_like(x[:, :1]))
        self.last[depth] = x[:, -1:]
        return torch.cat((before, x[:, :-1]), 1)

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.store = self.store[:, :, rows]
        self.last = {depth: x[rows] for depth, x in self.last.items()}
        self.ids = self.ids if self.ids is None else self.ids[rows]

    def _make_room(self, end: int) -> None:
        size = min(
            self.length, end + max(SPARE_TOKENS, end // 32)
        )  # a long text is not copied often
        grown = self.store.new_empty(*self.store.shape[:4], size, self.store.shape[5])
        grown[..., : self.used, :] = self.store[..., : self.used, :]
        self.store = grown


class LocalCache(Cache):
    """The cache of local attention: a token of a long text costs what one of a short text costs.

    The few keys of a query are gathered, so there is room for all tokens from the start, a token's
    heads side by side. All ids are known beforehand, and what follows from them is computed for
    many tokens at a time.

    ids      (B, T + 1, L) that all tokens will have
    seen     (B, T, R) which keys these see; None: not computed yet
    effects  what positions do to some tokens, from number `first` on; None: not computed yet
    """

    def __init__(self, config: GPTConfig, rows: int, length: int, device: torch.device) -> None:
        super().__init__(config, rows, length, device)
        depth, parts, _, heads, _, size = self.store.shape
        self.store = torch.empty((depth, parts, rows, length, heads, size), device=device)
        self.seen: Tensor | None = None
        self.effects: Effects | None = None
        self.first = 0

    def plan(self, ids: Tensor) -> None:
        """Say beforehand which ids (B, T + 1, L) all tokens will have."""
        self.ids = ids

    def extend(self, depth: int, *parts: Tensor) -> tuple[Tensor, ...]:
        """Append (B, G, T, D) keys and values; return (B, G, K, D) with room for those to come."""
        layer = self.store[depth].transpose(2, 3).unbind()
        for kept, part in zip(layer, parts, strict=True):
            kept[:, :, self.used : self.used + part.shape[2]] = part
        return layer

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.seen = self.seen if self.seen is None else self.seen[rows]
        self.effects = None
