"""Runs a sweep: hands the remaining work to an engine, and keeps `sweep.json`.

Finished runs are skipped, others resumed; a run that fails is noted and the others continue.
`sweep.json`, beside the run folders, has a row for each of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections import deque
from collections.abc import Sequence

from addgpt.runs.files import RunError, check_writable, locked, write_atomically
from addgpt.runs.run import METRICS, Run
from addgpt.sweep.engines import POLL_SECONDS, LocalEngine, RayEngine, RayTask
from addgpt.sweep.grid import Grid
from addgpt.sweep.plan import Planned, held_out
from addgpt.sweep.table import LiveTable, Row
from addgpt.sweep.worker import RunProcess
from addgpt.training.signals import stop_requests

FILE = "sweep.json"
LAST_BYTES = 1 << 12  # of metrics.jsonl that hold its last line


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

    with lock, LiveTable([*rows.values()]) as table, stop_requests() as asked, connected:
        write()
        while True:
            while waiting and len(going) < engine.workers and not asked:
                job = waiting.popleft()
                try:
                    going[job.name] = job, engine.start(job)
                    rows[job.name]["state"] = "scoring" if job.status == "score" else "training"
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
                reason = run.poll()
                rows[name] |= _progress(job)
                if reason is not None:
                    rows[name] |= _end(job, reason, bool(asked))
                    del going[name]
    left = any(row["state"] in ("waiting", "interrupted") for row in rows.values())
    return list(rows.values()), bool(asked) and left


def _row(job: Planned) -> Row:
    """The state of a run before the sweep."""
    row: Row = {"run": job.name, "combination": job.combination.name}
    row |= {"settings": job.combination.settings, "seed": job.config.seed}
    row |= {"state": "", "error": "", "step": 0, "steps": job.config.train.steps}
    row |= {"seconds": 0.0, "val_exact": None, "n": 0, "answer_correct": 0, "bits": None}
    row |= _progress(job)
    return row | (_end(job, "", False) if job.status == "done" else {"state": "waiting"})


def _progress(job: Planned) -> Row:
    """How far a run is, by the last whole line of metrics.jsonl, if any."""
    try:
        with open(job.path / METRICS, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LAST_BYTES))
            last = json.loads(log.read().split(b"\n")[-2])
            news = {key: last[key] for key in ("step", "seconds", "val_exact") if key in last}
            trained = job.grid.eval and job.trained(last["step"], last.get("val_exact"))
            return news | ({"state": "scoring"} if trained else {})
    except (OSError, IndexError, ValueError, TypeError, KeyError):  # damage is reported elsewhere
        return {}


def _end(job: Planned, reason: str, stopping: bool) -> Row:
    """The state of a run once it is done, or has ended for a reason."""
    try:
        if not reason:
            return {"state": "done"} | (held_out(Run(job.path)) if job.grid.eval else {})
    except (RunError, OSError, ValueError, LookupError, TypeError) as error:
        reason = str(error)
    return {"state": "interrupted"} if stopping else {"state": "failed", "error": reason}
