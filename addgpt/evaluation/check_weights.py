"""The weights of a run written out, for `check_certificate`: numpy alone, nothing shared.

Those of the smallest adders are not stored whole: tokens on an arc are three numbers, tokens that
never occur have no row, biases that local attention does not show are not trained.
"""

import numpy as np

NEAR, NO_PLACE, NO_ID = 4, 9, 1 << 15  # of relative ids: see the checker; no id, as a difference
UNIT = 1.001 * 2.0**-53  # of float64


def whole(config: dict, stored: dict) -> dict:
    """Tokens and head (V, C), with how far off each is, `query`, `key`, `value` (H, D, C),
    `out` (C, H, D), `up` (parts, F, C), kinds `own` and `target`, biases (L, H, NO_PLACE + 1), all
    else. Raises ValueError.
    """
    *ways, kind = config["level_position"]
    if not {*ways} <= {"relative", "none"} or kind not in ("learned", "relative", "none"):
        raise ValueError(f"this checker does not know {config['level_position']}")
    w = {name: x.astype(np.float64) for name, x in stored.items()}
    levels, width, vocab = config["levels"], config["width"], config["vocab"]
    for name in ("token", "head"):
        w[f"{name}.error"] = np.zeros((vocab, width))
        if f"{name}.weight.rows" in w:
            points, rows = config["arc"] if name == "token" else 0, np.zeros((vocab, width))
            if points:
                rows[:points, :2], w["token.error"][:points, :2] = arc(points, w)
            used = config["used"] or range(vocab)
            rows[[v for v in used if v >= points]] = w[f"{name}.weight.rows"]
            w[f"{name}.weight"] = rows
    if config["tied"]:
        w |= {"head.weight": w["token.weight"], "head.error": w["token.error"]}
    used = config.get("used") or range(vocab)
    w["head.bias"] = np.array([0.0 if v in used else -1e4 for v in range(vocab)])
    matrices = w["blocks.0.attention." + ("qkv.weight" if config["content"] else "value.weight")]
    names = ("query", "key", "value")[-len(matrices) :]
    w |= zip(names, matrices.reshape(len(matrices), config["heads"], -1, width), strict=True)
    out = w.get("blocks.0.attention.out.weight", np.eye(width))
    w["out"] = out.reshape(width, config["heads"], -1)
    down = w.setdefault("blocks.0.mlp.down.weight", np.zeros((width, 1)))
    up = w.get("blocks.0.mlp.up.weight", np.zeros((1, width)))
    w["up"] = up.reshape(-1, down.shape[1], width)
    for name in ("own", "target"):
        w[name] = w.get(f"positions.learned.{name}.0.weight", np.zeros((levels[-1], width)))
    w["positions.relative.table"] = biases_of(config, w)
    return w


def arc(points: int, w: dict) -> tuple[np.ndarray, np.ndarray]:
    """(points, 2) on an arc, at equal steps from an angle on, and how far off they can be."""
    radius, start, step = w["token.weight.arc"]
    number = np.arange(points)[:, None]
    angle = start + step * number
    off = 8 * UNIT * (np.abs(start) + np.abs(step) * number) + 16 * UNIT
    return radius * np.hstack((np.cos(angle), np.sin(angle))), np.abs(radius) * np.hstack(
        (off, off)
    )


def biases_of(config: dict, w: dict) -> np.ndarray:
    """Those of relative ids: zero on other levels, no number where none is trained."""
    table, scheme = w.get("positions.relative.table", np.zeros(0)), config["level_position"]
    out = np.zeros((len(scheme), config["heads"], NO_PLACE + 1))
    relative, seen = [i for i, way in enumerate(scheme) if way == "relative"], config["visible"]
    if config.get("biases", "all") == "all":
        if relative:
            out[relative] = table
        return out
    if config["attention"] == "reads":  # of each: two kinds, then the differences on other levels
        seen = [*zip(*seen, strict=True)][2:] + [()]
    for level in relative:
        differences = np.array(seen[level], int)
        near = np.clip(differences, -NEAR, NEAR) + NEAR
        trained = np.unique(np.where(differences == NO_ID, NO_PLACE, near))
        trained = trained if len(trained) else np.arange(NO_PLACE + 1)
        out[level] = np.nan
        if config["biases"] == "pinned":
            out[level][:, trained[-1]], trained = 0, trained[:-1]
        out[level][:, trained], table = table[:, : len(trained)], table[:, len(trained) :]
    return out
