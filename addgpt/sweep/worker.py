"""The process of a run: carries out the commands that are left of it, and says why one failed.

On this machine it is forked from one that has loaded torch, which takes longer than a tiny run.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import connection, resource_tracker
from pathlib import Path

from addgpt.training.signals import STOPPING

LOG = "sweep.log"
TAIL = 3  # lines of it that say why a run failed
MOST_READ = 1 << 20  # bytes at its end
MOST_TOLD = 1000  # characters
AGAIN_SECONDS = 0.2  # between requests to stop: between training and scoring none is heard
LOST = 255  # exit status, too, where nothing tells of the process any more
# Forks are safe on Linux alone; elsewhere, each run loads torch again.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"

Command = Callable[[list[str]], object]  # carries out the words after `addgpt`


class LocalRun:
    """What is left of a run, done on these cores with these environment variables on top."""

    def __init__(
        self, path: Path, cores: Sequence[int], variables: Mapping[str, str], words: tuple
    ) -> None:
        """Begin with `carry_out(*words)`, in a process that is forked from one that has imported
        the module of its command, the first word."""
        (path / LOG).touch()
        context = multiprocessing.get_context(METHOD)
        how = {"target": _alone, "args": (cores, os.environ | variables, words)}
        self.path, self.process = path, context.Process(**how)  # type: ignore[attr-defined]
        context.set_forkserver_preload([words[0].__module__])
        with _imports_as_here(), _deaf():
            self.process.start()

    def poll(self) -> str | None:
        """None as long as it goes on; then "" or why it failed."""
        code = self.process.exitcode
        if code == LOST:
            lost = "its fork server was killed (out of memory?), and it saves and stops"
            return f"{lost}; or its own code ended it with exit status {LOST}"
        if code is None or code >= 0:
            return None if code is None else why(self.path)
        names = {number: number.name for number in signal.Signals}
        name = names.get(-code, f"signal {-code}")  # those of real time have no name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def stop(self, at_once: bool = False) -> None:
        """Have it save and end, or end without saving; may be called again and again."""
        self.process.kill() if at_once else self.process.terminate()


def carry_out(addgpt: Command, path: Path, commands: Sequence[list[str]], threads: int) -> str:
    """Do what is left of the run in a folder; returns "" or, in one line, why a command failed.

    What commands print goes to sweep.log in the folder, which is removed once all is done.
    """
    # Requests to stop, of which Ray's is like Ctrl-C, are heard although `nohup` has them ignored;
    # training has a handler of its own, which saves.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = str(threads)
    with open(path / LOG, "wb") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        for words in commands:
            sys.argv[:] = ["addgpt", *words]  # eval.json notes it
            addgpt(words)
    except SystemExit:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all is saved
        sys.stdout.flush()
        return why(path)
    os.unlink(path / LOG)
    return ""


def why(path: Path) -> str:
    """Why a run has failed, in one line; "" if it has not."""
    if not (path / LOG).exists():
        return ""
    with open(path / LOG, "rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - MOST_READ))
        lines = log.read().decode("utf-8", errors="replace").split("\n")
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = " ".join(" ".join([line for line in lines if line][-TAIL:]).split())
    reason = "".join(char if char.isprintable() else " " for char in (told or [last])[-1])
    return reason.strip()[:MOST_TOLD] or "it has ended and does not say why"


@contextlib.contextmanager
def _imports_as_here() -> Iterator[None]:
    """Processes that start meanwhile import from where this one does, and nothing from the current
    folder: in results there may be a folder `tasks`. Nor do they run the program again, as
    multiprocessing has them do with `__main__`."""
    place = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {name: os.environ[name] for name in place if name in os.environ}
    program = sys.modules["__main__"]
    os.environ.update(place)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = program
        for name in place:
            del os.environ[name]
        os.environ.update(before)


def _alone(cores: Sequence[int], environment: Mapping[str, str], words: tuple) -> None:
    """What the process of a local run does: `carry_out`, until the sweep is gone, or the fork
    server, without which the sweep takes the run for lost."""
    sweep, parent = multiprocessing.parent_process(), os.getppid()
    assert sweep is not None

    def follow() -> None:
        while os.getppid() == parent and not connection.wait([sweep.sentinel], AGAIN_SECONDS):
            pass
        while True:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(AGAIN_SECONDS)

    with contextlib.suppress(AttributeError):  # what some systems lack
        os.setsid()  # Ctrl-C is for the sweep alone, which has runs save
        os.sched_setaffinity(0, cores)  # of this thread, and those that it starts
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _stopping())
    os.environ.update(environment)
    threading.Thread(target=follow, daemon=True).start()
    carry_out(*words)


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Requests to stop wait meanwhile, and do not reach a fork server that is started in it: one to
    all processes (`timeout`, Slurm, a closed terminal) would end it before its runs have saved."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # when this starts, it has SIGTERM heard again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _stopping())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stopping() -> set[signal.Signals]:
    return {signal.Signals[name] for name in STOPPING if name in signal.Signals.__members__}
