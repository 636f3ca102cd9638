"""What the process of a run does: `addgpt train --resume`, then `addgpt eval`."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path

from addgpt.device import prepare

POLL_SECONDS = 0.2  # between looks at whether a Ray task is to stop

Commands = list[list[str]]


def run_commands(commands: Commands, threads: int) -> str:
    """Run commands, given as the words after `addgpt`; returns "" or why one failed.

    Unexpected errors propagate and end the process.
    """
    prepare(threads)
    # By name: a sweep is below the command line, which only the processes that it starts run.
    main = pkgutil.resolve_name("addgpt.cli.main:main")
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        for words in commands:
            sys.argv[:] = ["addgpt", *words]  # eval.json notes it
            try:
                main(words)
            except SystemExit as end:
                if end.code:
                    lines = told.getvalue().strip().splitlines() or [f"exit code {end.code}"]
                    return lines[-1].removeprefix("error: ")
    return ""


def run_here(
    commands: Commands,
    threads: int,
    cores: Collection[int],
    folder: str,
    environment: Mapping[str, str],
    log: str,
) -> None:
    """The main function of a process of this machine, on some of its cores; errors go to `log`.

    Once the process of the sweep is gone, this one saves and stops.
    """
    os.dup2(os.open(log, os.O_WRONLY), 2)
    os.environ.update(environment)
    os.chdir(folder)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    sweep = multiprocessing.parent_process()
    assert sweep is not None
    wait = sweep.join

    def gone() -> bool:
        wait()
        return True

    _stop_when(gone)
    sys.exit(run_commands(commands, threads) or 0)


def run_there(path: str, commands: Commands, threads: int, stop: str) -> str:
    """The task of a Ray worker, which saves and stops once there is a file `stop`."""
    from addgpt.runs.provenance import versions
    from addgpt.runs.run import Run

    if not Path(path, "config.json").exists():
        return f"{socket.gethostname()} does not see {path}; a cluster must share the run folders"
    run = Run(path)
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
    if Path(stop).exists():
        return "stopped before it began"
    ended = threading.Event()

    def asked() -> bool:
        while not ended.wait(POLL_SECONDS):
            if Path(stop).exists():
                return True
        return False

    _stop_when(asked)
    try:
        return run_commands(commands, threads)
    finally:
        ended.set()


def _stop_when(asked: Callable[[], bool]) -> None:
    """Have this process save and stop once `asked`, which waits, returns True.

    Between training and scoring nobody listens yet, so it is said until it is heard.
    """

    def listen() -> None:
        while asked():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(POLL_SECONDS)

    threading.Thread(target=listen, daemon=True).start()
