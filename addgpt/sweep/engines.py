"""Where runs are executed: on this machine, or as tasks of a Ray cluster.

`with engine: engine.start(job)`, for up to `engine.workers` runs at a time; what that returns can
be polled (None, then why the run failed, or "") and stopped.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import addgpt
from addgpt.config.errors import UsageError
from addgpt.device import pick_device
from addgpt.runs.files import RunError
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import Command, LocalRun, carry_out
from addgpt.task_lookup import task_class

RETRIES = 2  # of a run whose Ray worker is lost


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
    a time: by default one a core (or one a GPU), but not more than runs. `command` carries out the
    words after `addgpt`. Raises ValueError if the runs ask for more threads than there are cores.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        command: Command,
        cores: Sequence[int],
        workers: int | None,
    ):
        threads = max(one.config.train.threads for one in planned) or 1
        devices = {pick_device(one.config.train.device).type for one in planned}
        gpus = torch.cuda.device_count() if "cuda" in devices else 0
        most = max(1, len(cores) // threads) if devices == {"cpu"} else max(1, gpus)
        self.command, self.workers = command, workers or min(most, len(planned))
        if self.workers > 1 and threads > 1 and self.workers * threads > len(cores):
            raise UsageError(
                f"{self.workers} workers with threads={threads} need more than the {len(cores)} "
                f"cores here; valid: --workers 1..{most}"
            )
        self.cores, self.gpus = shares(self.workers, cores), gpus
        self.going: dict[int, LocalRun] = {}

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        for run in self.going.values():
            run.stop(at_once=kind is KeyboardInterrupt)
        for run in self.going.values():
            run.process.join()

    def start(self, job: Planned) -> LocalRun:
        """Begin or resume a run where cores are free. Raises RunError or OSError."""
        busy = [number for number, run in self.going.items() if run.poll() is None]
        number = next(number for number in range(self.workers) if number not in busy)
        run = job.open(len(self.cores[number]))
        gpu = {"CUDA_VISIBLE_DEVICES": str(number % self.gpus)} if self.gpus else {}
        words = self.command, run.path, job.commands(run.path), run.config.train.threads
        self.going[number] = LocalRun(run.path, self.cores[number], gpu, words)
        return self.going[number]


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
        self,
        planned: Sequence[Planned],
        command: Command,
        address: str | None,
        cores: int,
        workers: int | None,
    ):
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'addgpt[ray]'") from None
        self.ray, self.command, self.address, self.workers = ray, command, address, workers or 0
        self.threads = max(one.config.train.threads for one in planned) or 1
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
        return self

    def __exit__(self, *error: object) -> None:
        self.ray.shutdown()

    def start(self, job: Planned) -> Task:
        """Begin or resume a run. Raises RunError."""
        run = job.open(job.config.train.threads or 1)
        path, threads = run.path.resolve(), run.config.train.threads
        gpus = {"num_gpus": 1} if job.config.train.device == "cuda" else {}
        how = {"num_cpus": threads, "max_calls": 1, "max_retries": RETRIES, **gpus}
        task = self.ray.remote(**how)(run_there)
        return Task(self.ray, task.remote(self.command, path, job.commands(path), threads))


class Task:
    """A run as a task of Ray, which starts it again if its worker is lost."""

    def __init__(self, ray: Any, result: Any) -> None:
        self.ray, self.result, self.stopped = ray, result, False

    def poll(self) -> str | None:
        if not self.ray.wait([self.result], timeout=0)[0]:
            return None
        try:
            return self.ray.get(self.result)
        except self.ray.exceptions.RayTaskError as error:
            return " ".join(str(error.cause or error).split())
        except self.ray.exceptions.RayError as error:
            return f"its worker was lost {RETRIES + 1} times: " + " ".join(str(error).split())

    def stop(self) -> None:
        if not self.stopped:  # a second request would have it end without saving
            self.ray.cancel(self.result)
            self.stopped = True


def run_there(command: Command, path: Path, commands: Sequence[list[str]], threads: int) -> str:
    """The task of a Ray worker."""
    if not (path / "config.json").exists():
        return f"{socket.gethostname()} does not see {path}; a cluster must share the run folders"
    run = Run(path)
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
    return carry_out(command, path, commands, threads)
