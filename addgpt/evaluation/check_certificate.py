"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing is shared with what wrote it: the model is run anew, in float64, with a bound on how far
that is from exact arithmetic, whatever the order of sums (Higham 2002, Accuracy and Stability of
Numerical Algorithms, chapter 3: a sum of n products is off by at most n u / (1 - n u) of the sum
of their sizes). Checked: weights, contexts and certificate belong together; one token is right in
each context, and wins by more than the bound; what is right in rows of a kind is what slots see as
the token just written. Not checked: that no context is missing, that what is right is arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

U = 2.0**-53  # of float64
NEAR, NO_PLACE = 4, 9  # of relative ids: the largest difference told apart, the entry of no id
AT_ONCE = 1024
ERF = np.vectorize(math.erf, otypes=[float])
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "position": ["none"], "share": ["none"],
    "norm_place": ["before"], "norm": ["rms", "plain", "none"],
    "rank": [0], "embed_rank": [0], "kv_heads": [0], "next_ids": [True],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"],
    "log_scale": [False], "prefix": [False],
}  # fmt: skip


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


class Ball:
    """Numbers in float64, and how far off exact arithmetic each can be."""

    def __init__(self, value: np.ndarray, error: np.ndarray | float = 0.0) -> None:
        self.value, self.error = value, np.broadcast_to(error, value.shape)

    def __add__(self, other: Ball) -> Ball:
        value, error = self.value + other.value, self.error + other.error
        return Ball(value, error + U * (np.abs(value) + error))

    def times(self, other: Ball, rule: str, n: int = 1) -> Ball:
        """Sums of n products, by a rule of `np.einsum`."""
        total = partial(np.einsum, rule, optimize=True)
        x, wide = np.abs(self.value), np.abs(other.value) + other.error
        error = total(self.error, wide) + total(x, other.error)
        error = error + gamma(n) * total(x + self.error, wide)
        return Ball(total(self.value, other.value), error)

    def linear(self, weight: np.ndarray) -> Ball:
        return self.times(Ball(weight), "...c,dc->...d", weight.shape[1])

    def on_sphere(self, radius: float, eps: float = 0.0) -> Ball:
        """The vectors at another length: RMS norm (radius sqrt n), norm of queries and keys."""
        n, size = self.value.shape[-1], np.linalg.norm(self.value, axis=-1, keepdims=True)
        off = np.linalg.norm(self.error, axis=-1, keepdims=True)
        value = self.value * radius / np.sqrt(size**2 + n * eps)
        moved = (self.error + np.abs(self.value) * off / np.maximum(size, 1e-30)) * radius
        near = np.maximum(size - off, 1e-30)  # where the length may have fallen
        return Ball(value, moved / near + (gamma(n + 2) + 8 * U) * np.abs(value))

    def softmax(self) -> Ball:
        """Along axis 1; it changes by at most exp(2 e) - 1 of itself and of what all others get."""
        weights = np.exp(self.value - self.value.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        most = (self.error + 4 * U * np.abs(self.value)).max(1, keepdims=True)
        apart = np.expm1(2 * most) * np.minimum(weights, 1 - weights) * np.exp(2 * most)
        return Ball(weights, apart + gamma(self.value.shape[1] + 8) * weights)

    def activated(self, gated: bool) -> Ball:
        """Squared ReLU; or GELU of one half times the other."""
        if not gated:
            top = np.maximum(self.value, 0)
            return Ball(top**2, (2 * top + self.error) * self.error + 4 * U * top**2)
        (gate, up), (off, error) = (np.split(x, 2, -1) for x in (self.value, self.error))
        bent = gate * (1 + ERF(gate / np.sqrt(2))) / 2  # its slope is at most 1.13
        off = 1.13 * off + 8 * U * (np.abs(gate) + 1)
        return Ball(bent, off).times(Ball(up, error), "nc,nc->nc")


def rows_of(config: dict, w: dict, name: str) -> Ball:
    """(V, C) a row for each token; zeros for those that never occur."""
    if f"{name}.weight" in w:
        return Ball(w[f"{name}.weight"])
    points = config["arc"] if name == "token" else 0
    value, error = np.zeros((2, config["vocab"], config["width"]))
    free = [v for v in config["used"] or range(config["vocab"]) if v >= points]
    value[free] = w[f"{name}.weight.rows"]
    if points:
        radius, start, step = w[f"{name}.weight.arc"]
        angle = start + step * np.arange(points)
        value[:points, :2] = radius * np.stack((np.cos(angle), np.sin(angle)), 1)
        off = abs(radius) * U * (8 + 3 * (abs(start) + abs(step) * np.arange(points)))
        error[:points, :2] = off[:, None]
    return Ball(value, error)


def biases_of(config: dict, w: dict, relative: list[int]) -> np.ndarray:
    """(levels, H, NO_PLACE + 1) biases of relative ids; those not trained are where they start."""
    table = w.get("positions.relative.table", np.zeros((0, 1, 1)))
    if config.get("biases", "all") == "all":
        return table
    out = np.tile(np.append(-np.square(np.arange(-NEAR, NEAR + 1.0)), 0), (len(relative), len(table), 1))
    for level, one in zip(relative, out, strict=True):
        if config["attention"] == "window":
            apart = {*config["visible"][level]}
        else:
            apart = {row[2 + level] for row in config["visible"]}
        entry = [NO_PLACE if d > 1 << 14 else min(max(d, -NEAR), NEAR) + NEAR for d in apart]
        some = sorted({*entry}) or range(NO_PLACE + 1)
        one[:, some], table = table[:, : len(some)], table[:, len(some) :]
    return out


def attended(config: dict, w: dict, read: Ball, ids: np.ndarray, own: np.ndarray) -> Ball:
    """(N, C) what attention finds for the last of the slots (N, R, C)."""
    heads, block, (n, r, c) = config["heads"], "blocks.0.attention.", read.value.shape
    parts = map(read.linear, w[block + ("qkv.weight" if config["content"] else "value.weight")])
    *qk, v = (Ball(*(x.reshape(n, r, heads, -1) for x in vars(part).values())) for part in parts)
    products = Ball(np.zeros((n, r, heads)))
    if qk:
        (q, k), scale = qk, np.full(heads, (c / heads) ** -0.5)
        q = Ball(q.value[:, -1], q.error[:, -1])
        if config["qk_norm"]:
            q, k, scale = q.on_sphere(1.0), k.on_sphere(1.0), w[block + "gain"][:, 0, 0]
        products = q.times(k, "nhd,nrhd->nrh", c // heads).times(Ball(scale), "nrh,h->nrh")
    relative = [level for level, way in enumerate(config["level_position"]) if way == "relative"]
    for biases, level in zip(biases_of(config, w, relative), relative, strict=True):
        entry = np.clip(own[level] - ids[:, level], -NEAR, NEAR) + NEAR
        entry = np.where(ids[:, level] == 0, NO_PLACE, entry)
        products += Ball(biases[:, entry].T)
    found = products.softmax().times(v, "nrh,nrhd->nhd", r)
    return Ball(found.value.reshape(n, c), found.error.reshape(n, c))


def logits(config: dict, w: dict, tokens, ids, after) -> Ball:
    """(N, V) logits in contexts (N, R) of tokens with ids (R, L); `after` are those of the slots
    after them."""

    def norm(x: Ball, name: str) -> Ball:
        if config["norm"] == "none":
            return x
        x = x.on_sphere(np.sqrt(config["width"]), float(np.finfo(np.float32).eps))
        return x.times(Ball(w[f"{name}.weight"]), "...c,c->...c") if config["norm"] == "rms" else x

    table = rows_of(config, w, "token")
    x = Ball(table.value[tokens], table.error[tokens])
    learned = [level for level, way in enumerate(config["level_position"]) if way == "learned"]
    for side, where in (("own", ids), ("target", after)):
        for table, level in enumerate(learned):
            x += Ball(w[f"positions.learned.{side}.{table}.weight"][where[:, level]])
    found = attended(config, w, norm(x, "blocks.0.attention_norm"), ids, after[-1])
    x = Ball(x.value[:, -1], x.error[:, -1]) + found.linear(w["blocks.0.attention.out.weight"])
    if "blocks.0.mlp.up.weight" in w:
        up = w["blocks.0.mlp.up.weight"].reshape(-1, config["width"])
        hidden = norm(x, "blocks.0.mlp_norm").linear(up).activated(config["activation"] == "geglu")
        x += hidden.linear(w["blocks.0.mlp.down.weight"])
    head = table if config["tied"] else rows_of(config, w, "head")
    said = norm(x, "norm").times(head, "nc,vc->nv", config["width"])
    never = [v for v in range(len(head.value)) if (used := config.get("used")) and v not in used]
    said.value[:, never] = -1e4
    return said


def check(folder: Path) -> dict[str, float]:
    """How many contexts, the smallest margin, the largest bound and the least room between the two.
    Raises ValueError."""
    told = json.loads((folder / "certificate.json").read_text())
    config = json.loads((folder / "config.json").read_text())["model"]
    for name, file in (("weights", "model.safetensors"), ("listed", "certificate.npz")):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != told[name]:
            raise ValueError(f"the certificate is of another {file}")
    *levels, kind = config["level_position"]
    odd = {name: config[name] for name, known in KNOWN.items() if config[name] not in known}
    if odd or not {*levels} <= {"relative", "none"} or kind not in ("learned", "relative", "none"):
        raise ValueError(f"this checker does not know {odd or config['level_position']}")
    if hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() != told["model"]:
        raise ValueError("the certificate is of a model with other settings")
    w = {name: x.astype(np.float64) for name, x in load_file(folder / "model.safetensors").items()}
    listed = np.load(folder / "certificate.npz")
    looks, said, last, margins, bounds = set[tuple](), set[tuple](), set[tuple](), [], []
    for group in range(told["groups"]):
        names = ("ids", "after", "tokens", "right")
        ids, after, tokens, right = (listed[f"{group}.{name}"] for name in names)
        apart = np.where(ids == 0, NO_PLACE, np.clip(after[-1] - ids, -NEAR, NEAR))[:, :-1]
        looks |= {(*apart.ravel(), *ids[:, -1], *after[:, -1], *some) for some in tokens}
        said |= {(after[-1, -1], token) for token in right}
        last |= {(ids[-1, -1], token) for token in tokens[:, -1]}
        count = len(tokens) // AT_ONCE + 1
        for part, wanted in zip(*(np.array_split(x, count) for x in (tokens, right)), strict=True):
            said_of, wanted = logits(config, w, part, ids, after), wanted[:, None]
            lead = np.take_along_axis(said_of.value, wanted, 1) - said_of.value
            np.put_along_axis(lead, wanted, np.inf, 1)
            margins.append(lead.min(1))
            bounds.append(2 * said_of.error.max(1))  # of the difference of two logits
    margin, bound = np.concatenate(margins), np.concatenate(bounds)
    if not (margin > bound).all():
        won = f"a context is won by {margin.min():.3g}"
        raise ValueError(f"{won}, rounding may be {bound.max():.3g}")
    if not len(looks) == len(margin) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    before, written = {*map(tuple, told["begins"])}, {kind for kind, _ in said}
    last = {(kind, token) for kind, token in last if kind in written}
    if last - said - before or {token for _, token in said - last} - {told["end"]}:
        raise ValueError("what is right in some rows is not what is seen of them")
    found = {"margin": margin.min(), "bound": bound.max(), "room": (margin - bound).min()}
    return {"contexts": len(margin)} | {name: float(value) for name, value in found.items()}


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
