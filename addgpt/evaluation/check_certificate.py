"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing here is shared with what wrote it: the model is run anew, in float64, with a bound on how
far that is from exact arithmetic, whatever the order of sums (Higham 2002, Accuracy and Stability
of Numerical Algorithms, chapter 3: a sum of n products is off by at most n u / (1 - n u) of the
sum of their sizes). Checked: weights, contexts and certificate belong together; one token is right
in each context, and wins by more than the bound; what is right in rows of a kind is what slots see
as the token just written. Not checked: that no context is missing, and that what is right is
arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

U = 2.0**-53  # of float64
NEAR, NO_PLACE = 4, 9  # of relative ids: the largest difference told apart, the entry of no id
AT_ONCE = 1024
FIELDS = ("ids", "after", "tokens", "right")
ERF = np.vectorize(math.erf, otypes=[float])
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "position": ["none"], "share": ["none"],
    "tied": [False], "content": [True], "norm_place": ["before"], "norm": ["rms", "plain", "none"],
    "rank": [0], "embed_rank": [0], "kv_heads": [0], "next_ids": [True],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"],
    "log_scale": [False], "prefix": [False],
}  # fmt: skip


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


def length(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x * x).sum(-1))


class Checked:
    """Vectors (..., n) in float64, and bounds (...) on the length of what rounding adds to each."""

    def __init__(self, value: np.ndarray, error: np.ndarray | float = 0.0) -> None:
        self.value, self.error = value, np.broadcast_to(error, value.shape[:-1])
        self.size = length(value)

    def __add__(self, other: Checked) -> Checked:
        value, error = self.value + other.value, self.error + other.error
        return Checked(value, error + U * (length(value) + error))

    def linear(self, weight: np.ndarray) -> Checked:
        size, n = np.abs(weight), weight.shape[1]
        error = np.linalg.norm(weight, 2) * self.error
        rounding = length(np.abs(self.value) @ size.T) + np.linalg.norm(size, 2) * self.error
        return Checked(self.value @ weight.T, error + gamma(n) * rounding)

    def on_sphere(self, radius: float, eps: float = 0.0) -> Checked:
        """The vector at another length: RMS norm (radius sqrt n), norm of queries and keys."""
        n = self.value.shape[-1]
        value = self.value * (radius / np.sqrt(self.size**2 + n * eps))[..., None]
        near = np.maximum(self.size - self.error, 1e-30)  # where the length may have fallen
        return Checked(value, self.error * radius / near + (gamma(n + 2) + 8 * U) * length(value))


def activated(x: Checked, gated: bool) -> Checked:
    """GELU of one half times the other, or squared ReLU."""
    if not gated:
        value, top = np.maximum(x.value, 0) ** 2, x.value.max(-1).clip(0)
        return Checked(value, (2 * top + x.error) * x.error + 4 * U * length(value))
    gate, up = np.split(x.value, 2, -1)
    bent = gate * (1 + ERF(gate / np.sqrt(2))) / 2  # its slope is at most 1.13
    steep, wide = np.abs(up).max(-1) + x.error, np.abs(bent).max(-1) + 1.13 * x.error
    rounding = 8 * U * length(np.abs(up) * (np.abs(gate) + 1)) + U * length(bent * up)
    return Checked(bent * up, 1.13 * steep * x.error + wide * x.error + rounding)


def attended(config: dict, w: dict, read: Checked, ids: np.ndarray, own: np.ndarray) -> Checked:
    """(N, C) what attention finds for the last of the slots (N, R, C)."""
    heads, block, (n, r, c) = config["heads"], "blocks.0.attention.", read.value.shape
    parts = map(read.linear, w[block + "qkv.weight"])
    q, k, v = (Checked(x.value.reshape(n, r, heads, -1), x.error[..., None]) for x in parts)
    q = Checked(q.value[:, -1:], q.error[:, -1:])
    scale = np.full(heads, (c / heads) ** -0.5)
    if config["qk_norm"]:
        q, k, scale = q.on_sphere(1.0), k.on_sphere(1.0), w[block + "gain"][:, 0, 0]
    products = (q.value * k.value).sum(-1) * scale  # (N, R, H)
    sizes = (q.size + q.error) * (k.size + k.error)
    error = (sizes - q.size * k.size + gamma(c // heads + 2) * sizes) * np.abs(scale)
    relative = [level for level, way in enumerate(config["level_position"]) if way == "relative"]
    for biases, level in zip(w.get("positions.relative.table", ()), relative, strict=True):
        entry = np.clip(own[level] - ids[:, level], -NEAR, NEAR) + NEAR
        entry = np.where(ids[:, level] == 0, NO_PLACE, entry)
        products = products + biases[:, entry].T
        error = error + 2 * U * np.abs(products) + U * np.abs(biases).max()
    weights = np.exp(products - products.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    # What a softmax gives changes by at most exp(2 e) - 1 of itself, and of what all others get.
    most = error.max(1, keepdims=True) + 4 * U * np.abs(products).max(1, keepdims=True)
    apart = np.expm1(2 * most) * np.minimum(weights, 1 - weights) * np.exp(2 * most)
    apart = apart + gamma(r + 8) * weights
    shifted = ((weights + apart) * v.error + apart * v.size).sum(1)
    shifted = shifted + gamma(r) * ((weights + apart) * (v.size + v.error)).sum(1)
    return Checked((weights[..., None] * v.value).sum(1).reshape(n, c), length(shifted))


def logits(config: dict, w: dict, tokens, ids, after) -> Checked:
    """(N, V) logits in contexts (N, R) of tokens with ids (R, L); `after` are those of the slots
    after them."""

    def norm(x: Checked, name: str) -> Checked:
        if config["norm"] == "none":
            return x
        x = x.on_sphere(np.sqrt(config["width"]), float(np.finfo(np.float32).eps))
        return x.linear(np.diag(w[f"{name}.weight"])) if config["norm"] == "rms" else x

    x = Checked(w["token.weight"][tokens])
    learned = [level for level, way in enumerate(config["level_position"]) if way == "learned"]
    for side, where in (("own", ids), ("target", after)):
        for table, level in enumerate(learned):
            some = w[f"positions.learned.{side}.{table}.weight"][where[:, level]]
            x += Checked(np.broadcast_to(some, x.value.shape))
    found = attended(config, w, norm(x, "blocks.0.attention_norm"), ids, after[-1])
    x = Checked(x.value[:, -1], x.error[:, -1]) + found.linear(w["blocks.0.attention.out.weight"])
    if "blocks.0.mlp.up.weight" in w:
        up = w["blocks.0.mlp.up.weight"].reshape(-1, config["width"])
        hidden = activated(norm(x, "blocks.0.mlp_norm").linear(up), config["activation"] == "geglu")
        x += hidden.linear(w["blocks.0.mlp.down.weight"])
    return norm(x, "norm").linear(w["head.weight"])


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
    looks, said, last = (set[tuple]() for _ in range(3))
    margins, bounds = [], []
    for group in range(told["groups"]):
        ids, after, tokens, right = (listed[f"{group}.{name}"] for name in FIELDS)
        apart = np.where(ids == 0, NO_PLACE, np.clip(after[-1] - ids, -NEAR, NEAR))[:, :-1]
        looks |= {(*apart.ravel(), *ids[:, -1], *after[:, -1], *some) for some in tokens}
        said |= {(after[-1, -1], token) for token in right}
        last |= {(ids[-1, -1], token) for token in tokens[:, -1]}
        count = len(tokens) // AT_ONCE + 1
        for part, wanted in zip(*(np.array_split(x, count) for x in (tokens, right)), strict=True):
            found, wanted = logits(config, w, part, ids, after), wanted[:, None]
            lead = np.take_along_axis(found.value, wanted, 1) - found.value
            np.put_along_axis(lead, wanted, np.inf, 1)
            margins.append(lead.min(1))
            bounds.append(np.sqrt(2) * found.error)  # of the difference of two logits
    margin, bound = np.concatenate(margins), np.concatenate(bounds)
    if not (margin > bound).all():
        won = f"a context is won by {margin.min():.3g}"
        raise ValueError(f"{won}, rounding may be {bound.max():.3g}")
    if not len(looks) == len(margin) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    written = {kind for kind, _ in said}
    if {token for kind, token in said ^ last if kind in written} - {told["end"]}:
        raise ValueError("what is right in some rows is not what is seen of them")
    room = float((margin - bound).min())
    count, least, most = len(margin), float(margin.min()), float(bound.max())
    return {"contexts": count, "margin": least, "bound": most, "room": room}


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
