"""Checks a certificate with numpy alone: `python -m addgpt.evaluation.check_certificate RUN`.

Nothing is shared with what wrote it: the model is run again, in float64, with a bound on how far
that is from exact arithmetic (ball.py). Checked: weights, contexts and certificate belong together;
one token is right in each context, and wins by more than the bound; what is right in rows of a kind
is what slots see as the token just written. Not checked: that no context is missing, that what is
right is arithmetic.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from addgpt.evaluation import ball
from addgpt.evaluation.check_weights import NO_ID, biases_of, entry, rows_of

EPS = float(np.finfo(np.float32).eps)  # of the model's norms
KNOWN: dict[str, list] = {
    "architecture": ["gpt"], "layers": [1], "loops": [1], "position": ["none"],
    "norm_place": ["before"], "norm": ["rms", "plain", "none"], "share": ["none", "vo"],
    "rank": [0], "embed_rank": [0], "kv_heads": [0], "next_ids": [True], "log_scale": [False],
    "activation": ["geglu", "relu2"], "attention": ["window", "reads"], "prefix": [False],
}  # fmt: skip


def logits(config: dict, w: dict, tokens, apart, own, after) -> ball.Ball:
    """(N, V) logits in contexts (N, R) of tokens that are (R, L) `apart` from the slot, as entries
    of a table of biases, and in rows of kinds `own` (R,), the slots after them of kinds `after`."""
    heads, width = config["heads"], config["width"]

    def norm(x: ball.Ball, name: str) -> ball.Ball:
        x = x if config["norm"] == "none" else x.on_sphere(width**0.5, EPS)
        return x.times(w[name], 1, "...c,c->...c") if config["norm"] == "rms" else x

    table = rows_of(config, w, "token")
    x = ball.Ball(table.value[tokens], table.error[tokens])
    if config["level_position"][-1] == "learned":
        x = x.plus(w["positions.learned.own.0.weight"][own])
        x = x.plus(w["positions.learned.target.0.weight"][after])
    read = norm(x, "blocks.0.attention_norm.weight")
    x, last = (ball.Ball(some.value[:, -1], some.error[:, -1]) for some in (x, read))
    matrices = w["blocks.0.attention." + ("qkv.weight" if config["content"] else "value.weight")]
    *compared, values = matrices.reshape(len(matrices), heads, -1, width)
    products = ball.Ball(*np.zeros((2, *read.value.shape[:2], heads)))
    if config["content"]:
        q = last.times(compared[0], width, "nc,hdc->nhd")
        k = read.times(compared[1], width, "nrc,hdc->nrhd")
        scale = np.full(heads, (width / heads) ** -0.5)
        if config["qk_norm"]:
            q, k, scale = q.on_sphere(1.0), k.on_sphere(1.0), w["blocks.0.attention.gain"].ravel()
        products = q.times(k.value, width // heads, "nhd,nrhd->nrh", k.error)
        products = products.times(scale, 2, "nrh,h->nrh")  # 2: a scale may be rounded itself
    levels = [i for i, way in enumerate(config["level_position"]) if way == "relative"]
    for biases, level in zip(biases_of(config, w, levels), levels, strict=True):
        products = products.plus(biases[:, apart[:, level]].T)
    v = read.times(values, width, "nrc,hdc->nrhd")
    found = products.softmax().times(v.value, len(apart), "nrh,nrhd->nhd", v.error)
    out = w.get("blocks.0.attention.out.weight", np.eye(width)).reshape(width, heads, -1)
    x = x.plus(*found.times(out, width, "nhd,chd->nc"))
    if "blocks.0.mlp.up.weight" in w:
        read, down = norm(x, "blocks.0.mlp_norm.weight"), w["blocks.0.mlp.down.weight"]
        parts = w["blocks.0.mlp.up.weight"].reshape(-1, down.shape[1], width)
        hidden = ball.activated(*(read.times(part, width, "nc,dc->nd") for part in parts))
        x = x.plus(*hidden.times(down, down.shape[1], "nd,cd->nc"))
    head = table if config["tied"] else rows_of(config, w, "head")
    said = norm(x, "norm.weight").times(head.value, width, "nc,vc->nv", head.error)
    if config.get("used"):
        said.value[:, [v for v in range(config["vocab"]) if v not in config["used"]]] = -1e4
    return said


def check(folder: Path) -> dict[str, float]:
    """How many contexts, the smallest margin, the largest bound and the least room between the two.
    Raises ValueError."""
    told = json.loads((folder / "certificate.json").read_text())
    config = json.loads((folder / "config.json").read_text())["model"]
    *levels, kind = config["level_position"]
    odd = {name: config[name] for name, known in KNOWN.items() if config[name] not in known}
    if odd or not {*levels} <= {"relative", "none"} or kind not in ("learned", "relative", "none"):
        raise ValueError(f"this checker does not know {odd or config['level_position']}")
    for name, file in (("weights", "model.safetensors"), ("listed", "certificate.npz")):
        if hashlib.sha256((folder / file).read_bytes()).hexdigest() != told[name]:
            raise ValueError(f"the certificate is of another {file}")
    if hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest() != told["model"]:
        raise ValueError("the certificate is of a model with other settings")
    w = {name: x.astype(np.float64) for name, x in load_file(folder / "model.safetensors").items()}
    listed = np.load(folder / "certificate.npz")
    looks, said, last, leads = set[tuple](), set[tuple](), set[tuple](), []
    for group in range(told["groups"]):
        names = (f"{group}.{name}" for name in ("ids", "after", "tokens", "right"))
        ids, after, *rows = (listed[name].astype(int) for name in names)
        if any(((x < 0) | (x >= config["vocab"])).any() for x in rows):  # -1 is the last one, too
            raise ValueError("some tokens that are listed are not in the alphabet")
        apart = entry(np.where(ids == 0, NO_ID, after[-1] - ids))
        kinds = ids[:, -1], after[:, -1]
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
        won = f"the smallest margin is {margin.min():.3g}"
        raise ValueError(f"{won}, rounding errors reach {bound.max():.3g}")
    if not len(looks) == len(margin) == told["contexts"]:
        raise ValueError(f"{len(looks)} different contexts are listed, not {told['contexts']}")
    before, written = {*map(tuple, told["begins"])}, {kind for kind, _ in said}
    last = {(kind, token) for kind, token in last if kind in written}
    if last - said - before or {token for _, token in said - last} - {told["end"]}:
        raise ValueError("tokens written in some rows are not the tokens that contexts see there")
    least = {"margin": margin.min(), "bound": bound.max(), "room": (margin - bound).min()}
    return {"contexts": len(margin)} | {name: float(x) for name, x in least.items()}


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1])))
    except Exception as error:  # what it cannot make sense of it does not accept either
        sys.exit(f"not accepted: {type(error).__name__}: {error}")
