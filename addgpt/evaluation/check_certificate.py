"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing is shared with what wrote it: the model is run again, in float64, with a bound on how far
each number is off exact arithmetic (balls: van der Hoeven 2009; sums: Higham 2002, chapter 3).
Checked: weights, contexts and certificate belong together; contexts hold what the model sees; one
token is right in each, and wins, by more than the bound and in float32; what is right in rows of a
kind is what slots see as the token just written. Not checked: that no context is missing, that what
is right is arithmetic.
"""

import hashlib
import json
import math
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

NEAR, NO_PLACE, NO_ID = 4, 9, 1 << 15  # the largest difference of ids told apart, the entry of a
# table of biases for no id, and no id as a difference in `visible`
U, TINY = 1.001 * 2.0**-53, 1e-12  # of float64: n U, with room, is more than n u / (1 - n u)
GELU = np.vectorize(lambda x: x * (1 + math.erf(x / 2**0.5)) / 2, otypes=[float])
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "rank": [0], "embed_rank": [0],
    "kv_heads": [0], "position": ["none"], "norm": ["rms", "plain", "none"], "prefix": [False],
    "norm_place": ["before"], "next_ids": [True], "log_scale": [False], "share": ["none", "vo"],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"]}  # fmt: skip
SHAPES = {"token": "vc", "token.off": "vc", "unused": "v", "head": "vc", "attention.value": "1hdc",
    "norm": "c", "mlp_norm": "c", "attention_norm": "c", "attention.qkv": "3hdc", "mlp.down": "cf",
    "attention.gain": "h", "attention.out": "chd", "mlp.up": "gfc", "positions.learned.own.0": "kc",
    "positions.learned.target.0": "kc", "positions.relative.table": "lhb"}  # fmt: skip
PLAIN = {"share": "none", "arc": 0, "biases": "all", "used": []}  # all weights are stored
Ball = tuple[np.ndarray, np.ndarray]  # numbers, and how far off each can be


def plus(a: Ball, b, off=0.0) -> Ball:
    value = a[0] + b
    return value, (1 + 4 * U) * (a[1] + off + U * np.abs(value))


def times(a: Ball, rule: str, b, off=0.0) -> Ball:
    """Sums of at most as many products as `b` is long on some axis, by a rule of `np.einsum`."""
    least, most = (np.abs(a[0]), np.abs(b)), (np.abs(a[0]) + a[1], np.abs(b) + off)
    value, low, high = (np.einsum(rule, *x, optimize=True) for x in ((a[0], b), least, most))
    return value, (1 + 8 * max(b.shape) * U) * high - low


def on_sphere(a: Ball, radius: float, eps: float = 0.0) -> Ball:
    """The vectors at another length: RMS norm (radius sqrt n), norm of queries and keys."""
    n, (size, far) = a[0].shape[-1], (np.linalg.norm(x, axis=-1, keepdims=True) for x in a)
    value = a[0] * radius / np.maximum(np.sqrt(size**2 + n * eps), TINY)
    moved = (a[1] + np.abs(a[0]) * far / np.maximum(size, TINY)) / np.maximum(size - far, TINY)
    error = radius * (1 + 8 * U) * moved + (n + 10) * U * np.abs(value)
    return value, np.where(size - far > TINY, error, 2 * radius)  # below, the model may clamp


def softmax(a: Ball) -> Ball:
    """Along axis 1; a weight changes by at most exp(2 e) - 1 of itself."""
    weights = np.exp(a[0] - a[0].max(1, keepdims=True))
    weights /= weights.sum(1, keepdims=True)
    most = (a[1] + 4 * U * np.abs(a[0])).max(1, keepdims=True)
    return weights, (np.expm1(2 * most) + (weights.shape[1] + 8) * U) * np.exp(2 * most) * weights


def logits(c: dict, w: dict, tokens, apart, own, after) -> Ball:
    """(N, V) logits in contexts (N, R) of tokens that are (R, L) `apart` from the slot, as entries
    of a table of biases, and in rows of kinds `own` (R,), the slots after them of kinds `after`."""

    def norm(x: Ball, name: str) -> Ball:
        x = x if c["norm"] == "none" else on_sphere(x, c["width"] ** 0.5, 2.0**-23)
        return times(x, "...c,c->...c", w[name]) if c["norm"] == "rms" else x

    x: Ball = w["token"][tokens], w["token.off"][tokens]
    for name, kinds in (("own", own), ("target", after)) * (c["level_position"][-1] == "learned"):
        x = plus(x, w[f"positions.learned.{name}.0"][kinds])
    seen = norm(x, "attention_norm")
    x, last = ((value[:, -1], error[:, -1]) for value, error in (x, seen))
    *compared, value = w["attention.qkv" if c["content"] else "attention.value"]
    products: Ball = tuple(np.zeros((2, *tokens.shape, c["heads"]), x[0].dtype))
    if compared:
        q, k = times(last, "nc,hdc->nhd", compared[0]), times(seen, "nrc,hdc->nrhd", compared[1])
        scale = np.full(c["heads"], value.shape[1] ** -0.5, value.dtype)
        if c["qk_norm"]:
            q, k, scale = on_sphere(q, 1.0), on_sphere(k, 1.0), w["attention.gain"]
        products = times(times(q, "nhd,nrhd->nrh", *k), "nrh,h->nrh", scale)
    near = [level for level, way in enumerate(c["level_position"]) if way == "relative"]
    for number, level in enumerate(near):
        products = plus(products, w["positions.relative.table"][number][:, apart[:, level]].T)
    found = times(softmax(products), "nrh,nrhd->nhd", *times(seen, "nrc,hdc->nrhd", value))
    x = plus(x, *times(found, "nhd,chd->nc", w["attention.out"]))
    if c["mlp_ratio"]:
        seen = norm(x, "mlp_norm")
        gate, *up = (times(seen, "nc,fc->nf", part) for part in w["mlp.up"])
        value = GELU(gate[0]) if up else np.maximum(gate[0], 0)  # GEGLU, or squared ReLU
        gate = value, 1.13 * gate[1] + 8 * U * (np.abs(value) + 1)  # GELU is nowhere steeper
        gate = times(gate, "nf,nf->nf", *(up or [gate])[0])
        x = plus(x, *times(gate, "nf,cf->nc", w["mlp.down"]))
    table = (w["token"], w["token.off"]) if c["tied"] else (w["head"], 0.0)
    return plus(times(norm(x, "norm"), "nc,vc->nv", *table), w["unused"])


def read(c: dict, stored: dict) -> dict:
    """The weights as logits() takes them. Raises an error if one is unknown or of another size."""
    sizes = {"1": 1, "3": 3, "v": c["vocab"], "c": c["width"], "h": c["heads"], "f": -1}
    sizes |= {"d": c["width"] // c["heads"], "g": 1 + (c["activation"] == "geglu")}
    sizes |= {"k": c["levels"][-1], "l": c["level_position"].count("relative"), "b": NO_PLACE + 1}
    if all(c.get(name, plain) == plain for name, plain in PLAIN.items()):
        stored = stored | {"token.off": 0 * stored["token.weight"], "unused": np.zeros(c["vocab"])}
    else:
        from addgpt.evaluation.check_weights import written_out

        stored = written_out(c, stored)
    short = dict.fromkeys(x.removeprefix("blocks.0.").removesuffix(".weight") for x in stored)
    named = zip(short, stored.values(), strict=True)  # no two have one name
    return {x: some.astype(float).reshape([sizes[a] for a in SHAPES[x]]) for x, some in named}


def all_shown(c: dict, before: set[tuple], every: set[tuple]) -> bool:
    """Whether contexts hold what the model sees: tokens `before` the last, which is always seen,
    are visible, and what is visible is met in `every` token. The last level is the kind."""
    if c["attention"] == "reads":
        return before <= {*map(tuple, c["visible"])} <= every
    return not c["visible"][-1] and all(
        c["levels"][n] == 1 or {x[n] for x in before} <= {*some} <= {x[n] for x in every}
        for n, some in enumerate(c["visible"][:-1])
    )


def check(folder: Path) -> dict[str, float]:
    """Contexts, smallest margin, largest bound, least room between the two. Raises ValueError."""
    told = json.loads((folder / "certificate.json").read_text())
    run = json.loads((folder / "config.json").read_text())
    config, stored = run["model"], load_file(folder / "model.safetensors")
    *ways, kind = config["level_position"]
    odd = {name: config[name] for name, known in KNOWN.items() if config[name] not in known}
    if odd or not {*ways} <= {"relative", "none"} or kind not in ("learned", "relative", "none"):
        raise ValueError(f"this checker does not know {odd or config['level_position']}")
    for name, file in (("weights", "model.safetensors"), ("listed", "certificate.npz")):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != told[name]:
            raise ValueError(f"the certificate is of another {file}")
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    if (digest, run["task"], run["options"]) != (told["model"], told["task"], told["options"]):
        raise ValueError("the certificate is of a model with other settings, or of another task")
    if types := {str(x.dtype) for x in stored.values()} - {"float32"}:
        raise ValueError(f"weights are {', '.join(types)}, not float32")
    w = read(config, stored)
    narrow = {name: x.astype(np.float32) for name, x in w.items()}
    listed = np.load(folder / "certificate.npz")
    looks, said, last, before, every = (set[tuple]() for _ in range(5))
    names, leads = ("ids", "after", "tokens", "right"), list[tuple]()
    for group in range(told["groups"]):
        ids, after, *rows = (listed[f"{group}.{name}"].astype(int) for name in names)
        kinds = ids[:, -1], after[:, -1]
        known = zip((config["levels"][-1], config["vocab"]), (kinds, rows), strict=True)
        if any(((x < 0) | (x >= n)).any() for n, some in known for x in some):
            raise ValueError("some kinds or tokens that are listed are not known")  # -1, say
        gaps = np.where(ids == 0, NO_ID, np.where(after[-1] == 0, NO_ID + 1, after[-1] - ids))
        if config["attention"] == "reads":
            gaps = np.column_stack((np.full(len(ids), kinds[1][-1]), kinds[0], gaps[:, :-1]))
        before |= {*map(tuple, gaps[:-1].tolist())}
        every |= {*map(tuple, gaps.tolist())}
        apart = np.where(ids == 0, NO_PLACE, np.clip(after[-1] - ids, -NEAR, NEAR) + NEAR)
        looks |= {(*apart[:, :-1].ravel(), *np.ravel(kinds), *some) for some in rows[0]}
        said |= {(kinds[1][-1], token) for token in rows[1]}
        last |= {(kinds[0][-1], token) for token in rows[0][:, -1]}
        for seen, right in zip(*(np.array_split(x, len(x) // 1024 + 1) for x in rows), strict=True):
            value, error = logits(config, w, seen, apart, *kinds)
            lead = np.take_along_axis(value, right[:, None], 1) - value
            np.put_along_axis(lead, right[:, None], np.inf, 1)
            wins = logits(config, narrow, seen, apart, *kinds)[0].argmax(1) == right
            leads.append((lead.min(1), 2 * error.max(1), wins))  # of the difference of two logits
    margin, bound, wins = map(np.concatenate, zip(*leads, strict=True))
    if not (margin > bound).all() or not wins.all():
        why = f"the smallest margin is {margin.min():.3g}, rounding {bound.max():.3g}"
        raise ValueError(f"{why}; in float32 another token wins in {(~wins).sum()} contexts")
    if not len(looks) == len(margin) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    if not all_shown(config, before, every):
        raise ValueError("contexts do not hold what the model sees")
    last = {x for x in last if x[0] in {kind for kind, _ in said}}
    if last - said - {*map(tuple, told["begins"])} or {x[1] for x in said - last} - {told["end"]}:
        raise ValueError("tokens written in some rows are not the tokens that contexts see there")
    least = {"margin": margin.min(), "bound": bound.max(), "room": (margin - bound).min()}
    return {"contexts": len(margin)} | {name: float(x) for name, x in least.items()}


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1])))
    except Exception as error:  # what it cannot make sense of it does not accept either
        sys.exit(f"not accepted: {type(error).__name__}: {error}")
