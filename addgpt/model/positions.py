"""Position schemes: how positions enter the model.

A *position* is either the index in the text or an id that the task gives (the digit's place
value, the row of a trace, ...). A scheme does one of three things with it: `embed` adds a vector to
the embedding, `rotate` turns queries and keys (Su et al. 2021, arXiv:2104.09864), `bias` adds to
their products. The GPT sums over the schemes that its config names. Ids of task levels by bias or
rotation let attention ask for "same column, one row up" once and for all columns and rows.

Shapes: B rows, T tokens of this pass, S of them as queries, K keys with those read before, L id
levels, H heads, P pairs of channels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig, GRUConfig, MLPConfig
from addgpt.model.attention import Angles
from addgpt.model.kv_cache import Cache
from addgpt.model.layers import Embedding, draw
from addgpt.model.rotary import (
    ID_WAVES,
    INDEX_WAVES,
    frequencies,
    query_and_key,
    rotary_levels,
    rotary_pairs,
)

# Relative ids: differences beyond NEAR count as NEAR; the last entry is for keys without a place.
NEAR = 4
ENTRIES = 2 * NEAR + 2
RELATIVE_NOISE = 0.5  # standard deviation at the start

FIRE_HIDDEN = 32
FIRE_THRESHOLD = 0.25  # of the longest sequence: distances are measured against at least that


@dataclass(frozen=True)
class Slots:
    """Where the tokens of one pass stand.

    ids    (B, T + 1, L) of the tokens and of the slot after the last
    index  (K + 1,) the index in the text, from the first token ever read; None: nothing asks for it
    start  which index is the first token's of this pass
    """

    ids: Tensor
    index: Tensor | None
    start: int
    cache: Cache | None = None

    @property
    def own_index(self) -> Tensor:
        """(T,) of the tokens."""
        return self.all_index[self.start : -1]

    @property
    def all_index(self) -> Tensor:
        """(K + 1,) of all tokens and of the slot after the last."""
        assert self.index is not None
        return self.index


class Scheme(nn.Module):
    """One way for positions to enter. A scheme overrides one of the three methods."""

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        """(B, T, C) embeddings, the scheme's vectors added."""
        return x

    def rotate(self, slots: Slots) -> tuple[Angles, Angles] | None:
        """Angles (B or 1, 1, T, P) that queries and keys are rotated by."""
        return None

    def bias(self, slots: Slots) -> Tensor | None:
        """(B or 1, H, S, K) what is added to the products of queries and keys."""
        return None

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        """Fill parameters; `std` is that of the embedding."""


# Schemes of the index in the text (`position`).


class IndexLearned(Scheme):
    """A trained vector for each place (Gehring et al. 2017, arXiv:1705.03122)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.table = Embedding(config.places, config.width)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        return x + self.table(slots.own_index)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        self.table.init_weights(generator, std)


class IndexSinusoidal(Scheme):
    """Sines and cosines of the place (Vaswani et al. 2017, arXiv:1706.03762)."""

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.register_buffer("table", torch.empty(config.places, config.width), persistent=False)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        return x + self.table[slots.own_index]

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        self.table.copy_(sinusoid_table(*self.table.shape))


class IndexRotary(Scheme):
    """Queries and keys turn by an angle for each place (Su et al. 2021, arXiv:2104.09864).

    Where ids turn them as well, a query turns with the slot that it is about to fill.
    """

    rates: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.from_target = config.next_ids and bool(rotary_levels(config))
        self.register_buffer("rates", torch.empty(rotary_pairs(config)), persistent=False)

    def rotate(self, slots: Slots) -> tuple[Angles, Angles] | None:
        place = slots.all_index[slots.start :].to(self.rates.dtype)
        return query_and_key((place[:, None] * self.rates)[None, None], self.from_target)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        self.rates.copy_(frequencies(len(self.rates), *INDEX_WAVES))


class Alibi(Scheme):
    """Attention falls with distance on a line (Press et al. 2022, arXiv:2108.12409).

    The slopes are 2^(-8 / H), 2^(-16 / H), ..., 2^-8, also where H is no power of two.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads

    def bias(self, slots: Slots) -> Tensor | None:
        places, keys = slots.own_index, slots.all_index[:-1]
        slopes = 2.0 ** (torch.arange(1, self.heads + 1, device=keys.device) * (-8 / self.heads))
        return (-slopes[:, None, None] * (places[:, None] - keys).abs())[None]


class Fire(Scheme):
    """FIRE (Li et al. 2024, arXiv:2310.04418): a network of the relative distance.

    The distance of a key enters on a log scale, over the query's place or a trained threshold
    (whichever is larger), so it is at most 1 at any length. One network serves all blocks, as the
    paper's FIRE-S. Its output has no bias: what is added to all keys alike changes nothing.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.threshold = nn.Parameter(torch.tensor(max(1.0, FIRE_THRESHOLD * config.context)))
        self.rise = nn.Parameter(torch.empty(FIRE_HIDDEN))
        self.shift = nn.Parameter(torch.empty(FIRE_HIDDEN))
        self.mix = nn.Parameter(torch.empty(config.heads, FIRE_HIDDEN))

    def bias(self, slots: Slots) -> Tensor | None:
        return self.of_places(slots.own_index, slots.all_index[:-1])[None]

    def of_places(self, places: Tensor, keys: Tensor) -> Tensor:
        """(H, S, K) from (S,) places of queries and (K,) of keys."""

        def log(x: Tensor) -> Tensor:
            return (self.scale.abs() * x + 1).log()

        reach = torch.maximum(places.to(self.scale.dtype), self.threshold.abs())
        share = log((places[:, None] - keys).abs()) / (log(reach)[:, None] + 1e-6)  # (S, K)
        hidden = F.relu(share[:, :, None] * self.rise + self.shift)  # (S, K, N)
        return (hidden @ self.mix.T).permute(2, 0, 1)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        draw(self.rise, generator)
        draw(self.shift, generator)
        draw(self.mix, generator, FIRE_HIDDEN**-0.5)


# Schemes of the ids that the task gives (`level_position`); each holds all levels that name it.
# With `next_ids` they enter of the slot that is about to be filled, too.


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
    """Queries and keys turn by an angle for each id; levels share the channels of a head (Heo et
    al. 2024, arXiv:2403.13298). With `next_ids` a query looks from the slot it is about to fill;
    a level of `rotary2` turns further channels by the id just read."""

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
    what all rows refer to, such as an operand, is as near at any length. One table for each level
    and head serves all blocks. It starts as a window on near ids, to which noise is added.
    """

    def __init__(self, config: GPTConfig, levels: list[int]) -> None:
        super().__init__()
        self.levels, self.from_target = levels, config.next_ids
        self.table = nn.Parameter(torch.empty(len(levels), config.heads, ENTRIES))

    @staticmethod
    def window() -> Tensor:
        """(ENTRIES,) where biases start: at -16 for large differences, which training moves little,
        so that a thousand far tokens together still weigh nothing against a near one.
        """
        return F.pad(-torch.arange(-NEAR, NEAR + 1.0).square(), (0, 1))

    def bias(self, slots: Slots) -> Tensor | None:
        own = slots.ids[:, :-1, self.levels]
        keys = own if slots.cache is None else slots.cache.remember(own)
        return self.of_ids(slots.ids[:, 1:, self.levels] if self.from_target else own, keys)

    def of_ids(self, ids: Tensor, keys: Tensor) -> Tensor:
        """(B, H, S, K) from the ids (B, S, L) of queries and (B, K, L) of keys."""
        ids, keys = ids.int(), keys.int()

        def entry(level: int) -> Tensor:  # (B, S, K) which of a table's ENTRIES
            key = keys[:, None, :, level]
            apart = (ids[:, :, None, level] - key).clamp(-NEAR, NEAR) + NEAR
            return apart.masked_fill(key == 0, ENTRIES - 1)

        tables, codes = self.table[0], entry(0)  # (H, N) all levels' biases as one table, which
        for level in range(1, len(self.table)):
            tables = (tables[:, :, None] + self.table[level][:, None]).flatten(1)
            codes = codes * ENTRIES + entry(level)
        return _Lookup.apply(tables, codes)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        draw(self.table, generator, RELATIVE_NOISE)
        self.table.data += self.window()


INDEX_SCHEMES: dict[str, Callable[[GPTConfig], Scheme]] = {
    "learned": IndexLearned,
    "sinusoidal": IndexSinusoidal,
    "rotary": IndexRotary,
    "alibi": Alibi,
    "fire": Fire,
}
ID_SCHEMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "learned": (LearnedIds, ("learned",)),
    "rotary": (RotaryIds, ("rotary", "rotary2")),
    "relative": (RelativeIds, ("relative",)),
}


class Schemes(nn.ModuleDict):
    """Schemes by name."""

    def each(self) -> list[Scheme]:
        return list(self._modules.values())  # type: ignore[arg-type]

    def __getitem__(self, name: str) -> Scheme:
        return self._modules[name]  # type: ignore[return-value]


def schemes(config: GPTConfig) -> Schemes:
    """The schemes of a config by name: `index`, and the ids' `learned`, `rotary`, `relative`."""
    found: dict[str, nn.Module] = {}
    if config.position != "none":
        found["index"] = INDEX_SCHEMES[config.position](config)
    for name, (cls, ways) in ID_SCHEMES.items():
        levels = [level for level, way in enumerate(config.scheme) if way in ways]
        if levels:
            found[name] = cls(config, levels)
    return Schemes(found)


def sinusoid_table(count: int, width: int) -> Tensor:
    """(count, width) sines and cosines (Vaswani et al. 2017, arXiv:1706.03762)."""
    place = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(count, width)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate)[:, : width // 2]
    return table


def random_index(count: int, below: int) -> Tensor:
    """(count,) places below a bound, drawn at random, in order (Ruoss et al. 2023,
    arXiv:2305.16843)."""
    return torch.randperm(below)[:count].sort().values


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
        found = tables.new_empty(len(codes), len(tables), *codes.shape[1:])
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
