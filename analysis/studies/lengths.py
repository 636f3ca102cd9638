"""Length generalisation: exact match far beyond the operand lengths of training.

    addgpt sweep length
    addgpt study lengths results/length --csv FILE --png FILE

The first trains the runs of `addgpt/sweep/grids/length.toml`, the second gathers their scores into
one table and draws it. `docs/length.md` says what came out.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from analysis import load, style
from analysis.studies import common

COLUMNS = (
    "scheme seed params step examples seconds split op len_a len_b seen trained n answer_correct"
).split()
INDEX = {
    "rotary": "rotary positions",
    "alibi": "ALiBi",
    "fire": "FIRE",
    "sinusoidal": "sinusoidal positions",
    "learned": "learned positions",
    "none": "no positions",
}
EXACT = "exact match (%)"


def scheme(settings: pd.Series) -> str:
    """What the positions of a run are called, from its row of `load.runs`."""
    levels = settings.get("model.level_position") or ()
    how = levels[0] if levels else "none"
    if settings.get("options.hints"):
        return "index hints"
    alone = "" if settings.get("model.content", True) else " alone"
    if how == "relative":
        scaled = ", log-scaled" if settings.get("model.log_scale") else ""
        return f"relative ids{scaled}{alone}"
    if how == "none":
        return INDEX[settings["model.position"]] + alone
    if how == "learned":
        return "abacus ids" if settings.get("options.ids") == "abacus" else "coupled ids"
    gaps = " and gaps" if settings.get("options.spread") else ""
    return f"rotary ids{', two slots' if how == 'rotary2' else ''}{gaps}"


def collect(*places: str | Path) -> pd.DataFrame:
    """The evaluated cells of the plain grid, of all runs in folders, in `COLUMNS`.

    In place of a folder there may be a file of such rows.
    """
    return common.gather(places, _cells, COLUMNS)


def _cells(folder: Path) -> pd.DataFrame:
    evals, runs = load.evals(folder), load.runs(folder).set_index("run")
    names = {run: scheme(row) for run, row in runs.iterrows()}
    table = evals[evals["stratum"] == "all"]
    return table.assign(scheme=table["run"].map(names))[COLUMNS].reset_index(drop=True)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """One row per scheme and length of both operands: `median`, `worst`, `best` of the seeds.

    Takes `collect`; shares in 0..1. `n` is the number of problems that each run was asked.
    """
    equal = load.with_accuracy(table[table["len_a"] == table["len_b"]])
    if equal.empty:
        raise UsageError("there is nothing to draw: no operands of equal length were scored")
    return common.over_seeds(equal, ["scheme", "len_a"]).assign(trained=table["trained"].max())


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) by length of both operands (digits), a line per scheme.

    The line is the median of the seeds, the band reaches from the worst to the best; the lengths
    trained on are shaded. Takes `collect`; raises ValueError if there is nothing to draw.
    """
    found = curves(table)
    figure, (axis,) = style.panels(1, width=7.5, height=4.2)
    # Said once where it is the same for all.
    seeds = f"seeds: {found['seeds'].max()}; " if found["seeds"].nunique() == 1 else ""
    handles = []
    for number, (name, part) in enumerate(found.groupby("scheme", sort=False)):
        part = part.sort_values("len_a")
        look = style.line(number)
        axis.plot(part["len_a"], 100 * part["median"], marker="o", ms=3, **look)
        band = 100 * part["worst"], 100 * part["best"]
        axis.fill_between(part["len_a"], *band, color=look["color"], alpha=0.2, lw=0)
        label = name if seeds else f"{name}, seeds: {part['seeds'].max()}"
        handles.append(Line2D([], [], label=label, **look))
    axis.axvspan(0, found["trained"].max(), color="0.85", zorder=0)
    axis.set(xlabel="digits of both operands", ylabel=EXACT, ylim=(-3, 103), xlim=(0, None))
    axis.set_title(f"{seeds}n = {found['n'].min():,} or more; shaded: lengths trained on")
    style.legend(figure, handles)
    return figure


def describe(table: pd.DataFrame) -> str:
    """`curves` as a table in text: median (worst) in percent, a column per length."""
    found = curves(table)
    lengths = sorted(found["len_a"].unique())
    rows = [
        [name, str(part["seeds"].max()), *common.shares(part, "len_a", lengths)]
        for name, part in found.groupby("scheme", sort=False)
    ]
    return common.markdown(["ids and positions", "seeds", *map(str, lengths)], rows)
