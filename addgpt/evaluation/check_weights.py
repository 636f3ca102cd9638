"""The weights of a run as plain tables, for `check_certificate`: numpy alone, nothing shared.

Those of the smallest adders are not stored whole: tokens on an arc are three numbers, tokens that
never occur have no row, biases that local attention does not show are not trained.
"""

from __future__ import annotations

import numpy as np

from addgpt.evaluation import ball

NEAR, NO_PLACE = 4, 9  # of relative ids: the largest difference told apart, the entry of no id
NO_ID = 1 << 15  # as a difference


def rows_of(config: dict, w: dict, name: str) -> ball.Ball:
    """(V, C) a row for each token; zeros for those that never occur."""
    if f"{name}.weight" in w:
        return ball.Ball(w[f"{name}.weight"], np.zeros_like(w[f"{name}.weight"]))
    rows = ball.Ball(*np.zeros((2, config["vocab"], config["width"])))
    points = config["arc"] if name == "token" else 0
    if points:
        radius, start, step = w["token.weight.arc"]
        rows.value[:points, :2], rows.error[:points, :2] = ball.arc(points, radius, start, step)
    used = config["used"] or range(config["vocab"])
    rows.value[[v for v in used if v >= points]] = w[f"{name}.weight.rows"]
    return rows


def biases_of(config: dict, w: dict, levels: list[int]) -> np.ndarray:
    """(levels, H, NO_PLACE + 1) biases of relative ids; no number where none is trained."""
    table = w.get("positions.relative.table", np.zeros((0, 1, 1)))
    if config.get("biases", "all") == "all":
        return table
    out, seen = np.full((len(levels), len(table), NO_PLACE + 1), np.nan), config["visible"]
    if config["attention"] == "reads":  # of each: two kinds, then the differences on other levels
        seen = [*zip(*seen, strict=True)][2:] + [()]
    for level, one in zip(levels, out, strict=True):
        trained = np.unique(entry(np.array(seen[level], int))) if seen[level] else np.arange(10)
        if config["biases"] == "pinned":
            one[:, trained[-1]], trained = 0, trained[:-1]
        one[:, trained], table = table[:, : len(trained)], table[:, len(trained) :]
    return out


def entry(apart: np.ndarray) -> np.ndarray:
    """Which bias is that of a difference of ids; the largest one stands for no id."""
    return np.where(apart == NO_ID, NO_PLACE, np.clip(apart, -NEAR, NEAR) + NEAR)
