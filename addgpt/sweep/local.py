"""The runs of a sweep on this machine: a pool of processes, each on its own cores.

Two processes with two threads each on two cores nearly stall one another. So the cores that this
process may use are shared out: each worker is pinned to its share and has a thread for each core.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from addgpt.runs.run import RunError
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import ENDS, failure

PATIENCE = 0.2  # seconds between looks at whether to stop

Event = tuple[str, dict[str, Any]]


def run_here(
    jobs: Sequence[Planned], places: Sequence[Sequence[int]], gpus: int, stop: Callable[[], int]
) -> Iterator[Event]:
    """Carry out runs, one a place at a time; yields (name, event) as `worker` tells them.

    Args:
        places: the cores of each worker.
        gpus: how many there are to share out; 0 where the runs need none.
        stop: how often the user has asked to stop: once, workers save; twice, they are killed.
    """
    waiting, inbox = deque(jobs), queue.SimpleQueue()
    workers: list[_Worker | None] = [None] * len(places)
    try:
        while waiting or any(worker and worker.job for worker in workers):
            if stop():
                waiting.clear()
                for worker in filter(None, workers):
                    worker.stop(at_once=stop() > 1)
            for slot, worker in enumerate(workers):
                if waiting and not (worker and worker.job):
                    gpu = slot % gpus if gpus else None
                    workers[slot] = worker or _Worker(slot, places[slot], gpu, inbox)
                    yield from _give(workers[slot], waiting.popleft(), len(places[slot]))
            try:
                worker, event = inbox.get(timeout=PATIENCE)
            except queue.Empty:
                continue
            if event is not None:
                yield worker.job.name, event
                if event["state"] in ENDS:
                    worker.job = None
            else:
                if worker.job:
                    how = {"state": "interrupted"} if stop() else failure(worker.death())
                    yield worker.job.name, how
                workers[worker.slot] = None
    finally:
        for worker in filter(None, workers):
            worker.close()


def worker_command(cores: Sequence[int]) -> list[str]:
    """What starts a worker that imports from where this process does.

    `python -m` would look in the current folder first: in results there may be a folder `tasks`.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from addgpt.sweep.worker import main; main()"
    return [sys.executable, "-c", code, ",".join(map(str, cores))]


def _give(worker: _Worker, job: Planned, threads: int) -> Iterator[Event]:
    """Let a worker carry out a run."""
    try:
        run = job.open(threads)
    except RunError as error:
        yield job.name, failure(str(error))
        return
    worker.give(job, json.dumps({"folder": str(run.path)} | job.order))


class _Worker:
    """A process that carries out runs, and the thread that reads what it tells."""

    def __init__(
        self, slot: int, cores: Sequence[int], gpu: int | None, inbox: queue.SimpleQueue
    ) -> None:
        self.slot, self.inbox = slot, inbox
        self.job: Planned | None = None
        self.stopped = False
        self.errors = tempfile.TemporaryFile()
        # A session of its own: Ctrl-C reaches this process alone, which then asks workers to save.
        self.process = subprocess.Popen(
            worker_command(cores),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            start_new_session=True,
            env=os.environ | ({"CUDA_VISIBLE_DEVICES": str(gpu)} if gpu is not None else {}),
        )
        threading.Thread(target=self._listen, daemon=True).start()

    def give(self, job: Planned, order: str) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it has died: the listener says so
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()

    def stop(self, at_once: bool) -> None:
        if at_once:
            self.process.kill()
        elif not self.stopped:
            self.stopped = True  # a second SIGTERM would stop it without saving
            self.process.terminate()

    def close(self) -> None:
        """End the process: at once if it is idle, and after saving if it is not."""
        if self.job:
            self.stop(at_once=False)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.wait()
        self.errors.close()

    def death(self) -> str:
        """Why the process has ended, in one line."""
        code = self.process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"the worker ended with exit code {code}: {lines[-1] if lines else 'no message'}"

    def _listen(self) -> None:
        for line in self.process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # cut short by its death
                self.inbox.put((self, json.loads(line)))
        self.process.wait()
        self.inbox.put((self, None))
