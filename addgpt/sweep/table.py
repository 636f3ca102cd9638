"""The progress of a sweep: a live table on a terminal, plain lines elsewhere; and its outcome."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from addgpt.config.format import clock
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.tables import table_of
from addgpt.training.progress import PLAIN_SECONDS

STYLES = {  # of the states of a run, in the order of the live table
    "training": "bold", "scoring": "bold", "failed": "red", "interrupted": "", "waiting": "",
    "done": "green",
}  # fmt: skip

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
        going = [row for row in self.rows if seconds_left(row) is not None]
        if not going:
            return None
        pace = statistics.mean(row["seconds"] / row["step"] for row in going)
        ahead = [row for row in self.rows if row["state"] in ("training", "waiting")]
        together = pace * sum(row["steps"] - row["step"] for row in ahead) / len(going)
        return max(together, *(seconds_left(row) or 0.0 for row in going))

    def table(self) -> Table:
        """As many runs as fit on the terminal, the active ones first."""
        left, room = self.all_left(), max(1, self.console.height - 7)
        caption = tally(self.rows) + (f"; ETA {clock(left)}" if left else "")
        names = ("run", "state", "step", "val exact", "ETA")
        table = table_of("", names, left=("run", "state"), caption=caption)
        shown = sorted(self.rows, key=lambda row: [*STYLES].index(row["state"]))
        for row in shown[:room]:
            table.add_row(*map(escape, _cells(row)), style=STYLES[row["state"]])
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
    return ", ".join(f"{counts[state]} {state}" for state in reversed(STYLES) if counts[state])


def outcome_table(title: str, rows: Sequence[Row]) -> Table:
    """The combinations with their finished seeds: median and worst of the held-out score.

    Runs that are not scored have that of the last validation; a text has bits a character.
    """
    done = [row for row in rows if row["state"] == "done"]
    bits, problems = (any(row[key] for row in done) for key in ("bits", "n"))
    what = "bits a character" if bits else "exact match in %"
    median = f"{'held-out' if bits or problems else 'val'} {what}, median"
    names = ("combination", "seeds", median, "worst", "seconds")
    table = table_of(escape(title), names, left=names[:1])
    for name in dict.fromkeys(row["combination"] for row in rows):
        group = [row for row in done if row["combination"] == name]
        scores = [score for row in group if (score := _score(row)) is not None]
        cells = ["-"] * 3
        if scores:
            found = statistics.median(scores), (max if bits else min)(scores)
            cells[:2] = [f"{one:.4f}" if bits else percent(one, 1) for one in found]
        if group:
            cells[2] = f"{statistics.median(row['seconds'] for row in group):.0f}"
        table.add_row(escape(name), str(len(group)), *cells)
    return table


def _score(row: Row) -> float | None:
    """Bits, or a share of right answers: held out, or of the last validation."""
    return row["bits"] or (row["answer_correct"] / row["n"] if row["n"] else row["val_exact"])


def _cells(row: Row) -> tuple[str, ...]:
    """Name, state, step, exact match on val and time left of a run; empty where not known."""
    step = f"{row['step']}/{row['steps']}" if row["step"] else ""
    exact = "" if row["val_exact"] is None else f"{percent(row['val_exact'], 1)} %"
    left = seconds_left(row)
    return row["run"], row["state"], step, exact, "" if left is None else clock(left)


def _line(row: Row) -> str:
    labels = ("", "", "step ", "val exact ", "ETA ", "")
    cells = (*_cells(row), row["error"] if row["state"] == "failed" else "")
    return "  ".join(f"{label}{cell}" for label, cell in zip(labels, cells, strict=True) if cell)
