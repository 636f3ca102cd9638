"""How many training problems a format needs: exact match against the size of a fixed training set.

After Lee et al. 2023 (arXiv:2307.03381), whose published curves for 3-digit sums stand beside ours.

    addgpt sweep sample-efficiency
    addgpt study efficiency results/sample-efficiency --csv FILE --png FILE

The first trains the runs of `addgpt/sweep/grids/sample-efficiency.toml`, the second gathers their
scores into one table and draws it. `docs/sample_efficiency.md` says what came out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from addgpt.config.errors import UsageError
from analysis import load, style
from analysis.studies import common

COLUMNS = (
    "format n_pool seed params step examples seconds split op len_a len_b stratum seen n "
    "answer_correct"
).split()

# (trace, format) of the task, and what Lee et al. call it
NAMES = {
    ("none", "plain"): "plain",
    ("none", "reverse"): "reverse",
    ("carry", "plain"): "simplified scratchpad",
    ("detailed", "plain"): "detailed scratchpad",
}
WITH_IDS = "reverse, with position ids"
FORMATS = (*NAMES.values(), WITH_IDS)
EXACT = "exact match (%)"

# Exact match in percent by number of training examples, as published with the paper:
# github.com/lee-ny/teaching_arithmetic, plots/sample_efficiency.csv
SIZES = (250, 500, 1000, 2000, 3000, 4000, 5000, 10000, 20000)
PUBLISHED = {
    "plain": (0, 0, 0.39, 1.74, 28.75, 62.25, 81.09, 87.42, 90.12),
    "reverse": (0, 0, 1.57, 30.65, 79.14, 98.17, 99.83, 100, 100),
    "simplified scratchpad": (0.4, 0.1, 84.65, 99.70, 99.80, 99.90, 100, 100, 100),
    "detailed scratchpad": (59.5, 92.8, 99.80, 99.60, 100, 100, 99.90, 100, 100),
}


def published() -> pd.DataFrame:
    """What Lee et al. measured: `format`, `n_pool`, `accuracy` (share in 0..1)."""
    rows = [
        {"format": name, "n_pool": size, "accuracy": percent / 100}
        for name, curve in PUBLISHED.items()
        for size, percent in zip(SIZES, curve, strict=True)
    ]
    return pd.DataFrame(rows)


def collect(*places: str | Path) -> pd.DataFrame:
    """The evaluated cells of the runs in folders: one row per run and cell, in `COLUMNS`.

    In place of a folder there may be a file of such rows. Raises ValueError if a run has no `pool`,
    or a format that `NAMES` does not hold.
    """
    return common.gather(places, _cells, COLUMNS)


def _cells(folder: Path) -> pd.DataFrame:
    evals, runs = load.evals(folder), load.runs(folder).set_index("run")
    names = {run: _format(run, row) for run, row in runs.iterrows()}
    table = evals.assign(
        format=evals["run"].map(names),
        n_pool=evals["run"].map(runs["options.pool"]),
    )
    whole = dict.fromkeys(("seed", "params", "step", "examples"), int)
    order = ["format", "n_pool", "seed"]
    table = table.sort_values(order, key=_rank, kind="stable")
    return table[COLUMNS].astype(whole).reset_index(drop=True)


def held_out(table: pd.DataFrame, lengths: tuple[int, int] | None = None) -> pd.DataFrame:
    """One row per run: the problems of one cell, or of all cells that are not wholly in training.

    Problems of the plain grid alone; `lengths` are those of both operands, in digits.
    """
    rows = table[(table["stratum"] == "all") & ~table["seen"]]
    if lengths is not None:
        rows = rows[(rows["len_a"] == lengths[0]) & (rows["len_b"] == lengths[1])]
    run = ["format", "n_pool", "seed", "params", "step", "examples", "seconds"]
    counts = rows.groupby(run, sort=False)[["n", "answer_correct"]].sum().reset_index()
    return load.with_accuracy(counts)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per format and size: `median`, `worst`, `best` accuracy of `seeds` runs.

    Takes `held_out`; `n` is the least number of problems that a run was scored on.
    """
    table = common.over_seeds(runs, ["format", "n_pool"])
    return table.sort_values(["format", "n_pool"], key=_rank, ignore_index=True)


def needed(curve: pd.DataFrame, goal: float, value: str = "median") -> dict[str, float]:
    """The smallest size from which on each format is at least as good as `goal`; inf if none is."""
    sizes = {}
    for name, part in curve.groupby("format", sort=False):
        short = part.loc[part[value] < goal, "n_pool"].max()
        enough = part.loc[~(part["n_pool"] <= short), "n_pool"]
        sizes[name] = float(enough.min()) if len(enough) else np.inf
    return sizes


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) against the number of training problems, a line per format.

    Left as published, right as measured here on 3-digit operands: the line is the median of the
    seeds, the band reaches from the worst to the best. Takes `collect`; raises ValueError if it
    holds no 3-digit sums.
    """
    runs = held_out(table, (3, 3))
    if runs.empty:
        raise UsageError("there is nothing to draw: no held-out sums of 3-digit operands")
    ours, theirs = summary(runs), published()
    figure, (left, right) = style.panels(2, width=4.4, height=3.8)
    names = [name for name in FORMATS if name in {*ours["format"], *theirs["format"]}]
    looks = {name: style.line(FORMATS.index(name)) | {"marker": "o", "ms": 4} for name in names}
    for name, part in theirs.groupby("format", sort=False):
        left.plot(part["n_pool"], 100 * part["accuracy"], **looks[name])
    for name, part in ours.groupby("format", sort=False):
        right.plot(part["n_pool"], 100 * part["median"], **looks[name])
        band = 100 * part["worst"], 100 * part["best"]
        right.fill_between(part["n_pool"], *band, color=looks[name]["color"], alpha=0.2, lw=0)
    few, many = (f"{runs['params'].agg(how) / 1e6:.2f}" for how in ("min", "max"))
    span = few if few == many else f"{few} to {many}"
    left.set_title("Lee et al. 2023: 10.6M parameters")
    right.set_title(f"here: {span}M parameters, n = {runs['n'].min():,}")
    for axis in (left, right):
        _axes(axis, sorted({*ours["n_pool"], *theirs["n_pool"]}))
    style.legend(figure, [Line2D([], [], label=name, **looks[name]) for name in names])
    figure.suptitle("held-out sums of 3-digit numbers by number of training problems")
    return figure


def describe(table: pd.DataFrame) -> str:
    """3-digit sums as a table in text, and all held-out ones: median (worst) in percent."""
    both = (held_out(table, (3, 3)), held_out(table))
    return "\n\n".join(_markdown(summary(runs)) for runs in both if len(runs))


def _markdown(curve: pd.DataFrame) -> str:
    sizes = sorted(curve["n_pool"].unique())
    rows = [
        [name, *common.shares(part, "n_pool", sizes)]
        for name, part in curve.groupby("format", sort=False)
    ]
    return common.markdown(["format", *(f"{size:,}" for size in sizes)], rows)


def _format(run: str, row: pd.Series) -> str:
    """What a run's format is called in the figure."""
    if not row.get("options.pool", 0) > 0:
        raise UsageError(f"{run} was trained without a pool of problems")
    name = NAMES.get((row.get("options.trace"), row.get("options.format")))
    with_ids = any(how != "none" for how in row.get("model.level_position") or ())
    if with_ids:
        name = WITH_IDS if name == "reverse" else None
    if name is None:
        raise UsageError(f"{run} has a format that is not compared here")
    return name


def _rank(column: pd.Series) -> pd.Series:
    """Formats in the order of `FORMATS`, numbers by size."""
    return column.map(FORMATS.index) if column.name == "format" else column


def _axes(axis: Axes, sizes: Sequence[int]) -> None:
    axis.set(xscale="log", xlabel="training problems", ylabel=EXACT, ylim=(-3, 103))
    axis.xaxis.set_major_locator(FixedLocator([size for size in sizes if size not in (3000, 4000)]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
