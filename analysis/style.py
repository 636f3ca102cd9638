"""How every figure looks, and how one is saved or becomes part of a page.

Figures are made without pyplot, so that drawing needs no screen, opens no window and changes no
setting of whoever draws.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure

from addgpt.runs.files import write_atomically

DPI = 150
MOST_PIXELS = 6_000_000
COLOURS = (  # told apart by colour-blind eyes, too
    "#0173b2 #de8f05 #029e73 #d55e00 #cc78bc #ca9161 #fbafe4 #949494 #ece133 #56b4e9"
).split()
DASHES = ("-", "--", ":", "-.")
INK, PAPER = "#000000", "#ffffff"
SOFT, RULE = "#262626", "#cccccc"  # text beside a drawing; its grid and frame
MARK = "#d55e00"  # seen against both the shades and the lines
COUNTS = "cividis"  # of heat maps that count; even in lightness, the same to colour-blind eyes

# A length map has nine shades: the ends of eight in percent, and one for 100 % alone.
ENDS = (10, 25, 50, 75, 90, 95, 99, 100)
SHADES = "#5c1a24 #852c2d #ac4231 #d66f43 #e08a48 #ecae62 #f5cd85 #f8e6b4 #c3e0da".split()
ON_SHADE = [PAPER] * 3 + [INK] * 6  # colour of a number that stands on it
ANNOTATED = 10  # the longest side of a length map whose cells can hold a legible number


LOOK = {
    "axes.axisbelow": True,
    "axes.edgecolor": RULE,
    "axes.grid": True,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 10.8,
    "axes.linewidth": 1.25,
    "axes.titlesize": 11,
    "figure.titlesize": 12,
    "font.size": 10.8,
    "grid.color": RULE,
    "grid.linewidth": 1,
    "legend.fontsize": 9.9,
    "legend.frameon": False,
    "patch.edgecolor": PAPER,
    "patch.force_edgecolor": True,
    "text.color": SOFT,
    "text.parse_math": False,  # in names of runs, which may hold dollars
    **{f"{axis}tick.{name}": look
       for axis, tick in (("x", "bottom"), ("y", "left"))
       for name, look in ((tick, False), ("color", SOFT), ("labelsize", 9.9))},
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One part of a figure, drawn onto axes by `draw`; `title` and `note` say what it shows.

    `width` and `height` are in inches.
    """

    title: str
    note: str
    draw: Callable[[Axes], object]
    width: float = 4.6
    height: float = 3.6


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """A drawing function that draws in the project's style, wherever it is called."""

    @functools.wraps(draw)
    def wrapper(*args: Any, **options: Any) -> Any:
        with matplotlib.rc_context(LOOK):
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


def panels_by(
    table: pd.DataFrame, column: str, columns: int, width: float, height: float
) -> tuple[Figure, list[tuple[Axes, Any, pd.DataFrame]]]:
    """A figure with a panel for each value of a column: axes, the value, its rows of the table."""
    groups = list(table.groupby(column, sort=False))
    figure, axes = panels(len(groups), columns, width, height)
    return figure, [(axis, *group) for axis, group in zip(axes, groups, strict=True)]


def compose(parts: Sequence[Panel], columns: int = 2) -> tuple[Figure, list[Axes]]:
    """All panels in one figure, each under its title and note, and the list of its axes."""
    heights = [part.height for part in parts]
    figure, axes = panels(len(parts), columns, max(part.width for part in parts), heights)
    for part, axis in zip(parts, axes, strict=True):
        part.draw(axis)
        axis.set_title("\n".join(filter(None, (part.title, part.note))))
    return figure, axes


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of line number `index`: 40 that can be told apart."""
    turn = (index + index // 20) % len(DASHES)  # so that no two of 40 have both in common
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[turn]}


def shade(share: float) -> int:
    """Number of the shade for a share of right answers: 0 the worst, 8 only if all are right."""
    return sum(100 * share >= end for end in ENDS)


def length_map(
    axis: Axes,
    share: pd.DataFrame,
    texts: pd.DataFrame | None = None,
    size: int = 9,
    counted: bool = False,
) -> None:
    """Heat map of exact match over the lengths (digits) of both operands, first operand upwards.

    Args:
        share: in 0..1, the first operand's lengths down, the second one's across.
        texts: what stands in the cells, if anything does.
        size: of these texts, in points.
        counted: whether what goes down is how many operands there are.
    """
    values = np.ma.masked_invalid(100 * share.to_numpy(float))
    shades = {"cmap": ListedColormap(SHADES), "norm": BoundaryNorm([0, *ENDS, 101], len(SHADES))}
    axis.pcolormesh(values, edgecolors=PAPER, linewidth=0.5, **shades)
    for (row, column), value in np.ndenumerate(share.to_numpy(float)):
        if texts is not None and np.isfinite(value):
            number = shade(value)
            look = {"color": ON_SHADE[number], "gid": f"on{number}", "fontsize": size}
            place = column + 0.5, row + 0.5
            axis.text(*place, texts.iat[row, column], ha="center", va="center", **look)
    axis.set_aspect("equal")
    axis.grid(False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    every = -(-max(share.shape) // 20)
    for ticks, ends in ((axis.set_xticks, share.columns), (axis.set_yticks, share.index)):
        ticks(np.arange(0, len(ends), every) + 0.5, ends[::every], rotation=0)
    names = ("length of each", "operands") if counted else ("length of b", "length of a (digits)")
    axis.set(xlabel=f"{names[0]} (digits)", ylabel=names[1])


def shade_bar(figure: Figure, axes: Sequence[Axes]) -> None:
    """What the shades of length maps stand for, beside them."""
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.8, spacing="uniform")
    bar.set_ticks([0, *ENDS[:-1], 100.5], labels=[*map(str, (0, *ENDS[:-1])), "100"])
    bar.ax.tick_params(which="both", length=0)
    bar.set_label("exact match (%)")
    bar.outline.set_visible(False)


def legend(figure: Figure, handles: list[Artist]) -> None:
    """A legend below the panels, in as many columns as fit; the figure grows to hold it."""
    if not handles:
        return
    width, height = figure.get_size_inches()
    entry = 0.7 + 0.08 * max(len(str(handle.get_label())) for handle in handles)  # inches
    columns = max(1, min(len(handles), int(width / entry)))
    figure.set_size_inches(width, height + 0.1 + 0.22 * -(-len(handles) // columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as png, atomically: the old file or the new one; returns the path.

    A very large one has fewer pixels an inch, and few colours. Raises RunError if it cannot be
    written.
    """
    image, (width, height) = io.BytesIO(), figure.get_size_inches()
    dpi = min(DPI, (MOST_PIXELS / (width * height)) ** 0.5)
    figure.savefig(image, format="png", dpi=dpi)
    content = image.getvalue()
    write_atomically(Path(path), content if dpi == DPI else _with_few_colours(content))
    return Path(path)


def _with_few_colours(content: bytes) -> bytes:
    """A png with a palette of 64."""
    from PIL import Image

    small = io.BytesIO()
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.quantize(64, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()
