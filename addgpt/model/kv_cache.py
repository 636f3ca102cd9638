"""What attention keeps of the tokens it has read, so that decoding reads each one once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from addgpt.config.architectures import GPTConfig

SPARE_TOKENS = 3  # that a cache has room for: with 4 it took twice as long to read


class Cache:
    """Keys and values of the tokens already read (values alone where there are no keys), and their
    ids where attention asks for those.

    Room is made for a few tokens at a time: were there much room between what is kept of one row
    and of the next, reading it would take more than twice as long (CPUs fetch ahead in order).
    """

    def __init__(self, config: GPTConfig, rows: int, length: int, device: torch.device) -> None:
        c = config
        shape = (c.depth, 1 + c.content, rows, c.key_heads, 0, c.width // c.heads)
        self.store = torch.empty(shape, device=device)
        self.ids: Tensor | None = None
        self._planned: Tensor | None = None
        self._seen: Tensor | None = None
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

    def plan(self, ids: Tensor) -> None:
        """Say beforehand which ids (B, T + 1, L) all tokens will have: local attention asks."""
        self._planned = ids

    @property
    def planned(self) -> Tensor:
        assert self._planned is not None, "local attention needs Cache.plan before it reads"
        return self._planned

    def seen_by(self, places: Callable[[Tensor], Tensor]) -> Tensor:
        """(B, T, R) which keys each token sees, by their planned ids: worked out once."""
        if self._seen is None:
            self._seen = places(self.planned)
        return self._seen

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.store = self.store[:, :, rows]
        for name in ("ids", "_planned", "_seen"):
            kept = getattr(self, name)
            setattr(self, name, kept if kept is None else kept[rows])

    def _make_room(self, end: int) -> None:
        size = min(
            self.length, end + max(SPARE_TOKENS, end // 32)
        )  # a long text is not copied often
        grown = self.store.new_empty(*self.store.shape[:4], size, self.store.shape[5])
        grown[..., : self.used, :] = self.store[..., : self.used, :]
        self.store = grown
