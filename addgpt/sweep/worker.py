"""A run in a process of its own: `addgpt train`, then `addgpt eval`, and why one has failed."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from addgpt.runs.run import Run

LOG = "sweep.log"
KILLED = "killed by "
TAIL = 3  # lines of it that say why a run failed
MOST_READ = 1 << 20  # bytes at its end
MOST_TOLD = 1000  # characters
AGAIN_SECONDS = 0.2  # between requests to stop: between training and scoring none is heard


class RunProcess:
    """What is left of a run, as the words after `addgpt`, with these environment variables on top.

    What it prints goes to sweep.log, which is removed once all is done.
    """

    def __init__(
        self, run: Run, commands: Sequence[list[str]], variables: dict[str, str] | None = None
    ) -> None:
        # It imports from where this process does, and nothing from the current folder: in results
        # there may be a folder `tasks`.
        place = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        threads = {"OMP_NUM_THREADS": str(run.config.train.threads)}
        env, self.path = os.environ | place | threads | (variables or {}), run.path
        words = [sys.executable, "-m", __name__, json.dumps(commands)]
        with open(self.path / LOG, "wb") as log:
            self.process = subprocess.Popen(  # Ctrl-C is for the sweep alone, which has runs save
                words, stdin=-1, stdout=log, stderr=log, env=env, start_new_session=True
            )

    def poll(self) -> str | None:
        """None as long as it goes on; then "" or, in one line, why it failed."""
        code = self.process.poll()
        if code is None or code > 0:
            return None if code is None else why(self.path)
        if code == 0:
            (self.path / LOG).unlink(missing_ok=True)
            return ""
        names = {int(one): one.name for one in signal.Signals}
        name = names.get(-code, f"signal {-code}")  # those of real time have no name
        return f"{KILLED}{name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def stop(self) -> None:
        """Have it save and end; may be called again and again."""
        self.process.stdin.close()  # type: ignore[union-attr]


def why(path: Path) -> str:
    """Why a run has failed, by what it has printed."""
    with open(path / LOG, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - MOST_READ))
        lines = log.read().decode("utf-8", errors="replace").split("\n")
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = " ".join(" ".join([line for line in lines if line][-TAIL:]).split())
    reason = "".join(char if char.isprintable() else " " for char in (told or [last])[-1])
    return reason.strip()[:MOST_TOLD] or "it has ended and does not say why"


def _until_closed() -> None:
    """The sweep closes stdin to have a run stop; where the sweep is killed, it is closed, too."""
    os.read(0, 1)
    while True:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    # Requests to stop are heard although `nohup` has them ignored; training saves first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_until_closed, daemon=True).start()
    try:
        for words in json.loads(sys.argv[1]):
            sys.argv[:] = ["addgpt", *words]  # eval.json notes it
            runpy.run_module("addgpt", run_name="__main__")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is saved
