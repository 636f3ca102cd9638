"""Scratchpads compared: what models of one shape learn from each in equal training time.

Reads `results/reference/traces.csv`, which `python -m benchmarks.traces` writes; `docs/traces.md`
shows what the designs look like.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from analysis import load, style
from analysis.studies import common

COLUMNS = (
    "task design digits seed steps cpu_seconds tokens longest date len_a len_b n answer_correct"
).split()
SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}


def collect(*files: str | Path) -> pd.DataFrame:
    """The rows of tables that benchmarks/traces.py wrote. Raises ValueError."""
    tables = [load.read_table(file, COLUMNS)[COLUMNS] for file in files]
    return pd.concat(tables, ignore_index=True)


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) by operand lengths, a dot per run of each design.

    A panel for each task and longest operand; upright lines are Wilson 95 % intervals. Takes
    `collect`; raises ValueError if there are no rows.
    """
    table = load.with_accuracy(table)
    panels = list(table.groupby(["task", "digits"], sort=False))
    if not panels:
        raise UsageError("there is nothing to draw: the table has no rows")
    figure, axes = style.panels(len(panels), columns=3, width=4.6, height=3.2)
    for axis, ((task, size), part) in zip(axes, panels, strict=True):
        designs = list(dict.fromkeys(part["design"]))
        for number, design in enumerate(designs):
            shift = 0.7 * ((number + 0.5) / len(designs) - 0.5)
            _dots(axis, part[part["design"] == design], shift, number)
        pairs = _pairs(part)
        names = [f"{a} {SIGNS.get(task, '·')} {b}" for a, b in pairs]
        axis.set_xticks(range(len(pairs)), names)
        axis.set(xlim=(-0.5, len(pairs) - 0.5), ylim=(-3, 103))
        axis.set(xlabel="operand lengths (digits)", ylabel="exact match (%)")
        seconds = part["cpu_seconds"].median()
        axis.set_title(f"{task}, to {size} digits, {seconds:.0f} s of one core")
        key = [
            Line2D([], [], marker="o", ls="", color=style.line(number)["color"], label=design)
            for number, design in enumerate(designs)
        ]
        axis.legend(handles=key, loc="upper left", bbox_to_anchor=(1, 1))
    figure.suptitle(f"scratchpads in equal training time, n = {table['n'].min():,} a cell")
    return figure


def describe(table: pd.DataFrame) -> str:
    """Exact match in percent as a table in text, a row per design, a column per operand lengths."""
    pairs = _pairs(table)
    rows = []
    for (task, digits, design), part in table.groupby(["task", "digits", "design"], sort=False):
        cells = part.groupby(["len_a", "len_b"])[["answer_correct", "n"]].sum()
        shown = [percent(*cells.loc[pair]) if pair in cells.index else "" for pair in pairs]
        rows.append([task, str(digits), design, *shown])
    return common.markdown(["task", "digits", "design", *(f"{a}, {b}" for a, b in pairs)], rows)


def _pairs(part: pd.DataFrame) -> list[tuple[int, int]]:
    return list(dict.fromkeys(zip(part["len_a"], part["len_b"], strict=True)))


def _dots(axis: Axes, rows: pd.DataFrame, shift: float, number: int) -> None:
    pairs = _pairs(rows)
    across = [pairs.index(pair) + shift for pair in zip(rows["len_a"], rows["len_b"], strict=True)]
    middle = 100 * rows["accuracy"]
    ends = np.abs(100 * rows[["low", "high"]].to_numpy().T - middle.to_numpy())
    look = {"fmt": "o", "ms": 4, "lw": 1.2, "color": style.line(number)["color"]}
    axis.errorbar(across, middle, yerr=ends, **look)
