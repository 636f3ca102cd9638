"""Length generalisation: exact match far beyond the operand lengths of training.

    addgpt sweep length
    python -m analysis.lengths results/length --csv FILE --png FILE

The first trains the runs of `addgpt/grids/length.toml`, the second gathers their scores into one
table and draws it. `docs/length.md` says what came out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.files import RunError, write_atomically
from analysis import load, style

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
    if how == "none":
        return INDEX[settings["model.position"]]
    if how == "learned":
        return "abacus ids" if settings.get("options.ids") == "abacus" else "coupled ids"
    gaps = " and gaps" if settings.get("options.spread") else ""
    return f"rotary ids{', two slots' if how == 'rotary2' else ''}{gaps}"


def collect(folder: str | Path) -> pd.DataFrame:
    """The evaluated cells of the plain grid, of all runs in a folder, in `COLUMNS`."""
    evals, runs = load.evals(folder), load.runs(folder).set_index("run")
    names = {run: scheme(row) for run, row in runs.iterrows()}
    table = evals[evals["stratum"] == "all"]
    return table.assign(scheme=table["run"].map(names))[COLUMNS].reset_index(drop=True)


def curves(table: pd.DataFrame) -> pd.DataFrame:
    """One row per scheme and length of both operands: `median`, `worst`, `best` of the seeds.

    Takes `collect`; shares in 0..1. `n` is the number of problems that each run was asked.
    """
    equal = load.with_accuracy(table[table["len_a"] == table["len_b"]])
    groups = equal.groupby(["scheme", "len_a"], sort=False)
    found = groups["accuracy"].agg(median="median", worst="min", best="max", seeds="count")
    return found.assign(n=groups["n"].min(), trained=groups["trained"].max()).reset_index()


@style.styled
def length_generalisation(table: pd.DataFrame) -> Figure:
    """Exact match (percent) by length of both operands (digits), a line per scheme.

    The line is the median of the seeds, the band reaches from the worst to the best; the lengths
    trained on are shaded. Takes `collect`; raises ValueError if there is nothing to draw.
    """
    found = curves(table)
    if found.empty:
        raise ValueError("there is nothing to draw: no operands of equal length were scored")
    figure, (axis,) = style.panels(1, width=7.5, height=4.2)
    handles = []
    for number, (name, part) in enumerate(found.groupby("scheme", sort=False)):
        part = part.sort_values("len_a")
        look = style.line(number)
        axis.plot(part["len_a"], 100 * part["median"], marker="o", ms=3, **look)
        band = 100 * part["worst"], 100 * part["best"]
        axis.fill_between(part["len_a"], *band, color=look["color"], alpha=0.2, lw=0)
        seeds = int(part["seeds"].max())
        label = f"{name} ({seeds} seed{'s' if seeds > 1 else ''})"
        handles.append(Line2D([], [], label=label, **look))
    axis.axvspan(0, found["trained"].max(), color="0.85", zorder=0)
    axis.set(xlabel="digits of both operands", ylabel=EXACT, ylim=(-3, 103), xlim=(0, None))
    axis.set_title(f"n = {found['n'].min():,} or more; shaded: lengths trained on")
    style.legend(figure, handles)
    return figure


def markdown(found: pd.DataFrame, lengths: Sequence[int]) -> str:
    """`curves` as a table in text: median (worst) in percent, a column per length."""
    lines = ["| ids and positions | seeds | " + " | ".join(map(str, lengths)) + " |"]
    lines.append("|---" * (2 + len(lengths)) + "|")
    for name, part in found.groupby("scheme", sort=False):
        at = part.set_index("len_a")
        cells = [
            f"{100 * at.loc[n, 'median']:.1f} ({100 * at.loc[n, 'worst']:.1f})"
            if n in at.index
            else ""
            for n in lengths
        ]
        lines.append(f"| {name} | {at['seeds'].max()} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.lengths",
        description="Gather the runs of the length sweep into a table and a figure.",
        epilog="example: python -m analysis.lengths results/length --png lengths.png",
    )
    parser.add_argument("folder", help="a folder with the runs, each evaluated")
    parser.add_argument("--csv", type=Path, help="where the table goes")
    parser.add_argument("--png", type=Path, help="where the figure goes")
    options = parser.parse_args(arguments)
    try:
        table = collect(options.folder)
        if options.csv:
            write_atomically(options.csv, table.to_csv(index=False, float_format="%.10g"))
        if options.png:
            style.save(length_generalisation(table), options.png)
        print(markdown(curves(table), sorted(table["len_a"].unique())))
    except (ValueError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
