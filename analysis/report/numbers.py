"""The numbers of the report: counts added up, and what they say; each comes with its n."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd

from addgpt.evaluation.intervals import percent, share
from addgpt.evaluation.schema import lengths_of, operation_of
from analysis import style
from analysis.report.data import Group, table

HELD_OUT = ("held out", "special problems, held out")
SEEN = ("none held out", "special problems, none held out")
NEAR = (*HELD_OUT, *SEEN)
KINDS = (*NEAR, *(f"{kind}, longer than trained on" for kind in NEAR))
REACHED = (0.5, 0.9, 0.99, 1.0)  # shares of val: the report says when each was first reached
ROWS = 6  # validation passes in the table below the curves


@dataclass(frozen=True)
class Score:
    """`right` of `n` problems; the median of an even number of runs may be half a problem."""

    right: float
    n: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def percent(self) -> str:
        return percent(self.right, self.n)

    @property
    def interval(self) -> str:
        """The Wilson 95 % interval, in percent: `99.85–99.96`."""
        return share(self.right, self.n).partition("(")[2].rstrip(")").replace("-", "–")

    @property
    def count(self) -> str:
        return f"{self.right:,.1f}".removesuffix(".0") + f" of {self.n:,}"

    @property
    def shade(self) -> int:
        return style.shade(self.accuracy)


@dataclass(frozen=True)
class Headline:
    """How the runs of a group did on one kind of problem.

    `scores` are those of the runs, by name, `median` and `worst` of them; `cell` is the score of
    the worst cell of any run, which is at `where`; the smallest cell has `fewest` problems.
    """

    op: str
    kind: str
    cells: int
    median: Score
    worst: Score
    cell: Score
    where: str
    fewest: int
    scores: dict[str, Score]

    @property
    def seen(self) -> bool:
        """Whether their cells hold nothing out; they are scored on all there are."""
        return "none held out" in self.kind


@dataclass(frozen=True)
class Loss:
    """Loss of the runs of a group on held-out text, in nats a character.

    Each of `n` characters is predicted once, from at least `context` before it (but the first).
    """

    split: str
    context: int
    n: int
    median: float
    worst: float

    @property
    def where(self) -> str:
        """`111,540 characters of val, each but the first ones after 64 or more`"""
        after = f", each but the first ones after {self.context:,} or more" if self.context else ""
        return f"{self.n:,} characters of {self.split}{after}"


@dataclass(frozen=True)
class Mistakes:
    """How many of `all` wrong answers of the operation are wrong in one way.

    `where` says at which line of the work, or else which digit, most of them are first wrong.
    """

    kind: str
    n: int
    all: int
    where: str

    @property
    def percent(self) -> str:
        return percent(self.n, self.all)


def losses(group: Group) -> list[Loss]:
    """The loss on held-out text, a row for each way of scoring it, the longest context first."""
    rows = table(group, "losses")
    parts = rows.groupby(["split", "context", "n"])["nats"] if len(rows) else []
    found = [Loss(*way, statistics.median(nats), nats.max()) for way, nats in parts]
    return sorted(found, key=lambda loss: -loss.context)


def shade_names() -> list[str]:
    """What each shade stands for, in percent."""
    ends = pairwise((0, *style.ENDS))
    return [f"{low} to <{high} %" for low, high in ends] + ["100 %"]


def headline(group: Group) -> list[Headline]:
    """The scores of a group by operation and kind of problem, all held-out ones first."""
    held_out: list[dict] = []
    parts: dict[tuple[str, str], list[dict]] = {}
    for row in table(group, "evals").to_dict("records"):
        special = row["stratum"] != "all" and row["len_a"] > 0
        kind = KINDS[special + 2 * bool(row["seen"]) + 4 * row["longer"]]
        parts.setdefault((row["op"], kind), []).append(row)
        held_out += [row] if kind in HELD_OUT else []
    ranked = [(op, kind) for op in dict.fromkeys(op for op, _ in parts) for kind in KINDS]
    every = [_headline("all held out", held_out)] if held_out else []
    found = [(kind, parts[op, kind]) for op, kind in ranked if (op, kind) in parts]
    return every + [_headline(*part, operation_of(part[1][0])) for part in found]


def _headline(kind: str, rows: list[dict], op: str = "") -> Headline:
    """One row of the table, of the evaluated cells of all runs."""
    runs: dict[str, Score] = {}
    for row in rows:
        before = runs.get(row["run"], Score(0, 0))
        runs[row["run"]] = Score(before.right + row["answer_correct"], before.n + row["n"])
    low = min(rows, key=lambda row: row["accuracy"])
    lengths = lengths_of(low)
    where = [f"{lengths} digits"] if lengths else []
    where += [low["stratum"]] if low["stratum"] != "all" or not lengths else []
    return Headline(
        op=op,
        kind=kind,
        cells=len({(row["op"], row["len_a"], row["len_b"], row["stratum"]) for row in rows}),
        median=median(list(runs.values())),
        worst=min(runs.values(), key=lambda score: score.accuracy),
        cell=Score(low["answer_correct"], low["n"]),
        where=", ".join(where),
        fewest=min(row["n"] for row in rows),
        scores=runs,
    )


def median(runs: Sequence[Score]) -> Score:
    """The median run; of an even number, the mean of the two in the middle."""
    n = min(run.n for run in runs)
    if all(run.n == n for run in runs):
        return Score(float(statistics.median(run.right for run in runs)), n)
    return Score(n * statistics.median(run.accuracy for run in runs), n)


def strata(group: Group) -> dict[str, list[tuple[str, str, Score]]]:
    """For each operation the special problems: name, lengths and score of the worst run."""
    rows = table(group, "evals")
    if rows.empty:
        return {}
    special = rows[rows["stratum"] != "all"]
    found: dict[str, list[tuple[str, str, Score]]] = {}
    where = ["op", "len_a", "len_b", "stratum"]
    lowest = special.groupby(where, sort=False)["accuracy"].idxmin()
    for row in special.loc[lowest].to_dict("records"):
        score = Score(row["answer_correct"], row["n"])
        told = row["stratum"], lengths_of(row), score
        found.setdefault(operation_of(row), []).append(told)
    return found


def reached(group: Group) -> list[tuple[str, int, float, float]]:
    """When val exact match first reached a share: share, runs, their median examples and seconds.

    Shares that no run reached are left out.
    """
    found = []
    for least in REACHED:
        logs = [run.metrics for run in group.runs if len(run.metrics)]
        firsts = [log[log["val_exact"] >= least].head(1) for log in logs]
        firsts = pd.concat(firsts) if firsts else pd.DataFrame()
        if len(firsts):
            medians = (statistics.median(firsts[name]) for name in ("examples", "seconds"))
            found.append((f"{100 * least:g} %", len(firsts), *medians))
    return found


def course(group: Group) -> list[tuple[float, ...]]:
    """Median examples, seconds, exact match (percent) and loss on val at a few validation passes.

    Of those that all runs have, the last among them.
    """
    logs = [run.metrics for run in group.runs if len(run.metrics)]
    if not logs:
        return []
    last = min(map(len, logs)) - 1
    names = ["examples", "seconds", "val_exact", "val_loss"]
    rows = [
        [statistics.median(log[name].iloc[i] for log in logs) for name in names]
        for i in sorted({round(i) for i in np.linspace(0, last, ROWS)})
    ]
    return [(examples, seconds, 100 * exact, loss) for examples, seconds, exact, loss in rows]


def mistakes(group: Group) -> dict[str, list[Mistakes]]:
    """For each operation what went wrong, most frequent first, all runs added up."""
    rows = table(group, "error_counts")
    if rows.empty or not rows["n"].sum():
        return {}
    line = "line " + rows["line"].map("{:.0f}".format)
    digit = "digit " + rows["part"].str[:1] + rows["digit"].map("{:.0f}".format)
    place = line.where(rows["line"].notna(), digit.where(rows["digit"].notna(), ""))
    found = {}
    for _, part in rows.assign(place=place).groupby("op", sort=False):
        op = operation_of(part.iloc[0])
        counts = part.groupby("kind")["n"].sum().sort_values(ascending=False, kind="stable")
        found[op] = []
        for kind, n in counts[counts > 0].items():
            places = part[part["kind"] == kind].groupby("place", sort=False)["n"].sum()
            most = f"{places.idxmax()} ({places.max():,})" if places.idxmax() else ""
            found[op].append(Mistakes(kind, int(n), int(counts.sum()), most))
    return found


def outdated(group: Group) -> list[str]:
    """Which scores are of other weights than their run has now, with both steps."""
    found = []
    for run in group.runs:
        steps = {step for part in (run.evals, run.losses) for step in part.get("step", ())}
        older = [f"{step:,.0f}" for step in sorted(steps - {run.step}) if math.isfinite(step)]
        if older and run.step is not None:
            told = (
                f"scored at step {', '.join(older)}, and its weights are of step {run.step:,} now"
            )
            found.append(f"{run.name}: {told}")
    return found


def contamination(group: Group) -> dict[str, bool]:
    """What eval.json says about scored problems that training could have drawn; whether any was."""
    found = {}
    for run in group.runs:
        summary = run.protocol.get("contamination.summary")
        if summary:
            counts = [run.protocol.get(f"contamination.{name}") for name in ("drawable", "met")]
            found[str(summary)] = any(counts)
    return found
