"""Where runs are executed: on this machine, or as tasks of a Ray cluster.

`with engine: engine.start(job)`, for up to `engine.workers` runs at a time; what that returns can
be polled (None, then why the run failed, or "") and stopped.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import socket
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import addgpt
from addgpt.config.errors import UsageError
from addgpt.device import pick_device
from addgpt.runs.files import RunError, locked
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import Commands, Worker
from addgpt.task_lookup import task_class

ATTEMPTS = 3  # at a run whose Ray worker is lost
STOP = ".stop"  # a file in the folder of a sweep: tells Ray's tasks to save and stop
POLL_SECONDS = 0.2  # between checks of a Ray task on its run, and on that file


def shares(workers: int, cores: Sequence[int]) -> list[list[int]]:
    """Cores for each worker, equally many and no two the same while there are enough.

    >>> shares(2, [0, 1, 2, 3, 4])
    [[0, 1], [2, 3]]
    >>> shares(3, [4, 5])
    [[4], [5], [4]]
    """
    size = max(1, len(cores) // workers)
    return [[cores[(w * size + i) % len(cores)] for i in range(size)] for w in range(workers)]


class LocalEngine(contextlib.AbstractContextManager):
    """Processes of this machine, each on its own cores, with a thread for each core.

    Two processes with two threads each on two cores nearly stall one another. `workers` are runs at
    a time: by default one a core (or one a GPU), but not more than runs. Raises ValueError if the
    runs ask for more threads than there are cores for.
    """

    def __init__(self, planned: Sequence[Planned], cores: Sequence[int], workers: int | None):
        threads = max(one.config.train.threads for one in planned) or 1
        devices = {pick_device(one.config.train.device).type for one in planned}
        gpus = torch.cuda.device_count() if "cuda" in devices else 0
        most = max(1, len(cores) // threads) if devices == {"cpu"} else max(1, gpus)
        self.workers = workers or min(most, len(planned))
        if self.workers > 1 and threads > 1 and self.workers * threads > len(cores):
            raise UsageError(
                f"{self.workers} workers with threads={threads} need more than the {len(cores)} "
                f"cores here; valid: --workers 1..{most}"
            )
        self.places = [
            Worker(share, {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {})
            for number, share in enumerate(shares(self.workers, cores))
        ]

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for worker in self.places:
            worker.stop(at_once=kind is KeyboardInterrupt)
        for worker in self.places:
            worker.wait()

    def start(self, job: Planned) -> Worker:
        """Begin or resume a run where cores are free. Raises RunError or OSError."""
        worker = next(one for one in self.places if one.poll() is not None)
        run = job.open(len(worker.cores))
        worker.start(run.path, job.commands(run.path), run.config.train.threads)
        return worker


class RayEngine(contextlib.AbstractContextManager):
    """Tasks of a Ray cluster. All of its machines must see the run folders under the same path.

    A run whose worker or machine is lost is resumed from its last checkpoint elsewhere. The code of
    addgpt and its tasks is sent along; the machines need Python, torch and the other dependencies.
    A run takes as many CPUs as `threads` says (1 if the grid does not), and a GPU if the grid says
    `device = "cuda"`. Raises ValueError if Ray is not installed.

    `address` is that of a cluster, as `ray start --head` prints it; None starts Ray on this machine
    with that many cores. `workers` are runs at a time: by default as many as there is room for.
    """

    def __init__(
        self, planned: Sequence[Planned], address: str | None, cores: int, workers: int | None
    ):
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'addgpt[ray]'") from None
        self.ray, self.address, self.workers = ray, address, workers or 0
        self.threads = max(one.config.train.threads for one in planned) or 1
        self.stop_file = planned[0].path.parent.resolve() / STOP
        self.how: dict[str, Any] = {"num_cpus": cores}
        if address:
            files = addgpt.__file__, inspect.getfile(task_class(planned[0].config.task))
            code = {"py_modules": [str(Path(file).parent) for file in files]}
            self.how = {"address": address, "runtime_env": code}

    def __enter__(self) -> RayEngine:
        """Connect to the cluster, or start one on this machine. Raises RunError."""
        handler = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        address = self.address or "auto"
        host, colon, port = address.rpartition(":")
        if "//" in address or (colon and not port.isdigit()):
            raise UsageError("an address is host:port, as `ray start --head` prints it, or auto")
        try:
            if colon:  # Ray itself would wait minutes for what is not there
                socket.create_connection((host, int(port)), timeout=10).close()
            self.ray.init(**self.how, **quiet)
        except (OSError, ValueError, RuntimeError) as error:
            where = f"reach Ray at {self.address}" if self.address else "start Ray here"
            raise RunError(f"cannot {where}: {error}") from None
        signal.signal(signal.SIGTERM, handler)  # ray.init puts in its own, which ends the process
        room = int(self.ray.cluster_resources().get("CPU", 1)) // self.threads
        self.workers = self.workers or max(1, room)
        self.stop_file.unlink(missing_ok=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.ray.shutdown()
        self.stop_file.unlink(missing_ok=True)

    def start(self, job: Planned) -> Task:
        """Begin or resume a run. Raises RunError."""
        return Task(self, job)


class Task:
    """A run as a task of Ray, restarted if it is lost."""

    def __init__(self, engine: RayEngine, job: Planned) -> None:
        run = job.open(job.config.train.threads or 1)
        path, threads = run.path.resolve(), run.config.train.threads
        gpus = {"num_gpus": 1} if job.config.train.device == "cuda" else {}
        task = engine.ray.remote(run_there).options(num_cpus=threads, max_retries=0, **gpus)
        words = str(path), job.commands(path), threads, str(engine.stop_file)
        self.submit = lambda: task.remote(*words)
        self.engine, self.attempts, self.task = engine, 1, self.submit()

    def poll(self) -> str | None:
        ray = self.engine.ray
        if not ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            reason = ray.get(self.task)
            lost = reason.startswith("killed by ")
        except ray.exceptions.RayTaskError as error:
            return " ".join(str(error.cause or error).split())
        except ray.exceptions.RayError as error:
            reason, lost = " ".join(str(error).split()), True
        if lost and self.attempts < ATTEMPTS and not self.engine.stop_file.exists():
            self.attempts, self.task = self.attempts + 1, self.submit()
            return None
        return f"its worker was lost {self.attempts} times: {reason}" if lost else reason

    def stop(self) -> None:
        self.engine.stop_file.touch()


def run_there(path: str, commands: Commands, threads: int, stop: str) -> str:
    """The task of a Ray worker, which has its run save and stop once there is a file `stop`."""
    folder, worker = Path(path), Worker()
    if not (folder / "config.json").exists():
        return f"{socket.gethostname()} does not see {path}; a cluster must share the run folders"
    with locked(folder / ".lock"):  # the run of a lost worker may still be saving
        run = Run(folder)
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
    worker.start(folder, commands, threads)
    while (reason := worker.poll()) is None:
        time.sleep(POLL_SECONDS)
        if Path(stop).exists():
            worker.stop()
    worker.stop()
    worker.wait()
    return reason
