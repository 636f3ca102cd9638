"""How a sweep goes: a live table on a terminal, plain lines elsewhere; and what came of it."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from addgpt.evaluation.intervals import percent
from addgpt.training.progress import PLAIN_SECONDS, clock

ORDER = ("training", "scoring", "failed", "interrupted", "waiting", "done")
STYLES = {"training": "bold", "scoring": "bold", "failed": "red", "done": "green"}

Row = dict[str, Any]


class LiveTable:
    """Shows the rows of sweep.json: `with LiveTable(rows) as table: table.update()`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.states = {row["run"]: row["state"] for row in rows}
        # Of each run in training: step and time when it was first seen, and at its last news.
        self.first: dict[str, tuple[int, float]] = {}
        self.last: dict[str, tuple[int, float]] = {}
        self.told: dict[str, float] = {}  # when its last plain line was written
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
        changed, now = False, time.monotonic()
        for row in self.rows:
            name, state, step = row["run"], row["state"], row["step"]
            new = state != self.states[name]
            if state == "training":
                if step < self.first.setdefault(name, (step, now))[0]:  # it began again
                    self.first[name] = step, now
                if step != self.last.get(name, (-1,))[0]:
                    self.last[name] = step, now
            late = state == "training" and now - self.told.get(name, now) > PLAIN_SECONDS
            if (new or late) and not self.live.is_started:
                print(self._line(row), file=sys.stderr, flush=True)
                self.told[name] = now
            self.states[name] = state
            changed |= new
        return changed

    def _line(self, row: Row) -> str:
        left = self.left(row)
        notes = [row["run"], row["state"]]
        notes += [f"step {row['step']}/{row['steps']}"] if row["step"] else []
        notes += [f"val exact {_exact(row)}"] if _exact(row) else []
        notes += [f"ETA {clock(left)}"] if left is not None else []
        notes += [row["error"]] if row["state"] == "failed" else []
        return "  ".join(notes)

    def _pace(self, row: Row) -> float | None:
        """Seconds a step of a run in training; None before the first news."""
        if row["state"] != "training" or row["run"] not in self.last:
            return None
        (first, since), (step, now) = self.first[row["run"]], self.last[row["run"]]
        return (now - since) / (step - first) if step > first else None

    def left(self, row: Row) -> float | None:
        """Seconds of training left of a run, at its own pace."""
        pace = self._pace(row)
        return None if pace is None else pace * (row["steps"] - row["step"])

    def all_left(self) -> float | None:
        """Seconds until all is trained, at the mean pace of the runs in training."""
        paces = [pace for row in self.rows if (pace := self._pace(row)) is not None]
        if not paces:
            return None
        ahead = [row for row in self.rows if row["state"] in ("training", "waiting")]
        steps = sum(row["steps"] - row["step"] for row in ahead)
        longest = max(self.left(row) or 0.0 for row in ahead)
        return max(statistics.mean(paces) * steps / len(paces), longest)

    def table(self) -> Table:
        """As many runs as fit on the terminal, those that change first."""
        left = self.all_left()
        table = _table(2, "run", "state", "step", "val exact", "ETA")
        table.caption = tally(self.rows) + (f"; ETA {clock(left)}" if left else "")
        room = max(1, self.console.height - 7)
        shown = sorted(self.rows, key=lambda row: ORDER.index(row["state"]))
        for row in shown[:room]:
            step = f"{row['step']}/{row['steps']}" if row["step"] else ""
            eta = "" if (left := self.left(row)) is None else clock(left)
            style = STYLES.get(row["state"])
            table.add_row(row["run"], row["state"], step, _exact(row), eta, style=style)
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
    what, worst = _measure(done)[0], max if any(row["bits"] for row in done) else min
    table = _table(1, "combination", "seeds", f"{what}, median", "worst", "seconds")
    table.title = title
    for name in dict.fromkeys(row["combination"] for row in rows):
        group = [row for row in done if row["combination"] == name]
        _, scores, show = _measure(group)
        found = [show(of(scores)) if scores else "-" for of in (statistics.median, worst)]
        seconds = [row["seconds"] for row in group]
        took = f"{statistics.median(seconds):.0f}" if group else "-"
        table.add_row(name, str(len(group)), *found, took)
    return table


def _table(texts: int, *names: str) -> Table:
    """An empty table, whose columns after the first so many hold numbers."""
    table = Table()
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number < texts else "right")
    return table


def _measure(rows: Sequence[Row]) -> tuple[str, list[float], Callable[[float], str]]:
    """How good runs are: in what, how much, and as text."""
    if any(row["bits"] for row in rows):
        bits = [row["bits"] for row in rows if row["bits"]]
        return "held-out bits a character", bits, "{:.4f}".format
    what, shares = "held-out", [row["answer_correct"] / row["n"] for row in rows if row["n"]]
    if not shares:
        what, shares = "val", [row["val_exact"] for row in rows if row["val_exact"] is not None]
    return f"{what} exact match in %", shares, lambda share: percent(share, 1)


def _exact(row: Row) -> str:
    return "" if row["val_exact"] is None else f"{percent(row['val_exact'], 1)}%"
