"""The figures of a run: how it learned, and how right it is by operand length and kind of problem.

Each function takes a table of `analysis.load` and returns a matplotlib Figure, which a notebook
shows and `style.save` writes.

    python -m analysis.figures results

draws those that apply into each run folder. Accuracy is exact match, in percent; bands and bars are
Wilson 95 % intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from addgpt.runs.files import RunError
from analysis import load, style
from analysis.mistakes import mistakes_by_digit, mistakes_by_line

EXACT = "exact match (%)"
CORNER = {"fc": "black", "ec": "white", "lw": 0.8}  # seen against light and dark cells
DOT = {"c": "black", "edgecolors": "white", "linewidths": 0.6}
MOST_RUNS = 40  # runs in one figure whose lines can be told apart


@style.styled
def training_curve(metrics: pd.DataFrame) -> Figure:
    """Exact match on val (percent) and loss (nats per token), one line per run.

    Exact match stands against the examples seen and against seconds of training; a task without
    right answers gets the loss alone. Takes `load.metrics`; raises ValueError if there are no rows.
    """
    runs = _runs(metrics)
    judged = bool(metrics["val_exact"].notna().any())
    kinds = [("exact", "examples"), ("exact", "seconds"), ("loss", "examples")]
    kinds = kinds if judged else [("loss", "examples"), ("loss", "seconds")]
    figure, axes = style.panels(len(kinds), columns=3)
    for axis, (kind, across) in zip(axes, kinds, strict=True):
        for number, run in enumerate(runs):
            rows = metrics[metrics["run"] == run]
            look = style.line(number) | {"label": run, "marker": "o" if len(rows) == 1 else ""}
            if kind == "exact":
                axis.plot(rows[across], 100 * rows["val_exact"], **look)
            else:
                axis.plot(rows[across], rows["val_loss"], **look)
                axis.plot(rows[across], rows["loss"], **look | {"alpha": 0.4, "linewidth": 0.8})
        axis.set_xlabel({"examples": "examples seen", "seconds": "training time (s)"}[across])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlim(left=0)
        if kind == "exact":
            axis.set(ylabel="exact match on val (%)", ylim=(-2, 102))
            axis.set_title(f"n = {_span(metrics['val_n'].dropna())} problems")
        else:
            axis.set(
                ylabel="loss (nats per token)", yscale="log", title="bold: val; pale: training"
            )
    _name_runs(figure, runs, "training")
    return figure


@style.styled
def accuracy_grid(evals: pd.DataFrame, trained: int | None = None) -> Figure:
    """Heat map of exact match (percent) over the lengths (digits) of both operands, one per op.

    The lengths trained on are outlined, cells whose problems were all seen in training have a
    marked corner. In grids of up to 10 by 10 each cell states its percentage, in larger ones a dot
    stands in each cell that is not all right.

    Args:
        evals: rows of one run, from `load.evals`.
        trained: longest operand trained on, in digits; by default what the run's config says.

    Raises:
        ValueError: no rows of the plain grid, or rows of several runs.
    """
    runs = _runs(evals)
    if len(runs) > 1:
        raise ValueError(f"accuracy_grid draws one run, not {len(runs)}: {', '.join(runs)}")
    cells = _plain(evals)
    longest = int(cells[["len_a", "len_b"]].max().max())
    side = 4.2 if longest <= 6 else 5.2
    figure, axes = style.panels(cells["op"].nunique(), width=side + 0.6, height=side)
    for axis, (op, part) in zip(axes, _by_op(cells), strict=True):
        limit = part["trained"].iloc[0] if trained is None else trained
        _heat(axis, part, limit)
        worst = part.loc[part["accuracy"].idxmin()]
        low = f"{style.percent(worst['answer_correct'], worst['n'])} %"
        at = f" at {worst['len_a']} × {worst['len_b']}" if worst["accuracy"] < 1 else ""
        axis.set_title(f"{_title(op)}    lowest {low}{at}\nn = {_span(part['n'])} per cell")
    bar = figure.colorbar(axes[0].collections[0], ax=axes, shrink=0.8, aspect=30)
    bar.set_label(EXACT)
    bar.outline.set_visible(False)
    style.legend(figure, _grid_key(cells, trained, dots=longest > style.ANNOTATED))
    figure.suptitle(f"{runs[0]}: exact match by operand length")
    return figure


@style.styled
def accuracy_by_length(evals: pd.DataFrame) -> Figure:
    """Exact match (percent) where both operands have the same length (digits), one line per run.

    Bands are Wilson 95 % intervals. Hollow points have none: those cells hold few problems, all
    seen in training and all evaluated. An upright dashed line marks the longest operand trained on.
    Raises ValueError if no cell has equal lengths.
    """
    runs = _runs(evals)
    cells = _plain(evals)
    cells = cells[cells["len_a"] == cells["len_b"]]
    if cells.empty:
        raise ValueError("no evaluated cell has operands of equal length")
    figure, axes = style.panels(cells["op"].nunique())
    for axis, (op, part) in zip(axes, _by_op(cells), strict=True):
        for number, run in enumerate(runs):
            _curve(axis, part[part["run"] == run].sort_values("len_a"), number)
        for limit in part["trained"].dropna().unique():
            axis.axvline(limit, color=style.MARK, linestyle="--", linewidth=1, zorder=1)
        axis.set(xlabel="length of both operands (digits)", ylabel=EXACT)
        axis.set_title(f"{_title(op)}    n = {_span(part['n'])} per length")
        axis.set_ylim(_range(part["low"].where(~part["seen"], part["accuracy"])))
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.margins(x=0.05)
    key = [Line2D([], [], color=style.MARK, ls="--", lw=1, label="longest trained on")]
    key = key if cells["trained"].notna().any() else []
    if cells["seen"].any():
        hollow = {"marker": "o", "mfc": "white", "color": "0.3", "ls": ""}
        key.append(Line2D([], [], **hollow, label="all seen in training"))
    _name_runs(figure, runs, "exact match by operand length", key)
    return figure


@style.styled
def strata(evals: pd.DataFrame) -> Figure:
    """Exact match (percent) by kind of problem, a dot with its Wilson 95 % interval for each run.

    One panel per op; "all" is any problem of the same operand lengths. Raises ValueError if no
    stratum besides the plain grid has been evaluated.
    """
    runs = _runs(evals)
    rows = _strata_rows(evals)
    where = ["len_a", "len_b"]
    parts = {op: part.sort_values(where, kind="stable") for op, part in _by_op(rows)}
    step = 0.24 + 0.06 * (len(runs) - 1)  # inches between strata
    heights = [1.2 + step * len(_labels(part)) for part in parts.values()]
    figure, axes = style.panels(len(parts), width=5.0, height=heights)
    for axis, (op, part) in zip(axes, parts.items(), strict=True):
        labels = _labels(part)
        for number, run in enumerate(runs):
            mine = part[part["run"] == run]
            height = np.array([labels.index(label) for label in mine["label"]])
            _dots(axis, mine, height + 0.7 * ((number + 0.5) / len(runs) - 0.5), number)
        axis.set_yticks(range(len(labels)), labels)
        axis.set_ylim(len(labels) - 0.4, -0.6)
        axis.set(xlabel=EXACT, ylabel="stratum (digits of a, of b)")
        axis.set_title(f"{_title(op)}    n = {_span(part['n'])} per stratum")
        axis.set_xlim(_range(part["low"]))
    _name_runs(figure, runs, "exact match by kind of problem")
    return figure


def draw(path: str | Path) -> Iterator[Path]:
    """Draw the figures that apply to the run in a folder, into it; yields their paths.

    Raises ValueError if a file of the run is damaged, RunError if a figure cannot be written.
    """
    path = Path(path)
    tables = load.metrics(path), load.evals(path), load.error_counts(path)
    metrics, evals, wrong = (table[table["run"] == path.resolve().name] for table in tables)
    plain = evals[evals["stratum"] == "all"]
    wanted: list[tuple[Callable[[pd.DataFrame], Figure], pd.DataFrame, bool]] = [
        (training_curve, metrics, not metrics.empty),
        (accuracy_grid, evals, not plain.empty),
        (accuracy_by_length, evals, bool((plain["len_a"] == plain["len_b"]).any())),
        (strata, evals, len(plain) < len(evals)),
        (mistakes_by_digit, wrong, not wrong.empty),
        (mistakes_by_line, wrong, bool(wrong["line"].notna().any())),
    ]
    for make, table, applies in wanted:
        if applies:
            yield style.save(make(table), path / f"{make.__name__}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 2 for a bad path, 1 if a run cannot be drawn."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.figures",
        description="Draw the figures of every run in a folder, into the run folders.",
        epilog="example: python -m analysis.figures results",
    )
    parser.add_argument("path", help="a results folder or one run folder")
    folder = parser.parse_args(arguments).path
    try:
        found = load.find(folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    code = 0
    for run, path in found.items():
        try:
            paths = list(map(print, draw(path)))
            if not paths:
                print(f"{run}: nothing to draw yet", file=sys.stderr)
        except (ValueError, RunError) as error:
            print(f"error: {error}", file=sys.stderr)
            code = 1
    return code


def _runs(table: pd.DataFrame) -> list[str]:
    runs = list(dict.fromkeys(table["run"]))
    if not runs:
        raise ValueError("there is nothing to draw: the table has no rows")
    if len(runs) > MOST_RUNS:
        raise ValueError(f"{len(runs)} runs cannot be told apart; draw at most {MOST_RUNS} at once")
    return runs


def _plain(evals: pd.DataFrame) -> pd.DataFrame:
    """The rows of the plain grid, one per run and cell."""
    rows = evals[evals["stratum"] == "all"]
    if rows.empty:
        raise ValueError("no cell of the plain grid has been evaluated")
    return load.pool(rows, ["run", "op", "len_a", "len_b"])


def _by_op(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    return iter(rows.groupby("op", sort=False))


def _title(op: str) -> str:
    return f"a {op} b"


def _span(values: pd.Series) -> str:
    low, high = (f"{int(value):,}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def _range(low: pd.Series) -> tuple[float, float]:
    """The ends of an axis of percentages: from 0 unless all of it happens high up."""
    least = 100 * low.min()
    start = 0.0 if least < 80 else min(99.0, np.floor(least - 0.1 * (100 - least)))
    return start, 100 + 0.03 * (100 - start)


def _name_runs(figure: Figure, runs: list[str], what: str, key: Sequence[Artist] = ()) -> None:
    """Title and legend: one run is named in the title, several in the legend."""
    lines = [Line2D([], [], label=run, **style.line(i)) for i, run in enumerate(runs)]
    figure.suptitle(f"{runs[0]}: {what}" if len(runs) == 1 else what)
    style.legend(figure, [*key, *(lines if len(runs) > 1 else [])])


def _heat(axis: Axes, cells: pd.DataFrame, limit: float) -> None:
    """One op's heat map, first operand upwards."""
    cells = cells.assign(text=list(map(style.percent, cells["answer_correct"], cells["n"])))
    rows, columns = (range(1, int(cells[name].max()) + 1) for name in ("len_a", "len_b"))
    shape = {"index": list(rows), "columns": list(columns)}
    share, text = (
        cells.pivot(index="len_a", columns="len_b", values=name).reindex(**shape)
        for name in ("accuracy", "text")
    )
    longest = max(len(rows), len(columns))
    texts = text if longest <= style.ANNOTATED else None
    style.length_map(axis, share, texts, size=10 if longest <= 6 else 8)
    triangle = np.array([[0, 0], [1, 0], [0, -1]]) * min(0.5, 0.1 + 0.03 * longest)
    for cell in cells[cells["seen"]].itertuples():
        axis.add_patch(Polygon([cell.len_b - 1, cell.len_a] + triangle, **CORNER))  # top left
    if longest > style.ANNOTATED:
        wrong = cells[cells["accuracy"] < 1]
        axis.scatter(wrong["len_b"] - 0.5, wrong["len_a"] - 0.5, s=14, **DOT)
    if np.isfinite(limit):
        size = min(limit, len(columns)), min(limit, len(rows))
        outline = {"fill": False, "ec": style.MARK, "lw": 2.5, "clip_on": False}
        axis.add_patch(Rectangle((0, 0), *size, **outline, zorder=3))
    every, size = -(-longest // 20), None if longest <= style.ANNOTATED else 8
    for ticks, ends in ((axis.set_xticks, columns), (axis.set_yticks, rows)):
        ticks(np.array(ends[::every]) - 0.5, ends[::every], rotation=0, fontsize=size)


def _grid_key(cells: pd.DataFrame, trained: int | None, dots: bool) -> list[Artist]:
    key: list[Artist] = []
    if trained is not None or cells["trained"].notna().any():
        key.append(Rectangle((0, 0), 1, 1, fill=False, ec=style.MARK, lw=2, label="trained on"))
    if cells["seen"].any():
        corner = {"marker": [(-1, 1), (1, 1), (-1, -1)], "mfc": "black", "mec": "white"}
        key.append(Line2D([], [], ls="", **corner, label="all seen in training"))
    if dots and (cells["accuracy"] < 1).any():
        dot = {"marker": "o", "mfc": "black", "mec": "white", "ms": 5}
        key.append(Line2D([], [], ls="", **dot, label="at least one wrong"))
    return key


def _curve(axis: Axes, cells: pd.DataFrame, number: int) -> None:
    """One run's line with its band; hollow points where all problems were seen."""
    look = style.line(number)
    fresh = cells[~cells["seen"]]
    ends = 100 * fresh["low"], 100 * fresh["high"]
    axis.fill_between(fresh["len_a"], *ends, color=look["color"], alpha=0.2, lw=0)
    across = cells["len_a"]
    axis.plot(across, 100 * cells["accuracy"], **look)
    faces = ["white" if seen else look["color"] for seen in cells["seen"]]
    axis.scatter(
        across, 100 * cells["accuracy"], c=faces, edgecolors=[look["color"]], s=28, zorder=3
    )


def _strata_rows(evals: pd.DataFrame) -> pd.DataFrame:
    """Rows of the strata, then of the plain cells they belong to, each with a label."""
    where = ["run", "op", "len_a", "len_b"]
    pooled = load.pool(evals, [*where, "stratum"])
    special = pooled[pooled["stratum"] != "all"]
    if special.empty:
        raise ValueError("no stratum besides the plain grid has been evaluated")
    plain = pooled[pooled["stratum"] == "all"].merge(special[where].drop_duplicates(), on=where)
    rows = pd.concat([plain, special], ignore_index=True)
    names = zip(rows["stratum"], rows["len_a"], rows["len_b"], strict=True)
    return rows.assign(label=[f"{name} ({a}, {b})" for name, a, b in names])


def _labels(rows: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(rows["label"]))


def _dots(axis: Axes, rows: pd.DataFrame, height: np.ndarray, number: int) -> None:
    centre, low, high = (100 * rows[name].to_numpy() for name in ("accuracy", "low", "high"))
    axis.errorbar(
        centre,
        height,
        xerr=np.maximum(0, [centre - low, high - centre]),
        fmt="o",
        markersize=4,
        color=style.line(number)["color"],
        elinewidth=1.2,
    )


if __name__ == "__main__":
    sys.exit(main())
