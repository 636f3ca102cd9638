"""Parts of the GPT that a setting replaces: attention with fewer matrices, norms elsewhere, loops,
token shift.

What each is, and its paper: addgpt/config/catalogue.py. `gpt_of` picks those that a config names.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.attention import AttentionContext
from addgpt.model.gpt import GPT, Attention, Block, split_heads
from addgpt.model.layers import (
    NORMS,
    Linear,
    Part,
    Unchanged,
    factorise,
    gather,
    with_few_rows,
)

# Which matrices of the stack make queries, keys and values (`share`).
TIED = {"none": (0, 1, 2), "qk": (0, 0, 1), "kv": (0, 1, 1), "qkv": (0, 0, 0)}


class TiedAttention(Attention):
    """One matrix makes two or all of queries, keys and values (`share`)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        self.uses = TIED[config.share]
        self.qkv = Linear(len(set(self.uses)), config.width, config.width)

    def project(self, x: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        (q, k, v), count = self.uses, len(set(self.uses))
        if context.places is None:
            parts = split_heads(self.qkv(x), count, self.heads)
            return parts[q], parts[k], parts[v]
        (query,) = split_heads(self.qkv.part(q, q + 1, context.wanted(x)), 1, self.heads)
        parts = split_heads(self.qkv.part(k, count, x), count - k, self.heads)
        return query, parts[0], parts[-1]


class GroupedAttention(Attention):
    """Groups of heads share keys and values (`kv_heads`); one matrix makes both if `share=kv`."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__(config)
        c = config
        self.key_heads, self.parts = c.key_heads, 1 if c.share == "kv" else 2
        self.qkv = Linear(1, c.width, c.width)  # queries alone
        group = c.key_heads * (c.width // c.heads)
        self.kv = Linear(self.parts, group, c.width)

    def project(self, x: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        (query,) = split_heads(self.qkv(context.wanted(x)), 1, self.heads)
        pair = split_heads(self.kv(x), self.parts, self.key_heads)  # (B, G, T, D)
        return query, pair[0], pair[-1]

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.qkv.init_weights(generator)
        self.kv.init_weights(generator)
        self.out.init_weights(generator, zero=zero)


class PositionAttention(Part):
    """Position-only attention (`content=false`): there are no queries and keys, biases of
    positions are all there is."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.key_heads = c.key_heads
        self.value = Linear(1, c.key_heads * (c.width // c.heads), c.width)
        self.out = Unchanged(c.width) if c.share == "vo" else Linear(c.width, c.width)

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        (value,) = split_heads(self.value(x), 1, self.key_heads)  # (B, G, T, D)
        if context.cache is not None:
            (value,) = context.cache.extend(depth, value)
        found = context.weigh(value)  # (B, H, S, D)
        return self.out(found.transpose(1, 2).flatten(2))

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.value.init_weights(generator)
        self.out.init_weights(generator, zero=zero)


class PostNormBlock(Block):
    """norm(x + f(x)) (`norm_place=after`)."""

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        written = self.attention(x, context, depth)
        x = self.attention_norm(context.wanted(x) + self.drop(written))
        return x if self.mlp is None else self.mlp_norm(x + self.drop(self.mlp(x)))


class SandwichBlock(Block):
    """x + norm(f(norm(x))) (`norm_place=both`)."""

    def __init__(
        self, config: GPTConfig, attention: Callable[[GPTConfig], Part] = Attention
    ) -> None:
        super().__init__(config, attention)
        c = config
        self.normed = c.norm != "none"
        self.attention_norm_out = NORMS[c.norm](c.width)
        self.mlp_norm_out = NORMS[c.norm if c.hidden else "none"](c.width)

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        written = self.attention(self.attention_norm(x), context, depth)
        x = context.wanted(x) + self.drop(self.attention_norm_out(written))
        if self.mlp is None:
            return x
        return x + self.drop(self.mlp_norm_out(self.mlp(self.mlp_norm(x))))

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        super().init_weights(generator, zero and not self.normed)  # a norm would blow zeros up


class ShiftBlock(Block):
    """The MLP also reads what the token before had, a trained share of each channel
    (`token_shift`)."""

    def __init__(
        self, config: GPTConfig, attention: Callable[[GPTConfig], Part] = Attention
    ) -> None:
        super().__init__(config, attention)
        self.shift = nn.Parameter(torch.zeros(config.width))

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        assert self.mlp is not None and context.places is None
        x = x + self.drop(self.attention(self.attention_norm(x), context, depth))
        read = self.mlp_norm(x)  # (B, T, C)
        if context.cache is None:
            before = F.pad(read[:, :-1], (0, 0, 1, 0))
        else:
            before = context.cache.shift(depth, read)
        return x + self.drop(self.mlp(torch.addcmul(read, self.shift, before)))


class LoopedGPT(GPT):
    """The stack of blocks is run through several times (`loops`); with `inject`, the embedding is
    added again before each further time."""

    def through_blocks(self, x: Tensor, context: AttentionContext, at: Tensor | None) -> Tensor:
        embedded, depth = x, 0
        for loop in range(self.config.loops):
            if loop and self.config.inject:
                x = x + embedded
            for block in self.blocks:
                last = depth == self.config.depth - 1
                context = context.of_rows() if at is None or not last else context.at(at)
                x = block(x, context, depth)
                depth += 1
        return x


class ShiftedGPT(LoopedGPT):
    """All tokens pass the last block, too: what follows them reads it (`token_shift`)."""

    def through_blocks(self, x: Tensor, context: AttentionContext, at: Tensor | None) -> Tensor:
        x = super().through_blocks(x, context, None)
        return x if at is None else gather(x, at)


BLOCKS = {"before": Block, "after": PostNormBlock, "both": SandwichBlock}


def attention_of(config: GPTConfig) -> type[Part]:
    """The attention that a config asks for."""
    if not config.content:
        return PositionAttention
    if config.key_heads < config.heads:
        return GroupedAttention
    return Attention if config.share == "none" else TiedAttention


def gpt_of(config: GPTConfig, seed: int | None) -> GPT:
    """The GPT that a config asks for, its weights drawn from `seed` (None: left as they are)."""
    kind, part = GPT if config.loops == 1 else LoopedGPT, BLOCKS[config.norm_place]
    if config.token_shift:
        kind, part = ShiftedGPT, ShiftBlock
    model = kind(config, None, functools.partial(part, attention=attention_of(config)))
    factorise(model.blocks, config.rank)
    factorise(model.token, config.embed_rank)
    with_few_rows(model.token, config.arc, config.used)
    if model.head is not None:
        factorise(model.head, config.embed_rank)
        with_few_rows(model.head, 0, config.used)
    if seed is not None:
        model.init_weights(torch.Generator().manual_seed(seed))
    return model
