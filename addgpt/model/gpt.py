"""The GPT: token ids and position ids in, logits out. A decoder-only transformer after
Vaswani et al. 2017 (arXiv:1706.03762) and Radford et al. 2019, as in "Let's build GPT".

Shapes: B rows, T tokens, L id levels, C channels (`width`), H heads, D = C / H channels a head,
G heads of keys and values. What each setting does, and its paper: addgpt/config/catalogue.py.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GPTConfig
from addgpt.model import positions
from addgpt.model.attention import Angles, Sight, attend, mix, pick
from addgpt.model.kv_cache import Cache
from addgpt.model.layers import ACTIVATIONS, NORMS, Table, UnitLength, full, matrix

INIT_GAIN = 10.0  # attention logits of normalised queries and keys start within +-10

# Which matrices of the stack make queries, keys and values.
PROJECTIONS = {"none": (0, 1, 2), "qk": (0, 0, 1), "kv": (0, 1, 1), "qkv": (0, 0, 0)}


class Block(nn.Module):
    """Attention (tokens communicate), then an MLP (each token computes)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        c = config
        self.heads, self.key_heads, self.dropout = c.heads, c.key_heads, c.dropout
        self.place, self.uses, self.computes = c.norm_place, PROJECTIONS[c.share], c.hidden > 0
        self.activation = ACTIVATIONS[c.activation]
        self.attention_norm = NORMS[c.norm](c.width)
        stack, group = len(set(self.uses)), c.key_heads * (c.width // c.heads)
        if not c.content:
            self.qkv, self.kv = None, matrix(c.rank, 1, group, c.width)  # values alone
        elif c.key_heads == c.heads:
            self.qkv, self.kv = matrix(c.rank, stack, c.width, c.width), None
        else:
            self.qkv = matrix(c.rank, 1, c.width, c.width)  # queries alone
            self.kv = matrix(c.rank, stack - 1, group, c.width)
        self.out = matrix(c.rank, c.width, c.width)
        if self.computes:
            self.mlp_norm = NORMS[c.norm](c.width)
            self.up = matrix(c.rank, *(2,) * c.gated, c.hidden, c.width)
            self.down = matrix(c.rank, c.width, c.hidden)
        gain = torch.full((c.heads, 1, 1), INIT_GAIN)
        self.gain = nn.Parameter(gain) if c.qk_norm and c.content else None
        if self.place == "both":
            self.attention_norm_out = NORMS[c.norm](c.width)
        if self.place == "both" and self.computes:
            self.mlp_norm_out = NORMS[c.norm](c.width)

    def forward(
        self,
        x: Tensor,
        sight: Sight,
        depth: int = 0,
        cache: Cache | None = None,
        at: Tensor | None = None,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C), or (B, S, C) at the places (B, S) that are wanted.

        `depth` says which layer of the cache is this block's, `sight` what is seen from the
        places that are wanted.
        """
        read = x if self.place == "after" else self.attention_norm(x)
        written = self._attend(read, sight, depth, cache, at)
        x = x if at is None else pick(x, at)
        if self.place == "both":
            written = self.attention_norm_out(written)
        x = x + self._drop(written)
        if self.place == "after":
            x = self.attention_norm(x)
        if not self.computes:
            return x
        written = self._compute(x if self.place == "after" else self.mlp_norm(x))
        if self.place == "both":
            written = self.mlp_norm_out(written)
        x = x + self._drop(written)
        return self.mlp_norm(x) if self.place == "after" else x

    def _attend(
        self, x: Tensor, sight: Sight, depth: int, cache: Cache | None, at: Tensor | None
    ) -> Tensor:
        if self.qkv is None:
            (value,) = _heads(x, full(self.kv), self.key_heads)
            value = value if cache is None else cache.extend(depth, value)[0]
            found = mix(sight.weights, value)
        else:
            found = self._compared(x, sight, depth, cache, at)
        return F.linear(found.transpose(1, 2).flatten(2), full(self.out))

    def _compared(
        self, x: Tensor, sight: Sight, depth: int, cache: Cache | None, at: Tensor | None
    ) -> Tensor:
        """(B, H, S, D) what queries find by comparing themselves with keys."""
        query, key, value = self._project(x, at)
        if sight.own is not None:
            query, key = positions.turn(query, sight.ahead), positions.turn(key, sight.own)
        query, key, scale = self._normalised(query, key)
        if sight.sharpness is not None:
            query = query * sight.sharpness
        if cache is not None:
            key, value = cache.extend(depth, key, value)
        return attend(query, key, value, sight.mask, scale)

    def _project(self, x: Tensor, at: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, H, S, D), and keys and values (B, G, T, D), of normed tokens (B, T, C)."""
        qkv = full(self.qkv)
        if at is None and self.kv is None:
            parts = _heads(x, qkv, self.heads)  # all in one product
            q, k, v = self.uses
            return parts[q], parts[k], parts[v]
        kv = qkv[self.uses[1] :] if self.kv is None else full(self.kv)
        (query,) = _heads(x if at is None else pick(x, at), qkv[:1], self.heads)
        pair = _heads(x, kv, self.key_heads)
        return query, pair[0], pair[-1]

    def _normalised(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor, float]:
        """Queries and keys as they meet, and what their products are multiplied with."""
        if self.gain is None:
            return query, key, 1 / math.sqrt(query.shape[-1])
        # Henry et al. 2020, arXiv:2010.04245
        query = UnitLength.apply(query) * self.gain.to(query.dtype)
        return query, UnitLength.apply(key), 1.0

    def _compute(self, x: Tensor) -> Tensor:
        up = full(self.up).flatten(0, -2)  # gates and what they let through, if there are gates
        return F.linear(self.activation(F.linear(x, up)), full(self.down))

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training) if self.dropout else x


class GPT(nn.Module):
    """The model of a `GPTConfig`. Weights are drawn from `seed` alone."""

    def __init__(self, config: GPTConfig, seed: int = 0) -> None:
        super().__init__()
        config.check_sizes()
        self.config = c = config
        scheme = c.scheme
        self.added = [level for level, how in enumerate(scheme) if how == "learned"]
        # Levels by which queries turn: from the slot they fill, and besides from that just read.
        self.turned = [level for level, how in enumerate(scheme) if how in ("rotary", "rotary2")]
        self.twice = [level for level, how in enumerate(scheme) if how == "rotary2"]
        self.near = [level for level, how in enumerate(scheme) if how == "relative"]
        self.token = Table(c.embed_rank, c.vocab, c.width)
        self.index = nn.Embedding(c.places, c.width) if c.position == "learned" else None
        self.level = nn.ModuleList(nn.Embedding(c.levels[i], c.width) for i in self.added)
        self.next_level = nn.ModuleList(
            nn.Embedding(c.levels[i], c.width) for i in self.added if c.next_ids
        )
        self.blocks = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.norm = nn.Identity() if c.norm_place == "after" else NORMS[c.norm](c.width)
        self.head = None if c.tied else matrix(c.embed_rank, c.vocab, c.width)
        self.fire = positions.Fire(c.heads, c.context) if c.position == "fire" else None
        self.relative = positions.Relative(len(self.near), c.heads) if self.near else None
        waves = positions.sinusoidal(c.places, c.width) if c.position == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
        rates = None
        if self.turned or c.position == "rotary":
            index = c.position == "rotary"
            rates = positions.rotary_rates(
                c.width // c.heads, index, len(self.turned + self.twice)
            )[:, 0 if index else 1 :]
        self.register_buffer("rates", rates, persistent=False)
        self._initialise(torch.Generator().manual_seed(seed))

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
        places = self._places(end + 1, ids.device)  # None where nothing asks for them
        x = embedded = self._embed(tokens, ids, places, start)  # (B, T, C)
        if c.prefix and cache is not None:
            prompt = torch.tensor([0 if start else end], device=ids.device)
        sight = self._sight(ids, places, cache, start, end, prompt)
        for depth in range(c.depth):
            if c.inject and depth and depth % c.layers == 0:
                x = x + embedded
            last = depth == c.depth - 1 and at is not None
            block = self.blocks[depth % c.layers]
            x = block(x, sight.at(at) if last else sight, depth, cache, at if last else None)
        if cache is not None:
            cache.used = end
        head = self.token.weight if self.head is None else self.head
        return F.linear(self.norm(x), full(head))  # (B, T, vocab)

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def _places(self, count: int, device: torch.device) -> Tensor | None:
        """(count,) places in the text: 0, 1, 2, ..., or in training a random choice in order."""
        if self.config.position == "none":
            return None
        if self.training and self.config.random_index:
            return positions.drawn(count, self.config.random_index).to(device)
        return torch.arange(count, device=device)

    def _embed(self, tokens: Tensor, ids: Tensor, places: Tensor | None, start: int) -> Tensor:
        x = self.token(tokens)  # (B, T, C)
        if self.index is not None:
            x = x + self.index(places[start:-1])
        if self.waves is not None:
            x = x + self.waves[places[start:-1]]
        for table, level in zip(self.level, self.added, strict=True):
            x = x + table(ids[:, :-1, level])
        for table, level in zip(self.next_level, self.added, strict=False):
            x = x + table(ids[:, 1:, level])
        return x

    def _sight(
        self,
        ids: Tensor,
        places: Tensor | None,
        cache: Cache | None,
        start: int,
        end: int,
        prompt: Tensor | None,
    ) -> Sight:
        """What tokens `start` to `end` see: all up to themselves, and within the prompt more."""
        c = self.config
        assert prompt is not None or not c.prefix, "prefix=true needs the lengths of the prompts"
        bias = self._bias(ids, places, cache, start, end)
        ahead, own = self._turns(ids, places, start)
        usual = c.context if c.log_scale else 0
        prompt = prompt if c.prefix else None
        return Sight(start, end, None, prompt, ahead, own, bias, usual, ids.device)

    def _bias(
        self, ids: Tensor, places: Tensor | None, cache: Cache | None, start: int, end: int
    ) -> Tensor | None:
        """(B or 1, H, S, T) what positions add to products of queries and keys."""
        bias = None
        if self.config.position == "alibi":
            bias = positions.alibi(places[start:end], places[:end], self.config.heads)[None]
        elif self.fire is not None:
            bias = self.fire(places[start:end], places[:end])[None]
        if self.relative is None:
            return bias
        own = ids[:, :-1, self.near]
        keys = own if cache is None else cache.remember(own)
        relative = self.relative(ids[:, 1:, self.near] if self.config.next_ids else own, keys)
        return relative if bias is None else relative + bias

    def _turns(
        self, ids: Tensor, places: Tensor | None, start: int
    ) -> tuple[Angles, Angles] | tuple[None, None]:
        """Rotations (cos, sin), (B, 1, T, P), of queries and of keys.

        With `next_ids` a query turns with the slot it is about to fill: it looks from there.
        """
        if self.rates is None:
            return None, None
        axes = [ids[:, :, level] for level in (*self.turned, *self.twice)]
        if self.config.position == "rotary":
            axes.insert(0, places[start:].expand(len(ids), -1))
        turns = torch.stack(axes, -1).to(self.rates.dtype)
        # Not as a product of matrices: under autocast that is bfloat16, which mixes large ids up.
        rates = self.rates.to(turns.device)  # they have memory also where nothing else has
        angle = (turns[..., None, :] * rates).sum(-1)[:, None]  # (B, 1, T + 1, P)
        cos, sin = angle.cos(), angle.sin()
        own = cos[:, :, :-1], sin[:, :, :-1]
        if not (self.config.next_ids and self.turned):
            return own, own
        ahead = cos[:, :, 1:], sin[:, :, 1:]
        if self.twice:  # the last pairs turn by the id just read
            kept = len(self.rates) // len(axes) * (len(axes) - len(self.twice))
            pairs = zip(ahead, own, strict=True)
            ahead = tuple(torch.cat((a[..., :kept], o[..., kept:]), -1) for a, o in pairs)
        return ahead, own

    def _initialise(self, generator: torch.Generator) -> None:
        """Embeddings at 0.5; matrices at 1/sqrt(fan-in); what adds to the stream starts at zero.

        Where a norm follows that would blow up zeros, it starts as the other matrices do. Biases of
        ids have a start of their own, with noise: heads with the same values would stay alike.
        """
        normed = self.config.norm_place == "both" and self.config.norm != "none"
        zero = {"head"} if normed else {"out", "down", "head"}
        for name, parameter in self.named_parameters():
            path = name.split(".")
            side = path.pop() if path[-1] in ("left", "right") else ""  # of a low-rank product
            kind = path[-1]
            if kind in ("gain", "scale", "threshold") or "norm" in name:
                continue
            if kind in zero and side != "right":
                nn.init.zeros_(parameter)
            elif kind in ("qkv", "kv", "out", "up", "down", "mix"):
                nn.init.normal_(parameter, std=parameter.shape[-1] ** -0.5, generator=generator)
            elif name == "relative.table":
                nn.init.normal_(parameter, std=0.5, generator=generator)
                if not parameter.is_meta:  # adding to what has no memory loads half of torch
                    parameter.data += positions.Relative.window()
            elif kind in ("rise", "shift"):
                nn.init.normal_(parameter, generator=generator)
            else:
                std = 0.02 if self.config.tied else 0.5
                std = parameter.shape[-1] ** -0.5 if side == "left" else std
                nn.init.normal_(parameter, std=std, generator=generator)


def _heads(x: Tensor, matrices: Tensor, heads: int) -> tuple[Tensor, ...]:
    """What a stack of N matrices makes of (B, T, C): N times (B, heads, T, D), in one product."""
    made = F.linear(x, matrices.flatten(0, 1))
    return made.view(*x.shape[:2], len(matrices), heads, -1).permute(2, 0, 3, 1, 4).unbind()
