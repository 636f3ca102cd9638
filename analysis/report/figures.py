"""Which figures the report shows of a group of runs, and of the groups of a task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter

import numpy as np
import pandas as pd
from markupsafe import Markup

from addgpt.evaluation.intervals import percent
from addgpt.evaluation.schema import operation_of
from analysis import figures, style
from analysis.report.data import Group, RunData, table
from analysis.report.svg import Drawings, sample
from analysis.style import Panel

MOST_POINTS = 200  # of a line
MOST_LINES = 8  # configurations of a task that are compared; the best ones


Drawn = tuple[tuple[Panel, Markup], ...]  # panels, which have a title and a note, with their svg


@dataclass(frozen=True)
class Figures:
    """The figures of a group.

    training  curves against examples and seconds
    lengths   of each operation the heat map, then the curve by length
    cells     of each operation the numbers of the heat map: lengths of b, and by length of a
    key       stroke and name of the lines, where there are several runs
    shades    those that the heat maps use, the best first
    seen      whether a cell holds nothing out
    outlined  whether the lengths trained on are known
    """

    training: Drawn
    lengths: Drawn
    cells: dict[str, tuple[str, dict[str, str]]]
    key: tuple[tuple[str, str], ...]
    shades: tuple[int, ...]
    seen: bool
    outlined: bool


def draw(group: Group, drawings: Drawings) -> Figures:
    names = {run.name: f"seed {run.config['seed']} ({run.name})" for run in group.runs}
    cells = evals = table(group, "evals")
    by_length: list[Panel] = []
    if len(evals):
        cells = figures.grid(evals, ["op", "len_a", "len_b"])
        runs = len(set(evals["run"]))
        added = f", {runs} runs added up" if runs > 1 else ""
        by_length = [replace(p, note=p.note + added) for p in figures.grid_panels(evals)]
        by_length += figures.length_panels(evals.groupby("op").filter(_is_a_line))
    parts = cells.groupby("op", sort=False) if len(cells) else ()
    return Figures(
        training=_drawn(_training(group.runs, names), drawings),
        lengths=_drawn(by_length, drawings),
        cells={operation_of(part.iloc[0]): _numbers(part) for _, part in parts},
        key=_key(names.values()),
        shades=tuple(sorted({style.shade(a) for a in cells.get("accuracy", ())}, reverse=True)),
        seen=len(cells) > 0 and bool(cells["seen"].any()),
        outlined=len(cells) > 0 and bool(cells["trained"].notna().any()),
    )


def compared(groups: Sequence[Group], drawings: Drawings) -> list[tuple[str, int, tuple, tuple]]:
    """For each task with several groups: its name, how many they are, their key and curves.

    Of more than `MOST_LINES`, those that were best at their last validation are drawn.
    """
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(str(group.runs[0].config["task"]), []).append(group)
    found = []
    for task, parts in tasks.items():
        best = sorted(parts, key=_last)[:MOST_LINES]
        names = {run.name: one.title for one in best for run in one.runs}
        curves = _training([run for one in best for run in one.runs], names)[:2]
        if len(parts) > 1 and curves:
            found.append((task, len(parts), _key(names.values()), _drawn(curves, drawings)))
    return found


def _last(group: Group) -> tuple[float, float]:
    """The lower the better: what is wrong on val, of a task without right answers the loss."""
    ends = [run.metrics.iloc[-1] for run in group.runs if len(run.metrics)]
    wrong = [1 - end["val_exact"] for end in ends if math.isfinite(end["val_exact"])]
    loss = [end["val_loss"] for end in ends if math.isfinite(end["val_loss"])]
    return min(wrong, default=math.inf), min(loss, default=math.inf)


def _training(runs: Sequence[RunData], names: dict[str, str]) -> list[Panel]:
    """The panels of the training of runs, long logs thinned."""
    logs = [run.metrics for run in runs if len(run.metrics)]
    return figures.training_panels(pd.concat(map(_thin, logs)), names) if logs else []


def _thin(log: pd.DataFrame) -> pd.DataFrame:
    return log.iloc[np.unique(np.linspace(0, len(log) - 1, MOST_POINTS).astype(int))]


def _is_a_line(evals: pd.DataFrame) -> bool:
    return figures.diagonal(evals)["len_a"].nunique() > 1


def _drawn(parts: Iterable[Panel], drawings: Drawings) -> Drawn:
    return tuple((part, drawings.draw(part)) for part in parts)


def _key(names: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Stroke and name of each line, where there are several and they can be told apart."""
    names = list(dict.fromkeys(names))
    told = 1 < len(names) <= figures.MOST_RUNS
    return tuple((sample(i), name) for i, name in enumerate(names)) if told else ()


def _numbers(cells: pd.DataFrame) -> tuple[str, dict[str, str]]:
    """Lengths of b, and the percentages by length of a: lines of text, in columns.

    Lengths of a that follow one another and have the same percentages share a line.
    """
    text = cells.assign(text=list(map(percent, cells["answer_correct"], cells["n"])))
    wide = text.pivot(index="len_a", columns="len_b", values="text").fillna("")
    lines = [list(map(str, wide.columns)), *wide.to_numpy().tolist()]
    width = max(len(text) for line in lines for text in line)
    head, *rows = (" ".join(text.rjust(width) for text in line).rstrip() for line in lines)
    found = {}
    for row, some in groupby(zip(rows, map(str, wide.index), strict=True), key=itemgetter(0)):
        lengths = [length for _, length in some]
        found[" to ".join(dict.fromkeys((lengths[0], lengths[-1])))] = row
    return head, found
