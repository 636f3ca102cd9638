"""Grokking of modular sums: what several runs have in common, from tables of `addgpt inspect`.

`seedN.csv` is what `addgpt inspect RUN --grokking --out` wrote, `spectrumN.csv` that of
`--fourier`; `docs/grokking.md` says how the runs were made.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from addgpt.config.errors import UsageError
from analysis import load, style

MEASURES = "step train_exact val_exact train_loss val_loss restricted excluded".split()
SPECTRUM = "table frequency share".split()
LOSSES = {  # as they are called in a legend
    "train_loss": "train",
    "val_loss": "val",
    "restricted": "restricted (val)",
    "excluded": "excluded (train)",
}
LEAST_LOSS = 1e-6  # that is drawn: below it a loss in single precision is rounding
KEY = 0.05  # share of power from which on a frequency counts as strong


def measures(folder: str | Path) -> pd.DataFrame:
    """`MEASURES` of each kept step of each `seed`, losses in nats, exact match in 0..1."""
    return _by_seed(Path(folder), "seed", MEASURES)


def spectra(folder: str | Path) -> pd.DataFrame:
    """`SPECTRUM` of each `seed`: the share (0..1) of power at each frequency of each table."""
    return _by_seed(Path(folder), "spectrum", SPECTRUM)


def _by_seed(folder: Path, name: str, columns: list[str]) -> pd.DataFrame:
    seeds = sorted(int(file.stem.removeprefix(name)) for file in folder.glob(f"{name}[0-9]*.csv"))
    if not seeds:
        raise UsageError(f"{folder} has no {name}0.csv")
    return pd.concat(
        [
            load.read_table(folder / f"{name}{seed}.csv", columns)[columns].assign(seed=seed)
            for seed in seeds
        ],
        ignore_index=True,
    )


def milestones(table: pd.DataFrame) -> pd.DataFrame:
    """The first kept step that reaches each milestone, a row for each seed; missing if none does.

    Takes `measures`. A loss is *halved* when it is at most half of what the first kept step has.
    """
    rows = {}
    for seed, part in table.groupby("seed"):
        part, guess = part.sort_values("step"), part.sort_values("step")["val_loss"].iloc[0]
        reached = {
            "train 99 %": part["train_exact"] >= 0.99,
            "restricted halved": part["restricted"] <= guess / 2,
            **{f"val {goal} %": part["val_exact"] >= goal / 100 for goal in (10, 50)},
            "val loss halved": part["val_loss"] <= guess / 2,
            **{f"val {goal} %": part["val_exact"] >= goal / 100 for goal in (90, 99)},
        }
        rows[seed] = {name: part.loc[at, "step"].min() for name, at in reached.items()}
    found = pd.DataFrame.from_dict(rows, orient="index").astype("Int64")
    return found.rename_axis(index="seed")


@style.styled
def draw_exact(table: pd.DataFrame) -> Figure:
    """Exact match (percent) on train and val over steps, a colour for each seed."""
    figure, (axis,) = style.panels(1, width=7, height=3.6)
    for index, (seed, part) in enumerate(table.groupby("seed")):
        for split, dashes in (("train", "--"), ("val", "-")):
            exact, colour = 100 * part[f"{split}_exact"], style.COLOURS[index]
            label = f"seed {seed}, {split}"
            axis.plot(part["step"], exact, label=label, color=colour, linestyle=dashes)
    axis.set(xlabel="step", xscale="log", ylabel="exact match (%)", ylim=(-2, 102))
    axis.legend()
    return figure


@style.styled
def draw_losses(table: pd.DataFrame) -> Figure:
    """Losses and progress measures (nats) over steps, a panel for each seed."""
    figure, seeds = style.panels_by(table, "seed", 3, 3.7, 3.2)
    for axis, seed, part in seeds:
        for index, (name, label) in enumerate(LOSSES.items()):
            loss = part[name].clip(lower=LEAST_LOSS)
            axis.plot(part["step"], loss, label=label, **style.line(index))
        axis.set(title=f"seed {seed}", xlabel="step", xscale="log", yscale="log")
        axis.set_ylim(LEAST_LOSS / 2, 100)
    figure.axes[0].set_ylabel("loss (nats)")
    style.legend(figure, figure.axes[0].get_legend_handles_labels()[0])
    return figure


@style.styled
def draw_spectra(table: pd.DataFrame) -> Figure:
    """Share of power (percent) by frequency in both tables, a panel for each seed."""
    figure, seeds = style.panels_by(table, "seed", 3, 3.7, 2.9)
    for axis, seed, part in seeds:
        for index, (name, rows) in enumerate(part.groupby("table", sort=False)):
            across = rows["frequency"] + 0.4 * (index - 0.5)
            colour = style.COLOURS[index]
            axis.bar(across, 100 * rows["share"], 0.4, label=name, color=colour, linewidth=0)
        even = 100 / part["frequency"].nunique()
        axis.axhline(even, color=style.MARK, ls="--", lw=1, label="all frequencies alike")
        axis.set(title=f"seed {seed}", xlabel="frequency", ylim=(0, 115 * table["share"].max()))
    figure.axes[0].set_ylabel("power (%)")
    style.legend(figure, figure.axes[0].get_legend_handles_labels()[0])
    return figure


def strong(table: pd.DataFrame) -> pd.DataFrame:
    """The frequencies that hold `KEY` or more of a table's power, by seed and table."""
    held = table[table["share"] >= KEY]
    found = held.groupby(["seed", "table"])["frequency"].agg(lambda some: ", ".join(map(str, some)))
    return found.unstack("table")
