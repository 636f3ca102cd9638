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
from rich.markup import escape
from rich.table import Table

from addgpt.config.format import clock
from addgpt.evaluation.intervals import percent
from addgpt.training.progress import PLAIN_SECONDS

ORDER = ("training", "scoring", "failed", "interrupted", "waiting", "done")
STYLES = {"training": "bold", "scoring": "bold", "failed": "red", "done": "green"}

Row = dict[str, Any]


class LiveTable(Live):
    """Shows the rows of sweep.json: `with LiveTable(rows) as table: table.changed()`."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.told = [(row["state"], time.monotonic()) for row in rows]
        how: dict[str, Any] = {"refresh_per_second": 2, "transient": True}
        super().__init__(get_renderable=self.table, console=Console(stderr=True), **how)

    def changed(self) -> bool:
        """Whether the state of a run has; without a terminal, tell of it, and of long trainings."""
        any_new, now = False, time.monotonic()
        for number, row in enumerate(self.rows):
            state, since = self.told[number]
            new = row["state"] != state
            if new or (state == "training" and now - since > PLAIN_SECONDS):
                self.told[number] = row["state"], now
                if not self.console.is_terminal:
                    print(_line(row), file=sys.stderr, flush=True)
            any_new |= new
        return any_new

    def all_left(self) -> float | None:
        """Seconds until all is trained, at the mean pace of the runs in training."""
        going = [row for row in self.rows if row["state"] == "training" and row["step"]]
        if not going:
            return None
        pace = statistics.mean(row["seconds"] / row["step"] for row in going)
        ahead = [row for row in self.rows if row["state"] in ("training", "waiting")]
        together = pace * sum(row["steps"] - row["step"] for row in ahead) / len(going)
        return max([together, *filter(None, map(seconds_left, going))])

    def table(self) -> Table:
        """As many runs as fit on the terminal, those that change first."""
        left = self.all_left()
        table = _table(2, "run", "state", "step", "val exact", "ETA")
        table.caption = tally(self.rows) + (f"; ETA {clock(left)}" if left else "")
        room = max(1, self.console.height - 7)
        shown = sorted(self.rows, key=lambda row: ORDER.index(row["state"]))
        for row in shown[:room]:
            table.add_row(*map(escape, _cells(row)), style=STYLES.get(row["state"]))
        if len(shown) > room:
            table.add_row(f"and {len(shown) - room} more")
        return table


def seconds_left(row: Row) -> float | None:
    """Of training, at a run's own pace; None if it is not training, or not known yet."""
    if row["state"] != "training" or not row["step"]:
        return None
    return row["seconds"] / row["step"] * (row["steps"] - row["step"])


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
    table.title = escape(title)
    for name in dict.fromkeys(row["combination"] for row in rows):
        group = [row for row in done if row["combination"] == name]
        _, scores, show = _measure(group)
        found = [show(of(scores)) if scores else "-" for of in (statistics.median, worst)]
        took = f"{statistics.median(row['seconds'] for row in group):.0f}" if group else "-"
        table.add_row(escape(name), str(len(group)), *found, took)
    return table


def _measure(rows: Sequence[Row]) -> tuple[str, list[float], Callable[[float], str]]:
    """How good runs are: in what, how much, and as text."""
    if bits := [row["bits"] for row in rows if row["bits"]]:
        return "held-out bits a character", bits, "{:.4f}".format
    what, shares = "held-out", [row["answer_correct"] / row["n"] for row in rows if row["n"]]
    if not shares:
        what, shares = "val", [row["val_exact"] for row in rows if row["val_exact"] is not None]
    return f"{what} exact match in %", shares, lambda share: percent(share, 1)


def _table(texts: int, *names: str) -> Table:
    """An empty table, whose columns after the first so many hold numbers."""
    table = Table()
    for number, name in enumerate(names):
        table.add_column(name, justify="left" if number < texts else "right")
    return table


def _cells(row: Row) -> tuple[str, ...]:
    """Name, state, step, exact match on val and time left of a run; empty where not known."""
    step = f"{row['step']}/{row['steps']}" if row["step"] else ""
    exact = "" if row["val_exact"] is None else f"{percent(row['val_exact'], 1)}%"
    left = seconds_left(row)
    return row["run"], row["state"], step, exact, "" if left is None else clock(left)


def _line(row: Row) -> str:
    labels = ("", "", "step ", "val exact ", "ETA ", "")
    cells = (*_cells(row), row["error"] if row["state"] == "failed" else "")
    return "  ".join(f"{label}{cell}" for label, cell in zip(labels, cells, strict=True) if cell)
