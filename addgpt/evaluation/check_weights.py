"""The weights of the smallest adders written out, for `check_certificate`: numpy alone.

They are not stored whole: tokens on an arc are three numbers, tokens that never occur have no row,
biases that local attention does not show are not trained, values may have no second matrix.
"""

import numpy as np

NEAR, NO_PLACE, NO_ID, U = 4, 9, 1 << 15, 1.001 * 2.0**-53  # as of `check_certificate`


def written_out(config: dict, stored: dict) -> dict:
    """All weights, named as a plain model's; `token.off` is how far off those of an arc can be,
    `unused` the logits of tokens that never occur."""
    out = {name: x for name, x in stored.items() if not name.endswith((".rows", ".arc"))}
    vocab, width, arc = config["vocab"], config["width"], config.get("arc", 0)
    used = np.array(config.get("used") or range(vocab))
    out["unused"] = np.where(np.isin(range(vocab), used), 0, -1e4)
    out["token.off"] = np.zeros((vocab, width))
    for name, points in (("token.weight", arc), ("head.weight", 0)):
        if f"{name}.rows" in stored:
            rest, out[name] = used[used >= points], np.zeros((vocab, width))
            out[name][rest] = stored[f"{name}.rows"].reshape(len(rest), width)
    if arc:
        radius, start, step = stored["token.weight.arc"].astype(float)
        number = np.arange(arc)[:, None]
        angle, off = start + step * number, np.abs(start) + np.abs(step) * number
        out["token.weight"][:arc, :2] = radius * np.hstack((np.cos(angle), np.sin(angle)))
        out["token.off"][:arc, :2] = np.abs(radius) * (8 * U * off + 16 * U)
    if config["share"] == "vo":
        out["blocks.0.attention.out.weight"] = np.eye(width)
    if config.get("biases", "all") != "all":
        out["positions.relative.table"] = _biases(config, stored["positions.relative.table"])
    return out


def _biases(config: dict, table: np.ndarray) -> np.ndarray:
    """(L, H, NO_PLACE + 1) those of relative ids, as they begin where none is trained."""
    seen, out = config["visible"], []
    if config["attention"] == "reads":  # of each: two kinds, then the differences on other levels
        seen = [*zip(*seen, strict=True)][2:] + [()]
    for level, way in enumerate(config["level_position"]):
        if way == "relative":
            some = np.array(seen[level], int)
            known = np.where(some == NO_ID, NO_PLACE, np.clip(some, -NEAR, NEAR) + NEAR)
            entries = np.unique(known) if len(some) else np.arange(NO_PLACE + 1)
            start = np.append(-(np.arange(-NEAR, NEAR + 1.0) ** 2), 0)  # where biases begin
            whole = np.tile(start, (config["heads"], 1))
            if config["biases"] == "pinned":  # the last one of each level is 0
                whole[:, entries[-1]], entries = 0, entries[:-1]
            mine, table = table[:, : len(entries)], table[:, len(entries) :]
            whole[:, entries] = mine.reshape(config["heads"], len(entries))
            out.append(whole)
    if table.size:
        raise ValueError("there are more biases than differences that can be seen")
    return np.stack(out)
