"""All position schemes of a config, as one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.kv_cache import Cache, Effects, LocalCache
from addgpt.model.local import LocalAttention
from addgpt.model.position_ids import LearnedIds, RelativeIds, RotaryIds
from addgpt.model.positions import INDEX_SCHEMES, Scheme, Slots
from addgpt.model.rotary import Angles, joined

ID_SCHEMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "learned": (LearnedIds, ("learned",)),
    "rotary": (RotaryIds, ("rotary", "rotary2")),
    "relative": (RelativeIds, ("relative",)),
}


LIKELY = 16  # rows among which some are likely to be alike
MASKED_BELOW = 32  # slots up to which training masks keys, where it does not go by distinct.py
AHEAD = 1 << 11  # tokens of all rows whose positions are computed together while decoding


class Schemes(nn.ModuleDict):
    """The schemes by name: `index`, and the ids' `learned`, `rotary`, `relative`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.reads_index = config.position != "none"
        self.random_index = config.random_index
        self.local = LocalAttention(config) if config.local else None
        if self.reads_index:
            self["index"] = INDEX_SCHEMES[config.position](config)
        for name, (cls, ways) in ID_SCHEMES.items():
            levels = [level for level, way in enumerate(config.scheme) if way in ways]
            if levels:
                self[name] = cls(config, levels)

    @property
    def added_levels(self) -> list[int]:
        """Levels of ids that add vectors to the embedding."""
        return self["learned"].levels if "learned" in self else []  # type: ignore[return-value]

    def each(self) -> list[Scheme]:
        return list(self._modules.values())  # type: ignore[arg-type]

    def slots(self, ids: Tensor, cache: Cache | None) -> Slots:
        """Where the tokens stand that have ids (B, T + 1, L), after those of the cache.

        Their index in the text is 0, 1, 2, ..., or in training a random choice in order
        (`random_index`).
        """
        if isinstance(cache, LocalCache):
            return self._slots_ahead(cache, ids.shape[1] - 1)
        start = cache.used if cache is not None else 0
        index, count = None, start + ids.shape[1]
        if self.reads_index and self.training and self.random_index:
            index = random_index(count, self.random_index).to(ids.device)
        elif self.reads_index:
            index = torch.arange(count, device=ids.device)
        if self.local is None:
            return Slots(ids, index, start, cache)
        usual = cache is None and isinstance(self.local, LocalAttention)
        layouts = distinct_rows(ids) if usual else None
        if layouts is None:
            return Slots(ids, index, start, cache, self.local.seen_keys(ids))
        first, which = layouts
        seen = self.local.seen_by_layouts(ids[first])
        known = self._effects(Slots(ids[first], index, 0, None, seen))
        if self.training and ids.shape[1] <= MASKED_BELOW:
            known = known.masked()
        known = known.of_rows(which)
        return Slots(ids, index, start, None, known.seen, known, which)

    def _slots_ahead(self, cache: LocalCache, count: int) -> Slots:
        """Where the next tokens stand whose ids were planned, and what positions do to them."""
        assert cache.ids is not None and self.local is not None, "LocalCache.plan comes first"
        start, end, known = cache.used, cache.used + count, cache.effects
        if known is None or end > cache.first + known.added.shape[1]:
            if cache.seen is None:
                cache.seen = self.local.seen_keys(cache.ids)
            last = min(max(end, start + AHEAD // len(cache.ids)), cache.ids.shape[1] - 1)
            index = torch.arange(last + 1, device=cache.ids.device) if self.reads_index else None
            ids, seen = cache.ids[:, start : last + 1], cache.seen[:, start:last]
            known = self._effects(Slots(ids, index, start, cache, seen))
            cache.effects, cache.first = known, start
        part = known.part(start - cache.first, end - cache.first)
        return Slots(cache.ids[:, start : end + 1], None, start, cache, part.seen, part)

    def _effects(self, slots: Slots) -> Effects:
        """What positions do to tokens, where attention is local."""
        rates = next(self.parameters(), slots.ids)
        x = torch.zeros(1, slots.ids.shape[1] - 1, 1, dtype=rates.dtype, device=rates.device)
        bias, seen = self.bias(slots), slots.seen
        assert bias is not None and seen is not None
        return Effects(self.embed(x, slots), self.rotate(slots), bias, seen)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        """(B, T, C) embeddings, the vectors of all schemes added."""
        if slots.known is not None:
            return x + slots.known.added
        for scheme in self.each():
            x = scheme.embed(x, slots)
        return x

    def rotate(self, slots: Slots) -> tuple[Angles, Angles] | None:
        """What queries and keys are rotated by: each scheme turns channels of its own."""
        if slots.known is not None:
            return slots.known.angles
        return joined([found for one in self.each() if (found := one.rotate(slots)) is not None])

    def bias(self, slots: Slots) -> Tensor | None:
        """(B or 1, H, S, K) the sum of the biases of all schemes; with local attention (B, 1 or H,
        S, R), -inf where fewer keys are seen."""
        if slots.known is not None:
            return slots.known.bias
        total = None
        for scheme in self.each():
            found = scheme.bias(slots)
            if found is not None:
                total = found if total is None else total + found
        if slots.seen is None:
            return total
        hidden = (slots.seen < 0)[:, None]
        total = torch.zeros(hidden.shape, device=hidden.device) if total is None else total
        return total.masked_fill(hidden, -torch.inf)

    def init_weights(self, generator: torch.Generator, std: float, late: bool = False) -> None:
        """Fill the schemes' parameters: embeddings at first, biases `late`, after the blocks'."""
        for scheme in self.each():
            if scheme.late == late:
                scheme.init_weights(generator, std)


def distinct_rows(ids: Tensor) -> tuple[Tensor, Tensor] | None:
    """Where rows of ids (B, T + 1, L) that differ first stand, (U,), and which of these each is,
    (B,). None where few are alike, or where it does not pay to ask: on other devices than the CPU.

    Rows of the same operand lengths have the same ids, and so the same positions and the same keys
    in sight: in training on short sums, nine rows stand for 128.
    """
    if ids.device.type != "cpu" or len(ids) < LIKELY:
        return None
    first, which = first_and_which(ids.flatten(1).numpy())
    if 2 * len(first) > len(ids):
        return None
    return torch.from_numpy(first), torch.from_numpy(which)


def first_and_which(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where int64 rows (N, K) that differ first stand, (M,), and which of these each is, (N,)."""
    codes = rows @ _factors(rows.shape[1])
    _, first, which = np.unique(codes, return_index=True, return_inverse=True)
    if (rows[first[which]] != rows).any():  # two have one code: all rows stand for themselves
        first = which = np.arange(len(rows))
    return first, which


@functools.cache
def _factors(count: int) -> np.ndarray:
    """(count,) numbers that make codes of rows; two different rows hardly get the same."""
    return np.random.default_rng(0).integers(1, 1 << 62, count)


def random_index(count: int, below: int) -> Tensor:
    """(count,) places below a bound, drawn at random, in order (Ruoss et al. 2023,
    arXiv:2305.16843)."""
    return torch.randperm(below)[:count].sort().values
