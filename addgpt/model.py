"""The GPT: token ids and position ids in, logits out. A decoder-only transformer after
Vaswani et al. 2017 (arXiv:1706.03762) and Radford et al. 2019, as in "Let's build GPT".

Shapes: B rows, T tokens, L id levels, C channels (`width`), H heads, D = C / H channels a head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt import positions
from addgpt.config import ModelConfig


class SquaredReLU(torch.autograd.Function):
    """max(x, 0)^2 (So et al. 2021, arXiv:2109.08668), with one pass over memory less backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        positive = F.relu(x)
        ctx.save_for_backward(positive)
        return positive.square()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        (positive,) = ctx.saved_tensors
        return (gradient * positive).mul_(2)


ACTIVATIONS = {
    "relu2": SquaredReLU.apply,
    "relu": F.relu,
    "gelu": F.gelu,
    "silu": F.silu,
}
NORMS = {
    "rms": nn.RMSNorm,  # Zhang and Sennrich 2019, arXiv:1910.07467
    "layer": nn.LayerNorm,
    "plain": lambda width: nn.RMSNorm(width, elementwise_affine=False),
}
INIT_GAIN = 10.0  # attention logits of normalised queries and keys start within +-10


class Cache:
    """Keys and values of the tokens already read, so that decoding reads each token once."""

    def __init__(self, config: ModelConfig, rows: int, length: int, device: torch.device) -> None:
        shape = (config.layers, 2, rows, config.heads, length, config.width // config.heads)
        self.store = torch.zeros(shape, device=device)
        self.used = 0

    def extend(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values; return all of them so far."""
        end = self.used + key.shape[2]
        self.store[layer, 0, :, :, self.used : end] = key
        self.store[layer, 1, :, :, self.used : end] = value
        return self.store[layer, 0, :, :, :end], self.store[layer, 1, :, :, :end]

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        kept = self.store.new_empty(*self.store.shape[:2], len(rows), *self.store.shape[3:])
        kept[..., : self.used, :] = self.store[:, :, rows, :, : self.used]
        self.store = kept


class Block(nn.Module):
    """Attention (tokens communicate), then an MLP (each token computes)."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        c = config
        self.layer, self.heads, self.dropout = layer, c.heads, c.dropout
        self.activation = ACTIVATIONS[c.activation]
        self.attention_norm, self.mlp_norm = NORMS[c.norm](c.width), NORMS[c.norm](c.width)
        self.qkv = nn.Parameter(torch.empty(3, c.width, c.width))
        self.out = nn.Parameter(torch.empty(c.width, c.width))
        self.up = nn.Parameter(torch.empty(c.mlp_ratio * c.width, c.width))
        self.down = nn.Parameter(torch.empty(c.width, c.mlp_ratio * c.width))
        self.gain = nn.Parameter(torch.full((c.heads, 1, 1), INIT_GAIN)) if c.qk_norm else None

    def forward(
        self, x: Tensor, turns: tuple | None, cache: Cache | None, at: Tensor | None = None
    ) -> Tensor:
        """(B, T, C) -> (B, T, C), or (B, S, C) at the places (B, S) that are wanted."""
        read = self.attention_norm(x)
        attended = self._attend(read, turns, cache) if at is None else self._look(read, turns, at)
        x = x if at is None else _pick(x, at)
        x = x + self._drop(F.linear(attended, self.out))
        hidden = self.activation(F.linear(self.mlp_norm(x), self.up))  # (B, T, R C)
        return x + self._drop(F.linear(hidden, self.down))

    def _attend(self, x: Tensor, turns: tuple | None, cache: Cache | None) -> Tensor:
        rows, length, width = x.shape
        every = F.linear(x, self.qkv.flatten(0, 1))  # (B, T, 3C): all heads in one product
        every = every.view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = every.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        if turns is not None:
            query, key = positions.turn(query, turns[0]), positions.turn(key, turns[1])
        query, key, scale = self._normalised(query, key)
        past = 0
        if cache is not None:
            past = cache.used
            key, value = cache.extend(self.layer, key, value)
        if length == 1:  # plain products beat the fused kernel here: there is nothing to mask
            y = (query @ key.mT * scale).softmax(-1) @ value  # (B, H, 1, D)
            return y.transpose(1, 2).reshape(rows, 1, width)
        mask = None
        if past:
            mask = torch.ones(length, past + length, dtype=torch.bool, device=x.device).tril(past)
        y = F.scaled_dot_product_attention(
            query, key, value, mask, is_causal=not past, scale=scale
        )  # (B, H, T, D)
        return y.transpose(1, 2).reshape(rows, length, width)

    def _look(self, x: Tensor, turns: tuple | None, at: Tensor) -> Tensor:
        """Attention from some places (B, S) only, over all the tokens up to each."""
        rows, length, width = x.shape
        pair = F.linear(x, self.qkv[1:].flatten(0, 1)).view(rows, length, 2, self.heads, -1)
        key, value = pair.permute(2, 0, 3, 1, 4)  # each (B, H, T, D)
        query = F.linear(_pick(x, at), self.qkv[0])  # (B, S, C)
        query = query.view(rows, at.shape[1], self.heads, -1).transpose(1, 2)  # (B, H, S, D)
        if turns is not None:
            ahead = tuple(_pick(part[:, 0], at)[:, None] for part in turns[0])
            query, key = positions.turn(query, ahead), positions.turn(key, turns[1])
        query, key, scale = self._normalised(query, key)
        mask = torch.arange(length, device=x.device) <= at[:, :, None]  # (B, S, T)
        y = F.scaled_dot_product_attention(query, key, value, mask[:, None], scale=scale)
        return y.transpose(1, 2).reshape(rows, at.shape[1], width)

    def _normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float]:
        """Queries and keys as they meet, and what their products are multiplied with."""
        if self.gain is None:
            return query, key, 1 / math.sqrt(query.shape[-1])
        # Henry et al. 2020, arXiv:2010.04245
        return F.normalize(query, dim=-1) * self.gain.to(query.dtype), F.normalize(key, dim=-1), 1.0

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class GPT(nn.Module):
    """The model of a `ModelConfig`. Weights are drawn from `seed` alone."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__()
        if config.vocab < 1 or config.context < 1:
            sizes = f"vocab={config.vocab} and context={config.context}"
            raise ValueError(f"{sizes} must be positive; the task knows them")
        self.config = c = config
        scheme = c.level_position or ("learned",) * len(c.levels)
        self.added = [level for level, how in enumerate(scheme) if how == "learned"]
        self.turned = [level for level, how in enumerate(scheme) if how == "rotary"]
        self.token = nn.Embedding(c.vocab, c.width)
        self.index = nn.Embedding(c.context, c.width) if c.position == "learned" else None
        self.level = nn.ModuleList(nn.Embedding(c.levels[i], c.width) for i in self.added)
        self.next_level = nn.ModuleList(
            nn.Embedding(c.levels[i], c.width) for i in self.added if c.next_ids
        )
        self.blocks = nn.ModuleList(Block(c, layer) for layer in range(c.layers))
        self.norm = NORMS[c.norm](c.width)
        self.head = None if c.tied else nn.Parameter(torch.empty(c.vocab, c.width))
        waves = positions.sinusoidal(c.context, c.width) if c.position == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
        rates = None
        if self.turned or c.position == "rotary":
            rates = positions.rotary_rates(
                c.width // c.heads, c.position == "rotary", len(self.turned)
            )
        self.register_buffer("rates", rates, persistent=False)
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(
        self,
        tokens: Tensor,
        ids: Tensor,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token at every place, or at those that are wanted.

        Args:
            tokens: (B, T) int64.
            ids: (B, T + 1, L) position ids of the tokens and of the slot after the last; with
                `next_ids` off the last one is not looked at.
            cache: keys and values of earlier tokens; extended by these.
            at: (B, S) places whose logits are wanted, without a cache: the last block then
                works for these alone.

        Returns:
            (B, T, vocab) or (B, S, vocab) logits.
        """
        start = cache.used if cache is not None else 0
        end = start + tokens.shape[1]
        assert end <= (self.config.longest or end), (end, self.config.longest)
        x = self._embed(tokens, ids, start)  # (B, T, C)
        turns = self._turns(ids, start, end)
        last = self.blocks[-1]
        for block in self.blocks:
            x = block(x, turns, cache, at if block is last else None)
        if cache is not None:
            cache.used = end
        head = self.token.weight if self.head is None else self.head
        return F.linear(self.norm(x), head)  # (B, T, vocab)

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _embed(self, tokens: Tensor, ids: Tensor, start: int) -> Tensor:
        x = self.token(tokens)  # (B, T, C)
        length = tokens.shape[1]
        if self.index is not None:
            x = x + self.index.weight[start : start + length]
        if self.waves is not None:
            x = x + self.waves[start : start + length]
        for table, level in zip(self.level, self.added, strict=True):
            x = x + table(ids[:, :-1, level])
        for table, level in zip(self.next_level, self.added, strict=False):
            x = x + table(ids[:, 1:, level])
        return x

    def _turns(self, ids: Tensor, start: int, end: int) -> tuple | None:
        """Rotations (cos, sin), (B, 1, T, P), of queries and of keys.

        With `next_ids` a query turns with the slot it is about to fill: it looks from there.
        """
        if self.rates is None:
            return None
        index = torch.arange(start, end + 1, device=ids.device, dtype=self.rates.dtype)
        places = [index.expand(len(ids), -1)] + [
            ids[:, :, level].to(self.rates.dtype) for level in self.turned
        ]
        angle = (torch.stack(places, -1) @ self.rates.T)[:, None]  # (B, 1, T + 1, P)
        cos, sin = angle.cos(), angle.sin()
        own = cos[:, :, :-1], sin[:, :, :-1]
        ahead = (cos[:, :, 1:], sin[:, :, 1:]) if self.config.next_ids and self.turned else own
        return ahead, own

    def _initialise(self, generator: torch.Generator) -> None:
        """Embeddings at 0.5; matrices at 1/sqrt(fan-in); what adds to the stream starts at zero."""
        zero = ("out", "down", "head")
        for name, parameter in self.named_parameters():
            kind = name.rpartition(".")[2]
            if name.endswith(".gain") or "norm" in name:
                continue
            if kind in zero:
                nn.init.zeros_(parameter)
            elif kind in ("qkv", "up"):
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
            else:
                std = 0.02 if self.config.tied else 0.5
                nn.init.normal_(parameter, std=std, generator=generator)


def _pick(x: Tensor, at: Tensor) -> Tensor:
    """(B, S, C) the places (B, S) of x (B, T, C)."""
    return x.gather(1, at[:, :, None].expand(-1, -1, x.shape[-1]))


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy of (B, T, V) logits against (B, T) targets, -1 meaning "not scored"."""
    return F.cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=-1, reduction="sum"
    )
