"""Local attention: which few keys each query sees. It follows from position ids alone.

`attention=window` shows a query the keys whose ids differ from its own by no more than the task
says, `attention=reads` the rows that the task says are read by a row of its kind (`GPTConfig`).
What a query sees is bounded however long the text is, so its keys are gathered, not masked: time
and memory grow with T, not with T squared. Hard windows of distance: Hard-ALiBi (Jelassi et al.
2024, arXiv:2402.01032).

Shapes: B rows, T tokens, L id levels, Q combinations of ids that a query looks for, R keys that are
seen at most.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from addgpt.config.gpt import NO_PLACE, GPTConfig

KEPT, KEPT_IDS = 32, 1 << 14  # answers that are kept, and for how many ids each at most


class LocalAttention:
    """The pattern of a config, which must not be `full`."""

    def __init__(self, config: GPTConfig) -> None:
        c = config
        self.from_target = c.next_ids
        self.known: dict[tuple, Tensor] = {}
        if c.attention == "window":
            limited = [level for level, some in enumerate(c.visible) if some]
            choices = [c.visible[level] for level in limited]
            self.levels = limited
            # One line for all readers: (1, Q, n) differences of the limited levels.
            self.reads = torch.tensor(list(itertools.product(*choices)))[None]
            self.kinds: Tensor | None = None
        else:
            kind = len(c.levels) - 1
            self.levels = list(range(kind + 1))
            rows: list[list[tuple[int, ...]]] = [[] for _ in range(c.levels[kind])]
            for reader, read, *apart in c.visible:
                rows[reader].append((*apart, read))
            most = max(map(len, rows))
            nothing = (NO_PLACE,) * kind + (-1,)
            padded = [row + [nothing] * (most - len(row)) for row in rows]
            self.reads = torch.tensor(padded)  # (kinds, Q, L), the last one a kind
            self.kinds = torch.tensor(kind)

    def seen_keys(self, ids: Tensor) -> Tensor:
        """(B, T, R) which keys each query sees, its own first; -1 where there are fewer.

        Args:
            ids: (B, T + 1, L) of the tokens and of the slot after the last. On the `meta` device,
                where they have no values, the answer has a shape alone: R is 1.
        """
        if ids.is_meta:
            return ids[:, :-1, :1]
        if len(ids) > 1 and ids.stride(0) == 0:  # all rows are one row
            return self.seen_keys(ids[:1]).expand(len(ids), -1, -1)
        keys = ids[:, :-1]
        wanted = self._wanted(ids[:, 1:] if self.from_target else keys)  # (B, T, Q, n)
        wanted = wanted.masked_fill(wanted > (ids.max() if ids.numel() else 0), -1)  # no token's id
        code = _coded(keys[:, :, self.levels], ids)
        wanted = _coded(wanted.clamp(min=0), ids).masked_fill((wanted < 0).any(-1), -1)
        rows, length = code.shape
        order = code.argsort(dim=1, stable=True)
        code = code.gather(1, order)
        first = torch.searchsorted(code, wanted.flatten(1))  # of the keys with the wanted ids
        count = torch.searchsorted(code, wanted.flatten(1), right=True) - first
        most = int(count.max()) if count.numel() else 0
        index = first[:, :, None] + torch.arange(most, device=ids.device)
        there = torch.arange(most, device=ids.device) < count[:, :, None]
        found = order.gather(1, index.clamp(max=length - 1).flatten(1))
        found = found.masked_fill(~there.flatten(1), -1).view(rows, length, -1)
        own = torch.arange(length, device=ids.device)[None, :, None].expand(rows, -1, -1)
        found = found.masked_fill(found >= own, -1).sort(-1, descending=True).values
        seen = int((found >= 0).sum(-1).max()) if found.numel() else 0
        return torch.cat((own, found[:, :, :seen]), -1)

    def seen_by_layouts(self, ids: Tensor) -> Tensor:
        """(U, T, R) `seen_keys` of the different rows (U, T + 1, L) of a batch. They are kept: the
        next batch is likely to have the same."""
        if ids.numel() > KEPT_IDS:
            return self.seen_keys(ids)
        key = (ids.shape, ids.numpy().tobytes())
        found = self.known.get(key)  # once: another thread may clear them
        if found is None:
            found = self.seen_keys(ids)
            if len(self.known) >= KEPT:
                self.known.clear()
            self.known[key] = found
        return found

    def _wanted(self, reader: Tensor) -> Tensor:
        """(B, T, Q, n) ids that queries with ids (B, T, L) look for; negative: none."""
        reads = self.reads.to(reader.device)
        reads = reads[torch.zeros_like(reader[:, :, 0]) if self.kinds is None else reader[:, :, -1]]
        own = reader[:, :, None, self.levels]
        wanted = torch.where(reads == NO_PLACE, 0, own - reads)
        # An id of 0 is no place: nothing is some columns away from it, and it is so from nothing.
        wanted = wanted.masked_fill((reads != NO_PLACE) & (wanted < 1), -1)
        wanted = wanted.masked_fill((reads != NO_PLACE) & (own == 0), -1)
        if self.kinds is not None:
            wanted[..., -1] = reads[..., -1]
        return wanted


def _coded(ids: Tensor, like: Tensor) -> Tensor:
    """(...) one number for each combination of ids (..., n)."""
    base = int(like.max()) + 1 if like.numel() else 1
    code = torch.zeros_like(ids[..., 0])
    for level in range(ids.shape[-1]):
        code = code * base + ids[..., level]
    return code
