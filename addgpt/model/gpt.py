"""The GPT: token ids and position ids in, logits out. A decoder-only transformer after
Vaswani et al. 2017 (arXiv:1706.03762) and Radford et al. 2019, as in "Let's build GPT".

Read it from top to bottom: attention, MLP, block, and the model that stacks the blocks. The loss is
`next_token_loss` in addgpt/model/forward.py. This file is the default path. Positions enter by the
schemes of addgpt/model/schemes.py, and where a setting asks for another part, `build` takes that
from addgpt/model/variants.py. What each setting does, and its paper: addgpt/config/catalogue.py.

Shapes: B rows, T tokens, S of them whose output is wanted (all but in the last block, see
`AttentionContext`), K keys (of these tokens and of those read before), L position-id levels,
C channels (`width`), H heads, D = C / H channels a head.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model.attention import AttentionContext
from addgpt.model.kv_cache import Cache
from addgpt.model.layers import ACTIVATIONS, NORMS, Embedding, Head, Linear, Part, l2_normalise
from addgpt.model.positions import Slots
from addgpt.model.schemes import Schemes

INIT_GAIN = 10.0  # attention logits of normalised queries and keys start within +-10
EMBEDDING_STD, TIED_STD = 0.5, 0.02
NEVER = -1e4  # the logit of tokens that the task has no use for


class Attention(Part):
    """Communication: each token looks for others (query) by what they offer (key), and takes over
    what they have to say (value). Several heads do so side by side."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.heads = c.heads
        self.qkv = Linear(3, c.width, c.width)  # queries, keys and values of all heads
        self.out = Linear(c.width, c.width)
        gain = nn.Parameter(torch.full((c.heads, 1, 1), INIT_GAIN))
        self.gain = gain if c.qk_norm else None

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        """(B, T, C) -> (B, S, C)."""
        query, key, value = self.project(x, context)  # (B, H, S, D), (B, H, T, D), (B, H, T, D)
        query, key = context.rotate(query, key)
        scale = 1 / math.sqrt(query.shape[-1])
        if self.gain is not None:  # Henry et al. 2020, arXiv:2010.04245
            query = l2_normalise(query) * self.gain.to(query.dtype)
            key, scale = l2_normalise(key), 1.0
        if context.cache is not None:
            key, value = context.cache.extend(depth, key, value)  # (B, H, K, D)
        found = context.attend(query, key, value, scale)  # (B, H, S, D)
        return self.out(found.transpose(1, 2).flatten(2))  # (B, S, C)

    def project(self, x: Tensor, context: AttentionContext) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all heads in one product (EX1 of the lecture).

        A head is a slice of one tall matrix: multiply once, then split it into heads by a view.
        """
        if context.places is None:
            query, key, value = split_heads(self.qkv(x), 3, self.heads)
        else:  # queries at some places, but keys and values of all tokens
            (query,) = split_heads(self.qkv.part(0, 1, context.wanted(x)), 1, self.heads)
            key, value = split_heads(self.qkv.part(1, 3, x), 2, self.heads)
        return query, key, value

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.qkv.init_weights(generator)
        self.out.init_weights(generator, zero=zero)


def split_heads(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """(B, T, parts H D) as `parts` tensors of (B, H, T, D)."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind()


class MLP(Part):
    """Computation: each token thinks on its own about what it has heard."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.activation = ACTIVATIONS[c.activation]
        hidden = (2, c.hidden) if c.gated else (c.hidden,)  # gates, and the values they let through
        self.up = Linear(*hidden, c.width)
        self.down = Linear(c.width, c.hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, C)."""
        return self.down(self.activation(self.up(x)))

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.up.init_weights(generator)
        self.down.init_weights(generator, zero=zero)


class Block(Part):
    """Communication, then computation; each adds what it finds to the residual stream."""

    def __init__(
        self, config: GPTConfig, attention: Callable[[GPTConfig], Part] = Attention
    ) -> None:
        super().__init__()
        c = config
        self.dropout = c.dropout
        self.attention_norm = NORMS[c.norm](c.width)
        self.attention = attention(c)
        self.mlp_norm = NORMS[c.norm if c.hidden else "none"](c.width)
        self.mlp = MLP(c) if c.hidden else None

    def forward(self, x: Tensor, context: AttentionContext, depth: int = 0) -> Tensor:
        """(B, T, C) -> (B, S, C). `depth` says which layer of the cache is this block's."""
        found = self.attention(self.attention_norm(x), context, depth)  # (B, S, C)
        x = context.wanted(x) + self.drop(found)
        return x if self.mlp is None else x + self.drop(self.mlp(self.mlp_norm(x)))

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x

    def init_weights(self, generator: torch.Generator, zero: bool = True) -> None:
        self.attention.init_weights(generator, zero)
        if self.mlp is not None:
            self.mlp.init_weights(generator, zero)


class GPT(nn.Module):
    """Embedding, blocks, norm, head. Weights are drawn from `seed` alone (None: left as they are).

    `block` makes a block. `addgpt.model.build` makes the model of any config, with the parts that
    it asks for.
    """

    unused: Tensor | None  # (vocab,) very low logits of characters that have no row

    def __init__(
        self,
        config: GPTConfig,
        seed: int | None = 0,
        block: Callable[[GPTConfig], Part] = Block,
    ) -> None:
        super().__init__()
        config.check_sizes()
        assert block is not Block or config.plain, "build(config) has the parts that this asks for"
        self.config = c = config
        self.token = Embedding(c.vocab, c.width, per="token")
        self.positions = Schemes(c)
        self.blocks = nn.ModuleList(block(c) for _ in range(c.layers))
        self.norm = NORMS["none" if c.norm_place == "after" else c.norm](c.width)
        self.head = None if c.tied else Head(c.vocab, c.width)
        never = [token for token in range(c.vocab) if c.used and token not in c.used]
        unused = torch.tensor([NEVER if v in never else 0.0 for v in range(c.vocab)])
        self.register_buffer("unused", unused if never else None, persistent=False)
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
                `next_ids` off the last one is ignored.
            cache: keys, values and ids of earlier tokens; extended by these.
            at: (B, S) places whose logits are wanted: the last block works for these alone. With
                a cache only while nothing has been read yet.
            prompt: (B,) lengths of the prompts, which `prefix` needs. With a cache, what is read
                first is the prompt.

        Returns:
            (B, T, vocab) or (B, S, vocab) logits.
        """
        slots = self.positions.slots(ids, cache)  # where each token stands
        assert slots.end <= (self.config.longest or slots.end), (slots.end, self.config.longest)

        x = self.positions.embed(self.token(tokens), slots)  # (B, T, C)
        x = self.through_blocks(x, self.context(slots, prompt), at)  # (B, S, C)
        if cache is not None:
            cache.used = slots.end
        return self.logits(x)  # (B, S, vocab)

    def logits(self, x: Tensor) -> Tensor:
        """(B, S, C) -> (B, S, vocab) after the last block."""
        head = self.token if self.head is None else self.head
        return F.linear(self.norm(x), head.matrix(), self.unused)

    def through_blocks(self, x: Tensor, context: AttentionContext, at: Tensor | None) -> Tensor:
        """(B, T, C) -> (B, S, C) through all blocks."""
        for depth, block in enumerate(self.blocks):
            last = depth == len(self.blocks) - 1
            context = context.of_rows() if at is None or not last else context.at(at)
            x = block(x, context, depth)
        return x

    def context(self, slots: Slots, prompt: Tensor | None) -> AttentionContext:
        """What the tokens of a pass see, and how positions enter."""
        c = self.config
        return AttentionContext(
            start=slots.start,
            key_count=slots.end,
            prompt_lengths=slots.prompt_lengths(prompt) if c.prefix else None,
            angles=self.positions.rotate(slots),
            bias=self.positions.bias(slots),
            reference_length=c.context if c.log_scale else 0,
            device=slots.ids.device,
            cache=slots.cache,
            seen=None if slots.seen is None else slots.seen.clamp(min=0),
            rows=slots.rows,
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights, in an order that is part of what a seed means.

        embeddings of tokens, places, ids   normal, 0.5 (0.02 if the head is tied to them)
        queries, keys, values, up           normal, 1/sqrt(fan-in)
        out, down: what adds to the stream  zero; where a norm follows (`norm_place=both`), as up
        head                                zero
        gains of norms; of attention        one; 10, so that logits start within +-10
        biases of positions                 see `RelativeIds` and `Fire`
        """
        std = TIED_STD if self.config.tied else EMBEDDING_STD
        self.token.init_weights(generator, std)
        self.positions.init_weights(generator, std)
        for block in self.blocks:
            block.init_weights(generator)  # type: ignore[operator]
        if self.head is not None:
            self.head.init_weights(generator, std, zero=True)
        self.positions.init_weights(generator, std, late=True)

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())
