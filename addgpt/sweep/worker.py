"""A run in a process of its own: `addgpt train`, then `addgpt eval`, and why one has failed."""

from __future__ import annotations

import contextlib
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

from addgpt.config.errors import HOME

LOG = "sweep.log"
TAIL = 3  # lines of it that say why a run failed
MOST_READ = 1 << 16  # bytes at its end
MOST_TOLD = 1000  # characters of a line
KILLED = "killed by "
AGAIN_SECONDS = 0.2  # between requests to stop: in the last step of a training none is heard


class RunProcess:
    """Carries out what is left of the run in a folder: `commands` are the words after `addgpt` of
    each, `variables` are put into its environment. What it prints goes to sweep.log, which is
    removed once all is done."""

    def __init__(
        self, path: Path, commands: Sequence[list[str]], variables: dict[str, str]
    ) -> None:
        # It imports from where this process does, and nothing from the current folder: in results
        # there may be a folder `tasks`.
        known = os.pathsep.join([*filter(None, sys.path), str(HOME)])
        place = {"PYTHONSAFEPATH": "1", "PYTHONPATH": known}
        words = [sys.executable, "-m", __name__, str(path / LOG), json.dumps(commands)]
        words.append(str(os.getpid()))
        self.path = path
        with open(path / LOG, "wb") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | place | variables,
                start_new_session=True,  # Ctrl-C is for the sweep alone, which has runs save
            )
        self.stop = self.process.terminate  # have it save and end; again and again, if need be

    def poll(self) -> str | None:
        """None as long as it goes on; then "" or, in one line, why it failed."""
        code = self.process.poll()
        if code is None or code >= 0:
            return None if code is None else why(self.path)
        names = {int(one): one.name for one in signal.Signals}
        name = names.get(-code, f"signal {-code}")  # those of real time have no name
        return f"{KILLED}{name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def last_lines(path: Path) -> list[str]:
    """The last lines that the run in a folder has printed, in plain text, if they can be read."""
    try:
        with open(path / LOG, "rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - MOST_READ))
            text = log.read().decode("utf-8", errors="replace")
    except OSError:  # it is done, or a folder that machines share is away for a moment
        return []
    lines = ("".join(c if c.isprintable() else " " for c in line) for line in text.split("\n"))
    return [line.rstrip()[:MOST_TOLD] for line in lines if line.strip()]


def why(path: Path) -> str:
    """Why a run has failed, by what it has printed; "" if it is done."""
    if not (path / LOG).exists():
        return ""
    lines = last_lines(path)
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    reason = told[-1].strip() if told else " ".join(" ".join(lines[-TAIL:]).split())
    return reason[:MOST_TOLD] or "it has ended and does not say why"


def _follow(parent: int) -> None:
    """Ask for a stop, again and again, once the process that has started this one is gone."""
    while os.getppid() == parent:
        time.sleep(AGAIN_SECONDS)
    while True:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(AGAIN_SECONDS)


if __name__ == "__main__":
    # Requests to stop are heard although `nohup` has them ignored; training saves first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(AttributeError):  # which some systems lack
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})
    log, commands, parent = sys.argv[1:]
    threading.Thread(target=_follow, args=(int(parent),), daemon=True).start()
    try:
        for words in json.loads(commands):
            sys.argv[:] = ["addgpt", *words]  # eval.json notes it
            if words[0] == "eval":
                print("scoring", flush=True)
            runpy.run_module("addgpt", run_name="__main__")
        os.unlink(log)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to save
