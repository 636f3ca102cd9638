"""The progress of a sweep: a live table on a terminal, plain lines elsewhere; and its outcome."""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from addgpt.config.format import clock
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.tables import table_of
from addgpt.sweep.worker import last_lines
from addgpt.training.progress import PLAIN_SECONDS

STYLES = {  # of the states of a run, in the order of the live table
    "running": "bold", "failed": "red", "interrupted": "", "waiting": "", "done": "green",
}  # fmt: skip
MARGINS = 22  # characters of a line beside a run's name and what it says

Row = dict[str, Any]


class LiveTable(Live):
    """Shows the rows of sweep.json: `with LiveTable(folder, rows) as table: table.changed()`."""

    def __init__(self, folder: Path, rows: Sequence[Row]) -> None:
        self.folder, self.rows, self.began = folder, rows, time.monotonic()
        self.told = [(row["state"], 0.0) for row in rows]
        how: dict[str, Any] = {"refresh_per_second": 2, "transient": True}
        super().__init__(get_renderable=self.table, console=Console(stderr=True), **how)

    def changed(self) -> bool:
        """Whether the state of a run has; without a terminal, tell of it, and of long trainings."""
        any_new, now = False, time.monotonic()
        for number, row in enumerate(self.rows):
            state, since = self.told[number]
            new = row["state"] != state
            if new or (state == "running" and now - since > PLAIN_SECONDS):
                self.told[number] = row["state"], now
                if not self.console.is_interactive:
                    print("  ".join(filter(None, self._cells(row))), file=sys.stderr, flush=True)
            any_new |= new
        return any_new

    def table(self) -> Table:
        """As many runs as fit on the terminal, the active ones first."""
        caption = tally(self.rows)
        ends = [since for state, since in self.told if state not in ("waiting", "running")]
        if mine := [end - self.began for end in ends if end > self.began]:
            left = max(mine) / len(mine) * (len(self.rows) - len(ends))  # the others, at this pace
            seconds = self.began + max(mine) + left - time.monotonic()
            caption += f"; ETA {clock(max(0.0, seconds))}"
        table = table_of("", ("run", "state", ""), left=("run", "state", ""), caption=caption)
        shown = sorted(self.rows, key=lambda row: [*STYLES].index(row["state"]))
        width, longest = max(3, self.console.width - MARGINS), max(len(r["run"]) for r in shown)
        named = min(2 * width // 3, longest)  # of the width; longer names take several lines
        room = max(1, (self.console.height - 7) // -(-longest // named))
        for row in shown[:room]:
            name, state, said = self._cells(row)
            short = set_cell_size(re.sub(r" \(.*?\)", "", said), width - named).rstrip()
            table.add_row(escape(name), state, escape(short), style=STYLES[row["state"]])
        if len(shown) > room:
            table.add_row(f"and {len(shown) - room} more")
        return table

    def _cells(self, row: Row) -> tuple[str, str, str]:
        """Name and state of a run, and what it says itself, or why it has failed."""
        said = last_lines(self.folder / row["run"]) if row["state"] == "running" else [row["error"]]
        return row["run"], row["state"], said[-1] if said else ""


def tally(rows: Sequence[Row]) -> str:
    """`3 done, 7 waiting, 2 running`"""
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
