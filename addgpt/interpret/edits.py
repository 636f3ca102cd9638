"""Interventions: the activation at a point of the model is replaced while it runs.

Zero and mean ablation, activation patching (Vig et al. 2020, arXiv:2004.12265; Wang et al. 2022,
arXiv:2211.00593) and attention knockout (Geva et al. 2023, arXiv:2304.14767).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.model.hooks import point_names

Arrays = Mapping[str, np.ndarray]  # `Activations`
PER_HEAD = ("query", "key", "value", "weights", "found")
READ_ONLY = ("mid", "head")

Places = Sequence[int] | np.ndarray | None
"""Tokens by their number, or true for each that is meant; None: all. (B, T) bool for B problems."""


@dataclass(frozen=True)
class Edit:
    """What is put in place of an activation.

    name    of the point, such as `found.0`: see `addgpt.model.hooks`
    value   what passes instead: numbers that broadcast to (B, T, ...), or per head to
            (B, H, T, ...), B problems (one, for most); None: weights are kept but for `keys`
    head    the head, counted from 0; None: all
    tokens  at which tokens (of weights, at which queries)
    keys    of weights: which keys these no longer see; the others' weights are scaled to sum to 1
    """

    name: str
    value: Any = None
    head: int | None = None
    tokens: Places = None
    keys: Places = None

    @property
    def kind(self) -> str:
        """The point without its block: `found`."""
        return self.name.partition(".")[0]

    def __call__(self, x: Tensor) -> Tensor:
        """The activation with the edit made, (B, T, ...) or (B, H, T, ...)."""
        per_head = self.kind in PER_HEAD
        there = _mask(self.tokens, x.shape[-2], x.device)[:, :, None]  # (B or 1, T, 1)
        if per_head:
            heads = torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
            if self.head is not None:
                heads = torch.arange(x.shape[1], device=x.device) == self.head
            there = there[:, None] & heads[:, None, None]
        if self.value is None:
            keys = self.keys
            pairs = isinstance(keys, np.ndarray | Tensor) and keys.ndim == 3  # (B, T, K)
            hidden = torch.as_tensor(keys, device=x.device) if pairs else None
            if hidden is None:
                hidden = _mask(keys, x.shape[-1], x.device)[:, None]
            left = x.masked_fill(hidden[:, None] & there, 0)
            left = left / left.sum(-1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
            return torch.where(there, left, x)
        value = torch.as_tensor(self.value, dtype=x.dtype, device=x.device)
        return torch.where(there, value, x)

    def rows(self, start: int, end: int) -> Edit:
        """The edit for some of B problems, where its value has numbers for each."""
        value, size = self.value, 3 + (self.kind in PER_HEAD)  # (B, T, ...) or (B, H, T, ...)
        if isinstance(value, np.ndarray) and value.ndim == size and len(value) > 1:
            value = value[start:end]
        return replace(self, value=value)

    def check(self, config: GPTConfig) -> None:
        """Raise UsageError unless a model has such a point, and such a head."""
        kind = self.kind
        if kind in READ_ONLY:
            valid = "found.D, attention.D, mlp.D or after.D"
            raise UsageError(f"{self.name} can only be read; edit {valid}")
        check_name(self.name, config)
        if self.head is not None and kind not in PER_HEAD:
            raise UsageError(f"{self.name} has no heads; those that do: {', '.join(PER_HEAD)}")
        count = config.key_heads if kind in ("key", "value") else config.heads
        if self.head is not None and not 0 <= self.head < count:
            raise UsageError(f"{self.name} has heads 0 to {count - 1}, not {self.head}")


def zero(name: str, head: int | None = None, tokens: Places = None) -> Edit:
    """Zero ablation: zeros pass instead."""
    return Edit(name, 0.0, head, tokens)


def mean(name: str, over: Sequence[Arrays], head: int | None = None, tokens: Places = None) -> Edit:
    """Mean ablation: the mean over the tokens of other problems, the same at each token."""
    if not over:
        raise UsageError("mean needs the activations of at least one problem")
    if name.startswith("weights"):
        raise UsageError("weights of problems of different lengths have no mean; edit found.D")
    values = np.concatenate([_of_head(found, name, head) for found in over], -2)
    value = values.mean(-2, keepdims=True)
    return Edit(name, value, head, tokens)


def patch(name: str, source: Arrays, head: int | None = None, tokens: Places = None) -> Edit:
    """Activation patching: what passed on another problem with as many tokens, token by token."""
    return Edit(name, _of_head(source, name, head), head, tokens)


def knock_out(
    block: int, head: int | None = None, keys: Places = None, queries: Places = None
) -> Edit:
    """Attention knockout: these queries no longer see these keys; other weights are scaled up."""
    return Edit(f"weights.{block}", None, head, queries, keys)


def check_name(name: str, config: GPTConfig) -> None:
    """Raise UsageError, naming the valid ones, for a point that a model does not have."""
    valid = point_names(config)
    if name not in valid:
        raise UsageError(f"unknown activation {name!r}; valid: {', '.join(valid)}")


def _of_head(found: Arrays, name: str, head: int | None) -> np.ndarray:
    values = found[name]
    per_head = name.partition(".")[0] in PER_HEAD
    return values[head] if per_head and head is not None else values


def _mask(places: Places, size: int, device: torch.device) -> Tensor:
    """(B or 1, size) bool."""
    if places is None:
        return torch.ones(1, size, dtype=torch.bool, device=device)
    given = torch.as_tensor(np.asarray(places), device=device)
    if given.dtype != torch.bool:
        if given.numel() and not -size <= int(given.min()) <= int(given.max()) < size:
            raise UsageError(f"tokens must be in 0..{size - 1}, not {given.tolist()}")
        mask = torch.zeros(size, dtype=torch.bool, device=device)
        mask[given.long()] = True
        given = mask
    if given.shape[-1] != size:
        raise UsageError(f"the mask is of {given.shape[-1]} tokens, the text has {size}")
    return given if given.ndim == 2 else given[None]
