"""Figures of what `addgpt inspect` finds: attention on paper, ablations, patches, probes,
spectra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from addgpt.evaluation.intervals import percent
from analysis import style
from analysis.grokking import LEAST_LOSS, LOSSES

Rows = Sequence[Mapping[str, Any]]
LINE = 1.45  # between lines on paper, in columns
MARGIN = 0.45  # above the first line and below the last, in lines
TITLE = 0.35  # height of the title over each head, inches
LEAST_LOOK = 0.05  # share of attention that is drawn
MOST_COLUMNS = 40  # of a heat map


@style.styled
def draw_attention(data: Mapping[str, Any]) -> Figure:
    """Attention, a panel for each head of each block: arcs over the work as on paper.

    `data` is what `addgpt.interpret.page.attention_page_data` returns.
    """
    tokens, heads = data["tokens"], data["heads"]
    columns = [token["column"] for token in tokens]
    wide, high = max(columns) - min(columns) + 3, len(data["rows"]) - 1 + 2 * MARGIN
    size = min(0.3, 9 / wide)  # inches a column
    across = max(1, min(heads, int(11 // (size * wide))))
    each = [(block, head) for block in range(data["blocks"]) for head in range(heads)]
    figure, axes = style.panels(len(each), across, size * wide, size * LINE * high + TITLE)
    for (block, head), axis in zip(each, axes, strict=True):
        _paper(axis, data, block, head)
        name = data["names"][block][head]
        axis.set_title(f"head {block}.{head}\n{name}", fontsize=9)
    return figure


def _paper(axis: Axes, data: Mapping[str, Any], block: int, head: int) -> None:
    tokens = data["tokens"]

    def place(number: int) -> tuple[float, float]:
        token = tokens[number]
        up = 0.3 if token["small"] else 0
        return token["column"] + (0.45 if token["small"] else 0), -LINE * token["row"] + up

    for number, slot in enumerate(data["slots"]):
        for at, share in slot["looks"][block][head]:
            if share < LEAST_LOOK:
                continue
            look = {"color": style.COLOURS[number % 4], "linewidth": 0.4 + 2.2 * share}
            bend = f"arc3,rad={0.2 if number % 2 else -0.2}"
            arrow = FancyArrowPatch(
                place(slot["token"]), place(at), connectionstyle=bend, arrowstyle="-", alpha=0.55,
                **look,
            )  # fmt: skip
            axis.add_patch(arrow)
    for number, token in enumerate(tokens):
        x, y = place(number)
        kind = {"fontsize": 7 if token["small"] else 11, "family": "monospace"}
        shown = {"\n": "↵", " ": "␣"}.get(token["char"], token["char"])
        weight = "bold" if number >= data["prompt"] else "normal"
        axis.text(x, y, shown, ha="center", va="center", weight=weight, zorder=3, **kind)
    columns = [token["column"] for token in tokens]
    axis.set_xlim(min(columns) - 1, max(columns) + 1.5)
    axis.set_ylim(-LINE * (len(data["rows"]) - 1 + MARGIN), LINE * MARGIN)
    axis.axis("off")


@style.styled
def draw_ablation(rows: Rows) -> Figure:
    """Exact match without each part, by the row where it is removed; which digits break."""
    table = pd.DataFrame(rows)
    table["share"] = table["right"] / table["n"]
    taken = table[table["part"] != "none"]
    whole = taken[taken["row"] == "all"]
    digits = taken[(taken["row"] != "all") & (taken["at"] == "all")].copy()
    digits["slot"] = digits["row"] + " " + digits["column"].astype(str)
    maps = []
    for how in ("zero", "mean"):
        given = {"zero": "zeros", "mean": "its mean"}[how]
        for title, some, across in (
            (f"{given} in place of a part, in these rows:\nall of the work right (%)", whole, "at"),
            (f"{given} in place of a part:\ntokens right (%), by row and column", digits, "slot"),
        ):
            part = some[some["how"] == how]
            grid = part.pivot(index="part", columns=across, values="share")
            order = dict.fromkeys(part[across]), dict.fromkeys(part["part"])
            maps.append((title, grid.reindex(columns=list(order[0]), index=list(order[1]))))
    most = max(grid.shape[1] for _, grid in maps)
    size = 0.6 if most <= 8 else 0.34 if most <= MOST_COLUMNS else 0.12
    width, height = 1.6 + size * most, 1.3 + 0.34 * maps[0][1].shape[0]
    figure, axes = style.panels(len(maps), 2 if most <= 12 else 1, max(4.2, width), height)
    for axis, (title, grid) in zip(axes, maps, strict=True):
        axis.set_title(title, fontsize=10)
        _heat(axis, grid, most <= 12)
    figure.suptitle(f"n = {table['n'].max():,}", fontsize=10)
    return figure


@style.styled
def draw_cascades(rows: Rows) -> Figure:
    """Exact match without each part, by how far a carry travels."""
    table = pd.DataFrame(rows)
    table["share"] = table["right"] / table["n"]
    order = dict.fromkeys(table["cell"])
    names = list(dict.fromkeys(table["part"]))
    across = 2 if len(order) <= 12 else 1
    size = (max(4.2, 1.6 + 0.45 * len(order)), 1.3 + 0.34 * len(names))
    figure, axes = style.panels(2, across, *size)
    for axis, how in zip(axes, ("zero", "mean"), strict=True):
        part = table[table["how"].isin(("none", how))]
        grid = part.pivot(index="part", columns="cell", values="share")
        given = {"zero": "zeros", "mean": "its mean"}[how]
        axis.set_title(f"{given} in place of a part: exact match (%)", fontsize=10)
        _heat(axis, grid.reindex(columns=list(order), index=names), len(order) <= 12)
    return figure


def _heat(axis: Axes, grid: pd.DataFrame, numbers: bool) -> None:
    """Shares by part (down) and row or slot (across)."""
    values = grid.to_numpy(float)
    axis.imshow(values, cmap=style.COUNTS, vmin=0, vmax=1, aspect="auto")
    every = max(1, grid.shape[1] // MOST_COLUMNS)
    axis.set_xticks(range(0, grid.shape[1], every), grid.columns[::every], rotation=90, fontsize=8)
    axis.set_yticks(range(len(grid)), grid.index, fontsize=8)
    axis.grid(False)
    for (row, column), value in np.ndenumerate(values):
        if numbers and np.isfinite(value):
            text = percent(value, 1).removesuffix(".0")
            colour = style.INK if value > 0.5 else style.PAPER
            axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)


@style.styled
def draw_patching(rows: Rows) -> Figure:
    """In how many pairs each part transfers the carry."""
    figure, (axis,) = style.panels(1, 1, 5, 1 + 0.3 * len(rows))
    left = np.zeros(len(rows))
    names = [row["part"] for row in rows]
    for index, what in enumerate(("carried", "other", "kept")):
        share = np.array([100 * row[what] / max(1, row["n"]) for row in rows])
        axis.barh(names, share, left=left, label=what, color=style.COLOURS[(0, 7, 6)[index]])
        left += share
    axis.invert_yaxis()
    axis.set(xlabel=f"pairs (%), n = {rows[0]['n']:,}", xlim=(0, 100))
    style.legend(figure, axis.get_legend_handles_labels()[0])
    return figure


@style.styled
def draw_probes(rows: Rows) -> Figure:
    """Held-out accuracy of probes by place in the stream, a panel for each row of the work."""
    figure, kinds = style.panels_by(pd.DataFrame(rows), "row", 3, 3.4, 2.9)
    for axis, kind, part in kinds:
        for index, name in enumerate(("accuracy", "control", "majority")):
            look = style.line(index) | {"marker": "o" if not index else None}
            axis.plot(part["place"], 100 * part[name], label=name, **look)
        axis.set(title=f"{kind}: {part['probe'].iat[0]} (n = {part['n'].iat[0]:,})", ylim=(-2, 102))
        axis.set_ylabel("held-out accuracy (%)")
    look = ("accuracy", "control: shuffled labels", "most frequent class")
    handles = [Line2D([], [], label=name, **style.line(i)) for i, name in enumerate(look)]
    style.legend(figure, handles)
    return figure


@style.styled
def draw_spectrum(rows: Rows) -> Figure:
    """Share of power by frequency, a panel for each table."""
    figure, tables = style.panels_by(pd.DataFrame(rows), "table", 2, 4.2, 2.8)
    for axis, name, part in tables:
        axis.bar(part["frequency"], 100 * part["share"], color=style.COLOURS[0])
        axis.set(title=name, xlabel="frequency (waves over all numbers)", ylabel="power (%)")
    return figure


@style.styled
def draw_grokking(rows: Rows) -> Figure:
    """Exact match on train and val, and losses with progress measures, over steps."""
    table = pd.DataFrame(rows)
    figure, axes = style.panels(2, 2, 4.6, 3.4)
    for index, split in enumerate(("train", "val")):
        axes[0].plot(table["step"], 100 * table[f"{split}_exact"], label=split, **style.line(index))
    axes[0].set(ylabel="exact match (%)", ylim=(-2, 102))
    axes[0].legend()
    for index, (name, label) in enumerate(LOSSES.items()):
        loss = table[name].clip(lower=LEAST_LOSS)
        axes[1].plot(table["step"], loss, label=label, **style.line(index))
    axes[1].set(ylabel="loss (nats)", yscale="log")
    axes[1].legend()
    for axis in axes:
        axis.set(xlabel="step", xscale="log")
    return figure
