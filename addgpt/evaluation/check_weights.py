"""The weights of a run written out, for `check_certificate`: numpy alone, nothing shared.

Those of the smallest adders are not stored whole: tokens on an arc are three numbers, tokens that
never occur have no row, biases that local attention does not show are not trained.
"""

from collections.abc import Callable

import numpy as np

NEAR, NO_PLACE = 4, 9  # of relative ids: the largest difference told apart, the entry of no id
NO_ID = 1 << 15  # as a difference
UNIT = 1.001 * 2.0**-53  # of float64


def whole(config: dict, stored: dict) -> dict:
    """The weights of a block by short names. Raises ValueError if some are missing, of another
    shape than the config says, or not known.

    token, head (V, C), token.error and head.error: how far off they are; head.bias (V,); query,
    key, value (H, D, C); gain (H,); out (C, H, D); up (parts, F, C); down (C, F); own, target
    (kinds, C); biases (L, H, NO_PLACE + 1); those of norms (C,) by their own names.
    """
    left, heads, width, vocab = {**stored}, config["heads"], config["width"], config["vocab"]
    *ways, kind = config["level_position"]
    if not {*ways} <= {"relative", "none"} or kind not in ("learned", "relative", "none"):
        raise ValueError(f"this checker does not know {config['level_position']}")

    def take(name: str, *shape: int) -> np.ndarray:
        if name not in left or left[name].shape != shape:
            raise ValueError(f"there is no {name} of shape {shape}")
        return left.pop(name).astype(np.float64)

    w, used = {}, config.get("used") or [*range(vocab)]
    for name in ("token",) if config["tied"] else ("token", "head"):
        w[name], w[f"{name}.error"] = _rows(config, name, used, take)
    if config["tied"]:
        w |= {"head": w["token"], "head.error": w["token.error"]}
    w["head.bias"] = np.array([0.0 if v in used else -1e4 for v in range(vocab)])
    parts = ("query", "key", "value") if config["content"] else ("value",)
    name = "blocks.0.attention." + ("qkv" if config["content"] else "value") + ".weight"
    matrices = take(name, len(parts), width, width).reshape(len(parts), heads, -1, width)
    w |= zip(parts, matrices, strict=True)
    if config["content"] and config["qk_norm"]:
        w["gain"] = take("blocks.0.attention.gain", heads, 1, 1).ravel()
    shared = config["share"] == "vo"
    out = np.eye(width) if shared else take("blocks.0.attention.out.weight", width, width)
    w["out"] = out.reshape(width, heads, -1)
    hidden = left.get("blocks.0.mlp.down.weight", np.zeros((width, 0))).shape[-1]
    w["down"] = take("blocks.0.mlp.down.weight", width, hidden)
    gated = (2,) if config["activation"] == "geglu" else ()
    w["up"] = take("blocks.0.mlp.up.weight", *gated, hidden, width).reshape(-1, hidden, width)
    for name in ("attention_norm", "mlp_norm", "norm") if config["norm"] == "rms" else ():
        w[name] = take(f"{'blocks.0.' * (name != 'norm')}{name}.weight", width)
    kinds = config["levels"][-1]
    for name in ("own", "target"):
        learned = kind == "learned"
        zeros = np.zeros((kinds, width))
        w[name] = take(f"positions.learned.{name}.0.weight", kinds, width) if learned else zeros
    w["biases"] = _biases(config, take)
    if left:
        raise ValueError(f"this checker does not know {', '.join(left)}")
    return w


def _rows(config: dict, name: str, used: list[int], take: Callable) -> np.ndarray:
    """(2, V, C) a row for each token, zeros for those that never occur, and how far off it is."""
    points = config.get("arc", 0) if name == "token" else 0
    table = np.zeros((2, config["vocab"], config["width"]))
    if not points and not config.get("used"):
        table[0] = take(f"{name}.weight", *table[0].shape)
        return table
    if points:  # at equal steps on an arc
        radius, start, step = take("token.weight.arc", 3)
        number = np.arange(points)[:, None]
        angle = start + step * number
        off = 8 * UNIT * (np.abs(start) + np.abs(step) * number) + 16 * UNIT
        table[0, :points, :2] = radius * np.hstack((np.cos(angle), np.sin(angle)))
        table[1, :points, :2] = np.abs(radius) * off
    rest = [v for v in used if v >= points]
    table[0, rest] = take(f"{name}.weight.rows", len(rest), config["width"])
    return table


def _biases(config: dict, take: Callable) -> np.ndarray:
    """Those of relative ids: zero on other levels, no number where none is trained."""
    scheme, heads, seen = config["level_position"], config["heads"], config["visible"]
    out = np.zeros((len(scheme), heads, NO_PLACE + 1))
    relative = [i for i, way in enumerate(scheme) if way == "relative"]
    if not relative:
        return out
    if config.get("biases", "all") == "all":
        out[relative] = take("positions.relative.table", len(relative), heads, NO_PLACE + 1)
        return out
    if config["attention"] == "reads":  # of each: two kinds, then the differences on other levels
        seen = [*zip(*seen, strict=True)][2:] + [()]
    trained = []
    for level in relative:
        apart = np.array(seen[level], int)
        entries = np.where(apart == NO_ID, NO_PLACE, np.clip(apart, -NEAR, NEAR) + NEAR)
        trained.append(np.unique(entries) if len(apart) else np.arange(NO_PLACE + 1))
    pinned = config["biases"] == "pinned"  # the last one of each level is 0
    table = take("positions.relative.table", heads, sum(map(len, trained)) - pinned * len(trained))
    for level, entries in zip(relative, trained, strict=True):
        out[level] = np.nan
        if pinned:
            out[level][:, entries[-1]], entries = 0, entries[:-1]
        out[level][:, entries], table = table[:, : len(entries)], table[:, len(entries) :]
    return out
