"""How a sweep goes: a live table on a terminal, plain lines elsewhere; and what came of it."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from addgpt.evaluation.intervals import percent

PLAIN_SECONDS = 30.0  # between plain lines of one run
ORDER = ("training", "scoring", "failed", "interrupted", "waiting", "done")
STYLES = {"training": "bold", "scoring": "bold", "failed": "red", "done": "green"}

Row = dict[str, Any]


@dataclass
class _Mark:
    """Where a run in training was when this sweep first saw it, and where it is now."""

    first: int
    since: float
    step: int
    now: float
    told: float  # when the last plain line was written

    @property
    def pace(self) -> float | None:
        """Seconds a step; None before the first news."""
        steps = self.step - self.first
        return (self.now - self.since) / steps if steps else None


class LiveTable:
    """Shows the rows of sweep.json: `with LiveTable(rows) as table: table.update()`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.states = {row["run"]: row["state"] for row in rows}
        self.marks: dict[str, _Mark] = {}
        self.console = Console(stderr=True)
        self.live = Live(
            get_renderable=self.table, console=self.console, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> LiveTable:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def update(self) -> bool:
        """Take notice of what has changed; returns whether a state has."""
        changed = [row for row in self.rows if row["state"] != self.states[row["run"]]]
        self.states |= {row["run"]: row["state"] for row in changed}
        now = time.monotonic()
        for row in self.rows:
            mark = self._mark(row, now) if row["state"] == "training" else None
            late = mark is not None and now - mark.told > PLAIN_SECONDS
            if not self.live.is_started and (row in changed or late):
                print(self._line(row), file=sys.stderr, flush=True)
                if mark:
                    mark.told = now
        return bool(changed)

    def _mark(self, row: Row, now: float) -> _Mark:
        """Where a run in training is; from its start again if it is now before that."""
        step, mark = row["step"], self.marks.get(row["run"])
        if mark is None or step < mark.first:
            mark = self.marks[row["run"]] = _Mark(step, now, step, now, now)
        if step != mark.step:
            mark.step, mark.now = step, now
        return mark

    def _line(self, row: Row) -> str:
        notes = [row["run"], row["state"]]
        notes += [f"step {row['step']}/{row['steps']}"] if row["step"] else []
        notes += [f"val exact {_exact(row)}"] if _exact(row) else []
        notes += [f"ETA {_clock(self.left(row))}"] if self.left(row) is not None else []
        notes += [row["error"]] if row["state"] == "failed" else []
        return "  ".join(notes)

    def left(self, row: Row) -> float | None:
        """Seconds of training left of a run, at its own pace."""
        mark = self.marks.get(row["run"])
        if row["state"] != "training" or mark is None or mark.pace is None:
            return None
        return mark.pace * (row["steps"] - row["step"])

    def all_left(self) -> float | None:
        """Seconds until all is trained, at the mean pace of the runs in training."""
        own = {row["run"]: self.left(row) for row in self.rows}
        own = {name: left for name, left in own.items() if left is not None}
        if not own:
            return None
        pace = statistics.mean(self.marks[name].pace for name in own)
        ahead = [row for row in self.rows if row["state"] in ("training", "waiting")]
        steps = sum(row["steps"] - row["step"] for row in ahead)
        return max(pace * steps / len(own), *own.values())

    def table(self) -> Table:
        """As many runs as fit on the terminal, those that change first."""
        left = self.all_left()
        table = Table(caption=tally(self.rows) + (f"; ETA {_clock(left)}" if left else ""))
        for name in ("run", "state", "step", "val exact", "ETA"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right")
        room = max(1, self.console.height - 7)
        shown = sorted(self.rows, key=lambda row: ORDER.index(row["state"]))
        for row in shown[:room]:
            step = f"{row['step']}/{row['steps']}" if row["step"] else ""
            cells = (row["run"], row["state"], step, _exact(row), _clock(self.left(row)))
            table.add_row(*cells, style=STYLES.get(row["state"]))
        if len(shown) > room:
            table.add_row(f"and {len(shown) - room} more")
        return table


def tally(rows: Sequence[Row]) -> str:
    """`3 done, 7 waiting, 2 training`"""
    counts = Counter(row["state"] for row in rows)
    return ", ".join(f"{counts[state]} {state}" for state in ORDER[::-1] if counts[state])


def outcome_table(title: str, rows: Sequence[Row]) -> Table:
    """The combinations with their finished seeds: median and worst of the held-out score.

    Runs that are not scored have that of the last validation; a text has bits a character.
    """
    done = [row for row in rows if row["state"] == "done"]
    table = Table(title=title)
    table.add_column("combination")
    what, worst = _measure(done)[0], max if any(row["bits"] for row in done) else min
    for name in ("seeds", f"{what}, median", "worst", "seconds"):
        table.add_column(name, justify="right")
    for name in dict.fromkeys(row["combination"] for row in rows):
        group = [row for row in done if row["combination"] == name]
        _, scores, show = _measure(group)
        table.add_row(
            name,
            str(len(group)),
            show(statistics.median(scores)) if scores else "-",
            show(worst(scores)) if scores else "-",
            f"{statistics.median(row['seconds'] for row in group):.0f}" if group else "-",
        )
    return table


def _measure(rows: Sequence[Row]) -> tuple[str, list[float], Callable[[float], str]]:
    """How good runs are: in what, how much, and as text."""
    if any(row["bits"] for row in rows):
        bits = [row["bits"] for row in rows if row["bits"]]
        return "held-out bits a character", bits, "{:.4f}".format
    if any(row["n"] for row in rows):
        shares = [row["answer_correct"] / row["n"] for row in rows if row["n"]]
        return "held-out exact match in %", shares, lambda share: percent(share, 1)
    shares = [row["val_exact"] for row in rows if row["val_exact"] is not None]
    return "val exact match in %", shares, lambda share: percent(share, 1)


def _exact(row: Row) -> str:
    return "" if row["val_exact"] is None else f"{percent(row['val_exact'], 1)}%"


def _clock(seconds: float | None) -> str:
    return "" if seconds is None else str(timedelta(seconds=round(seconds)))
