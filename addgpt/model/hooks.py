"""Named points inside the GPT, where what passes can be read and replaced.

The model knows nothing of this: `watched` hangs torch's own hooks onto its modules for as long as
it is open, and hands the blocks an `AttentionContext` that shows what happens inside attention. So
there is one model, and no cost where nobody watches.

The points, D being the block (of a looped model, counted on through the loops), in order:

    before.D     (B, T, C)     the residual stream that the block reads
    query.D      (B, H, T, N)  as compared with keys: rotated, normalised
    key.D        (B, G, T, N)
    value.D      (B, G, T, N)
    weights.D    (B, H, T, T)  attention: of each query over the keys; 0 where it sees none
    found.D      (B, H, T, N)  the weighted sums of values
    attention.D  (B, T, C)     what all heads together write
    mid.D        (B, T, C)     the residual stream after attention; can be read, not replaced
    mlp_in.D     (B, T, C)     what the MLP reads
    hidden.D     (B, T, M)     its activations
    mlp.D        (B, T, C)     what it writes
    after.D      (B, T, C)     the residual stream that the block leaves
    normed       (B, T, C)     what the output matrix reads
    logits       (B, T, V)

B rows, T tokens, H heads, G heads of keys and values, N channels a head, C channels, M neurons, V
tokens of the alphabet. Position-only attention has no queries and keys, a block without an MLP none
of its points.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from addgpt.config.gpt import GPTConfig
from addgpt.model.attention import AttentionContext, few_logits, plain_weights, weighted_sum
from addgpt.model.gpt import GPT
from addgpt.model.layers import softmax

ATTENTION = ("query", "key", "value", "weights", "found", "attention")
MLP = ("mid", "mlp_in", "hidden", "mlp")

See = Callable[[str, Tensor], Tensor]
"""Gets the name of a point and what passes there; returns that, or what is to pass instead."""


def point_names(config: GPTConfig) -> list[str]:
    """All points of a model, in the order in which they are passed."""
    block = ("before", *(ATTENTION if config.content else ATTENTION[2:]))
    block += (*(MLP if config.hidden else ()), "after")
    names = [f"{name}.{depth}" for depth in range(config.depth) for name in block]
    return [*names, "normed", "logits"]


def has_hooks(model: nn.Module) -> bool:
    """Whether somebody watches a module, so that each must be called as it stands."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(part, kind) for part in model.modules() for kind in kinds)


@contextlib.contextmanager
def watched(model: GPT, see: See) -> Iterator[None]:
    """While this is open, `see` is called with everything that passes a point of the model.

    If `see` returns everything unchanged, the logits are the model's own, to the bit. The model
    must be called without a cache and without `at`, so that all shapes are as above.
    """
    undo: list[Callable[[], Any]] = []
    depth = 0

    def at(name: str) -> str:
        return f"{name}.{depth}"

    def enter(_: nn.Module, args: tuple) -> tuple:
        nonlocal depth
        x, context, depth = args
        return see(at("before"), x), _watching(context, see, depth), depth

    def before(name: str) -> Callable[[nn.Module, tuple], tuple]:
        return lambda _, args: (see(at(name), args[0]), *args[1:])

    def after(name: str) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda _, args, out: see(at(name) if name not in ("normed", "logits") else name, out)

    def read_mid(_: nn.Module, args: tuple) -> None:
        see(at("mid"), args[0])

    def activation_of(mlp: Any) -> None:
        plain = mlp.activation
        mlp.activation = lambda x: see(at("hidden"), plain(x))
        undo.append(lambda: setattr(mlp, "activation", plain))

    try:
        for block in model.blocks:
            hooks = [
                block.register_forward_pre_hook(enter),
                block.attention.register_forward_hook(after("attention")),  # type: ignore
                block.register_forward_hook(after("after")),
            ]
            if block.mlp is not None:
                between = block.mlp if model.config.norm_place == "after" else block.mlp_norm
                hooks.append(between.register_forward_pre_hook(read_mid))  # type: ignore
                hooks.append(block.mlp.register_forward_pre_hook(before("mlp_in")))  # type: ignore
                hooks.append(block.mlp.register_forward_hook(after("mlp")))  # type: ignore
                activation_of(block.mlp)
            undo += [hook.remove for hook in hooks]
        undo.append(model.norm.register_forward_hook(after("normed")).remove)
        undo.append(model.register_forward_hook(after("logits")).remove)
        yield
    finally:
        for step in reversed(undo):
            step()


@dataclass(frozen=True, kw_only=True)
class _Watching(AttentionContext):
    """An `AttentionContext` that shows what happens in it. Weights that are replaced are used; else
    attention is computed as usual, and the weights are only shown."""

    see: See
    depth: int

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        query, key, value = (
            self.see(f"{name}.{self.depth}", x)
            for name, x in (("query", query), ("key", key), ("value", value))
        )
        if self.seen is not None and self.bias is not None:
            few = few_logits(self._scaled(query), key, self.seen, self.bias, scale)
            weights = self._spread(softmax(few), key.shape[2])
        else:
            keys = key.repeat_interleave(query.shape[1] // key.shape[1], 1)
            weights = plain_weights(self._scaled(query), keys, self.mask, scale)
        shown = self.see(f"weights.{self.depth}", weights)
        same = shown is weights
        found = super().attend(query, key, value, scale) if same else weighted_sum(shown, value)
        return self.see(f"found.{self.depth}", found)

    def weigh(self, value: Tensor) -> Tensor:
        value = self.see(f"value.{self.depth}", value)
        if self.seen is not None:
            assert self.bias is not None
            weights = self._spread(softmax(self.bias), value.shape[2])
        else:
            weights = self.weights.expand(len(value), -1, -1, -1)
        shown = self.see(f"weights.{self.depth}", weights)
        found = super().weigh(value) if shown is weights else weighted_sum(shown, value)
        return self.see(f"found.{self.depth}", found)

    def _scaled(self, query: Tensor) -> Tensor:
        return query if self.logit_scale is None else query * self.logit_scale

    def _spread(self, few: Tensor, keys: int) -> Tensor:
        """(B, H, S, K) weights of all keys, from (B, H, S, R) of those that are seen."""
        assert self.seen is not None
        seen = self.seen[:, None].expand_as(few)
        return torch.zeros(*few.shape[:3], keys, dtype=few.dtype).to(few).scatter_add(3, seen, few)


def _watching(context: AttentionContext, see: See, depth: int) -> _Watching:
    assert context.cache is None and context.places is None, "a whole pass, without a cache"
    parts = {field.name: getattr(context, field.name) for field in fields(AttentionContext)}
    return _Watching(**parts, see=see, depth=depth)
