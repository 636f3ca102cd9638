"""Does pretraining help? Loss on held-out Shakespeare, after a large text and from scratch.

    addgpt study pretraining results/pretraining --csv FILE --png FILE

The role of a run follows from its config.json: `finetune` was started from another run
(`--init-from`), which is `pretrain`; `scratch` was trained for as many steps as `finetune`, `long`
for more. `docs/pretraining.md` says what came out.
"""

from __future__ import annotations

import shlex
from pathlib import Path, PurePath

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from analysis import load, style
from analysis.studies import common

ROLES = {
    "scratch": "from scratch, as long as the finetuning",
    "long": "from scratch, as long as both",
    "finetune": "pretrained, then finetuned",
}
COLUMNS = "role seed params step characters seconds nats whole".split()


def collect(*places: str | Path) -> pd.DataFrame:
    """One row per validation pass, and per run one of the `whole` held-out text, in `COLUMNS`.

    `characters` are those trained on, of the pretraining too where there was one. In place of a
    folder there may be a file of such rows. Raises ValueError if no run was started from another,
    or from one that is not there.
    """
    return common.gather(places, _runs, COLUMNS)


def _runs(folder: Path) -> pd.DataFrame:
    runs = load.runs(folder).set_index("run")
    places = {PurePath(run).name: run for run in runs.index}
    source = runs["command"].fillna("").map(_source).dropna()
    source = source.map(lambda name: places.get(name, name))
    if source.empty:
        raise UsageError(f"no run in {folder} was started from another one: train --init-from RUN")
    for run, other in source[~source.isin(runs.index)].items():
        raise UsageError(f"run {run} needs {other}, from which it was started, beside it")
    short = runs.loc[source.index, "train.steps"].max()
    role = (runs["train.steps"] > short).map({True: "long", False: "scratch"})
    role[source.unique()] = "pretrain"
    role[source.index] = "finetune"

    losses = load.losses(folder)
    losses = losses[losses["context"] == 0].assign(whole=True)
    passes = load.metrics(folder).rename(columns={"val_loss": "nats"}).assign(whole=False)
    ends = passes.groupby("run")["tokens"].max()
    params = losses.set_index("run")["params"]
    losses = losses.assign(tokens=losses["run"].map(ends))
    table = pd.concat([passes.assign(params=passes["run"].map(params)), losses])
    added = table["run"].map(source.map(ends)).fillna(0)
    table = table.assign(role=table["run"].map(role), characters=table["tokens"] + added)
    return table.astype({"seed": int})[COLUMNS].reset_index(drop=True)


def _source(command: str) -> str | None:
    """The name of the run that a training command started from."""
    words = iter(shlex.split(command))
    for word in words:
        option, _, value = word.partition("=")
        if option == "--init-from":
            return PurePath(value or next(words)).name
    return None


@style.styled
def draw(table: pd.DataFrame) -> Figure:
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
        raise UsageError("there is nothing to draw: no run of finetuning or from scratch")
    axis.set(xlabel="characters trained on (millions)", ylabel="loss on val (nats a character)")
    axis.set_title("lines: on a sample of val; points: all of val")
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
    return common.markdown(["", "seeds", "million characters", "median", "worst"], rows)
