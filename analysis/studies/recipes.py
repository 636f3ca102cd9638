"""Published recipes beyond the lengths they were trained on, in one figure.

    addgpt sweep recipes
    addgpt study recipes results/recipes --csv FILE --png FILE

The first trains and scores the runs of `addgpt/sweep/grids/recipes.toml`. Runs trained one by one
(`addgpt train --recipe NAME`, then `addgpt eval RUN --far 8,10,15`) count as well, if their folders
are named for the recipe: `results/mcleish2024-abacus-s1`. docs/length.md says what came out.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from addgpt.runs.published import recipe_names
from analysis import load, style
from analysis.studies import common

COLUMNS = "recipe seed trained digits n correct".split()
DRAWN = 0.75  # median exact match at the longest trained length, below which nothing is drawn
# What papers report: digits trained on, digits scored, exact match. Only where they say all three.
REPORTED = {
    "mcleish2024-abacus": (20, 100, 0.99),
    "cho2024-coupling": (30, 200, 0.95),
    "hou2024-turing": (50, 100, 0.98),
}
MARKERS = "o s ^ D v P X < > *".split()
CARRIES = 0.05  # exact match at some longer length from which on a line has a colour of its own
WIDEST, THINNEST = 7.0, 1.4  # points; a line that lies on another is thinner, so both are seen


def collect(*places: str | Path) -> pd.DataFrame:
    """Exact match of two operands of one length, of all runs of recipes in folders, in `COLUMNS`.

    In place of a folder there may be a file of such rows. `trained` is the longest operand of
    training. Raises UsageError where no run is named for a recipe.
    """
    return common.gather(places, _of_runs, COLUMNS)


def _of_runs(folder: Path) -> pd.DataFrame:
    evals = load.evals(folder)
    evals = evals.assign(recipe=[recipe_of(name) for name in evals["run"]], digits=evals["len_a"])
    equal = (evals["stratum"] == "all") & (evals["len_a"] == evals["len_b"])
    found = evals[equal & evals["recipe"].notna()]
    if found.empty:
        raise UsageError(f"{folder} has no scored run named for a recipe; see addgpt recipes")
    return found.rename(columns={"answer_correct": "correct"})[COLUMNS].reset_index(drop=True)


def recipe_of(run: str) -> str | None:
    """The recipe that a run's name begins with, if it does."""
    begun = [name for name in recipe_names() if Path(run).name.startswith(name)]
    return max(begun, key=len, default=None)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """A row per recipe and length: `median`, `worst`, `best` of the seeds, and whether the recipe
    is `drawn`. Takes `collect`; shares in 0..1."""
    shares = table.assign(accuracy=table["correct"] / table["n"])
    found = common.over_seeds(shares, ["recipe", "trained", "digits"])
    own = found[found["digits"] == found["trained"]].set_index("recipe")["median"]
    return found.assign(drawn=found["recipe"].map(own) >= DRAWN)


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) by length over the longest trained length, a line per recipe that
    is drawn, grey where it ends at the trained length, and papers' own points as stars.
    Takes `collect`."""
    found = curves(table)
    found = found[found["drawn"]].sort_values(["digits"])
    if found.empty:
        raise UsageError("there is nothing to draw: no recipe is right at its own lengths")
    figure, (axis,) = style.panels(1, width=8.5, height=4.6)
    parts = {str(name): part for name, part in found.groupby("recipe")}
    beyond = found[found["digits"] > found["trained"]].groupby("recipe")["median"].max()
    carries = {name: beyond.get(name, 0.0) >= CARRIES for name in parts}
    order = sorted(filter(carries.get, parts), key=lambda n: (-parts[n]["median"].mean(), n))
    handles, step = [], (WIDEST - THINNEST) / max(1, len(order) - 1)
    ended = [name for name in parts if not carries[name]]
    for name in ended:
        times = parts[name]["digits"] / parts[name]["trained"]
        axis.plot(times, 100 * parts[name]["median"], color="0.6", lw=1, zorder=2)
    if ended:
        label = textwrap.fill(
            f"under {100 * CARRIES:g} % beyond their training: {', '.join(ended)}", 70
        )
        handles.append(Line2D([], [], label=label, color="0.6", lw=1))
    for number, name in enumerate(order):
        part, look = parts[name], style.line(number) | {"linestyle": "-"}
        look |= {"lw": WIDEST - number * step, "marker": MARKERS[number % len(MARKERS)]}
        times = part["digits"] / part["trained"]
        axis.plot(times, 100 * part["median"], ms=5, zorder=3 + number, **look)
        band = 100 * part["worst"], 100 * part["best"]
        axis.fill_between(times, *band, color=look["color"], alpha=0.2, lw=0)
        label = f"{name}: trained to {part['trained'].max()} digits, seeds: {part['seeds'].max()}"
        handles.append(Line2D([], [], label=label, **look))
    for number, (name, (trained, digits, share)) in enumerate(REPORTED.items()):
        colour = style.line(order.index(name))["color"] if name in order else style.SOFT
        star = {"marker": "*", "ms": 13, "mec": style.INK, "mfc": colour, "ls": "none"}
        axis.plot(digits / trained, 100 * share, zorder=40 + number, **star)
        label = f"{name}: reported, trained to {trained}, scored on {digits} digits"
        handles.append(Line2D([], [], label=label, **star))
    first = (found["digits"] / found["trained"]).min()
    axis.axvspan(first, 1, color="0.85", zorder=0)
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter(lambda x, _: f"{x:g}")
    axis.set(xlabel="digits of both operands / longest trained", ylabel="exact match (%)")
    beyond = [digits / trained for trained, digits, _ in REPORTED.values()]
    axis.set(ylim=(-4, 104), xlim=(first, max(*beyond, *(found["digits"] / found["trained"]))))
    axis.set_title(
        f"n = {found['n'].min():,} or more a point; bands: worst to best seed; grey: trained on"
    )
    style.legend(figure, handles)
    return figure


def describe(table: pd.DataFrame) -> str:
    """`curves` as a table in text: for each length the median (worst) in percent."""
    rows = []
    for (name, trained), part in curves(table).groupby(["recipe", "trained"], sort=True):
        part = part.sort_values("digits")
        told = [
            f"{row.digits}: {percent(row.median, 1)}"
            + (f" ({percent(row.worst, 1)})" if row.seeds > 1 else "")
            for row in part.itertuples()
        ]
        drawn = "yes" if part["drawn"].all() else "no"
        seeds, n = str(part["seeds"].max()), f"{part['n'].min():,}"
        rows.append([f"`{name}`", str(trained), drawn, seeds, n, ", ".join(told)])
    head = "recipe, trained to, drawn, seeds, n a length, digits: exact match (worst seed)"
    return common.markdown(head.split(", "), rows)
