"""Runs of one recipe that differ only in their seed: how they learn, and how much they differ.

Functions take the tables of `analysis.load`, of the runs of one recipe (see `recipes`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogFormatter, MaxNLocator

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.schema import lengths_of, operation_of
from addgpt.runs import recipe
from analysis import load, style

WHERE = ["op", "len_a", "len_b", "stratum"]
CELLS = 40  # cells in one figure whose names can be read
MEDIAN = {"color": "0.15", "linewidth": 2.2}


def recipes(runs: pd.DataFrame) -> dict[str, list[str]]:
    """Runs that differ in nothing but their seed, by the name of the first one.

    Takes `load.runs`; `addgpt.runs.recipe` says what counts as a difference.
    """
    groups: dict[str, list[str]] = {}
    for row in runs.to_dict("records"):
        groups.setdefault(recipe.key(row), []).append(row["run"])
    return {names[0]: names for names in groups.values()}


def spread(evals: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Exact match of several runs: one row per value of `by`, over all its evaluation rows.

    `runs` counts them, `n` is the number of problems that each was asked; `median`, `worst`, `best`
    and `deviation` (standard deviation, n - 1) are shares in 0..1, missing where there is too
    little. Raises ValueError if the runs were not asked equally many problems.
    """
    pooled = load.pool(evals, ["run", *by])
    groups = pooled.groupby(list(by), sort=False)
    if len(pooled) != groups.ngroups * pooled["run"].nunique() or (groups["n"].nunique() > 1).any():
        raise UsageError("the runs were not scored on the same problems: cells or counts differ")
    shares = groups["accuracy"]
    frame = groups.agg(runs=("run", "size"), n=("n", "first"), seen=("seen", "any"))
    frame = frame.assign(counted=groups["counted"].any())
    frame = frame.assign(median=shares.median(), worst=shares.min(), best=shares.max())
    return frame.assign(deviation=shares.std()).reset_index()


@style.styled
def curves(metrics: pd.DataFrame) -> Figure:
    """Exact match on val (percent), what is missing to 100 %, and loss, against examples seen.

    A thin line per seed, the median in black, and a band from the worst to the best seed. Takes
    `load.metrics`; raises ValueError if there is nothing to draw.
    """
    if metrics.empty:
        raise UsageError("there is nothing to draw: the table has no rows")
    judged = bool(metrics["val_exact"].notna().any())
    table = metrics.assign(exact=100 * metrics["val_exact"], wrong=100 - 100 * metrics["val_exact"])
    labels = {
        "exact": "exact match on val (%)",
        "wrong": "wrong on val (%)",
        "val_loss": "loss on val (nats per token)",
    }
    shown = list(labels) if judged else ["val_loss"]
    figure, axes = style.panels(len(shown), columns=3)
    for axis, name in zip(axes, shown, strict=True):
        _curve(axis, table, name)
        axis.set(xlabel="examples seen", ylabel=labels[name])
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlim(left=0)
    if judged:
        n = int(metrics["val_n"].max())
        axes[0].set(ylim=(-2, 102), title=f"n = {n:,} problems")
        # One wrong problem is the least that can be drawn; no wrong problem is drawn below it.
        axes[1].set_yscale("symlog", linthresh=100 / n)
        axes[1].set_ylim(0, 100)
        axes[1].yaxis.set_major_formatter("{x:g}")
        axes[1].set_title("what is missing to 100 %")
    axes[-1].set_yscale("log")
    axes[-1].yaxis.set_major_formatter("{x:g}")
    axes[-1].yaxis.set_minor_formatter(LogFormatter())
    seeds = list(dict.fromkeys(metrics["seed"]))
    band = Patch(color="0.85", label="worst to best")
    key = [*_seed_lines(seeds), Line2D([], [], label="median", **MEDIAN), band]
    figure.suptitle(f"{len(seeds)} seeds in training")
    style.legend(figure, key)
    return figure


@style.styled
def cell_spread(evals: pd.DataFrame) -> Figure:
    """Exact match (percent) of each seed in each held-out cell; a tick marks the median.

    The longest carry chain, equal operands and the like are cells of their own. Of more than
    `CELLS` cells the worst are drawn. Raises ValueError if no cell is held out.
    """
    rows = evals[~evals["seen"].astype(bool)]
    if rows.empty:
        raise UsageError("there is nothing to draw: no held-out cell has been evaluated")
    table = spread(rows, WHERE)
    chosen = table.nsmallest(CELLS, "worst").sort_index()
    labels = [
        f"{lengths_of(cell)} {cell['stratum']}  n={cell['n']:,}".lstrip()
        for cell in chosen.to_dict("records")
    ]
    each = load.pool(rows, ["seed", *WHERE]).merge(chosen[WHERE].assign(label=labels), on=WHERE)
    height = 1.4 + 0.26 * len(chosen)
    figure, (axis,) = style.panels(1, width=7.0, height=height)
    place = np.arange(len(chosen))
    axis.hlines(place, 100 * chosen["worst"], 100 * chosen["best"], color="0.7", lw=2, zorder=1)
    axis.scatter(100 * chosen["median"], place, marker="|", s=280, color="0.15", zorder=4)
    seeds = list(dict.fromkeys(evals["seed"].astype(int)))
    sns.stripplot(
        each.assign(percent=100 * each["accuracy"], seed=each["seed"].astype(int)),
        x="percent",
        y="label",
        order=labels,
        hue="seed",
        hue_order=seeds,
        palette=[style.line(i)["color"] for i in range(len(seeds))],
        dodge=True,
        jitter=False,
        size=5,
        legend=False,
        ax=axis,
        zorder=3,
    )
    axis.set(xlabel="exact match (%)", ylabel="cell (digits of a, of b; stratum)")
    least = 100 * chosen["worst"].min()
    margin = max(0.1, 0.05 * (100 - least))
    axis.set_xlim(max(-1.0, least - margin), 100 + margin)
    axis.set_xticks([tick for tick in axis.get_xticks() if least - margin <= tick <= 100])
    axis.set_axisbelow(True)
    axis.grid(axis="y", linestyle=":")
    which = f"all {len(table)}" if len(chosen) == len(table) else f"worst {CELLS} of {len(table):,}"
    axis.set_title(f"{len(seeds)} seeds, {which} held-out cells")
    tick = Line2D([], [], marker="|", ls="", color="0.15", ms=11, label="median")
    style.legend(figure, [*_seed_lines(seeds, marker="o", ls=""), tick])
    return figure


@style.styled
def median_and_worst(evals: pd.DataFrame) -> Figure:
    """Heat maps of exact match (percent) over operand lengths: median seed left, worst seed right.

    One pair for each operation. Cells all of whose problems are in training stand in brackets.
    Raises ValueError if no cell of the plain grid has been evaluated.
    """
    plain = evals[(evals["stratum"] == "all") & (evals["len_b"] > 0)]
    cells = spread(plain, ["op", "len_a", "len_b"])
    if cells.empty:
        raise UsageError("no cell of the plain grid has been evaluated")
    longest = int(cells[["len_a", "len_b"]].max().max())
    side = 3.6 if longest <= 6 else 5.2
    figure, axes = style.panels(2 * cells["op"].nunique(), width=side + 0.4, height=side)
    panels = iter(axes)
    for _, part in cells.groupby("op", sort=False):
        operation = operation_of(part.iloc[0])
        for name in ("median", "worst"):
            axis = next(panels)
            _heat(axis, part, name, longest <= style.ANNOTATED)
            low = part.loc[part[name].idxmin()]
            axis.set_title(f"{operation}    {name} seed, lowest {percent(low[name], 1)} %")
    style.shade_bar(figure, axes)
    count = int(cells["runs"].max())
    bracketed = longest <= style.ANNOTATED and cells["seen"].any()
    brackets = "; in brackets: none held out" if bracketed else ""
    figure.suptitle(f"{count} seeds by operand length{brackets}")
    return figure


def _curve(axis: Axes, table: pd.DataFrame, name: str) -> None:
    for number, seed in enumerate(dict.fromkeys(table["seed"])):
        mine = table[table["seed"] == seed]
        axis.plot(mine["examples"], mine[name], **style.line(number) | {"linewidth": 0.9})
    sns.lineplot(
        table,
        x="examples",
        y=name,
        estimator="median",
        errorbar=("pi", 100),
        err_kws={"facecolor": "0.85", "zorder": 0, "alpha": 1, "linewidth": 0},
        ax=axis,
        **MEDIAN,
    )


def _seed_lines(seeds: Sequence[int], **look: object) -> list[Artist]:
    lines = [style.line(i) | {"label": f"seed {seed}"} for i, seed in enumerate(seeds)]
    return [Line2D([], [], **(line if not look else _without_dash(line) | look)) for line in lines]


def _without_dash(line: dict) -> dict:
    return {key: value for key, value in line.items() if key != "linestyle"}


def _heat(axis: Axes, cells: pd.DataFrame, name: str, annotated: bool) -> None:
    texts = [percent(cell[name], 1) for _, cell in cells.iterrows()]
    texts = [f"({t})" if seen else t for t, seen in zip(texts, cells["seen"], strict=True)]
    shape = {"index": "len_a", "columns": "len_b"}
    style.length_map(
        axis,
        cells.pivot(**shape, values=name),
        cells.assign(text=texts).pivot(**shape, values="text") if annotated else None,
        counted=bool(cells["counted"].any()),
    )
