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
UNITS = (-30, -24), (30, -11), (42, 6), (4, -14)  # from the ends of their lines to their names


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
        axis.set(xlabel="channel 0", ylabel="channel 1")
    return figure


def _colour(name: str) -> str:
    """Of the digit that is to be written, or of the end."""
    if name in (END, ONE):
        return style.INK if name == END else style.COLOURS[1]
    return style.COLOURS[int(name) % 10] if name.isdigit() else style.SOFT


def _say(
    axis: Axes, at: np.ndarray, text: str, away: Sequence[float] = (0, 0), size: float = 9
) -> None:
    """A text that many points (72 to the inch) away from a place."""
    look = {"fontsize": size, "ha": "center", "va": "center", "zorder": 5}
    said = axis.annotate(text, at, away, textcoords="offset points", **look)
    said.set_path_effects([withStroke(linewidth=2, foreground=style.PAPER, alpha=0.8)])


def _frame(axis: Axes, points: np.ndarray, margin: float) -> None:
    """Limits of a square that holds points and the origin, and a margin in shares of its side."""
    every = np.r_[points, [[0, 0]]]
    middle = (every.max(0) + every.min(0)) / 2
    side = (1 + 2 * margin) * float(np.ptp(every, axis=0).max())
    low, high = middle - side / 2, middle + side / 2
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))


def _arrow(axis: Axes, start: np.ndarray, end: np.ndarray) -> None:
    look = {"arrowstyle": "-|>", "color": style.INK, "lw": 1, "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=look, zorder=4)


def _adds(axis: Axes, table: pd.DataFrame) -> None:
    (letters, tokens), (digits, adds) = part(table, "token"), part(table, "adds")
    names, steps = part(table, "sum")
    _frame(axis, np.r_[tokens, adds, steps], 0.17)
    for one, xy in zip(letters, tokens, strict=True):
        axis.plot(*xy, "o", color=_colour(one), ms=5, zorder=3)
        if one not in DIGITS:
            _say(axis, xy, one, (-10 if one == "=" else 11, 2))
        elif int(one) % 3 == 0:  # there is no room for all
            _say(axis, xy, one, 11 * xy / np.hypot(*xy))
    for one, xy in zip(digits, adds, strict=True):
        if one in DIGITS:
            axis.plot(*xy, "s", color=_colour(one), ms=5, zorder=3)
            _say(axis, xy, one, (11, -6))
    _, _, first, second, before = names
    a1, b1, written = before.split(", ")
    for one, start, end in zip(names[1:], steps[:-1], steps[1:], strict=True):
        _arrow(axis, start, end)
        beside = {"+ and =": (-28, 0), before: (29, 6)}.get(one, (0, 10))
        _say(axis, (start + end) / 2, f"({one})" if one == before else one, beside)
    rows = means(table, "before")
    axis.plot(*rows.T, color=style.RULE, lw=2, zorder=1)
    _say(axis, rows[12], "a + b + carry\n(next panel)", (50, -8))
    _say(axis, tokens[4], "tokens", (-30, 27))
    _say(axis, adds[9], "what a digit\nadds", (-50, 10))
    _say(axis, steps[-1], str(int(first) + int(second) + 1), (14, -9))
    axis.set_title(
        f"What attention adds up: {first}+{second}\n"
        f"where {a1}+{b1} wrote {written} just before: ({before})"
    )


def _before(axis: Axes, table: pd.DataFrame) -> None:
    names, points = part(table, "before")
    size, tips = float(np.hypot(*points.T).max()) / 60, [points]
    _cloud(axis, names, points)
    for k, xy in enumerate(means(table, "before")):
        _say(axis, xy, str(k), (15, -8), 8)
    units = part(table, "unit")[1]
    for number, (x, y) in enumerate(units):
        side = np.array([x, y]) / np.hypot(x, y)
        along = size * np.array([y, -x]) / np.hypot(x, y)
        along *= np.sign(along @ points.mean(0))  # towards the points
        tip, end = (58 * along, 0 * along) if number % 2 else (-22 * along, 58 * along)
        tips.append(tip[None])
        axis.plot(*np.array([tip, end]).T, color=style.SOFT, lw=1)
        _arrow(axis, tip, tip + 6 * size * side)
        away = UNITS[number] if len(units) == len(UNITS) else 48 * side
        _say(axis, tip, f"unit {number}", away)
    _frame(axis, np.concatenate(tips), 0.08)
    _ends(axis, names, points, ((-50, -14), (-50, 14)))
    axis.set_title("Before the MLP: a + b + carry,\nand the sides where units work")


def _after(axis: Axes, table: pd.DataFrame) -> None:
    names, points = part(table, "after")
    points = _shrunk(points)
    _frame(axis, points, 0.24)
    _sectors(axis, table)
    _cloud(axis, names, points)
    ways = _shrunk(means(table, "after"))
    for some in (ways[:10], ways[10:]):
        axis.plot(*some.T, color=style.SOFT, lw=0.6, zorder=2)
    for k, xy in enumerate(ways):
        right = k < 3 or k in (10, 11, 12)
        _say(axis, xy, str(k), (15, -2) if right else (-14, -4) if k < 10 else (2, 15), 8)
    _ends(axis, names, points, ((46, 22), (52, 18)))
    axis.set(xticks=[], yticks=[])
    axis.set_title("After the MLP, and who wins where\n(distances as their square roots)")


def _sectors(axis: Axes, table: pd.DataFrame) -> None:
    """Where each token wins, shaded, with its character near the edge."""
    limits = np.array([axis.get_xlim(), axis.get_ylim()])  # (2, 2)
    far = 2 * np.ptp(limits)
    for name, start, end in sectors(table):
        turn = np.radians(np.linspace(start, end, 60))
        edge = far * np.c_[np.cos(turn), np.sin(turn)]
        shade = {"color": _colour(name), "alpha": 0.22 if name in DIGITS else 0.06, "lw": 0}
        axis.add_patch(Polygon(np.r_[[[0, 0]], edge], **shade))
        axis.plot(*np.c_[[0, 0], edge[0]], color=style.PAPER, lw=1)
        middle = np.radians((start + end) / 2)
        ray = np.array([np.cos(middle), np.sin(middle)])
        inset = limits + 0.045 * np.ptp(limits, axis=1, keepdims=True) * [1, -1]
        reach = (inset / ray[:, None]).max(1).min()
        axis.text(*(reach * ray), name, weight="bold", ha="center", va="center", fontsize=11)


def _ends(
    axis: Axes, names: np.ndarray, points: np.ndarray, aways: Sequence[Sequence[float]]
) -> None:
    """What stands above the highest digits is named, that far away."""
    look = {"arrowprops": {"arrowstyle": "-", "color": style.SOFT, "lw": 0.6}, "fontsize": 8}
    for one, away in zip((END, ONE), aways, strict=True):
        place = points[names == one].mean(0)
        said = f"{one} (#)" if one == END else one
        axis.annotate(
            said, place, away, textcoords="offset points", ha="center", va="center", **look
        )


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
                "sector": sector.get(str(k % 10), "never"),
            }
        )
    return found
