"""The figure of a sweep: all its cases side by side, each seed a dot; and how they learned."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from addgpt.config.errors import UsageError
from analysis import load, style
from analysis.figures import EXACT, training_panels
from analysis.style import INK, Panel

FILE, PICTURE = "sweep.json", "sweep.png"
COLUMNS = ("run", "combination", "seed", "state", "val_exact", "n", "answer_correct", "bits")
MOST_CURVES = 40  # cases whose lines can be told apart


def table(folder: str | Path) -> pd.DataFrame:
    """The finished runs of a sweep, a row each: `combination`, `seed`, and `score`.

    The score is held-out exact match in percent, or where nothing was scored that of the last
    validation; for a text, bits a character. Its name is in `what`. Raises ValueError if sweep.json
    is damaged or no run is finished.
    """
    file = Path(folder) / FILE
    rows = load.read_json(file, dict).get("runs")
    if not isinstance(rows, list) or not all(set(COLUMNS) <= set(row) for row in rows):
        raise UsageError(f"{file} is damaged: it has no rows of runs")
    frame = pd.DataFrame(rows)[list(COLUMNS)]
    done = frame[frame["state"] == "done"].reset_index(drop=True)
    if done["bits"].notna().any():
        return done.assign(what="held-out bits a character", score=done["bits"].astype(float))
    if (done["n"] > 0).any():
        score = 100 * done["answer_correct"] / done["n"].where(done["n"] > 0)
        return done.assign(what=f"held-out {EXACT}", score=score)
    if done["val_exact"].notna().any():
        score = 100 * done["val_exact"].astype(float)
        return done.assign(what=f"val {EXACT}", score=score)
    raise UsageError(f"{file}: no run of this sweep is finished and scored")


@style.styled
def compare(runs: pd.DataFrame, metrics: pd.DataFrame) -> Figure:
    """One picture of a sweep: the score of each case, then the curves of training.

    Args:
        runs: rows of `table`.
        metrics: those of `load.metrics` of the same folder.
    """
    cases = list(dict.fromkeys(runs["combination"]))
    what, height = runs["what"].iloc[0], 1.2 + 0.28 * len(cases)
    seeds = runs.groupby("combination").size()
    note = f"{seeds.min()} to {seeds.max()} seeds a case" if seeds.nunique() > 1 else (
        f"{seeds.max()} seeds a case" if seeds.max() > 1 else "one seed a case"
    )  # fmt: skip
    parts = [Panel(what, note, partial(_draw_scores, runs, cases), width=5.4, height=height)]
    names = dict(zip(runs["run"], runs["combination"], strict=True))
    mine = metrics[metrics["run"].isin(names)]
    curves = not mine.empty and len(cases) <= MOST_CURVES
    if curves:
        parts += training_panels(mine, names)[:1]
    figure, _ = style.compose(parts)
    lines = [Line2D([], [], label=case, **style.line(i)) for i, case in enumerate(cases)]
    style.legend(figure, [*lines] if curves else [])
    figure.suptitle("the cases of the sweep; upright: the median")
    return figure


def draw(folder: str | Path) -> Path | None:
    """Draw the figure of a sweep into its folder; None if the folder is not a sweep's.

    Raises ValueError if a file is damaged, RunError if the figure cannot be written.
    """
    if not (Path(folder) / FILE).is_file():
        return None
    return style.save(compare(table(folder), load.metrics(folder)), Path(folder) / PICTURE)


def _draw_scores(runs: pd.DataFrame, cases: list[str], axis: Axes) -> None:
    for height, case in enumerate(cases):
        scores, colour = runs.loc[runs["combination"] == case, "score"], style.line(height)["color"]
        axis.plot(scores, [height] * len(scores), "o", color=colour, markersize=5, alpha=0.8)
        axis.plot([scores.median()], [height], "|", color=INK, markersize=14, markeredgewidth=1.5)
    axis.set_yticks(range(len(cases)), cases)
    axis.set_ylim(len(cases) - 0.4, -0.6)
    axis.set(xlabel=runs["what"].iloc[0])
