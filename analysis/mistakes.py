"""Where answers go wrong: wrong answers by kind, and by digit of the answer or line of the trace.

Each function takes `load.error_counts` of one run and returns a matplotlib Figure.
`addgpt.evaluation.mistakes` says what the kinds are, and in which order they apply.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from addgpt.config.errors import UsageError
from addgpt.evaluation.schema import operation_of
from analysis import style

ANNOTATED = 12  # the most columns of a heat map whose cells can hold a legible number
LABELS = 14  # the most columns that can all be labelled
NOWHERE = "none"


@style.styled
def mistakes_by_digit(counts: pd.DataFrame) -> Figure:
    """Heat map of wrong answers by kind and lowest wrong digit (0: the ones), one per op.

    Of a quotient with remainder, `q0` is the ones of the quotient and `r0` those of the remainder.
    Mistakes without a digit (wrong sign, no answer) stand apart on the left. Raises ValueError if
    there are no rows, or rows of several runs.
    """
    place = counts["part"].str[:1] + counts["digit"].map("{:.0f}".format).astype(str)
    counts = counts.assign(where=place.where(counts["digit"].notna(), NOWHERE))
    return _heat_maps(counts, "lowest wrong digit of the answer (0: ones)", _every_digit)


@style.styled
def mistakes_by_line(counts: pd.DataFrame) -> Figure:
    """Heat map of wrong answers by kind and first wrong line of the trace, one per op.

    Mistakes after a right trace stand apart on the left. Raises ValueError if no trace is wrong, or
    if there are rows of several runs.
    """
    traced = counts.groupby("op")["line"].transform(lambda lines: lines.notna().any())
    counts = counts[traced.astype(bool)]
    line = counts["line"].map("{:.0f}".format)
    counts = counts.assign(where=line.where(counts["line"].notna(), NOWHERE))
    return _heat_maps(counts, "first wrong line of the trace", _every_line)


def _heat_maps(
    counts: pd.DataFrame, across: str, columns: Callable[[pd.DataFrame], list[str]]
) -> Figure:
    runs = list(dict.fromkeys(counts["run"]))
    if len(runs) != 1:
        found = f"{len(runs)}: {', '.join(runs)}" if runs else "none"
        raise UsageError(f"mistakes are drawn for one run that has some, not {found}")
    parts = [part for _, part in counts.groupby("op", sort=False)]
    heights = [1.3 + 0.36 * part["kind"].nunique() for part in parts]
    figure, axes = style.panels(len(parts), width=5.6, height=heights)
    for axis, part in zip(axes, parts, strict=True):
        _heat(axis, part, columns(part))
        axis.set(xlabel=across, ylabel="")
        axis.set_title(f"{operation_of(part.iloc[0])}    {part['n'].sum():,} wrong")
    figure.suptitle(f"{runs[0]}: wrong answers by kind and place")
    return figure


def _heat(axis: Axes, part: pd.DataFrame, columns: list[str]) -> None:
    """One op's heat map, the most frequent kind on top."""
    kinds = part.groupby("kind")["n"].sum().sort_values(ascending=False, kind="stable").index
    table = part.pivot_table(index="kind", columns="where", values="n", aggfunc="sum")
    table = table.reindex(index=kinds, columns=columns)
    annotated = len(columns) <= ANNOTATED
    counts = np.ma.masked_invalid(table.to_numpy(float))  # blank where nothing is wrong
    look = {"cmap": style.COUNTS, "vmin": 0, "edgecolors": style.PAPER, "linewidth": 0.5}
    shades = axis.pcolormesh(counts, **look)
    for (row, column), n in np.ma.ndenumerate(counts):
        if annotated:
            ink = style.INK if n > 0.6 * counts.max() else style.PAPER
            place = column + 0.5, row + 0.5
            axis.text(*place, f"{n:,.0f}", ha="center", va="center", color=ink, fontsize=8)
    axis.invert_yaxis()
    axis.grid(False)
    axis.spines[:].set_visible(False)
    bar = axis.figure.colorbar(shades, ax=axis, label="wrong answers")
    bar.outline.set_visible(False)
    every = -(-len(columns) // LABELS)
    axis.set_xticks(np.arange(0, len(columns), every) + 0.5, columns[::every], rotation=0)
    axis.set_yticks(np.arange(len(kinds)) + 0.5, kinds, rotation=0)
    if NOWHERE in columns and len(columns) > 1:
        axis.axvline(1, color="black", linewidth=1.2)


def _every_digit(part: pd.DataFrame) -> list[str]:
    """`none` if needed, then all digits up to the highest, of the quotient before the remainder."""
    columns = [NOWHERE] if part["digit"].isna().any() else []
    for name, highest in part.groupby("part")["digit"].max().dropna().items():
        columns += [f"{name[:1]}{k}" for k in range(int(highest) + 1)]
    return columns


def _every_line(part: pd.DataFrame) -> list[str]:
    columns = [NOWHERE] if part["line"].isna().any() else []
    return columns + [str(k) for k in range(1, int(part["line"].max()) + 1)]
