"""The smallest adders: exact match on ten-digit sums against the number of parameters.

    addgpt sweep smallest
    addgpt eval results/smallest --suite ten-digit
    addgpt study smallest results/smallest --csv FILE --png FILE

The first trains on sums of three digits, the second asks each run the 10,010 problems of the suite,
the third gathers the scores. `docs/smallest.md` says what came out.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import share
from analysis import load, style
from analysis.studies import common

SUITE = "suite-ten-digit.csv"
COLUMNS = "case pad seed params step examples seconds n answer_correct".split()
GOAL = 0.99  # of the suite


def collect(*places: str | Path) -> pd.DataFrame:
    """A row per run of sweeps that was asked the suite, in `COLUMNS`; smallest model first.

    In place of a folder there may be a file of such rows. Raises ValueError if no run was.
    """
    table = common.gather(places, _runs, COLUMNS)
    return table.sort_values(["params", "seed"], ignore_index=True)


def _runs(folder: Path) -> pd.DataFrame:
    cases = common.planned(folder).set_index("run")["case"]
    rows = []
    for _, run in load.runs(folder).iterrows():
        file = Path(run["path"]) / SUITE
        if file.is_file() and run["run"] in cases:
            parts = list(load.csv_rows(file, ("n", "answer_correct", "params"), _counts))
            facts = {name: run[name] for name in ("seed", "step", "examples", "seconds")}
            facts |= {"case": cases[run["run"]], "params": parts[0]["params"]}
            facts |= {"pad": run.get("options.pad", "none")}
            facts |= {name: sum(part[name] for part in parts) for name in ("n", "answer_correct")}
            rows.append(facts)
    if not rows:
        raise UsageError(
            f"no run in {folder} was scored on the suite: addgpt eval --suite ten-digit"
        )
    return pd.DataFrame(rows)[COLUMNS]


def _counts(row: dict[str, str]) -> dict[str, int]:
    return {name: int(row[name]) for name in ("n", "answer_correct", "params")}


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) against parameters, a dot per run, lines through the medians of the
    seeds: of operands padded to equal length, and as they are."""
    runs = table.assign(exact=100 * table["answer_correct"] / table["n"])
    figure, (axis,) = style.panels(1, width=7, height=4)
    for number, (pad, some) in enumerate(runs.groupby("pad", sort=False)):
        medians, look = some.groupby("params")["exact"].median(), style.line(number)
        what = "as they are" if pad == "none" else "padded to equal length"
        axis.plot(medians.index, medians, **look, label=f"{what}: median of the seeds")
        axis.plot(some["params"], some["exact"], "o", ms=5, alpha=0.6, color=look["color"])
    axis.axhline(100 * GOAL, color=style.MARK, ls="--", lw=1, label=f"{100 * GOAL:g} % qualifies")
    axis.set(xscale="log", xlabel="parameters", ylabel="exact match (%)", ylim=(-3, 103))
    axis.set_xticks(sorted(set(runs["params"])))
    axis.xaxis.set_major_formatter(ScalarFormatter())
    axis.minorticks_off()
    axis.tick_params(axis="x", rotation=45)
    axis.set_title(f"Ten-digit sums, n = {runs['n'].min():,}; a dot is a seed")
    style.legend(figure, axis.get_legend_handles_labels()[0])
    return figure


def describe(table: pd.DataFrame) -> str:
    """`collect` as a table in text, a row per run."""
    head = ["parameters", "case", "seed", "steps", "seconds", "right", "exact match"]
    rows = [
        [
            f"{run.params:,}",
            str(run.case),
            str(run.seed),
            f"{run.step:,.0f}",
            f"{run.seconds:,.0f}",
            f"{run.answer_correct:,} of {run.n:,}",
            share(run.answer_correct, run.n),
        ]
        for run in table.itertuples()
    ]
    return common.markdown(head, rows)
