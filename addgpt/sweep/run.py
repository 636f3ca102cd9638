"""Carries a sweep out: hands what is left to do to an engine, and keeps `sweep.json`.

Finished runs are skipped, others resumed; a run that fails is noted and the rest goes on.
`sweep.json`, beside the run folders, has a row for each of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from addgpt.config.schema import RunConfig
from addgpt.evaluation.schema import read_eval
from addgpt.runs.files import MOST_LINE, RunError, open_own, read_text, write_atomically
from addgpt.runs.run import METRICS, Run
from addgpt.sweep.engines import Engine, Going
from addgpt.sweep.grid import Grid
from addgpt.sweep.plan import Planned, plan, reached
from addgpt.sweep.table import LiveTable, Row
from addgpt.training.preflight import check_startable

FILE = "sweep.json"
POLL_SECONDS = 0.1  # between looks at which processes have ended
LOOK_SECONDS = 1.0  # between readings of the run folders


def plan_sweep(grid: Grid, on_this_machine: bool = True) -> list[Planned]:
    """The runs of a grid; see `plan`, whose errors it raises."""

    def check(config: RunConfig) -> None:
        """Another machine's devices are not known here."""
        settings = config.train if on_this_machine else replace(config.train, device="cpu")
        check_startable(replace(config, train=settings))

    return plan(grid, check)


def run_sweep(grid: Grid, planned: Sequence[Planned], engine: Engine) -> tuple[list[Row], bool]:
    """Carry out what is left to do; returns the rows of sweep.json, and whether it was cut short.

    Raises RunError if another process is at the same sweep.
    """
    rows = {one.name: _row(one) for one in planned}
    table_rows = list(rows.values())
    waiting = deque(one for one in planned if one.status != "done")
    with _sweep_lock(grid.out), LiveTable(table_rows) as table, _stop_requests() as seen:
        _write(grid, table_rows)
        with engine if waiting else contextlib.nullcontext():
            for name, news in _events(waiting, engine, seen):
                rows[name] |= news
                if table.update():
                    _write(grid, table_rows)
    left = any(row["state"] in ("waiting", "interrupted") for row in table_rows)
    return table_rows, bool(seen) and left


def _events(waiting: deque[Planned], engine: Engine, seen: list[int]) -> Iterator[tuple[str, Row]]:
    """Carry out runs; yields the name of a run and what is new of it.

    `seen` has an entry for each time the user asked to stop: once, runs save; twice, they do not.
    """
    going: dict[str, tuple[Planned, Going]] = {}
    looked = 0.0
    try:
        while going or (waiting and not seen):
            while waiting and len(going) < engine.workers and not seen:
                job = waiting.popleft()
                try:
                    going[job.name] = job, engine.start(job)
                    state = "scoring" if job.status == "score" else "training"
                    yield job.name, {"state": state}
                except RunError as error:
                    yield job.name, {"state": "failed", "error": str(error)}
            time.sleep(POLL_SECONDS)
            look = time.monotonic() - looked > LOOK_SECONDS
            looked = time.monotonic() if look else looked
            for name, (job, run) in list(going.items()):
                if seen:
                    run.stop(at_once=len(seen) > 1)
                reason = run.poll()
                if reason is not None:
                    del going[name]
                    yield name, _end(job, reason, bool(seen))
                elif look:
                    yield name, _progress(job)
    finally:
        while going:  # something went wrong here: the runs save, too
            going = {name: one for name, one in going.items() if one[1].poll() is None}
            for _, run in going.values():
                run.stop(at_once=len(seen) > 1)
            time.sleep(POLL_SECONDS)


def _end(job: Planned, reason: str, stopping: bool) -> Row:
    """How a run stands after its process has ended."""
    if not reason:
        return {"state": "done"} | _facts(job.path)
    return {"state": "interrupted"} if stopping else {"state": "failed", "error": reason}


def _progress(job: Planned) -> Row:
    """How far the process of a run is."""
    news = _last_metrics(job.path)
    trained = reached(job.config.train, news.get("step", 0), news.get("val_exact"))
    return news | ({"state": "scoring"} if job.score and trained else {})


def _row(one: Planned) -> Row:
    """How a run stands before the sweep."""
    row = {
        "run": one.name,
        "combination": one.combination,
        "settings": one.settings,
        "seed": one.config.seed,
        "state": "waiting",
        "error": "",
        "step": 0,
        "steps": one.config.train.steps,
        "seconds": 0.0,
        "val_exact": None,
        "n": 0,
        "answer_correct": 0,
        "bits": None,
    }
    return row | (
        {"state": "done"} | _facts(one.path) if one.status == "done" else _last_metrics(one.path)
    )


def _last_metrics(path: Path) -> Row:
    """How far training is, by the last whole line of metrics.jsonl; nothing if there is none."""
    try:
        with open(path / METRICS, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MOST_LINE))
            last = json.loads(log.read().split(b"\n")[-2])
            return {key: last[key] for key in ("step", "seconds", "val_exact") if key in last}
    except (OSError, IndexError, ValueError, TypeError):  # it is only looked at: no damage is told
        return {}


def _facts(path: Path) -> Row:
    """What a finished run says of itself: how long it trained, and its held-out score."""
    run = Run(path)
    progress = run.progress()
    facts: Row = {key: progress[key] for key in ("step", "seconds")} | {"error": ""}
    if run.task().cells():
        facts["val_exact"] = progress.get("val_exact")
    try:
        if (path / "eval.csv").exists():
            held_out = [row for row in read_eval(path / "eval.csv") if not row["seen"]]
            facts |= {key: sum(row[key] for row in held_out) for key in ("n", "answer_correct")}
        if (path / "loss.json").exists():  # the last row: of the longest context
            facts["bits"] = json.loads(read_text(path / "loss.json"))[-1]["bits"]
    except (RunError, ValueError, KeyError, IndexError, TypeError):
        again = f"score it again: addgpt eval {path}"
        raise RunError(f"the scores in {path} are damaged; {again}") from None
    return facts


def _write(grid: Grid, rows: Sequence[Row]) -> None:
    data = {"grid": grid.name, "task": grid.task, "runs": rows}
    write_atomically(grid.out / FILE, json.dumps(data, indent=1) + "\n")


@contextlib.contextmanager
def _sweep_lock(out: Path) -> Iterator[None]:
    """Hold the folder of a sweep. Raises RunError if another process does."""
    import fcntl

    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.fdopen(open_own(out / ".lock"), "w")
    except OSError as error:
        raise RunError(f"cannot write {out}: {error.strerror}") from None
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(f"another process is at the sweep in {out}") from None
        yield


@contextlib.contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that Ctrl-C and SIGTERM append to."""
    seen: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    old = {number: signal.signal(number, lambda n, frame: seen.append(n)) for number in numbers}
    try:
        yield seen
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
