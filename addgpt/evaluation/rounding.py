"""How much float32 rounding can change the logits of a block of local attention, to first order.

Every operation of the forward pass may round. Each rounding is at most a known share of what is
rounded (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 3: a sum of n products
is off by at most n u / (1 - n u) of the sum of their sizes, whatever the order), and changes a
logit by that times the derivative of the logit. Derivatives are exact, at each context, so that
what cancels does cancel; products of two roundings are left out, which is why twice the sum is
taken. The model is written out once more here, in float64, with its roundings named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from addgpt.config.gpt import GPTConfig
from addgpt.evaluation.contexts import Example
from addgpt.model.gpt import GPT
from addgpt.model.layers import ACTIVATIONS
from addgpt.model.position_ids import ENTRIES, NEAR, RelativeIds

U = 2.0**-24
ELEMENTARY = 8  # roundings, in units of u, of exp, erf, rsqrt and the like, with some room
AT_ONCE = 512


class Roundings:
    """Where the forward pass rounds: zeros that are added, and how far off each can be."""

    def __init__(self) -> None:
        self.zeros: list[Tensor] = []
        self.sizes: list[Tensor] = []

    def at(self, value: Tensor, size: Tensor) -> Tensor:
        zero = torch.zeros_like(value, requires_grad=True)
        self.zeros.append(zero)
        self.sizes.append(size.detach())
        return value + zero

    def linear(self, x: Tensor, weight: Tensor) -> Tensor:
        size = gamma(weight.shape[1]) * (x.abs() @ weight.abs().mT)
        return self.at(x @ weight.mT, size)

    def relative(self, value: Tensor, times: float) -> Tensor:
        return self.at(value, times * value.abs())

    def change(self, some: Tensor) -> Tensor:
        """(N,) by how much rounding can change some numbers (N,), each of a row of its own."""
        grads = torch.autograd.grad(some.sum(), self.zeros, retain_graph=True)
        pairs = zip(grads, self.sizes, strict=True)
        return sum((g.abs() * size).flatten(1).sum(1) for g, size in pairs)  # type: ignore[return-value]


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def rounding_bound(
    model: GPT, example: Example, tokens: np.ndarray, right: np.ndarray
) -> np.ndarray:
    """(N,) how much rounding can take from the lead of the right token over the nearest others."""
    w = {name: x.detach().double().cpu() for name, x in model.state_dict().items()}
    out = []
    for start in range(0, len(tokens), AT_ONCE):
        part = torch.from_numpy(tokens[start : start + AT_ONCE].astype(np.int64))
        wanted = torch.from_numpy(right[start : start + AT_ONCE].astype(np.int64))[:, None]
        rounded = Roundings()
        logits = _forward(model, w, rounded, part, example)
        lead = logits.gather(1, wanted) - logits
        change = torch.stack([2 * rounded.change(one) for one in lead.unbind(1)], 1)
        lead = lead.detach().scatter(1, wanted, torch.inf)
        room = (lead - change).amin(1)  # over the token that is left the least
        out.append((lead.amin(1) - room).numpy())
    return np.concatenate(out)


def _forward(model: GPT, w: dict[str, Tensor], r: Roundings, tokens: Tensor, example: Example):
    """(N, V) logits of contexts (N, R), every rounding named to `r`."""
    c = model.config
    ids, after = (torch.from_numpy(x.astype(np.int64)) for x in (example.ids, example.after))

    def norm(x: Tensor, name: str) -> Tensor:
        if c.norm == "none":
            return x
        x = F.rms_norm(x, (c.width,), eps=torch.finfo(torch.float32).eps)
        x = x * w[f"{name}.weight"] if c.norm == "rms" else x
        return r.relative(x, gamma(c.width + 2) / 2 + ELEMENTARY * U)

    table = model.token.matrix().detach().double().cpu()
    off = _off_the_arc(model)  # (V, 1) by how much a number of the table can be off elsewhere
    x = r.at(table[tokens], off[tokens].expand(-1, -1, c.width))
    learned = [level for level, way in enumerate(c.scheme) if way == "learned"]
    for side, where in (("own", ids), ("target", after)):
        for number, level in enumerate(learned):
            added = w[f"positions.learned.{side}.{number}.weight"][where[:, level]]
            x = r.at(x + added, U * (x.abs() + added.abs()))
    read, block = norm(x, "blocks.0.attention_norm"), "blocks.0.attention."
    matrices = w[block + ("qkv.weight" if c.content else "value.weight")]
    *compared, v = (r.linear(read, part).unflatten(-1, (c.heads, -1)) for part in matrices)
    products = _products(c, w, r, *compared) if compared else v.new_zeros(v.shape[:3])
    own, biases = after[-1], [x.detach().double().cpu() for x in _biases(model)]
    near = [level for level, way in enumerate(c.scheme) if way == "relative"]
    for one, level in zip(biases, near, strict=True):
        entry = (own[level] - ids[:, level]).clamp(-NEAR, NEAR) + NEAR
        entry = entry.masked_fill(ids[:, level] == 0, ENTRIES - 1)
        bias = one[:, entry].mT
        products = r.at(products + bias, U * (products.abs() + bias.abs()))
    weights = r.relative(products.softmax(1), gamma(tokens.shape[1]) + ELEMENTARY * U)
    # exp of a difference: its rounding is a share of the difference
    lead = products.amax(1, keepdim=True) - products
    weights = r.at(weights, U * (lead * weights).detach())
    found = weights[..., None] * v
    found = r.at(found.sum(1), gamma(tokens.shape[1]) * found.abs().sum(1)).flatten(1)
    if c.share != "vo":
        found = r.linear(found, w[block + "out.weight"])
    x = r.relative(x[:, -1] + found, U)
    if c.hidden:
        up = w["blocks.0.mlp.up.weight"].flatten(0, -2)
        hidden = r.linear(norm(x, "blocks.0.mlp_norm"), up)
        gate = hidden[:, : c.hidden]
        bent = ACTIVATIONS[c.activation](hidden)
        other = hidden[:, c.hidden :] if c.gated else gate
        bent = r.at(bent, ELEMENTARY * U * (gate.abs() + 1) * other.abs())
        x = r.relative(x + r.linear(bent, w["blocks.0.mlp.down.weight"]), U)
    x = norm(x, "norm")
    if not c.tied:
        table = model.head.matrix().detach().double().cpu()  # type: ignore[union-attr]
        off = torch.zeros_like(off)
    logits = r.at(r.linear(x, table), (x.abs().sum(-1, keepdim=True) * off[:, 0]))
    return logits if model.unused is None else logits + model.unused.cpu()


def _products(c: GPTConfig, w: dict[str, Tensor], r: Roundings, q: Tensor, k: Tensor) -> Tensor:
    """(N, R, H) products of the last of the queries (N, R, H, D) and all keys."""
    q, size = q[:, -1:], c.width // c.heads
    if c.qk_norm:
        rounding = gamma(size + 2) / 2 + ELEMENTARY * U
        q, k = (r.relative(F.normalize(part, dim=-1), rounding) for part in (q, k))
        q = r.relative(q * w["blocks.0.attention.gain"][:, 0], U)
    else:
        q = q / size**0.5
    return r.at((q * k).sum(-1), gamma(size + 1) * (q.abs() * k.abs()).sum(-1))


def _biases(model: GPT) -> list[Tensor]:
    """(H, ENTRIES) biases of relative ids, of each level that has them."""
    scheme = model.positions["relative"] if "relative" in model.positions else None
    return scheme.tables() if isinstance(scheme, RelativeIds) else []


def _off_the_arc(model: GPT) -> Tensor:
    """(V, 1) how far off the numbers of the embedding can be: those on an arc are worked out."""
    c, off = model.config, torch.zeros(model.config.vocab, 1, dtype=torch.float64)
    if c.arc:
        rows: Any = model.token.weight
        radius, start, step = rows.arc.detach().double().abs().cpu()
        angle = start + step * torch.arange(c.arc)
        off[: c.arc, 0] = radius * U * (ELEMENTARY + 3 * angle)
    return off
