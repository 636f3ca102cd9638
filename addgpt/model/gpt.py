"""The GPT: token ids and position ids in, logits out. A decoder-only transformer after
Vaswani et al. 2017 (arXiv:1706.03762) and Radford et al. 2019, as in "Let's build GPT".

Shapes: B rows, T tokens, S of them whose output is wanted (all, but in the last block), K keys (of
these tokens and of those read before), L id levels, C channels (`width`), H heads, D = C / H
channels a head. What each setting does, and its paper: addgpt/config/catalogue.py. This is the
default path; where `variants.py` has another part for a setting, `build` puts that in.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.attention import AttentionContext, attend, gather
from addgpt.model.kv_cache import Cache
from addgpt.model.layers import ACTIVATIONS, NORMS, Embedding, Head, L2Normalise, Linear, Part
from addgpt.model.positions import Slots, random_index, schemes
from addgpt.model.rotary import apply_rotary, joined

INIT_GAIN = 10.0  # attention logits of normalised queries and keys start within +-10
EMBEDDING_STD, TIED_STD = 0.5, 0.02


class Attention(Part):
    """Tokens communicate: each asks (query), and takes over what others with a fitting key offer
    (value). Several heads do so side by side."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        own = c.content and c.share == "none" and c.key_heads == c.heads
        assert own or type(self) is not Attention, "this config has an attention of its own: build"
        self.heads = c.heads
        self.qkv = Linear(3, c.width, c.width, rank=c.rank)  # of all heads
        self.out = Linear(c.width, c.width, rank=c.rank)
        gain = nn.Parameter(torch.full((c.heads, 1, 1), INIT_GAIN))
        self.gain = gain if c.qk_norm and c.content else None

    def forward(
        self,
        x: Tensor,
        context: AttentionContext,
        depth: int = 0,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, S, C) at the places `at` (B, S) that are wanted; None: at all."""
        query, key, value = self.project(x, at)  # (B, H, S, D), (B, H, T, D), (B, H, T, D)
        if context.query_angles is not None and context.key_angles is not None:
            query = apply_rotary(query, context.query_angles)
            key = apply_rotary(key, context.key_angles)
        scale = 1 / math.sqrt(query.shape[-1])
        if self.gain is not None:  # Henry et al. 2020, arXiv:2010.04245
            query = L2Normalise.apply(query) * self.gain.to(query.dtype)
            key, scale = L2Normalise.apply(key), 1.0
        if context.logit_scale is not None:
            query = query * context.logit_scale
        if cache is not None:
            key, value = cache.extend(depth, key, value)  # (B, H, K, D)
        found = attend(query, key, value, context.mask, scale)  # (B, H, S, D)
        return self.out(found.transpose(1, 2).flatten(2))  # (B, S, C)

    def project(self, x: Tensor, at: Tensor | None) -> tuple[Tensor, ...]:
        """Queries, keys and values of all heads, in one product (EX1 of the lecture): the matrices
        of all heads are one matrix, three times as tall as it is wide, and a view tells the heads
        apart."""
        if at is None:
            return split_heads(self.qkv(x), 3, self.heads)
        qkv = self.qkv.matrix()  # the last block asks at some places only, but of all
        query = split_heads(F.linear(gather(x, at), qkv[0]), 1, self.heads)
        return *query, *split_heads(F.linear(x, qkv[1:].flatten(0, 1)), 2, self.heads)

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.qkv.init_weights(generator)
        self.out.init_weights(generator, zero=zero)


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, T, parts H D) as so many tensors of (B, H, T, D)."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind()


class MLP(Part):
    """Each token computes on its own."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.activation = ACTIVATIONS[c.activation]
        hidden = (2, c.hidden) if c.gated else (c.hidden,)  # gates, and the values they let through
        self.up = Linear(*hidden, c.width, rank=c.rank)
        self.down = Linear(c.width, c.hidden, rank=c.rank)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.up(x)))  # (B, S, C)

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.up.init_weights(generator)
        self.down.init_weights(generator, zero=zero)


class Block(Part):
    """Attention, then an MLP; each adds what it finds to the residual stream."""

    def __init__(
        self, config: GPTConfig, attention: Callable[[GPTConfig], Part] = Attention
    ) -> None:
        super().__init__()
        c = config
        own = c.norm_place == "before"
        assert own or type(self) is not Block, "this config has a block of its own: build"
        self.dropout = c.dropout
        self.attention_norm = NORMS[c.norm](c.width)
        self.attention = attention(c)
        self.mlp_norm = NORMS[c.norm if c.hidden else "none"](c.width)
        self.mlp = MLP(c) if c.hidden else None

    def forward(
        self,
        x: Tensor,
        context: AttentionContext,
        depth: int = 0,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, S, C). `depth` says which layer of the cache is this block's."""
        written = self.attention(self.attention_norm(x), context, depth, cache, at)  # (B, S, C)
        x = (x if at is None else gather(x, at)) + self.drop(written)
        return x if self.mlp is None else x + self.drop(self.mlp(self.mlp_norm(x)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.attention.init_weights(generator, zero)
        if self.mlp is not None:
            self.mlp.init_weights(generator, zero)


class GPT(nn.Module):
    """The model of a `GPTConfig`, its weights drawn from `seed` alone (None: left as they are).

    `block` makes a block; `addgpt.model.build` chooses the one that the config asks for.
    """

    def __init__(
        self,
        config: GPTConfig,
        seed: int | None = 0,
        block: Callable[[GPTConfig], Part] = Block,
    ) -> None:
        super().__init__()
        config.check_sizes()
        self.config = c = config
        self.token = Embedding(c.vocab, c.width, rank=c.embed_rank, per="token")
        self.positions = schemes(c)
        self.blocks = nn.ModuleList(block(c) for _ in range(c.layers))
        self.norm = NORMS["none" if c.norm_place == "after" else c.norm](c.width)
        self.head = None if c.tied else Head(c.vocab, c.width, rank=c.embed_rank)
        if seed is not None:
            self.init_weights(torch.Generator().manual_seed(seed))

    def forward(
        self,
        tokens: Tensor,
        ids: Tensor,
        cache: Cache | None = None,
        at: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token at every place, or at those that are wanted.

        Args:
            tokens: (B, T) int64.
            ids: (B, T + 1, L) position ids of the tokens and of the slot after the last; with
                `next_ids` off the last one is not looked at.
            cache: keys, values and ids of earlier tokens; extended by these.
            at: (B, S) places whose logits are wanted: the last block then works for these
                alone. With a cache only while nothing has been read yet.
            prompt: (B,) lengths of the prompts, which `prefix` needs. With a cache, what is read
                first is the prompt.

        Returns:
            (B, T, vocab) or (B, S, vocab) logits.
        """
        c = self.config
        start = cache.used if cache is not None else 0
        end = start + tokens.shape[1]
        assert end <= (c.longest or end), (end, c.longest)
        slots = Slots(ids, self.index(end + 1, ids.device), start, cache)

        x = self.token(tokens)  # (B, T, C)
        for scheme in self.positions.each():
            x = scheme.embed(x, slots)  # (B, T, C)
        embedded, context = x, self.context(slots, end, prompt)
        for depth in range(c.depth):  # each block once, unless they are looped
            if c.inject and depth and depth % c.layers == 0:
                x = x + embedded
            block = self.blocks[depth % c.layers]
            if at is not None and depth == c.depth - 1:
                x = block(x, context.at(at), depth, cache, at)  # (B, S, C)
            else:
                x = block(x, context, depth, cache)  # (B, T, C)
        if cache is not None:
            cache.used = end
        head = self.token if self.head is None else self.head
        return F.linear(self.norm(x), head.matrix())  # (B, S, vocab)

    def index(self, count: int, device: torch.device) -> Tensor | None:
        """(count,) places in the text: 0, 1, 2, ..., or in training a random choice in order."""
        if self.config.position == "none":
            return None
        if self.training and self.config.random_index:
            return random_index(count, self.config.random_index).to(device)
        return torch.arange(count, device=device)

    def context(self, slots: Slots, end: int, prompt: Tensor | None) -> AttentionContext:
        """What the tokens of a pass see, and how positions sway it: the sum of all schemes."""
        c, found = self.config, self.positions.each()
        assert prompt is not None or slots.cache is not None or not c.prefix, "prefix needs prompts"
        if slots.cache is not None:  # what is read first is the prompt
            prompt = torch.tensor([0 if slots.start else end], device=slots.ids.device)
        biases = [bias for one in found if (bias := one.bias(slots)) is not None]
        rotations = [angles for one in found if (angles := one.rotate(slots)) is not None]
        query_angles, key_angles = joined(rotations)
        return AttentionContext(
            start=slots.start,
            key_count=end,
            prompt_lengths=prompt if c.prefix else None,
            query_angles=query_angles,
            key_angles=key_angles,
            bias=functools.reduce(operator.add, biases) if biases else None,
            reference_length=c.context if c.log_scale else 0,
            device=slots.ids.device,
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights, in an order that is part of what a seed means.

        embeddings of tokens, places, ids   normal, 0.5 (0.02 if the head is tied to them)
        queries, keys, values, up           normal, 1/sqrt(fan-in)
        out, down: what adds to the stream  zero; where a norm follows (`norm_place=both`), as up
        head                                zero
        gains of norms; of attention        one; 10, so that logits start within +-10
        relative ids                        -difference^2 and normal noise, 0.5, or heads would
                                            stay alike
        fire                                normal, 1, and 1/sqrt(fan-in) for the last layer
        low-rank products                   of one as above and one of 1/sqrt(rank)
        """
        std = TIED_STD if self.config.tied else EMBEDDING_STD
        late = ("relative", "index") if self.config.position == "fire" else ("relative",)
        self.token.init_weights(generator, std)
        for name in self.positions:
            if name not in late:
                self.positions[name].init_weights(generator, std)
        for block in self.blocks:
            block.init_weights(generator)  # type: ignore[operator]
        if self.head is not None:
            self.head.init_weights(generator, std, zero=True)
        for name in late[::-1]:
            if name in self.positions:
                self.positions[name].init_weights(generator, std)

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
