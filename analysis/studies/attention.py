"""What local attention buys: full, window and reads on the same traces, in the same steps.

Reads `results/reference/attention.csv`, which `python -m benchmarks.attention` writes.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import percent
from analysis import load, style
from analysis.studies import common

TIMES = (1, 2, 5, 10)  # lengths scored, over the trained one
COLUMNS = [
    *"task trace digits attention seed steps seconds examples_99 seconds_99 val_exact".split(),
    *(f"{what}_{times}x" for times in TIMES for what in ("right", "n")),
    *"contexts wrong margin".split(),
]


def collect(*files: str | Path) -> pd.DataFrame:
    """The rows of tables that benchmarks/attention.py wrote. Raises ValueError."""
    tables = [load.read_table(file, COLUMNS)[COLUMNS] for file in files]
    return pd.concat(tables, ignore_index=True)


@style.styled
def draw(table: pd.DataFrame) -> Figure:
    """Exact match (percent) by length over the trained one, a line per seed, a panel per task.

    Takes `collect`; raises ValueError if there are no rows.
    """
    panels = list(table.groupby("task", sort=False))
    if not panels:
        raise UsageError("there is nothing to draw: the table has no rows")
    figure, axes = style.panels(len(panels), columns=2, width=3.8, height=2.8)
    patterns = list(dict.fromkeys(table["attention"]))
    for axis, (task, part) in zip(axes, panels, strict=True):
        for (pattern, _), rows in part.groupby(["attention", "seed"], sort=False):
            number = patterns.index(pattern)
            right = [float(100 * (rows[f"right_{x}x"] / rows[f"n_{x}x"]).iloc[0]) for x in TIMES]
            across = [i + 0.06 * (number - 1) for i in range(len(TIMES))]  # or lines hide lines
            axis.plot(across, right, marker="o", ms=4, **style.line(number))
        digits = int(part["digits"].iloc[0])
        axis.set_xticks(range(len(TIMES)), [str(digits * x) for x in TIMES])
        axis.set(ylim=(-4, 104), xlabel="digits of the operands", ylabel="exact match (%)")
        axis.set_title(f"{task}, trained to {digits} digits")
    key = [Line2D([], [], label=name, **style.line(i)) for i, name in enumerate(patterns)]
    style.legend(figure, key)
    seeds = table["seed"].nunique()
    figure.suptitle(f"one block, each attention pattern with {seeds} seeds")
    return figure


def describe(table: pd.DataFrame) -> str:
    """A table as text, a row per task and pattern: the values of the seeds, in order."""
    head = ["task", "attention", "examples to 99 %", "seconds to 99 %"]
    head += [f"{x}x" for x in TIMES] + ["contexts wrong", "smallest margin"]
    rows = []
    for (task, pattern), part in table.groupby(["task", "attention"], sort=False):
        part = part.sort_values("seed")

        def each(name: str, form: str, part: pd.DataFrame = part) -> str:
            return ", ".join("-" if pd.isna(x) else format(x, form) for x in part[name])

        scores = [
            ", ".join(
                percent(right, n)
                for right, n in zip(part[f"right_{x}x"], part[f"n_{x}x"], strict=True)
            )
            for x in TIMES
        ]
        row = [task, pattern, each("examples_99", ",.0f"), each("seconds_99", ".1f"), *scores]
        judged = part["contexts"].notna().any()
        wrong = f"{each('wrong', '.0f')} of {part['contexts'].max():,.0f}" if judged else "-"
        rows.append([*row, wrong, each("margin", ".2f") if judged else "-"])
    return common.markdown(head, rows)
