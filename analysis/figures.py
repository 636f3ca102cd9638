"""The figures of a run: how it learned, and its exact match by operand length and stratum.

Each function takes a table of `analysis.load` and returns a matplotlib Figure, which a notebook
shows and `style.save` writes. Those named `*_panels` return the parts of one, which the report puts
on its page one by one. `addgpt figures results` draws those that apply into each run folder.

Accuracy is exact match, in percent; bands and bars are Wilson 95 % intervals.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Polygon, Rectangle
from matplotlib.ticker import EngFormatter, MaxNLocator

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.schema import lengths_of, operation_of
from analysis import load, style
from analysis.mistakes import mistakes_by_digit, mistakes_by_line
from analysis.style import ANNOTATED, INK, MARK, ON_SHADE, PAPER, Panel

EXACT = "exact match (%)"
CORNER = [(-1, 1), (1, 1), (-1, -1)]
MOST_RUNS = 40  # runs in one figure whose lines can be told apart
PANEL_WIDE = 48  # characters above a panel
CELL = ("run", "op", "len_a", "len_b")
ACROSS = {"examples": "examples seen", "seconds": "training time (s)"}
IN_LOSS = {
    "label_smoothing": "label smoothing",
    "z_loss": "z-loss",
    "aux": "the auxiliary loss",
    "supervise": "the loss of probes",
}
WHAT = {"val_exact": "exact match on val (%)", "val_loss": "loss on val (nats per token)"}


@style.styled
def training_curve(metrics: pd.DataFrame) -> Figure:
    """Exact match on val (percent) and loss (nats per token), one line per run.

    Exact match stands against the examples seen and against seconds of training; a task without
    right answers gets the loss alone. Takes `load.metrics`; raises ValueError if there are no rows.
    """
    runs = _runs(metrics)
    figure, _ = style.compose(training_panels(metrics), columns=3)
    _name_runs(figure, runs, "training")
    return figure


def training_panels(metrics: pd.DataFrame, names: Mapping[str, str] | None = None) -> list[Panel]:
    """The panels of `training_curve`; runs that `names` calls the same have the same colour."""
    wanted = [("val_exact", "examples"), ("val_exact", "seconds"), ("val_loss", "examples")]
    if not metrics["val_exact"].notna().any():
        wanted = [("val_loss", "examples"), ("val_loss", "seconds")]
    added = [
        text for name, text in IN_LOSS.items() if name in metrics and (metrics[name] != 0).any()
    ]
    training = "pale: training" + (f", which includes {', '.join(added)}" if added else "")
    training = textwrap.fill(training, PANEL_WIDE)
    found = []
    for what, across in wanted:
        judged = what == "val_exact"
        note = f"n = {_span(metrics['val_n'].dropna())} problems" if judged else training
        draw = partial(_draw_training, metrics, what, across, names)
        found.append(Panel(f"{WHAT[what]} by {ACROSS[across]}", note, draw))
    return found


@style.styled
def accuracy_grid(evals: pd.DataFrame) -> Figure:
    """Heat map of exact match (percent) over the lengths (digits) of both operands, one per op.

    The lengths trained on are outlined, cells that hold no problems out have a marked
    corner. In grids of up to 10 by 10 each cell states its percentage, in larger ones a dot
    marks each cell that is not all right.

    Args:
        evals: rows of one run, from `load.evals`.

    Raises:
        ValueError: no rows of the plain grid, or rows of several runs.
    """
    runs = _runs(evals)
    if len(runs) > 1:
        raise UsageError(f"accuracy_grid draws one run, not {len(runs)}: {', '.join(runs)}")
    cells = grid(evals)
    if cells.empty:
        raise UsageError("no cell of the plain grid has been evaluated")
    figure, axes = style.compose(grid_panels(evals))
    style.shade_bar(figure, axes)
    dots = (cells["accuracy"] < 1).any() and len(set(cells["len_a"])) > ANNOTATED
    style.legend(figure, _grid_key(cells, dots))
    figure.suptitle(f"{runs[0]}: exact match by operand length")
    return figure


def grid_panels(evals: pd.DataFrame) -> list[Panel]:
    """The panels of `accuracy_grid`, the counts of several runs added up."""
    found = []
    for _, cells in grid(evals, by=["op", "len_a", "len_b"]).groupby("op", sort=False):
        low = cells.loc[cells["accuracy"].idxmin()]
        lowest = f"lowest {percent(low['answer_correct'], low['n'])} %"
        lowest += f" at {low['len_a']} × {low['len_b']}"
        worst = lowest if low["accuracy"] < 1 else "all right"
        side = 4.2 if len(set(cells["len_b"])) <= 6 else 5.2
        note = f"n = {_span(cells['n'])} per cell"
        draw = partial(_draw_grid, cells)
        title = f"{operation_of(low)}: {worst}"
        found.append(Panel(title, note, draw, width=side + 0.6, height=side))
    return found


@style.styled
def accuracy_by_length(evals: pd.DataFrame) -> Figure:
    """Exact match (percent) where all operands have the same length (digits), one line per run.

    Bands are Wilson 95 % intervals. Hollow points have none: those cells hold few problems,
    none of them held out, and all are evaluated. An upright dashed line marks the longest operand
    trained on. Raises ValueError if no cell has equal lengths.
    """
    runs = _runs(evals)
    parts = length_panels(evals)
    if not parts:
        raise UsageError("no evaluated cell has operands of equal length")
    figure, _ = style.compose(parts)
    cells = diagonal(evals)
    limit = Line2D([], [], color=MARK, ls="--", lw=1, label="longest trained on")
    hollow = Line2D([], [], marker="o", mfc=PAPER, color="0.3", ls="", label="none held out")
    key = [limit] if cells["trained"].notna().any() else []
    key += [hollow] if cells["seen"].any() else []
    _name_runs(figure, runs, "exact match by operand length", key)
    return figure


def length_panels(evals: pd.DataFrame) -> list[Panel]:
    """The panels of `accuracy_by_length`."""
    return [
        Panel(
            operation_of(cells.iloc[0]) + _both(cells, ", operands of equal length", ""),
            f"n = {_span(cells['n'])} per length",
            partial(_draw_lengths, cells, list(dict.fromkeys(evals["run"]))),
        )
        for _, cells in diagonal(evals).groupby("op", sort=False)
    ]


@style.styled
def strata(evals: pd.DataFrame) -> Figure:
    """Exact match (percent) by stratum, a dot with its Wilson 95 % interval for each run.

    One panel per op; "all" is any problem of the same operand lengths. Raises ValueError if no
    stratum besides the plain grid has been evaluated.
    """
    runs = _runs(evals)
    where = ["run", "op", "len_a", "len_b"]
    pooled = load.pool(evals, [*where, "stratum"])
    special = pooled[pooled["stratum"] != "all"]
    if special.empty:
        raise UsageError("no stratum besides the plain grid has been evaluated")
    beside = pooled[pooled["stratum"] == "all"].merge(special[where].drop_duplicates(), on=where)
    parts = []
    for _, rows in pd.concat([beside, special], ignore_index=True).groupby("op", sort=False):
        rows = rows.sort_values(["len_a", "len_b"], kind="stable")
        labels = [
            " ".join(filter(None, (row["stratum"], lengths_of(row))))
            for row in rows.to_dict("records")
        ]
        step = 0.24 + 0.06 * (len(runs) - 1)  # inches between strata
        height = 1.2 + step * len(set(labels))
        draw = partial(_draw_strata, rows.assign(label=labels), runs)
        note = f"n = {_span(rows['n'])} per stratum"
        title = operation_of(rows.iloc[0])
        parts.append(Panel(title, note, draw, width=5.0, height=height))
    figure, _ = style.compose(parts)
    _name_runs(figure, runs, "exact match by stratum")
    return figure


def draw(path: str | Path) -> Iterator[Path]:
    """Draw the figures that apply to the run in a folder, into it; yields their paths.

    Raises ValueError if a file of the run is damaged, RunError if a figure cannot be written.
    """
    path = Path(path)
    tables = load.metrics(path), load.evals(path), load.error_counts(path)
    metrics, evals, wrong = (table[table["run"] == path.resolve().name] for table in tables)
    wanted: list[tuple[Callable[[pd.DataFrame], Figure], pd.DataFrame, bool]] = [
        (training_curve, metrics, not metrics.empty),
        (accuracy_grid, evals, not grid(evals).empty),
        (accuracy_by_length, evals, not diagonal(evals).empty),
        (strata, evals, bool((evals["stratum"] != "all").any())),
        (mistakes_by_digit, wrong, not wrong.empty),
        (mistakes_by_line, wrong, bool(wrong["line"].notna().any())),
    ]
    for make, table, applies in wanted:
        if applies:
            yield style.save(make(table), path / f"{make.__name__}.png")


def grid(evals: pd.DataFrame, by: Sequence[str] = CELL) -> pd.DataFrame:
    """The cells of any problem of two lengths, added up, one row per value of `by`."""
    return load.pool(evals[(evals["stratum"] == "all") & (evals["len_b"] > 0)], by)


def diagonal(evals: pd.DataFrame) -> pd.DataFrame:
    """The cells of any problem of one length, that of both operands or of the only one, shortest
    first; where operands are counted there are none."""
    alike = (evals["len_a"] == evals["len_b"]) | (evals["len_b"] == 0)
    alike &= (evals["stratum"] == "all") & (evals["len_a"] > 0) & ~evals["counted"].astype(bool)
    return load.pool(evals[alike], CELL).sort_values("len_a", kind="stable")


def _runs(table: pd.DataFrame) -> list[str]:
    runs = list(dict.fromkeys(table["run"]))
    if not runs:
        raise UsageError("there is nothing to draw: the table has no rows")
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs)} runs cannot be told apart; draw at most {MOST_RUNS} at once")
    return runs


def _span(values: pd.Series) -> str:
    ends = (f"{int(value):,}" for value in (values.min(), values.max())) if len(values) else "?"
    return " to ".join(dict.fromkeys(ends))


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


def _draw_training(
    metrics: pd.DataFrame, what: str, across: str, names: Mapping[str, str] | None, axis: Axes
) -> None:
    hues = list(dict.fromkeys(names.values() if names else metrics["run"]))
    for run, rows in metrics.groupby("run", sort=False):
        look = style.line(hues.index(names[run] if names else run))
        look |= {"label": run, "marker": "o" if len(rows) == 1 else ""}
        if what == "val_exact":
            axis.plot(rows[across], 100 * rows[what], **look)
        else:
            axis.plot(rows[across], rows["val_loss"], **look)
            axis.plot(rows[across], rows["loss"], **look | {"alpha": 0.4, "linewidth": 0.8})
    axis.set(xlabel=ACROSS[across], ylabel=WHAT[what])
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set_xlim(left=0)
    losses = metrics["val_loss"][metrics["val_loss"] > 0]
    if what == "val_exact":
        axis.set_ylim(-2, 102)
    elif losses.max() >= 10 * losses.min():  # by powers of ten, as where answers come right
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()


def _both(cells: pd.DataFrame, two: str, one: str) -> str:
    """The first text for problems of two operands, the second for those of one."""
    return two if (cells["len_b"] > 0).any() else one


def _draw_lengths(cells: pd.DataFrame, runs: list[str], axis: Axes) -> None:
    for run, rows in cells.groupby("run", sort=False):
        look = style.line(runs.index(run))
        axis.plot(rows["len_a"], 100 * rows["accuracy"], marker="o", markersize=4, **look)
        open_ones = rows[rows["seen"]]
        hollow = {"ls": "", "marker": "o", "ms": 4, "color": look["color"], "mfc": PAPER}
        if len(open_ones):
            axis.plot(open_ones["len_a"], 100 * open_ones["accuracy"], **hollow, zorder=3)
        known = rows[~rows["seen"]]
        ends = 100 * known["low"], 100 * known["high"]
        axis.fill_between(known["len_a"], *ends, color=look["color"], alpha=0.2, linewidth=0)
    for limit in cells["trained"].dropna().unique():
        axis.axvline(limit, color=MARK, linestyle="--", linewidth=1, zorder=1)
    axis.set(xlabel=f"length of {_both(cells, 'both operands', 'a')} (digits)", ylabel=EXACT)
    axis.set_ylim(_range(cells["low"].where(~cells["seen"], cells["accuracy"])))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.margins(x=0.05)


def _draw_grid(cells: pd.DataFrame, axis: Axes) -> None:
    """One op's heat map, first operand upwards; lengths that are not there are left out."""
    cells = cells.assign(text=list(map(percent, cells["answer_correct"], cells["n"])))
    share, text = (
        cells.pivot(index="len_a", columns="len_b", values=name) for name in ("accuracy", "text")
    )
    longest = max(share.shape)
    small = longest > ANNOTATED
    size, counted = 10 if longest <= 6 else 8, bool(cells["counted"].any())
    style.length_map(axis, share, None if small else text, size, counted)
    row, column = share.index.get_indexer, share.columns.get_indexer
    cells = cells.assign(y=row(cells["len_a"]), x=column(cells["len_b"]))
    triangle = np.array([[0, 0], [1, 0], [0, -1]]) * min(0.5, 0.1 + 0.03 * longest)
    for number, some in cells.groupby(cells["accuracy"].map(style.shade)):
        look = {"color": ON_SHADE[number], "gid": f"on{number}", "linewidth": 0}
        for cell in some[some["seen"]].itertuples():
            axis.add_patch(Polygon([cell.x, cell.y + 1] + triangle, **look))  # top left
        if small and number < len(ON_SHADE) - 1:  # not all right
            axis.scatter(some["x"] + 0.5, some["y"] + 0.5, s=9, **look)
    if cells["trained"].notna().any():
        most_a, most_b = cells.loc[~cells["longer"].astype(bool), ["len_a", "len_b"]].max()
        size = (share.columns <= most_b).sum(), (share.index <= most_a).sum()
        outline = {"fill": False, "ec": MARK, "lw": 2.5, "clip_on": False}
        axis.add_patch(Rectangle((0, 0), *size, **outline, zorder=3))


def _grid_key(cells: pd.DataFrame, dots: bool) -> list[Artist]:
    key: list[Artist] = []
    if cells["trained"].notna().any():
        key.append(Rectangle((0, 0), 1, 1, fill=False, ec=MARK, lw=2, label="trained on"))
    if cells["seen"].any():
        corner = {"marker": CORNER, "mfc": INK, "mec": PAPER}
        key.append(Line2D([], [], ls="", **corner, label="none held out"))
    if dots:
        dot = {"marker": "o", "mfc": INK, "mec": PAPER, "ms": 5}
        key.append(Line2D([], [], ls="", **dot, label="at least one wrong"))
    return key


def _draw_strata(rows: pd.DataFrame, runs: list[str], axis: Axes) -> None:
    labels = list(dict.fromkeys(rows["label"]))
    for number, run in enumerate(runs):
        mine = rows[rows["run"] == run]
        height = np.array([labels.index(label) for label in mine["label"]])
        centre, low, high = (100 * mine[name].to_numpy() for name in ("accuracy", "low", "high"))
        axis.errorbar(
            centre,
            height + 0.7 * ((number + 0.5) / len(runs) - 0.5),
            xerr=np.maximum(0, [centre - low, high - centre]),
            fmt="o",
            markersize=4,
            color=style.line(number)["color"],
            elinewidth=1.2,
        )
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set(xlabel=EXACT, ylabel="stratum and lengths" if rows["len_a"].any() else "group")
    axis.set_xlim(_range(rows["low"]))
