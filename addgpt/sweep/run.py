"""Runs a sweep: hands the remaining work to an engine, and keeps `sweep.json`.

Finished runs are skipped, others resumed; a run that fails is noted and the others continue.
`sweep.json`, beside the run folders, has a row for each of them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from collections.abc import Sequence

from addgpt.runs.files import RunError, check_writable, locked, write_atomically
from addgpt.runs.run import Run
from addgpt.sweep.engines import POLL_SECONDS, LocalEngine, RayEngine, RayTask
from addgpt.sweep.grid import Grid
from addgpt.sweep.plan import Planned, held_out
from addgpt.sweep.table import LiveTable, Row
from addgpt.sweep.worker import RunProcess
from addgpt.training.signals import stop_requests

FILE = "sweep.json"
NOTHING: Row = {
    "state": "waiting", "error": "", "step": 0, "seconds": 0.0, "val_exact": None,
    "n": 0, "answer_correct": 0, "bits": None,
}  # fmt: skip


def run_sweep(
    grid: Grid, planned: Sequence[Planned], engine: LocalEngine | RayEngine
) -> tuple[list[Row], bool]:
    """Do the remaining work; returns the rows of sweep.json, and whether it was interrupted.

    Ctrl-C and the like have the runs save and stop; a second Ctrl-C stops them at once, by
    KeyboardInterrupt. Raises RunError if another process is running the same sweep.
    """
    check_writable(grid.folder)
    rows = {one.name: _row(one) for one in planned}
    going: dict[str, tuple[Planned, RunProcess | RayTask]] = {}
    waiting = deque(one for one in planned if one.status != "done")
    lock = locked(grid.folder / ".lock", f"another process is running the sweep in {grid.folder}")
    connected = engine if waiting else contextlib.nullcontext()

    def write() -> None:
        data = {"grid": grid.name, "task": grid.task, "runs": list(rows.values())}
        write_atomically(grid.folder / FILE, json.dumps(data, indent=1) + "\n")

    table = LiveTable(grid.folder, [*rows.values()])
    with lock, table, stop_requests() as asked, connected:
        write()
        while True:
            while waiting and len(going) < engine.workers and not asked:
                job = waiting.popleft()
                try:
                    going[job.name] = job, engine.start(job)
                    rows[job.name]["state"] = "running"
                except (RunError, OSError) as error:
                    rows[job.name] |= {"state": "failed", "error": str(error)}
            if table.changed():
                write()
            if not going:
                break
            time.sleep(POLL_SECONDS)
            for name, (job, run) in list(going.items()):
                if asked:
                    run.stop()
                if (reason := run.poll()) is not None:
                    rows[name] |= _end(job, reason, bool(asked))
                    del going[name]
    left = any(row["state"] in ("waiting", "interrupted") for row in rows.values())
    return list(rows.values()), bool(asked) and left


def _row(job: Planned) -> Row:
    """The state of a run before the sweep."""
    row: Row = {"run": job.name, "combination": job.combination.name}
    row |= {"settings": job.combination.settings, "seed": job.config.seed}
    return row | NOTHING | (_end(job, "", False) if job.status == "done" else {})


def _end(job: Planned, reason: str, stopping: bool) -> Row:
    """The state of a run that has ended, for a reason or none, and what came of it."""
    row: Row = {}
    try:
        run = Run(job.path)
        progress = run.progress()
        known = ("step", "seconds", "val_exact") if run.task().cells() else ("step", "seconds")
        row = {key: progress[key] for key in known if key in progress}
        if not reason:
            return row | {"state": "done"} | (held_out(run) if job.grid.eval else {})
    except (RunError, OSError, ValueError, LookupError, TypeError) as error:
        reason = reason or str(error)
    return row | ({"state": "interrupted"} if stopping else {"state": "failed", "error": reason})
