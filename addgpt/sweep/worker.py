"""A Python process that carries out one run after another, so that torch is loaded only once.

Orders come by its stdin, a line each: a log, a number of threads and commands, which are the words
after `addgpt`. Their output goes to the log, which is removed once all is done; a command that
fails ends the process, so that no run is left with what another has spoilt. The end of stdin means
that the sweep wants it to stop, or is gone: the run saves first.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

LOG = "sweep.log"
TAIL = 3  # lines of it that say why a run failed
PROGRAM = "from addgpt.sweep.worker import serve; from addgpt.cli.main import main; serve(main)"
AGAIN_SECONDS = 0.2  # between requests to stop: between training and scoring none is heard

Commands = Sequence[Sequence[str]]


class Worker:
    """Such a process, seen from the sweep; started when there is something to do, and again if it
    has died. It keeps to these cores where the system lets one choose (() is all)."""

    def __init__(self, cores: Sequence[int] = (), variables: Mapping[str, str] | None = None):
        # It imports from where this process does, and (-P) nothing from the current folder: in
        # results there may be a folder `tasks`.
        self.environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self.environment |= variables or {}
        self.cores = cores
        self.process: subprocess.Popen | None = None
        self.log: Path | None = None

    def start(self, path: Path, commands: Commands, threads: int) -> None:
        """Begin with the run in a folder. Raises OSError."""
        self.log = path / LOG
        with open(self.log, "wb") as log:
            if self.process is None or self.process.poll() is not None:
                self.stop()  # closes the pipe to a dead one
                words = [sys.executable, "-P", "-c", PROGRAM, json.dumps(self.cores)]
                how: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log}
                # A session of its own: Ctrl-C is for the sweep alone, which has runs save.
                how["start_new_session"] = True
                self.process = subprocess.Popen(words, env=self.environment, **how)
        order = json.dumps([str(self.log), threads, commands])
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has just died, as `poll` will tell
            os.write(self.process.stdin.fileno(), f"{order}\n".encode())

    def poll(self) -> str | None:
        """None as long as a run goes on; then "" or, if a command failed, why."""
        code = self.process.poll() if self.process else 0  # before its log is read
        if self.log is None or not self.log.exists():
            return ""
        return None if code is None else _reason(code, self.log)

    def stop(self, at_once: bool = False) -> None:
        """Have it save and end, or end without saving; may be called again and again."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
            if at_once:
                self.process.kill()

    def wait(self) -> None:
        """Until its process has ended."""
        if self.process is not None:
            self.process.wait()


def _reason(code: int, log: Path) -> str:
    """Why a process failed, in one line."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = " ".join(" ".join([line for line in lines if line][-TAIL:]).split())
    return told[-1] if told else last or f"exit code {code}"


def serve(main: Callable[[Sequence[str]], object]) -> None:
    """What the process does, with the command line as `main`."""
    cores, orders = json.loads(sys.argv[1]), queue.SimpleQueue[str]()
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # of this thread, and those that it starts
    threading.Thread(target=_listen, args=(orders,), daemon=True).start()
    while True:
        log, threads, commands = json.loads(orders.get())
        with open(log, "wb") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        os.environ["OMP_NUM_THREADS"] = str(threads)
        for words in commands:
            sys.argv[:] = ["addgpt", *words]  # eval.json notes it
            try:
                main(words)
            except SystemExit:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is saved: this is no failure
                raise
        sys.stdout.flush()
        os.unlink(log)


def _listen(orders: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        orders.put(line)
    while True:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(AGAIN_SECONDS)
