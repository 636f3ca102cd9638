"""How every figure looks, and how one is saved.

Figures are made without pyplot, so that drawing needs no screen, opens no window and changes no
setting of whoever draws.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 150
PANEL = (4.2, 3.4)  # inches, width and height of one panel
COLOURS = sns.color_palette("colorblind", 10)
DASHES = ("-", "--", ":", "-.")
HEAT = "cividis"  # even in lightness, and the same to colour-blind eyes
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
    count: int, columns: int = 2, size: tuple[float, float] = PANEL
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, filled row by row; `size` in inches is one panel's."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[count:]:
        spare.remove()
    return figure, list(axes[:count])


def line(index: int) -> dict[str, Any]:
    """Colour and dashes of line number `index`: 40 that can be told apart."""
    turn = index // len(COLOURS) % len(DASHES)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[turn]}


def legend(figure: Figure, handles: list[Any], columns: int = 3) -> None:
    """A legend below the panels."""
    if handles:
        columns = min(columns, len(handles))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns)


def percent(right: int, n: int) -> str:
    """`right` of `n` in percent, rounded down: "100" and "0" only where all or none are right."""
    if right == n or right == 0:
        return "100" if right else "0"
    return f"{max(0.1, np.floor(1000 * right / n) / 10):.1f}"


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as png, so that the file is either its old or its new self; returns the path.

    Raises OSError if it cannot be written.
    """
    path = Path(path)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=DPI)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(image.getvalue())
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    return path
