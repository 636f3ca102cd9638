"""All position schemes of a config, as one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.kv_cache import Cache
from addgpt.model.local import LocalAttention
from addgpt.model.position_ids import LearnedIds, RelativeIds, RotaryIds
from addgpt.model.positions import INDEX_SCHEMES, Scheme, Slots
from addgpt.model.rotary import Angles, joined

ID_SCHEMES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "learned": (LearnedIds, ("learned",)),
    "rotary": (RotaryIds, ("rotary", "rotary2")),
    "relative": (RelativeIds, ("relative",)),
}


class Schemes(nn.ModuleDict):
    """The schemes by name: `index`, and the ids' `learned`, `rotary`, `relative`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.reads_index = config.position != "none"
        self.random_index = config.random_index
        self.local = None if config.attention == "full" else LocalAttention(config)
        if self.reads_index:
            self["index"] = INDEX_SCHEMES[config.position](config)
        for name, (cls, ways) in ID_SCHEMES.items():
            levels = [level for level, way in enumerate(config.scheme) if way in ways]
            if levels:
                self[name] = cls(config, levels)

    def each(self) -> list[Scheme]:
        return list(self._modules.values())  # type: ignore[arg-type]

    def slots(self, ids: Tensor, cache: Cache | None) -> Slots:
        """Where the tokens stand that have ids (B, T + 1, L), after those of the cache.

        Their index in the text is 0, 1, 2, ..., or in training a random choice in order
        (`random_index`).
        """
        start = cache.used if cache is not None else 0
        index, count = None, start + ids.shape[1]
        if self.reads_index and self.training and self.random_index:
            index = random_index(count, self.random_index).to(ids.device)
        elif self.reads_index:
            index = torch.arange(count, device=ids.device)
        seen = None
        if self.local is not None and cache is None:
            seen = self.local.places(ids)
        elif self.local is not None and cache is not None:
            seen = cache.seen_by(self.local.places)[:, start : start + ids.shape[1] - 1]
        return Slots(ids, index, start, cache, seen)

    def embed(self, x: Tensor, slots: Slots) -> Tensor:
        """(B, T, C) embeddings, the vectors of all schemes added."""
        for scheme in self.each():
            x = scheme.embed(x, slots)
        return x

    def rotate(self, slots: Slots) -> tuple[Angles, Angles] | None:
        """What queries and keys are rotated by: each scheme turns channels of its own."""
        return joined([found for one in self.each() if (found := one.rotate(slots)) is not None])

    def bias(self, slots: Slots) -> Tensor | None:
        """(B or 1, H, S, K) the sum of the biases of all schemes."""
        total = None
        for scheme in self.each():
            found = scheme.bias(slots)
            if found is not None:
                total = found if total is None else total + found
        return total

    def init_weights(self, generator: torch.Generator, std: float, late: bool = False) -> None:
        """Fill the schemes' parameters: embeddings at first, biases `late`, after the blocks'."""
        for scheme in self.each():
            if scheme.late == late:
                scheme.init_weights(generator, std)


def random_index(count: int, below: int) -> Tensor:
    """(count,) places below a bound, drawn at random, in order (Ruoss et al. 2023,
    arXiv:2305.16843)."""
    return torch.randperm(below)[:count].sort().values
