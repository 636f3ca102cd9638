"""Position schemes: how positions enter the model. Here those of the index in the text.

A *position* is either the index in the text or an id that the task gives (the digit's place
value, the row of a trace, ...): see position_ids.py. A scheme does one of three things with it:
`embed` adds a vector to the embedding, `rotate` turns queries and keys (Su et al. 2021,
arXiv:2104.09864), `bias` adds to their products.

Shapes: B rows, T tokens of this pass, S of them as queries, K keys with those read before, L id
levels, H heads, P pairs of channels, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.kv_cache import Cache, Effects
from addgpt.model.layers import Embedding, draw, gather
from addgpt.model.rotary import (
    INDEX_WAVES,
    Angles,
    frequencies,
    query_and_key,
    rotary_levels,
    rotary_pairs,
)

FAR = 64  # relative index: larger distances count as this one
RELATIVE_NOISE = 0.5  # standard deviation of its biases at the start, or heads would stay alike
FIRE_HIDDEN = 32
FIRE_THRESHOLD = 0.25  # of the longest sequence: distances are measured against at least that


@dataclass(frozen=True)
class Slots:
    """Where the tokens of one pass stand.

    ids    (B, T + 1, L) of the tokens and of the slot after the last
    index  (K + 1,) the index in the text, from the first token ever read; None: nothing asks for it
    start  which index is the first token's of this pass
    seen   (B, T, R) which keys each token sees, -1 where there are fewer: local attention
    known  what positions do to these tokens, if that was computed beforehand
    rows   (B,) which row of the biases known, and of `seen`, is whose; None: each has its own
    """

    ids: Tensor
    index: Tensor | None
    start: int
    cache: Cache | None = None
    seen: Tensor | None = None
    known: Effects | None = None
    rows: Tensor | None = None

    def ids_of_keys(self, levels: list[int]) -> Tensor:
        """(B, 1, K, n) ids on some levels of all keys, or (B, T, R, n) of those that are seen."""
        if self.seen is None:
            own = self.ids[:, :-1, levels]
            return (own if self.cache is None else self.cache.remember(own))[:, None]
        ids = self.ids if self.cache is None or self.cache.ids is None else self.cache.ids
        found = gather(ids, self.seen.clamp(min=0).flatten(1))[:, :, levels]
        return found.unflatten(1, self.seen.shape[1:])

    @property
    def end(self) -> int:
        """K, the number of tokens read by the end of this pass."""
        return self.start + self.ids.shape[1] - 1

    def prompt_lengths(self, given: Tensor | None) -> Tensor:
        """(B or 1,) how many tokens are prompt: as given, or with a cache what it reads first."""
        if self.cache is not None:
            return torch.tensor([0 if self.start else self.end], device=self.ids.device)
        assert given is not None, "prefix=true needs the lengths of the prompts"
        return given

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

    late = False  # whether its weights are drawn after those of the blocks

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


class IndexLearned(Scheme):
    """A trained vector for each place (Gehring et al. 2017, arXiv:1705.03122)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.table = Embedding(config.index_count, config.width)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        return x + self.table(slots.own_index)

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        self.table.init_weights(generator, std)


class IndexSinusoidal(Scheme):
    """Sines and cosines of the place (Vaswani et al. 2017, arXiv:1706.03762)."""

    table: Tensor

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        table = torch.empty(config.index_count, config.width)
        self.register_buffer("table", table, persistent=False)

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
    """Attention falls linearly with distance (Press et al. 2022, arXiv:2108.12409).

    The slopes are 2^(-8 / H), 2^(-16 / H), ..., 2^-8, also where H is no power of two.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads

    def bias(self, slots: Slots) -> Tensor | None:
        places, keys = slots.own_index, slots.all_index[:-1]
        slopes = 2.0 ** (torch.arange(1, self.heads + 1, device=keys.device) * (-8 / self.heads))
        return (-slopes[:, None, None] * (places[:, None] - keys).abs())[None]


class HardAlibi(Scheme):
    """Half of the heads see a window: the last 1, 2, 3, ... tokens, their own among them. The other
    half see all, and have no positions (Jelassi et al. 2024, arXiv:2402.01032)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads = config.heads

    def bias(self, slots: Slots) -> Tensor | None:
        apart = (slots.own_index[:, None] - slots.all_index[:-1]).abs()
        windows = torch.arange(1, self.heads + 1, device=apart.device)[:, None, None]
        hidden = (apart >= windows) & (windows <= self.heads // 2)
        return torch.zeros(hidden.shape, device=apart.device).masked_fill(hidden, -torch.inf)[None]


class IndexRelative(Scheme):
    """A trained bias for each distance (Raffel et al. 2020, arXiv:1910.10683), where large ones are
    all alike (Shaw et al. 2018, arXiv:1803.02155). One table for each head serves all blocks.
    """

    late = True

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(config.heads, FAR + 1))

    def bias(self, slots: Slots) -> Tensor | None:
        apart = (slots.own_index[:, None] - slots.all_index[:-1]).abs().clamp(max=FAR)
        return self.table[:, apart][None]

    def init_weights(self, generator: torch.Generator, std: float) -> None:
        draw(self.table, generator, RELATIVE_NOISE)


class Fire(Scheme):
    """FIRE (Li et al. 2024, arXiv:2310.04418): a network of the relative distance.

    The distance of a key enters on a log scale, over the query's place or a trained threshold
    (whichever is larger), so it is at most 1 at any length. One network serves all blocks, as the
    paper's FIRE-S. Its output has no bias: what is added to all keys alike changes nothing.
    """

    late = True

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


def sinusoid_table(count: int, width: int) -> Tensor:
    """(count, width) sines and cosines (Vaswani et al. 2017, arXiv:1706.03762)."""
    place = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(count, width)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate)[:, : width // 2]
    return table


INDEX_SCHEMES: dict[str, Callable[[GPTConfig], Scheme]] = {
    "learned": IndexLearned,
    "sinusoidal": IndexSinusoidal,
    "rotary": IndexRotary,
    "alibi": Alibi,
    "hard_alibi": HardAlibi,
    "relative": IndexRelative,
    "fire": Fire,
}
