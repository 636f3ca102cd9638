"""How every figure looks, and how one is saved.

Figures are made without pyplot, so that drawing needs no screen, opens no window and changes no
setting of whoever draws.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from addgpt.runs.files import write_atomically

DPI = 150
COLOURS = sns.color_palette("colorblind", 10)
DASHES = ("-", "--", ":", "-.")
HEAT = "cividis"  # even in lightness, and the same to colour-blind eyes
ANNOTATED = 10  # the longest side of a length map whose cells can hold a legible number
MARK = "#d55e00"  # what stands out against HEAT and the lines


def styled(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """A drawing function that draws in the project's style, wherever it is called."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **options: Any) -> Figure:
        look = sns.axes_style("whitegrid") | sns.plotting_context("notebook", font_scale=0.9)
        small = {"axes.titlesize": 11, "figure.titlesize": 12, "legend.frameon": False}
        with matplotlib.rc_context(look | small):
            return draw(*args, **options)

    return wrapper


def panels(
    count: int, columns: int = 2, width: float = 4.6, height: float | Sequence[float] = 3.6
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, filled row by row, and the list of its axes.

    `width` and `height` in inches are one panel's; a list of heights gives one for each panel, of
    which each row takes the largest.
    """
    columns = min(count, columns)
    each = np.zeros(-(-count // columns) * columns)
    each[:count] = height
    rows = each.reshape(-1, columns).max(1)
    figure = Figure(figsize=(width * columns, rows.sum() + 0.3), layout="constrained")
    grid = {"height_ratios": rows}
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw=grid).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of line number `index`: 40 that can be told apart."""
    turn = index // len(COLOURS) % len(DASHES)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[turn]}


def length_map(
    axis: Axes, share: pd.DataFrame, texts: pd.DataFrame | None = None, size: int = 9
) -> None:
    """Heat map of exact match over the lengths (digits) of both operands, first operand upwards.

    Args:
        share: in 0..1, the first operand's lengths down, the second one's across.
        texts: what stands in the cells, if anything does.
        size: of these texts, in points.
    """
    sns.heatmap(
        100 * share,
        vmin=0,
        vmax=100,
        cmap=HEAT,
        square=True,
        cbar=False,
        annot=texts,
        fmt="",
        annot_kws={"fontsize": size},
        linewidths=0.5,
        ax=axis,
    )
    axis.invert_yaxis()
    axis.set(xlabel="length of b (digits)", ylabel="length of a (digits)")


def legend(figure: Figure, handles: list[Artist]) -> None:
    """A legend below the panels, in as many columns as fit; the figure grows to hold it."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    entry = 0.7 + 0.08 * max(len(str(handle.get_label())) for handle in handles)  # inches
    columns = max(1, min(len(handles), int(width / entry)))
    figure.set_size_inches(width, height + 0.1 + 0.22 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def percent(right: int, n: int) -> str:
    """`right` of `n` in percent, rounded down: "100" and "0" only where all or none are right."""
    if right == n or right == 0:
        return "100" if right else "0"
    return f"{max(0.1, np.floor(1000 * right / n) / 10):.1f}"


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as png, so that the file is either its old or its new self; returns the path.

    Raises RunError if it cannot be written.
    """
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    write_atomically(Path(path), image.getvalue())
    return Path(path)
