"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing is shared with what wrote it: the model is run again, in float64, with a bound on how far
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
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

U = 1.001 * 2.0**-53  # of float64, with room: n U is more than n u / (1 - n u)
NEAR, NO_PLACE = 4, 9  # of relative ids: the largest difference told apart, the entry of no id
AT_ONCE = 1024
ERF = np.vectorize(math.erf, otypes=[float])
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "position": ["none"],
    "share": ["none", "vo"],
    "norm_place": ["before"], "norm": ["rms", "plain", "none"],
    "rank": [0], "embed_rank": [0], "kv_heads": [0], "next_ids": [True], "log_scale": [False],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"], "prefix": [False],
}  # fmt: skip


class Ball:
    """Numbers in float64, and how far off exact arithmetic each can be."""

    def __init__(self, value: np.ndarray, error: np.ndarray | float = 0.0) -> None:
        self.value, self.error = value, np.broadcast_to(error, value.shape)

    def __add__(self, other: Ball) -> Ball:
        value, error = self.value + other.value, self.error + other.error
        return Ball(value, error + U * (np.abs(value) + error))

    def times(self, other: Ball, n: int, rule: str = "...c,dc->...d") -> Ball:
        """Sums of n products: vectors times a matrix, or by another rule of `np.einsum`."""
        value = np.einsum(rule, self.value, other.value, optimize=True)
        x, wide = np.abs(self.value), np.abs(other.value) + other.error
        error = np.einsum(rule, n * U * x + (1 + n * U) * self.error, wide, optimize=True)
        return Ball(value, error + np.einsum(rule, x, other.error, optimize=True))

    def on_sphere(self, radius: float, eps: float = 0.0) -> Ball:
        """The vectors scaled to a length: RMS norm (radius sqrt n), norm of queries and keys."""
        n, both = self.value.shape[-1], (self.value, self.error)
        size, off = (np.linalg.norm(x, axis=-1, keepdims=True) for x in both)
        value = self.value * radius / np.sqrt(size**2 + n * eps)
        moved = self.error + np.abs(self.value) * off / np.maximum(size, 1e-30)
        least = np.maximum(size - off, 1e-30)  # of the true length
        return Ball(value, moved * radius / least + (n + 10) * U * np.abs(value))

    def softmax(self) -> Ball:
        """Along axis 1; it changes by at most exp(2 e) - 1 of itself and of what all others get."""
        weights = np.exp(self.value - self.value.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        most = (self.error + 4 * U * np.abs(self.value)).max(1, keepdims=True)
        apart = np.expm1(2 * most) * np.minimum(weights, 1 - weights) * np.exp(2 * most)
        return Ball(weights, apart + (weights.shape[1] + 8) * U * weights)

    def activated(self, gated: bool) -> Ball:
        """Squared ReLU; or GELU of one half times the other."""
        if not gated:
            top = np.maximum(self.value, 0)
            return Ball(top**2, (2 * top + self.error) * self.error + 4 * U * top**2)
        (gate, up), (off, error) = (np.split(x, 2, -1) for x in (self.value, self.error))
        bent = gate * (1 + ERF(gate / np.sqrt(2))) / 2  # its slope is at most 1.13
        off = 1.13 * off + 8 * U * (np.abs(gate) + 1)
        return Ball(bent, off).times(Ball(up, error), 1, "nc,nc->nc")


def rows_of(config: dict, w: dict, name: str) -> Ball:
    """(V, C) a row for each token; zeros for those that never occur."""
    if f"{name}.weight" in w:
        return Ball(w[f"{name}.weight"])
    points = config["arc"] if name == "token" else 0
    value, error = np.zeros((2, config["vocab"], config["width"]))
    value[[v for v in config["used"] or range(len(value)) if v >= points]] = w[
        f"{name}.weight.rows"
    ]
    if points:
        radius, start, step = w[f"{name}.weight.arc"]
        angle = start + step * np.arange(points)
        value[:points, :2] = radius * np.stack((np.cos(angle), np.sin(angle)), 1)
        off = np.abs(radius) * U * (8 + 3 * (np.abs(start) + np.abs(step) * np.arange(points)))
        error[:points, :2] = off[:, None]
    return Ball(value, error)


def biases_of(config: dict, w: dict, relative: list[int]) -> np.ndarray:
    """(levels, H, NO_PLACE + 1) biases of relative ids; those not trained are where they start."""
    table = w.get("positions.relative.table", np.zeros((0, 1, 1)))
    if config.get("biases", "all") == "all":
        return table
    start = np.append(-np.square(np.arange(-NEAR, NEAR + 1.0)), 0)
    out = np.tile(start, (len(relative), len(table), 1))
    for level, one in zip(relative, out, strict=True):
        seen, last = config["visible"], level == len(config["levels"]) - 1
        if config["attention"] == "reads":
            seen = {level: () if last else [row[2 + level] for row in seen]}
        entry = {NO_PLACE if d > 1 << 14 else min(max(d, -NEAR), NEAR) + NEAR for d in seen[level]}
        some = sorted(entry) or [*range(NO_PLACE + 1)]
        if config["biases"] == "pinned":
            one[:, some.pop()] = 0
        one[:, some], table = table[:, : len(some)], table[:, len(some) :]
    return out


def logits(config: dict, w: dict, tokens, apart, own, after) -> Ball:
    """(N, V) logits in contexts (N, R) of tokens that are (R, L) `apart` from the slot, as entries
    of a table of biases, and in rows of kinds `own` (R,), the slots after them of kinds `after`."""
    heads, width, gated = config["heads"], config["width"], config["activation"] == "geglu"
    relative = [i for i, way in enumerate(config["level_position"]) if way == "relative"]

    def norm(x: Ball, name: str) -> Ball:
        if config["norm"] != "none":
            x = x.on_sphere(np.sqrt(width), float(np.finfo(np.float32).eps))
        weight = Ball(w[f"{name}.weight"]) if config["norm"] == "rms" else None
        return x if weight is None else x.times(weight, 1, "...c,c->...c")

    table = rows_of(config, w, "token")
    x = Ball(table.value[tokens], table.error[tokens])
    if config["level_position"][-1] == "learned":
        x += Ball(w["positions.learned.own.0.weight"][own])
        x += Ball(w["positions.learned.target.0.weight"][after])
    read, x = norm(x, "blocks.0.attention_norm"), Ball(x.value[:, -1], x.error[:, -1])
    name = "blocks.0.attention." + ("qkv.weight" if config["content"] else "value.weight")
    matrices = w[name].reshape(len(w[name]), heads, -1, width)
    *keys, v = (read.times(Ball(part), width, "nrc,hdc->nrhd") for part in matrices[-2:])
    products = Ball(np.zeros((*read.value.shape[:2], heads)))
    if config["content"]:
        q = norm(x, "blocks.0.attention_norm").times(Ball(matrices[0]), width, "nc,hdc->nhd")
        k, scale = keys[0], np.full(heads, (width / heads) ** -0.5)
        if config["qk_norm"]:
            q, k, scale = q.on_sphere(1.0), k.on_sphere(1.0), w["blocks.0.attention.gain"][:, 0, 0]
        products = q.times(k, width // heads, "nhd,nrhd->nrh").times(Ball(scale), 1, "nrh,h->nrh")
    for biases, level in zip(biases_of(config, w, relative), relative, strict=True):
        products += Ball(biases[:, apart[:, level]].T)
    found = products.softmax().times(v, len(apart), "nrh,nrhd->nhd")
    out = w.get("blocks.0.attention.out.weight", np.eye(width)).reshape(width, heads, -1)
    x += found.times(Ball(out), width, "nhd,chd->nc")
    if "blocks.0.mlp.up.weight" in w:
        up = w["blocks.0.mlp.up.weight"].reshape(-1, width)
        hidden = norm(x, "blocks.0.mlp_norm").times(Ball(up), width).activated(gated)
        x += hidden.times(Ball(w["blocks.0.mlp.down.weight"]), hidden.value.shape[1])
    said = norm(x, "norm").times(table if config["tied"] else rows_of(config, w, "head"), width)
    said.value[
        :, [v for v in range(said.value.shape[1]) if config.get("used") and v not in config["used"]]
    ] = -1e4
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
    looks, said, last, margin, bound = set[tuple](), set[tuple](), set[tuple](), [], []
    names = "ids", "after", "tokens", "right"
    for group in range(told["groups"]):
        ids, after, tokens, right = (listed[f"{group}.{name}"] for name in names)
        apart = np.where(ids == 0, NO_PLACE, np.clip(after[-1] - ids, -NEAR, NEAR) + NEAR)
        kinds = ids[:, -1], after[:, -1]
        looks |= {(*apart[:, :-1].ravel(), *np.ravel(kinds), *some) for some in tokens}
        said |= {(after[-1, -1], token) for token in right}
        last |= {(ids[-1, -1], token) for token in tokens[:, -1]}
        for start in range(0, len(tokens), AT_ONCE):
            found = logits(config, w, tokens[start : start + AT_ONCE], apart, *kinds)
            wanted = right[start : start + AT_ONCE, None]
            lead = np.take_along_axis(found.value, wanted, 1) - found.value
            np.put_along_axis(lead, wanted, np.inf, 1)
            margin.extend(lead.min(1).tolist())
            bound.extend((2 * found.error.max(1)).tolist())  # of the difference of two logits
    room = np.subtract(margin, bound)
    if not (room > 0).all():
        won = f"the smallest margin is {min(margin):.3g}"
        raise ValueError(f"{won}, rounding errors reach {max(bound):.3g}")
    if not len(looks) == len(room) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    before, written = {*map(tuple, told["begins"])}, {kind for kind, _ in said}
    last = {(kind, token) for kind, token in last if kind in written}
    if last - said - before or {token for _, token in said - last} - {told["end"]}:
        raise ValueError("tokens written in some rows are not the tokens that contexts see there")
    least = {"margin": min(margin), "bound": max(bound), "room": float(room.min())}
    return {"contexts": len(room)} | least


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
