"""Which figures the report shows of a group of runs, and of the groups of a task."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup

from analysis.report import numbers
from analysis.report.data import Group, RunData
from analysis.report.svg import HUES, Axis, Line, chart, heat

SEEN, SECONDS, LENGTH = "examples seen", "seconds of training", "digits of both operands"


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption."""

    title: str
    note: str
    svg: Markup


@dataclass(frozen=True)
class Figures:
    """The figures of a group.

    training  curves against examples and seconds
    lengths   of each operation the heat map, then the curve by length
    key       hue and name of the lines, where there are several runs
    shades    those that the heat maps use, the best first
    seen      whether a cell was seen in training
    outlined  whether the lengths trained on are known
    """

    training: tuple[Figure, ...]
    lengths: tuple[Figure, ...]
    key: tuple[tuple[int, str], ...]
    shades: tuple[int, ...]
    seen: bool
    outlined: bool


def figures(group: Group) -> Figures:
    grids = numbers.grids(group)
    lengths = []
    for op, cells in grids.items():
        lengths.append(_heat(op, cells, len(group.runs)))
        lengths += _by_length(op, group)
    cells = pd.concat(grids.values()) if grids else pd.DataFrame(columns=["accuracy", "seen"])
    return Figures(
        training=tuple(_training([(_seed(run), [run]) for run in group.runs])),
        lengths=tuple(lengths),
        key=_key([_seed(run) for run in group.runs]),
        shades=tuple(sorted({numbers.shade(a) for a in cells["accuracy"]}, reverse=True)),
        seen=bool(cells["seen"].any()),
        outlined="trained" in cells and bool(cells["trained"].notna().any()),
    )


def compared(groups: Sequence[Group]) -> list[tuple[str, int, tuple, list[Figure]]]:
    """For each task with several groups: its name, how many they are, their key and curves.

    Where there are more than hues, those that were best at their last look at val are drawn.
    """
    tasks: dict[str, list[Group]] = {}
    for group in groups:
        tasks.setdefault(str(group.runs[0].config["task"]), []).append(group)
    found = []
    for task, parts in tasks.items():
        best = sorted(parts, key=_last_look)[:HUES]
        curves = _training([(one.title, list(one.runs)) for one in best])
        if len(parts) > 1 and curves:
            found.append((task, len(parts), _key([one.title for one in best]), curves[:2]))
    return found


def _last_look(group: Group) -> tuple[float, float]:
    """The lower the better: what is wrong on val, of a task without right answers the loss."""
    looks = [run.metrics.iloc[-1] for run in group.runs if len(run.metrics)]
    wrong = [1 - look["val_exact"] for look in looks if math.isfinite(look["val_exact"])]
    loss = [look["val_loss"] for look in looks if math.isfinite(look["val_loss"])]
    return min(wrong, default=math.inf), min(loss, default=math.inf)


def _seed(run: RunData) -> str:
    return f"seed {run.config['seed']} ({run.name})"


def _training(named: Sequence[tuple[str, list[RunData]]]) -> list[Figure]:
    """Exact match against examples and seconds, and loss, a hue for each name.

    A task without right answers has its loss against both.
    """
    logs = [run.metrics for _, runs in named for run in runs if len(run.metrics)]
    kinds = [("val_exact", "examples"), ("val_exact", "seconds"), ("val_loss", "examples")]
    if not any(log["val_exact"].notna().any() for log in logs):
        kinds = [("val_loss", "examples"), ("val_loss", "seconds")]
    drawn = []
    for what, across in kinds:
        lines = [
            _line(name, run.metrics, across, what, _hue(number, len(named)))
            for number, (name, runs) in enumerate(named)
            for run in runs
            if len(run.metrics) and run.metrics[what].notna().any()
        ]
        if lines:
            drawn.append(_curves(lines, what, across))
    return drawn


def _hue(number: int, lines: int) -> int:
    """Of more lines than can be told apart, all have the same hue."""
    return number if lines <= HUES else 0


def _line(name: str, metrics: pd.DataFrame, across: str, what: str, hue: int) -> Line:
    scale = 100 if what == "val_exact" else 1
    x, y = metrics[across].to_numpy(float), scale * metrics[what].to_numpy(float)
    return Line(name, list(x), list(y), hue)


def _curves(lines: list[Line], what: str, across: str) -> Figure:
    ends = [x for line in lines for x in line.x if math.isfinite(x)]
    x = Axis(0, max([*ends, 1e-9]))
    x_name = {"examples": SEEN, "seconds": SECONDS}[across]
    if what == "val_exact":
        title, y = f"Exact match on val in percent, by {x_name}", Axis(0, 100)
    else:
        title, y = f"Loss on val in nats per token, by {x_name}", _loss_axis(lines)
    last = ", ".join(f"{line.name} ends at {line.y[-1]:.4g}" for line in lines[:HUES])
    return Figure(title, "", chart(lines, f"{title}: {last}", x_name, x, y))


def _loss_axis(lines: list[Line]) -> Axis:
    """By powers of ten if the loss falls by more than one, as it does where answers come right."""
    values = [y for line in lines for y in line.y if math.isfinite(y) and y > 0] or [1.0]
    low, high = min(values), max(values)
    if high < 10 * low:
        room = 0.05 * max(high - low, 0.1 * high)
        return Axis(low - room, high + room)
    ends = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return Axis(10.0 ** ends[0], 10.0 ** ends[1], log=True)


def _key(names: Sequence[str]) -> tuple[tuple[int, str], ...]:
    """Hue and name of each line, where there are several and they can be told apart."""
    return tuple(enumerate(names)) if 1 < len(names) <= HUES else ()


def _heat(op: str, cells: pd.DataFrame, runs: int) -> Figure:
    right = int((cells["accuracy"] == 1).sum())
    low = cells.loc[cells["accuracy"].idxmin()]
    score = numbers.Score(int(low["answer_correct"]), int(low["n"]))
    note = f"{right:,} of {len(cells):,} cells all right"
    if score.accuracy < 1:
        note += f"; lowest {score.percent} % ({score.count}) at {low['len_a']} and {low['len_b']}"
    most = int(cells["n"].max())
    note += f"; up to {most:,} problems a cell" + (f", {runs} runs added up" if runs > 1 else "")
    title = f"a {op} b by operand length"
    return Figure(title, note, heat(cells, f"Heat map. {title}: {note}"))


def _by_length(op: str, group: Group) -> list[Figure]:
    """Exact match where both operands have the same length, a hue for each run."""
    lines, least_n, limits = [], [], []
    for number, run in enumerate(group.runs):
        rows = numbers.diagonal(run, op)
        if len(rows) > 1:
            x, y, low, high = (
                [*(scale * rows[name].to_numpy(float))]
                for name, scale in (("len_a", 1), ("accuracy", 100), ("low", 100), ("high", 100))
            )
            hue = _hue(number, len(group.runs))
            lines.append(Line(_seed(run), x, y, hue, low, high, list(rows["seen"])))
            limits.append(rows["trained"].max())
            least_n.append(int(rows["n"].min()))
    if not lines:
        return []
    least = min(
        value
        for line in lines
        for value in [
            *line.y,
            *(e for e, seen in zip(line.low, line.hollow, strict=True) if not seen),
        ]
    )
    floor = 0.0 if least < 80 else min(99.0, float(np.floor(least - 0.1 * (100 - least))))
    ends = [x for line in lines for x in line.x]
    x = Axis(min(ends) - 0.3, max(ends) + 0.3, whole=True)
    y = Axis(floor, 100)
    title = f"a {op} b, operands of equal length, in percent"
    texts = [f"{a:g} digits: {b:.4g}" for a, b in zip(lines[0].x, lines[0].y, strict=True)]
    note = f"bands: Wilson 95 % intervals; at least {min(least_n):,} problems a length"
    if any(any(line.hollow) for line in lines):
        note += "; hollow: all seen in training"
    note += f"; {len(lines)} runs" if len(group.runs) > HUES else ""
    svg = chart(lines, f"{title}. {', '.join(texts)}", LENGTH, x, y, dots=True, limit=max(limits))
    return [Figure(title, note, svg)]
