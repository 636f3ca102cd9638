"""Carries a sweep out: what is left to do goes to an engine, what comes back to `sweep.json`.

Runs that are finished are passed over, others are taken up where they were; a run that fails is
noted and the rest goes on. `sweep.json`, beside the run folders, says how each of them stands.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from addgpt.config.schema import RunConfig
from addgpt.device import pick_device
from addgpt.runs.files import RunError, open_own, read_checked, read_text, write_atomically
from addgpt.runs.run import Run
from addgpt.sweep.cores import shares
from addgpt.sweep.grid import Grid
from addgpt.sweep.local import Event, run_here
from addgpt.sweep.plan import Planned, plan
from addgpt.sweep.table import Board, Row
from addgpt.training.preflight import check_trainable

FILE = "sweep.json"

Engine = Callable[[Sequence[Planned], Callable[[], int]], Iterator[Event]]


def plan_sweep(grid: Grid, on_this_machine: bool = True) -> list[Planned]:
    """The runs of a grid; see `plan`, whose errors it raises."""

    def check(config: RunConfig) -> None:
        """Another machine's devices are not known here."""
        settings = config.train if on_this_machine else replace(config.train, device="cpu")
        check_trainable(replace(config, train=settings))

    return plan(grid, check)


def local_engine(planned: Sequence[Planned], cores: Sequence[int], workers: int | None) -> Engine:
    """Processes of this machine; by default one a core (or one a GPU) but not more than runs.

    Raises ValueError if the runs ask for more threads than there are cores for.
    """
    threads = max(one.config.train.threads for one in planned) or 1
    kinds = {pick_device(one.config.train.device).type for one in planned}
    gpus = torch.cuda.device_count() if "cuda" in kinds else 0
    most = max(1, len(cores) // threads) if kinds == {"cpu"} else max(1, gpus)
    workers = workers or min(most, len(planned))
    if workers > 1 and threads > 1 and workers * threads > len(cores):
        raise ValueError(
            f"{workers} workers with threads={threads} need more than the {len(cores)} cores here; "
            f"valid: --workers 1..{most}"
        )
    return lambda jobs, stop: run_here(jobs, shares(workers, cores), gpus, stop)


def run_sweep(grid: Grid, planned: Sequence[Planned], engine: Engine) -> tuple[list[Row], bool]:
    """Carry out what is left to do; returns the rows of sweep.json, and whether it was cut short.

    Raises RunError if another process is at the same sweep.
    """
    rows = {one.name: _row(one) for one in planned}
    jobs = [one for one in planned if one.todo != "done"]
    with _held(grid.out), Board(list(rows.values())) as board, _stop_requests() as seen:
        _write(grid, rows)
        if not jobs:
            return list(rows.values()), False
        with contextlib.closing(engine(jobs, lambda: len(seen))) as events:
            for name, event in events:
                row = rows[name]
                before = row["state"]
                row |= event
                if row["state"] == "done":
                    row |= _facts(grid.out / name) | {"error": ""}
                board(row, before)
                if row["state"] != before:
                    _write(grid, rows)
        left = any(row["state"] in ("waiting", "interrupted") for row in rows.values())
        return list(rows.values()), bool(seen) and left


def _row(one: Planned) -> Row:
    """How a run stands before the sweep."""
    config, done = one.config, one.todo == "done"
    row = {
        "run": one.name,
        "combination": one.combination,
        "settings": one.settings,
        "seed": config.seed,
        "state": "done" if done else "waiting",
        "error": "",
        "step": 0,
        "steps": config.train.steps,
        "seconds": 0.0,
        "val_exact": None,
        "n": 0,
        "answer_correct": 0,
        "bits": None,
    }
    return row | (_facts(one.path) if done else {})


def _facts(path: Path) -> Row:
    """What a finished run says of itself: how long it trained, and its held-out score."""
    run = Run(path)
    progress = run.progress()
    facts = {key: progress[key] for key in ("step", "seconds")}
    if run.task().cells():
        facts["val_exact"] = progress.get("val_exact")
    try:
        return facts | _scores(path)
    except (ValueError, KeyError, IndexError, TypeError):
        again = f"score it again: addgpt eval {path}"
        raise RunError(f"the scores in {path} are damaged; {again}") from None


def _scores(path: Path) -> Row:
    facts: Row = {}
    if (path / "eval.csv").exists():
        rows = csv.DictReader(read_checked(path / "eval.csv").splitlines())
        held_out = [row for row in rows if row["seen"] == "False"]
        facts |= {key: sum(int(row[key]) for row in held_out) for key in ("n", "answer_correct")}
    if (path / "loss.json").exists():  # the last row: of the longest context
        facts["bits"] = json.loads(read_text(path / "loss.json"))[-1]["bits"]
    return facts


def _write(grid: Grid, rows: dict[str, Row]) -> None:
    data = {"grid": grid.name, "task": grid.task, "runs": list(rows.values())}
    write_atomically(grid.out / FILE, json.dumps(data, indent=1) + "\n")


@contextlib.contextmanager
def _held(out: Path) -> Iterator[None]:
    """Hold the folder of a sweep. Raises RunError if another process does."""
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
