"""How much float32 rounding can change what a block of local attention says, to first order.

Every operation of the forward pass may round. Each rounding is at most a known share of what is
rounded (Higham 2002, Accuracy and Stability of Numerical Algorithms, chapter 3: a sum of n products
is off by at most n u / (1 - n u) of the sum of their sizes, whatever the order), and changes a
logit by that times the derivative of the logit. Derivatives are exact, at each context, so that
what cancels does cancel; products of two roundings are left out, which is why twice the sum is
taken. The model is written out once more here, in float64, with its roundings named.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from addgpt.evaluation.contexts import Example
from addgpt.model.gpt import GPT
from addgpt.model.layers import ACTIVATIONS
from addgpt.model.position_ids import ENTRIES, NEAR

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

    x = w["token.weight"][tokens]
    learned = [level for level, way in enumerate(c.scheme) if way == "learned"]
    for side, where in (("own", ids), ("target", after)):
        for table, level in enumerate(learned):
            added = w[f"positions.learned.{side}.{table}.weight"][where[:, level]]
            x = r.at(x + added, U * (x.abs() + added.abs()))
    read, block = norm(x, "blocks.0.attention_norm"), "blocks.0.attention."
    qkv = [r.linear(read, part) for part in w[block + "qkv.weight"]]
    q, k, v = (part.unflatten(-1, (c.heads, -1)) for part in qkv)  # (N, R, H, D)
    q, size = q[:, -1:], c.width // c.heads
    if c.qk_norm:
        rounding = gamma(size + 2) / 2 + ELEMENTARY * U
        q, k = (r.relative(F.normalize(part, dim=-1), rounding) for part in (q, k))
        q = r.relative(q * w[block + "gain"][:, 0], U)
    else:
        q = q / size**0.5
    products = r.at((q * k).sum(-1), gamma(size + 1) * (q.abs() * k.abs()).sum(-1))
    near = [level for level, way in enumerate(c.scheme) if way == "relative"]
    own = after[-1]
    for table, level in enumerate(near):
        entry = (own[level] - ids[:, level]).clamp(-NEAR, NEAR) + NEAR
        entry = entry.masked_fill(ids[:, level] == 0, ENTRIES - 1)
        bias = w["positions.relative.table"][table][:, entry].mT
        products = r.at(products + bias, U * (products.abs() + bias.abs()))
    weights = r.relative(products.softmax(1), gamma(tokens.shape[1]) + ELEMENTARY * U)
    # exp of a difference: its rounding is a share of the difference
    lead = products.amax(1, keepdim=True) - products
    weights = r.at(weights, U * (lead * weights).detach())
    found = weights[..., None] * v
    found = r.at(found.sum(1), gamma(tokens.shape[1]) * found.abs().sum(1)).flatten(1)
    x = r.relative(x[:, -1] + r.linear(found, w[block + "out.weight"]), U)
    if c.hidden:
        up = w["blocks.0.mlp.up.weight"].flatten(0, -2)
        hidden = r.linear(norm(x, "blocks.0.mlp_norm"), up)
        gate = hidden[:, : c.hidden]
        bent = ACTIVATIONS[c.activation](hidden)
        other = hidden[:, c.hidden :] if c.gated else gate
        bent = r.at(bent, ELEMENTARY * U * (gate.abs() + 1) * other.abs())
        x = r.relative(x + r.linear(bent, w["blocks.0.mlp.down.weight"]), U)
    return r.linear(norm(x, "norm"), w["head.weight"])
