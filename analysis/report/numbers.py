"""The numbers of the report: counts added up, and what they say; each comes with its n."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pandas as pd

from addgpt.evaluation.intervals import percent, share
from analysis import load
from analysis.report.data import Group, RunData

KINDS = tuple(
    f"{special}{how}{beyond}"
    for beyond in ("", ", longer than trained on")
    for how in ("held out", "seen in training")
    for special in ("", "special problems, ")
)
BINS = (0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)  # where one shade of a heat map ends
REACHED = (0.5, 0.9, 0.99, 1.0)  # shares of val whose first reaching is told


@dataclass(frozen=True)
class Score:
    """`right` of `n` problems."""

    right: int
    n: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n if self.n else math.nan

    @property
    def percent(self) -> str:
        return percent(self.right, self.n)

    @property
    def interval(self) -> str:
        """The Wilson 95 % interval, in percent: `99.85-99.96`."""
        return share(self.right, self.n).partition("(")[2].rstrip(")").replace("-", "–")

    @property
    def count(self) -> str:
        return f"{self.right:,} of {self.n:,}"

    @property
    def shade(self) -> int:
        return shade(self.accuracy)


@dataclass(frozen=True)
class Headline:
    """How the runs of a group did on one kind of problem.

    `fewest` is the number of problems in the smallest cell of any run.
    `median` and `worst` are the scores of single runs (of an even number, the lower one in the
    middle); `cell` is the score of the worst cell of any run, which is at `where`.
    """

    op: str
    kind: str
    cells: int
    median: Score
    worst: Score
    cell: Score
    where: str
    fewest: int

    @property
    def seen(self) -> bool:
        """Whether training saw these problems; they are scored on all there are."""
        return "seen in training" in self.kind


@dataclass(frozen=True)
class Loss:
    """How well the runs of a group foretold held-out text: nats a character, the less the better.

    Each of `n` characters is predicted once, from at least `context` before it (but the first).
    `median` and `worst` are single runs (of an even number, the higher one in the middle).
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


def losses(group: Group) -> list[Loss]:
    """The loss on held-out text, a row for each way of scoring it, the longest context first."""
    rows = pd.concat([run.losses for run in group.runs])
    found = []
    for (split, context, n), part in rows.groupby(["split", "context", "n"]) if len(rows) else []:
        nats = sorted(part["nats"])
        found.append(Loss(split, context, n, nats[len(nats) // 2], nats[-1]))
    return sorted(found, key=lambda loss: -loss.context)


def shade(accuracy: float) -> int:
    """Number of the shade for a share of right answers: 0 the worst, 8 only if all are right."""
    return sum(accuracy >= end for end in BINS)


def shade_names() -> list[str]:
    """What each shade stands for, in percent."""
    ends = [f"{100 * end:g}" for end in (0, *BINS)]
    return [f"{low} to <{high} %" for low, high in pairwise(ends)] + ["100 %"]


def headline(group: Group) -> list[Headline]:
    """The scores of a group by operation and kind of problem, all held-out ones first."""
    parts: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for number, run in enumerate(group.runs):
        for row in run.evals.itertuples():
            if row.n > 0:
                parts.setdefault((row.op, _kind(row)), []).append((number, row))
    held_out = [entry for (_, kind), rows in parts.items() if kind in KINDS[:2] for entry in rows]
    ops = list(dict.fromkeys(op for op, _ in parts))
    ranked = sorted(parts, key=lambda part: (ops.index(part[0]), KINDS.index(part[1])))
    total = [_headline("", "all held out", held_out)] if held_out else []
    return total + [_headline(op, kind, parts[op, kind]) for op, kind in ranked]


def _kind(row: Any) -> str:
    longer = max(row.len_a, row.len_b) > row.trained
    return KINDS[(row.stratum != "all") + 2 * row.seen + 4 * longer]


def _headline(op: str, kind: str, rows: list[tuple[int, Any]]) -> Headline:
    """One row of the table, of the evaluated cells of all runs, each with its run's number."""
    right, n = Counter(), Counter()
    for number, row in rows:
        right[number] += row.answer_correct
        n[number] += row.n
    scores = sorted((Score(right[number], n[number]) for number in n), key=lambda s: s.accuracy)
    low = min((row for _, row in rows), key=lambda row: row.accuracy)
    stratum = "" if low.stratum == "all" else f", {low.stratum}"
    return Headline(
        op=op,
        kind=kind,
        cells=len({(row.op, row.len_a, row.len_b, row.stratum) for _, row in rows}),
        median=scores[(len(scores) - 1) // 2],
        worst=scores[0],
        cell=Score(low.answer_correct, low.n),
        where=f"{low.len_a} {low.op} {low.len_b} digits{stratum}",
        fewest=min(row.n for _, row in rows),
    )


def grids(group: Group) -> dict[str, pd.DataFrame]:
    """The plain cells of each operation, the counts of a group's runs added up."""
    rows = _evals(group)
    return dict(iter(_pooled(rows[rows["stratum"] == "all"]))) if len(rows) else {}


def strata(group: Group) -> dict[str, list[tuple[str, str, Score]]]:
    """For each operation the special problems: name, lengths and score of the worst run."""
    rows = _evals(group)
    special = rows[rows["stratum"] != "all"] if len(rows) else rows
    if special.empty:
        return {}
    return {
        op: [
            (row.stratum, f"{row.len_a} {op} {row.len_b}", _worst(special, row))
            for row in part.itertuples()
        ]
        for op, part in _pooled(special)
    }


def _worst(rows: pd.DataFrame, cell: Any) -> Score:
    """The score of a cell in the run that did worst: each run was asked the same problems."""
    for name in ("op", "len_a", "len_b", "stratum"):
        rows = rows[rows[name] == getattr(cell, name)]
    low = rows.iloc[int(rows["accuracy"].argmin())]
    return Score(int(low["answer_correct"]), int(low["n"]))


def _evals(group: Group) -> pd.DataFrame:
    return pd.concat([run.evals for run in group.runs])


def _pooled(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Cells of all runs added up, operation by operation."""
    cells = load.pool(rows, ["op", "len_a", "len_b", "stratum"])
    return iter(cells[cells["n"] > 0].groupby("op", sort=False))


def diagonal(run: RunData, op: str) -> pd.DataFrame:
    """A run's plain cells whose operands have the same length, shortest first."""
    if run.evals.empty:
        return run.evals
    rows = run.evals.query("op == @op and stratum == 'all' and len_a == len_b and n > 0")
    return load.pool(rows, ["len_a", "len_b"]).sort_values("len_a") if len(rows) else rows


def reached(group: Group) -> list[tuple[str, int, float, float]]:
    """When val exact match first reached a share: share, runs, their median examples and seconds.

    Shares that no run reached are left out.
    """
    rows = []
    for least in REACHED:
        firsts = []
        for run in group.runs:
            if len(run.metrics):
                looks = run.metrics[run.metrics["val_exact"] >= least]
                firsts += [looks.iloc[0]] if len(looks) else []
        if firsts:
            medians = [
                statistics.median_low(f[key] for f in firsts) for key in ("examples", "seconds")
            ]
            rows.append((f"{100 * least:g} %", len(firsts), *medians))
    return rows


@dataclass(frozen=True)
class Mistakes:
    """How many answers are wrong in one way: `share` of all wrong ones of the operation.

    `where` says at which line of the work, or else which digit, most of them are first wrong.
    """

    kind: str
    n: int
    share: float
    where: str


def mistakes(group: Group) -> dict[str, list[Mistakes]]:
    """For each operation what went wrong, most frequent first, all runs added up."""
    tally: dict[str, dict[str, Counter]] = {}
    for run in group.runs:
        for row in run.error_counts:
            places = tally.setdefault(row["op"], {}).setdefault(row["kind"], Counter())
            places[_place(row)] += int(row["n"])
    found = {}
    for op, kinds in tally.items():
        total = sum(places.total() for places in kinds.values())
        ranked = sorted(kinds.items(), key=lambda item: -item[1].total())
        found[op] = [
            Mistakes(kind, places.total(), places.total() / total, _most(places))
            for kind, places in ranked
            if places.total()
        ]
    return found


def _place(row: dict[str, str]) -> str:
    if row.get("line"):
        return f"line {row['line']}"
    return f"digit {row['digit']}" if row.get("digit") else ""


def _most(places: Counter) -> str:
    place, n = places.most_common(1)[0]
    return f"{place} ({n:,})" if place else ""


def contamination(group: Group) -> dict[str, bool]:
    """What eval.json says about scored problems that training could have drawn; whether any was."""
    found = {}
    for run in group.runs:
        summary = run.protocol.get("contamination.summary")
        if summary:
            counts = [run.protocol.get(f"contamination.{name}") for name in ("drawable", "met")]
            found[str(summary)] = any(counts)
    return found
