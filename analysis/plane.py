"""An adder of width 2, drawn in its plane: what `addgpt inspect RUN --plane` found.

`docs/explained.md` says what the figure shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.patheffects import withStroke

from analysis import style

DIGITS = [str(digit) for digit in range(10)]
END, ONE = "end", "1 in front"  # above the highest digits
UNITS = (-8, -7), (8, -3), (12, 2), (1, -4)  # where their names stand beside their lines


def part(table: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The names (N,) and the points (N, 2) of a part."""
    rows = table[table["part"] == name]
    return rows["name"].astype(str).to_numpy(), rows[["x", "y"]].to_numpy(float)


def means(table: pd.DataFrame, name: str) -> np.ndarray:
    """(20, 2) the mean points of a + b + carry from 0 to 19, `before` or `after` the MLP."""
    names, points = part(table, name)
    return np.array([points[names == str(k)].mean(0) for k in range(20)])


def angle(points: np.ndarray) -> np.ndarray:
    """(N,) in degrees from 0 to 360, of points (N, 2)."""
    return np.degrees(np.arctan2(points[:, 1], points[:, 0])) % 360


def sectors(table: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Each token that can win, from where to where its dot product is largest, in degrees."""
    names, tokens = part(table, "token")
    turn = np.radians(np.arange(-180, 360, 0.02))
    wins = (np.c_[np.cos(turn), np.sin(turn)] @ tokens.T).argmax(1)
    cuts = np.flatnonzero(np.diff(wins)) + 1
    parts = np.split(np.arange(len(turn)), cuts)[1:-1]
    found = {names[wins[some[0]]]: np.degrees(turn[some[[0, -1]]]) for some in parts}
    found = dict(sorted(found.items(), key=lambda one: one[1][0] % 360))
    return [(name, *(ends - 360 * (ends[0] >= 270))) for name, ends in found.items()]


@style.styled
def draw(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """Three panels: tokens and what they add, the plane before the MLP, the plane after it.

    `rows` are what `addgpt.interpret.plane.plane` returns.
    """
    table = pd.DataFrame(rows)
    figure, axes = style.panels(3, columns=3, width=4.9, height=5.1)
    for axis, panel in zip(axes, (_adds, _before, _after), strict=True):
        panel(axis, table)
        axis.set_aspect("equal")
        axis.plot(0, 0, "+", color=style.INK, ms=8, zorder=4)
    return figure


def _colour(name: str) -> str:
    """Of the digit that is to be written, or of the end."""
    if name in (END, ONE):
        return style.INK if name == END else style.COLOURS[1]
    return style.COLOURS[int(name) % 10] if name.isdigit() else style.SOFT


def _say(axis: Axes, at: np.ndarray | Sequence[float], text: str, size: float = 9) -> None:
    text_ = axis.text(*at, text, fontsize=size, ha="center", va="center", zorder=5)
    text_.set_path_effects([withStroke(linewidth=2, foreground=style.PAPER, alpha=0.8)])


def _arrow(axis: Axes, start: np.ndarray, end: np.ndarray) -> None:
    look = {"arrowstyle": "-|>", "color": style.INK, "lw": 1, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look, zorder=4)


def _adds(axis: Axes, table: pd.DataFrame) -> None:
    names, points = part(table, "token")
    for one, xy in zip(names, points, strict=True):
        axis.plot(*xy, "o", color=_colour(one), ms=5, zorder=3)
        if one not in DIGITS or int(one) % 3 == 0:
            away = 1.8 * xy / np.hypot(*xy) if one in DIGITS else (-1.6 if one == "=" else 1.8, 0.3)
            _say(axis, xy + away, one)
    names, points = part(table, "adds")
    for one, xy in zip(names, points, strict=True):
        if one in DIGITS:
            axis.plot(*xy, "s", color=_colour(one), ms=5, zorder=3)
            _say(axis, xy + (1.7, -1), one)
    names, points = part(table, "sum")
    _, _, first, second, before = names
    a1, b1, written = before.split(", ")
    for one, start, end in zip(names[1:], points[:-1], points[1:], strict=True):
        _arrow(axis, start, end)
        beside = {"+ and =": (-4.4, 0), names[-1]: (4.6, 0.9)}.get(one, (0, 1.6))
        _say(axis, (start + end) / 2 + beside, one if "," not in one else f"({one})")
    axis.plot(*means(table, "before").T, color=style.RULE, lw=2, zorder=1)
    _say(axis, (-9.5, 9.3), "tokens")
    _say(axis, (9, 8.2), "what a digit\nadds")
    _say(axis, (29, -26), "a + b + carry\n(next panel)")
    _say(axis, points[-1] + (2.2, -1.4), str(int(first) + int(second) + 1))
    axis.set(xlim=(-14, 37), ylim=(-38, 13))
    axis.set_title(
        f"What attention adds up: {first}+{second}\nwhere {a1}+{b1} wrote {written} just before"
    )


def _before(axis: Axes, table: pd.DataFrame) -> None:
    _cloud(axis, *part(table, "before"))
    for k, xy in enumerate(means(table, "before")):
        _say(axis, xy + (4, -2.2), str(k), 8)
    for number, (x, y) in enumerate(part(table, "unit")[1]):
        side = np.array([x, y]) / np.hypot(x, y)
        along = np.array([y, -x]) / np.hypot(x, y)
        along *= -np.sign(along[1])  # downwards
        far = number in (1, 3)  # the outermost of the four there; the two others, at the other end
        tip = along * (58 if far else -22)
        axis.plot(*np.array([tip, along * (0 if far else 58)]).T, color=style.SOFT, lw=1)
        _arrow(axis, tip, tip + 6 * side)
        _say(axis, tip + UNITS[number], f"unit {number}")
    _ends(axis, table, "before", ((-14, -30), (-15, -18)))
    axis.set(xlim=(-30, 58), ylim=(-64, 24))
    axis.set_title("Before the MLP: a + b + carry,\nand the sides where units work")


def _after(axis: Axes, table: pd.DataFrame) -> None:
    for name, start, end in sectors(table):
        turn = np.radians(np.linspace(start, end, 60))
        edge = 200 * np.c_[np.cos(turn), np.sin(turn)]
        shade = {"color": _colour(name), "alpha": 0.22 if name in DIGITS else 0.06, "lw": 0}
        axis.add_patch(Polygon(np.r_[[[0, 0]], edge], **shade))
        axis.plot(*np.c_[[0, 0], edge[0]], color=style.PAPER, lw=1)
        middle = np.radians((start + end) / 2)
        ray = np.array([np.cos(middle), np.sin(middle)])
        inside = min(
            94 / abs(ray[0]) if ray[0] < 0 else 24 / ray[0],
            94 / ray[1] if ray[1] > 0 else 24 / abs(ray[1]),
        )
        axis.text(*(inside * ray), name, weight="bold", ha="center", va="center", fontsize=11)
    names, points = part(table, "after")
    _cloud(axis, names, _shrunk(points))
    ways = _shrunk(means(table, "after"))
    for some in (ways[:10], ways[10:]):
        axis.plot(*some.T, color=style.SOFT, lw=0.6, zorder=2)
    for k, xy in enumerate(ways):
        away = (6, -1) if k < 3 or k in (10, 11, 12) else (-5.5, -1.5) if k < 10 else (1, 6)
        _say(axis, xy + away, str(k), 8)
    _ends(axis, table, "after", ((14, 36), (15, 24)))
    axis.set(xlim=(-100, 30), ylim=(-30, 100), xticks=[], yticks=[])
    axis.set_title("After the MLP, and who wins where\n(distances as their square roots)")


def _ends(axis: Axes, table: pd.DataFrame, name: str, places: Sequence[Sequence[float]]) -> None:
    """What stands above the highest digits is named, in these places."""
    names, points = part(table, name)
    for one, at in zip((END, ONE), places, strict=True):
        xy = points[names == one].mean(0, keepdims=True)
        (to,) = _shrunk(xy) if name == "after" else xy
        look = {"arrowstyle": "-", "color": style.SOFT, "lw": 0.6}
        said = f"{one} (#)" if one == END else one
        axis.annotate(said, to, at, arrowprops=look, fontsize=8, ha="center", va="center")


def _cloud(axis: Axes, names: np.ndarray, points: np.ndarray) -> None:
    for name in dict.fromkeys(names):
        some = points[names == name]
        axis.plot(*some.T, ".", ms=3, mew=0, color=_colour(name), alpha=0.7, zorder=3)


def _shrunk(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) in the same directions, at the square roots of their distances."""
    return points / np.sqrt(np.hypot(*points.T))[:, None]


def summary(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each a + b + carry its mean points, its angles after the MLP and where it has to be."""
    table = pd.DataFrame(rows)
    names, points = part(table, "after")
    before, after = means(table, "before"), means(table, "after")
    sector = {name: f"{start:.1f} to {end:.1f}" for name, start, end in sectors(table)}
    found = []
    for k in range(20):
        turn = angle(points[names == str(k)])
        found.append(
            {
                "a+b+carry": str(k),
                "before": f"{before[k][0]:.1f}, {before[k][1]:.1f}",
                "after": f"{after[k][0]:.0f}, {after[k][1]:.0f}",
                "angle": f"{turn.min():.1f} to {turn.max():.1f}",
                "sector": sector[str(k % 10)],
            }
        )
    return found
