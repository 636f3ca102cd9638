"""Does pretraining help? Loss on held-out Shakespeare, after a large text and from scratch.

    python -m analysis.pretraining results/pretraining --csv FILE --png FILE

Runs are named ROLE-sSEED: `pretrain` on the large text, `finetune` from that of the same seed or
from the only one there is, `scratch` for as many steps as `finetune`, `long` for as many as both
together. `docs/pretraining.md` says what came out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import load, style, sweeps

ROLES = {
    "scratch": "from scratch, as long as the finetuning",
    "long": "from scratch, as long as both",
    "finetune": "pretrained, then finetuned",
}
BEFORE = "pretrain"
COLUMNS = "role seed params step characters seconds nats whole".split()


def collect(folder: str | Path) -> pd.DataFrame:
    """One row per look at val, and per run one of the `whole` held-out text, in `COLUMNS`.

    `characters` are those trained on, of the pretraining too where there was one. Raises ValueError
    if a run is not named for its role.
    """
    losses = load.losses(folder)
    losses = losses[losses["context"] == 0].assign(whole=True)
    looks = load.metrics(folder).rename(columns={"val_loss": "nats"}).assign(whole=False)
    ends = looks.groupby("run")["tokens"].max()
    params = losses.set_index("run")["params"]
    losses = losses.assign(tokens=losses["run"].map(ends))
    table = pd.concat([looks.assign(params=looks["run"].map(params)), losses])
    named = table["run"].str.extract(r"^(?P<role>[a-z]+)-s(?P<seed>\d+)$")
    valid = (BEFORE, *ROLES)
    for run, role in zip(table["run"], named["role"], strict=True):
        if role not in valid:
            raise ValueError(f"run {run} must be named ROLE-sSEED, a role of {', '.join(valid)}")
    table = table.assign(role=named["role"], seed=named["seed"].astype(int))
    before = table[table["role"] == BEFORE].groupby("seed")["tokens"].max()
    source = before.get if len(before) != 1 else lambda seed: before.squeeze()  # one for all
    added = table["seed"].map(source).where(table["role"] == "finetune", 0)
    for seed in table["seed"][added.isna()]:
        raise ValueError(f"run finetune-s{seed} needs pretrain-s{seed} beside it")
    return table.assign(characters=table["tokens"] + added)[COLUMNS].reset_index(drop=True)


@style.styled
def curves(table: pd.DataFrame) -> Figure:
    """Loss on held-out text (nats a character) by millions of characters, a line per run."""
    figure, (axis,) = style.panels(1, width=7.5, height=4.2)
    handles = []
    for number, (role, label) in enumerate(ROLES.items()):
        look = style.line(number)
        part = table[(table["role"] == role) & ~table["whole"]]
        for _, run in part.groupby("seed"):
            axis.plot(run["characters"] / 1e6, run["nats"], lw=1.2, **look)
        ends = table[(table["role"] == role) & table["whole"]]
        axis.plot(ends["characters"] / 1e6, ends["nats"], "o", ms=5, color=look["color"])
        if len(ends):
            handles.append(Line2D([], [], label=f"{label} ({len(ends)} seeds)", **look))
    if not handles:
        raise ValueError("there is nothing to draw: no run of finetuning or from scratch")
    axis.set(xlabel="characters trained on (millions)", ylabel="loss on val (nats a character)")
    axis.set_title("lines: looks at a sample of val; points: all of val")
    style.legend(figure, handles)
    return figure


def describe(table: pd.DataFrame) -> str:
    """The loss on the whole held-out text of each role: median and worst of the seeds."""
    rows = []
    for role, part in table[table["whole"]].groupby("role", sort=False):
        nats = part["nats"]
        rows.append(
            [
                ROLES.get(role, "the pretraining, on its own text"),
                str(len(part)),
                f"{part['characters'].median() / 1e6:.1f}",
                f"{nats.median():.4f}",
                f"{nats.max():.4f}",
            ]
        )
    return sweeps.markdown(["", "seeds", "million characters", "median", "worst"], rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    about = "Gather the runs of the pretraining experiment into a table and a figure."
    example = "results/pretraining"
    return sweeps.command(arguments, "pretraining", about, example, collect, curves, describe)


if __name__ == "__main__":
    sys.exit(main())
