"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing is shared with what wrote it: the model is run again, in float64, with a bound on how far
each number is off exact arithmetic (balls: van der Hoeven 2009; sums: Higham 2002, chapter 3).
Checked: weights, contexts and certificate belong together; one token is right in each context, and
wins by more than the bound; what is right in rows of a kind is what slots see as the token just
written. Not checked: that no context is missing, that what is right is arithmetic.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from addgpt.evaluation.check_weights import NEAR, NO_PLACE, whole

U, TINY = 1.001 * 2.0**-53, 1e-12  # of float64: n U, with room, is more than n u / (1 - n u)
EPS = float(np.finfo(np.float32).eps)  # of the model's norms
GELU = np.vectorize(lambda x: x * (1 + math.erf(x / 2**0.5)) / 2, otypes=[float])
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "position": ["none"], "rank": [0],
    "norm_place": ["before"], "norm": ["rms", "plain", "none"], "share": ["none", "vo"],
    "embed_rank": [0], "kv_heads": [0], "next_ids": [True], "log_scale": [False], "prefix": [False],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"],
}  # fmt: skip
Ball = tuple[np.ndarray, np.ndarray]  # numbers, and how far off each can be


def plus(a: Ball, b, off=0.0) -> Ball:
    value = a[0] + b
    return value, (1 + 4 * U) * (a[1] + off + U * np.abs(value))


def times(a: Ball, b, rule: str, off=0.0) -> Ball:
    """Sums of at most as many products as `b` is long on some axis, by a rule of `np.einsum`."""
    least, most = (np.abs(a[0]), np.abs(b)), (np.abs(a[0]) + a[1], np.abs(b) + off)
    value, low, high = (np.einsum(rule, *x, optimize=True) for x in ((a[0], b), least, most))
    return value, (1 + 8 * max(b.shape) * U) * high - low


def on_sphere(a: Ball, radius: float, eps: float = 0.0) -> Ball:
    """The vectors at another length: RMS norm (radius sqrt n), norm of queries and keys."""
    n, (size, far) = a[0].shape[-1], (np.linalg.norm(x, axis=-1, keepdims=True) for x in a)
    value = a[0] * radius / np.sqrt(size**2 + n * eps)
    moved = (a[1] + np.abs(a[0]) * far / np.maximum(size, TINY)) / np.maximum(size - far, TINY)
    error = radius * (1 + 8 * U) * moved + (n + 10) * U * np.abs(value)
    return value, np.where(size - far > TINY, error, 2 * radius)  # below, the model may clamp


def softmax(a: Ball) -> Ball:
    """Along axis 1; a weight changes by at most exp(2 e) - 1 of itself."""
    weights = np.exp(a[0] - a[0].max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    most = (a[1] + 4 * U * np.abs(a[0])).max(1, keepdims=True)
    return weights, (np.expm1(2 * most) + (weights.shape[1] + 8) * U) * np.exp(2 * most) * weights


def activated(a: Ball, b: Ball | None = None) -> Ball:
    """GELU of one times the other (GEGLU); of one alone, squared ReLU."""
    value = GELU(a[0]) if b else np.maximum(a[0], 0)
    one = value, 1.13 * a[1] + 8 * U * (np.abs(value) + 1)  # GELU is nowhere steeper
    return times(one, (b or one)[0], "nd,nd->nd", (b or one)[1])


def logits(config: dict, w: dict, tokens, apart, own, after) -> Ball:
    """(N, V) logits in contexts (N, R) of tokens that are (R, L) `apart` from the slot, as entries
    of a table of biases, and in rows of kinds `own` (R,), the slots after them of kinds `after`."""
    heads, width = config["heads"], config["width"]

    def norm(x: Ball, name: str) -> Ball:
        x = x if config["norm"] == "none" else on_sphere(x, width**0.5, EPS)
        return times(x, w[name], "...c,c->...c") if config["norm"] == "rms" else x

    x = w["token"][tokens], w["token.error"][tokens]
    x = plus(plus(x, w["own"][own]), w["target"][after])
    read = norm(x, "attention_norm")
    x, last = ((value[:, -1], error[:, -1]) for value, error in (x, read))
    products: Ball = tuple(np.zeros((2, *tokens.shape, heads)))
    if config["content"]:
        q, k = times(last, w["query"], "nc,hdc->nhd"), times(read, w["key"], "nrc,hdc->nrhd")
        scale = np.full(heads, (width / heads) ** -0.5)
        if config["qk_norm"]:
            q, k, scale = on_sphere(q, 1.0), on_sphere(k, 1.0), w["gain"]
        products = times(times(q, k[0], "nhd,nrhd->nrh", k[1]), scale, "nrh,h->nrh")
    for biases, entries in zip(w["biases"], apart.T, strict=True):
        products = plus(products, biases[:, entries].T)
    v = times(read, w["value"], "nrc,hdc->nrhd")
    found = times(softmax(products), v[0], "nrh,nrhd->nhd", v[1])
    x = plus(x, *times(found, w["out"], "nhd,chd->nc"))
    read = norm(x, "mlp_norm")
    hidden = activated(*(times(read, part, "nc,dc->nd") for part in w["up"]))
    x = plus(x, *times(hidden, w["down"], "nd,cd->nc"))
    said = times(norm(x, "norm"), w["head"], "nc,vc->nv", w["head.error"])
    return plus(said, w["head.bias"])


def check(folder: Path) -> dict[str, float]:
    """Contexts, smallest margin, largest bound, least room between the two. Raises ValueError."""
    told = json.loads((folder / "certificate.json").read_text())
    config = json.loads((folder / "config.json").read_text())["model"]
    odd = {name: config[name] for name, known in KNOWN.items() if config[name] not in known}
    if odd:
        raise ValueError(f"this checker does not know {odd}")
    for name, file in (("weights", "model.safetensors"), ("listed", "certificate.npz")):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != told[name]:
            raise ValueError(f"the certificate is of another {file}")
    if hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() != told["model"]:
        raise ValueError("the certificate is of a model with other settings")
    w = whole(config, load_file(folder / "model.safetensors"))
    listed = np.load(folder / "certificate.npz")
    looks, said, last, leads = set[tuple](), set[tuple](), set[tuple](), []
    for group in range(told["groups"]):
        names = "ids", "after", "tokens", "right"
        ids, after, *rows = (listed[f"{group}.{name}"].astype(int) for name in names)
        kinds, known = (ids[:, -1], after[:, -1]), (len(w["own"]),) * 2 + (config["vocab"],) * 2
        if any(((x < 0) | (x >= n)).any() for x, n in zip((*kinds, *rows), known, strict=True)):
            raise ValueError("some kinds or tokens that are listed are not known")  # -1, say
        apart = np.where(ids == 0, NO_PLACE, np.clip(after[-1] - ids, -NEAR, NEAR) + NEAR)
        looks |= {(*apart[:, :-1].ravel(), *np.ravel(kinds), *some) for some in rows[0]}
        said |= {(kinds[1][-1], token) for token in rows[1]}
        last |= {(kinds[0][-1], token) for token in rows[0][:, -1]}
        at_once = len(rows[0]) // 1024 + 1
        for tokens, right in zip(*(np.array_split(x, at_once) for x in rows), strict=True):
            value, error = logits(config, w, tokens, apart, *kinds)
            lead = np.take_along_axis(value, right[:, None], 1) - value
            np.put_along_axis(lead, right[:, None], np.inf, 1)
            leads.append((lead.min(1), 2 * error.max(1)))  # of the difference of two logits
    margin, bound = map(np.concatenate, zip(*leads, strict=True))
    if not (margin > bound).all():
        raise ValueError(f"the smallest margin is {margin.min():.3g}, rounding {bound.max():.3g}")
    if not len(looks) == len(margin) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    before, written = {*map(tuple, told["begins"])}, {kind for kind, _ in said}
    last = {seen for seen in last if seen[0] in written}
    if last - said - before or {token for _, token in said - last} - {told["end"]}:
        raise ValueError("tokens written in some rows are not the tokens that contexts see there")
    least = {"margin": margin.min(), "bound": bound.max(), "room": (margin - bound).min()}
    return {"contexts": len(margin)} | {name: float(x) for name, x in least.items()}


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1])))
    except Exception as error:  # what it cannot make sense of it does not accept either
        sys.exit(f"not accepted: {type(error).__name__}: {error}")
