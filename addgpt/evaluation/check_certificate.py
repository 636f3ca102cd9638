"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing here is shared with what wrote it: the forward pass is written anew, in float64, and carries
a bound on how far float32 arithmetic can be from it, whatever the order of its sums (Higham 2002,
Accuracy and Stability of Numerical Algorithms, chapter 3: n roundings change a sum of n products by
at most n u / (1 - n u) of the sum of their sizes). In each context the right token must win by more
than both bounds together. That all contexts are listed is what docs/certificate.md argues.
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
ERF = np.vectorize(math.erf, otypes=[float])


def gamma(n: int) -> float:
    return n * U / (1 - n * U)


class Checked:
    """Vectors (..., n) in float64, and bounds (...) on the length of what float32 adds to each."""

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
        """The vector brought to a length: RMS norm (radius sqrt n) and the norm of queries, keys."""
        n = self.value.shape[-1]
        rate = radius / np.sqrt(self.size**2 + n * eps)
        near = np.maximum(self.size - self.error, 1e-30)  # where the length may have fallen
        value = self.value * rate[..., None]
        return Checked(value, self.error * radius / near + (gamma(n + 2) + 8 * U) * length(value))

    def times(self, gain: np.ndarray) -> Checked:
        value, most = self.value * gain, np.abs(gain).max()
        return Checked(value, most * self.error * (1 + U) + U * length(value))


def length(x: np.ndarray) -> np.ndarray:
    return np.sqrt((x * x).sum(-1))


def activated(x: Checked, gated: bool) -> Checked:
    """GELU of one half times the other, or squared ReLU."""
    if not gated:
        value, top = np.maximum(x.value, 0) ** 2, x.value.max(-1).clip(0)
        return Checked(value, (2 * top + x.error) * x.error + 4 * U * length(value))
    gate, up = np.split(x.value, 2, -1)
    bent = gate * (1 + ERF(gate / np.sqrt(2))) / 2
    steep, wide = np.abs(up).max(-1) + x.error, np.abs(bent).max(-1) + 1.13 * x.error
    rounding = 8 * U * length(np.abs(up) * (np.abs(gate) + 1)) + U * length(bent * up)
    return Checked(bent * up, 1.13 * steep * x.error + wide * x.error + rounding)


def attended(config: dict, w: dict, read: Checked, ids, own) -> Checked:
    """(N, C) what attention finds for the last of the slots (N, R, C)."""
    heads, block = config["heads"], "blocks.0.attention."
    n, r, c = read.value.shape
    q, k, v = (read.linear(part) for part in w[block + "qkv.weight"])
    q, k, v = (
        Checked(x.value.reshape(n, r, heads, -1), np.repeat(x.error[..., None], heads, -1))
        for x in (q, k, v)
    )
    q = Checked(q.value[:, -1:], q.error[:, -1:])
    scale = np.full(heads, (c / heads) ** -0.5)
    if config["qk_norm"]:
        q, k, scale = q.on_sphere(1.0), k.on_sphere(1.0), w[block + "gain"][:, 0, 0]
    products = (q.value * k.value).sum(-1) * scale  # (N, R, H)
    sizes = (q.size + q.error) * (k.size + k.error)
    error = (sizes - q.size * k.size + gamma(c // heads + 2) * sizes) * np.abs(scale)
    scheme = [level for level, way in enumerate(config["level_position"]) if way == "relative"]
    for table, level in enumerate(scheme):
        entry = np.clip(own[level] - ids[:, level], -NEAR, NEAR) + NEAR
        entry = np.where(ids[:, level] == 0, NO_PLACE, entry)
        products = products + w["positions.relative.table"][table][:, entry].T
        error = error + 2 * U * np.abs(products) + U * np.abs(w["positions.relative.table"]).max()
    weights = np.exp(products - products.max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    # What a softmax gives changes by at most exp(2 e) - 1 of itself, and of what all others get.
    most = error.max(1, keepdims=True) + 4 * U * np.abs(products).max(1, keepdims=True)
    apart = np.expm1(2 * most) * np.minimum(weights, 1 - weights) * np.exp(2 * most)
    apart = apart + gamma(r + 8) * weights
    found = (weights[..., None] * v.value).sum(1)  # (N, H, D)
    shifted = ((weights + apart) * v.error + apart * v.size).sum(1)
    shifted = shifted + gamma(r) * ((weights + apart) * (v.size + v.error)).sum(1)
    return Checked(found.reshape(n, c), np.sqrt((shifted**2).sum(-1)))


def logits(config: dict, w: dict[str, np.ndarray], tokens, ids, after) -> Checked:
    """(N, V) logits in contexts of tokens (N, R) whose slots have ids (R, L), and the next `after`."""

    def norm(x: Checked, name: str) -> Checked:
        if config["norm"] == "none":
            return x
        x = x.on_sphere(np.sqrt(config["width"]), float(np.finfo(np.float32).eps))
        return x.times(w[f"{name}.weight"]) if config["norm"] == "rms" else x

    x = Checked(w["token.weight"][tokens])
    learned = [level for level, way in enumerate(config["level_position"]) if way == "learned"]
    for side, where in (("own", ids), ("target", after))[: 1 + config["next_ids"]]:
        for table, level in enumerate(learned):
            some = w[f"positions.learned.{side}.{table}.weight"][where[:, level]]
            x += Checked(np.broadcast_to(some, x.value.shape))
    own = (after if config["next_ids"] else ids)[-1]
    found = attended(config, w, norm(x, "blocks.0.attention_norm"), ids, own)
    x = Checked(x.value[:, -1], x.error[:, -1]) + found.linear(w["blocks.0.attention.out.weight"])
    if "blocks.0.mlp.up.weight" in w:
        up = w["blocks.0.mlp.up.weight"].reshape(-1, config["width"])
        hidden = activated(norm(x, "blocks.0.mlp_norm").linear(up), config["activation"] == "geglu")
        x = x + hidden.linear(w["blocks.0.mlp.down.weight"])
    x, head = norm(x, "norm"), w["head.weight"]
    return x.linear(head)


def check(folder: Path) -> dict[str, float]:
    """Contexts, smallest margin, largest bound and smallest room of a certificate.

    Raises ValueError where one is not won by more than rounding, or something does not fit.
    """
    told = json.loads((folder / "certificate.json").read_text())
    config = json.loads((folder / "config.json").read_text())["model"]
    if hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest() != told["weights"]:
        raise ValueError("the certificate is of other weights")
    usual = {"architecture": "gpt", "layers": 1, "loops": 1, "position": "none", "share": "none",
             "tied": False, "content": True, "norm_place": "before", "rank": 0, "embed_rank": 0,
             "kv_heads": 0}  # fmt: skip
    odd = {k: config[k] for k, value in usual.items() if config[k] != value}
    if odd or config["norm"] == "layer" or config["activation"] not in ("geglu", "relu2"):
        raise ValueError(f"this checker does not know {odd or (config['norm'], config['activation'])}")
    w = {name: x.astype(np.float64) for name, x in load_file(folder / "model.safetensors").items()}
    listed, count = np.load(folder / "certificate.npz"), 0
    margin = room = np.inf
    bound = 0.0
    for group in range(told["groups"]):
        ids, after, tokens, right = (listed[f"{group}.{x}"] for x in ("ids", "after", "tokens", "right"))
        for start in range(0, len(tokens), AT_ONCE):
            part, wanted = tokens[start : start + AT_ONCE], right[start : start + AT_ONCE, None]
            found = logits(config, w, part, ids, after)
            apart = np.take_along_axis(found.value, wanted, 1) - found.value
            np.put_along_axis(apart, wanted, np.inf, 1)
            off = np.sqrt(2) * found.error  # of the difference of two logits
            margin, room = min(margin, apart.min()), min(room, (apart.min(1) - off).min())
            bound, count = max(bound, off.max()), count + len(part)
    if not room > 0:
        raise ValueError(f"a context is won by {margin:.3g} only; rounding may be up to {bound:.3g}")
    if count != told["contexts"]:
        raise ValueError(f"{count} contexts are listed, {told['contexts']} were promised")
    return {"contexts": count, "margin": float(margin), "bound": float(bound), "room": float(room)}


if __name__ == "__main__":
    print(check(Path(sys.argv[1])))
