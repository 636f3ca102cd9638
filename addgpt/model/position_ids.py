"""Schemes of the position ids that the task gives (`level_position`).

Ids by bias or rotation let attention ask for "same column, one row up" once and for all columns and
rows. One scheme handles all levels that name it. With `next_ids` the ids of the slot that is about
to be filled enter, too. Shapes are those of positions.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig, GRUConfig, MLPConfig
from addgpt.config.gpt import NO_PLACE
from addgpt.model.layers import Embedding, draw
from addgpt.model.positions import RELATIVE_NOISE, Scheme, Slots
from addgpt.model.rotary import ID_WAVES, Angles, frequencies, query_and_key, rotary_pairs

# Relative ids: differences beyond NEAR count as NEAR; the last entry is for keys without a place.
NEAR = 4
ENTRIES = 2 * NEAR + 2


class LearnedIds(Scheme):
    """Trained vectors: of the token's ids, and of the next slot's (Cho et al. 2024,
    arXiv:2405.20671; Pannatier et al. 2024, arXiv:2404.09562)."""

    def __init__(self, config: GPTConfig | GRUConfig | MLPConfig, levels: list[int]) -> None:
        super().__init__()
        sizes = [config.levels[level] for level in levels]
        self.levels = levels
        self.own = nn.ModuleList(Embedding(n, config.width, per="id") for n in sizes)
        targets = sizes if config.next_ids else []
        self.target = nn.ModuleList(Embedding(n, config.width, per="id") for n in targets)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        for table, level in zip(self.own, self.levels, strict=True):
            x = x + table(slots.ids[:, :-1, level])
        for table, level in zip(self.target, self.levels, strict=False):
            x = x + table(slots.ids[:, 1:, level])
        return x

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        for table in (*self.own, *self.target):
            table.init_weights(generator, std)


class RotaryIds(Scheme):
    """Queries and keys are rotated by an angle for each id; levels share the channels of a head
    (Heo et al. 2024, arXiv:2403.13298). With `next_ids` a query has the position of the slot to
    fill; a level of `rotary2` rotates further channels by the id just read."""

    rates: Tensor

    def __init__(self, config: GPTConfig, levels: list[int]) -> None:
        super().__init__()
        self.levels, self.from_target = levels, config.next_ids
        self.twice = [level for level in levels if config.scheme[level] == "rotary2"]
        self.register_buffer("rates", torch.empty(rotary_pairs(config)), persistent=False)

    def rotate(self, slots: Slots) -> tuple[Angles, Angles] | None:
        ids = torch.stack([slots.ids[:, :, level] for level in (*self.levels, *self.twice)], -1)
        # Not as a product of matrices: under autocast that is bfloat16, which mixes large ids up.
        angle = ids.to(self.rates.dtype)[..., None] * self.rates  # (B, T + 1, levels, P)
        kept = len(self.rates) * len(self.levels) if self.twice else None
        return query_and_key(angle.flatten(2)[:, None], self.from_target, kept)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        self.rates.copy_(frequencies(len(self.rates), *ID_WAVES))


class RelativeIds(Scheme):
    """A trained bias for each difference of two ids (Raffel et al. 2020, arXiv:1910.10683), where
    large differences are all alike (Shaw et al. 2018, arXiv:1803.02155).

    A key of id 0, which means no place on that level, has a bias of its own, the last of the table:
    what all rows refer to, such as an operand, is equally near at any length. One table for each
    level and head serves all blocks. It starts as a window on near ids, to which noise is added, or
    heads would stay alike.

    With `biases=visible` only differences that local attention shows have a bias that is trained;
    those of others stay where they start. `table` (H, N) holds them, one level after the other.
    With `biases=pinned` the last of them on each level is 0, and not trained.
    """

    late = True

    def __init__(self, config: GPTConfig, levels: list[int]) -> None:
        super().__init__()
        self.levels, self.from_target = levels, config.next_ids
        self.trained: list[list[int]] | None = None
        shape: tuple[int, ...] = (len(levels), config.heads, ENTRIES)
        self.pinned: list[int] = []
        if config.biases != "all":
            self.trained = [visible_entries(config, level) for level in levels]
            if config.biases == "pinned":
                self.pinned = [some.pop() for some in self.trained]
            shape = config.heads, sum(map(len, self.trained))
        self.table = nn.Parameter(torch.empty(shape))

    def tables(self) -> list[Tensor]:
        """(H, ENTRIES) biases of each level."""
        if self.trained is None:
            return list(self.table)
        start, parts = self.window().to(self.table), self.table.split([*map(len, self.trained)], 1)
        where = [torch.tensor(some, dtype=torch.long, device=start.device) for some in self.trained]
        tables = [
            start.repeat(len(part), 1).index_copy(1, some, part)
            for some, part in zip(where, parts, strict=True)
        ]
        for table, entry in zip(tables, self.pinned, strict=False):
            table[:, entry] = 0
        return tables

    @staticmethod
    def window() -> Tensor:
        """(ENTRIES,) where biases start: at -16 for large differences, which training moves little,
        so that a thousand far tokens together still weigh nothing against a near one.
        """
        return F.pad(-torch.arange(-float(NEAR), NEAR + 1.0).square(), (0, 1))

    def bias(self, slots: Slots) -> Tensor | None:
        own = slots.ids[:, 1:] if self.from_target else slots.ids[:, :-1]
        return self.of_ids(own[:, :, self.levels], slots.ids_of_keys(self.levels))

    def of_ids(self, ids: Tensor, keys: Tensor) -> Tensor:
        """(B, H, S, K) from the ids (B, S, L) of queries and (B, S or 1, K, L) of keys."""
        ids, keys = ids.int(), keys.int()

        def entry(level: int) -> Tensor:  # (B, S, K) which of a table's ENTRIES
            key = keys[:, :, :, level]
            apart = (ids[:, :, None, level] - key).clamp(-NEAR, NEAR) + NEAR
            return apart.masked_fill(key == 0, ENTRIES - 1)

        (tables, *more), codes = self.tables(), entry(0)  # (H, N) all levels' as one table, which
        for level, one in enumerate(more, start=1):
            tables = (tables[:, :, None] + one[:, None]).flatten(1)
            codes = codes * ENTRIES + entry(level)
        return _Lookup.apply(tables, codes)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        draw(self.table, generator, RELATIVE_NOISE)
        window = self.window()
        if self.trained is not None:
            window = torch.cat([window[some] for some in self.trained])
        self.table.data += window


def visible_entries(config: GPTConfig, level: int) -> list[int]:
    """Which of a level's ENTRIES are biases of what local attention shows."""
    if config.attention == "reads":
        apart = {row[2 + level] for row in config.visible if level < len(config.levels) - 1}
    else:
        apart = {*config.visible[level]}
    there = {ENTRIES - 1 if n == NO_PLACE else max(-NEAR, min(NEAR, n)) + NEAR for n in apart}
    return sorted(there) if there else list(range(ENTRIES))


class _Lookup(torch.autograd.Function):
    """(B, H, S, T) entries of tables (H, K) at codes (B, S, T).

    An embedding does the same, but its gradient took eight times as long for tables this small.
    On CUDA the order of its sums, and so their last bits, may differ from run to run. There is no
    gradient of the gradient.
    """

    @staticmethod
    def forward(ctx, tables: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.size = tables.shape[1]
        found = tables.new_empty(codes.shape[0], len(tables), *codes.shape[1:])
        for head, table in enumerate(tables):
            found[:, head] = table[codes]
        return found

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        kind = torch.promote_types(grad.dtype, torch.float32)
        sums = grad.new_zeros(grad.shape[1], ctx.size, dtype=kind)
        for head, total in enumerate(sums):
            total.index_add_(0, codes.flatten(), grad[:, head].flatten().to(kind))
        return sums.to(grad.dtype), None
