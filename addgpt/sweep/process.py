"""A run in a Python of its own: `addgpt train --resume`, then `addgpt eval`.

Its stdin is a pipe that is never written to. Once it is closed the run saves and stops: the sweep
asked for it, or has ended. The output of the run goes to a file in its folder, which stays if it
fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

LOG = "sweep.log"
TAIL = 3  # lines of it that say why a run failed
PROGRAM = "from addgpt.sweep.process import work; from addgpt.cli.main import main; work(main)"
AGAIN_SECONDS = 0.2  # between requests to stop: between training and scoring requests are not seen

Commands = Sequence[Sequence[str]]


class Process:
    """Runs commands, given as the words after `addgpt`, on the run in a folder.

    It has so many threads, on these cores where the system lets one choose (() is all), and
    variables of its own. Raises OSError if it cannot be started.
    """

    def __init__(
        self,
        path: Path,
        commands: Commands,
        threads: int,
        cores: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # It imports from where this process does, and (-P) nothing from the current folder: in
        # results there may be a folder `tasks`.
        places = os.pathsep.join(filter(None, sys.path))
        there = {"PYTHONPATH": places, "OMP_NUM_THREADS": str(threads)} | dict(environment or {})
        words = [sys.executable, "-P", "-c", PROGRAM, json.dumps([list(cores), commands])]
        self.log = path / LOG
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=os.environ | there
            )

    def poll(self) -> str | None:
        """None while it is running; then "" or, if a command failed, why."""
        code = self.process.poll()
        if code is None:
            return None
        self.stop()
        if code == 0:
            self.log.unlink(missing_ok=True)
            return ""
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return (
            told[-1] if told else " ".join(" ".join(lines[-TAIL:]).split()) or f"exit code {code}"
        )

    def stop(self, at_once: bool = False) -> None:
        """Have it save and stop, or stop without saving; may be called again and again."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        if at_once:
            self.process.kill()


def work(main: Callable[[Sequence[str]], object]) -> None:
    """What the process of a run does; a command that fails ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the sweep, which has runs save
    cores, commands = json.loads(sys.argv[1])
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)  # of this thread, and those that it starts
    threading.Thread(target=_stop_when_told, daemon=True).start()
    for words in commands:
        sys.argv[:] = ["addgpt", *words]  # eval.json notes it
        main(words)


def _stop_when_told() -> None:
    os.read(0, 1)  # returns when the pipe is closed
    while True:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(AGAIN_SECONDS)
