"""Where runs are executed: on this machine, or as tasks of a Ray cluster.

`with engine: engine.start(job)`, for up to `engine.workers` runs at a time; what that returns can
be polled (None, then why the run failed, or "") and stopped, again and again.
"""

from __future__ import annotations

import contextlib
import inspect
import os
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
from addgpt.sweep.worker import KILLED, RunProcess
from addgpt.task_lookup import task_class

RETRIES = 2  # of a run that is killed on a Ray cluster
POLL_SECONDS = 0.05  # between looks at processes and run folders


class LocalEngine(contextlib.AbstractContextManager):
    """Processes of this machine that share its cores: each has as many threads as it has cores.

    Two processes with two threads each on two cores nearly stall one another. `workers` says how
    many runs go on at a time: by default one a core (or one a GPU), but not more than runs.
    Raises ValueError if the runs ask for more threads than there are cores.
    """

    def __init__(self, planned: Sequence[Planned], cores: int, workers: int | None):
        threads = max(one.config.train.threads for one in planned) or 1
        devices = {pick_device(one.config.train.device).type for one in planned}
        self.gpus = torch.cuda.device_count() if "cuda" in devices else 0
        most = max(1, cores // threads if devices == {"cpu"} else self.gpus)
        self.workers = workers or min(most, len(planned))
        if self.workers > 1 and threads > 1 and self.workers * threads > cores:
            raise UsageError(
                f"{self.workers} workers with threads={threads} need more than the {cores} cores "
                f"here; valid: --workers 1..{most}"
            )
        self.share = max(1, cores // self.workers)
        self.going: dict[int, RunProcess] = {}

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        while left := [run for run in self.going.values() if run.poll() is None]:
            for run in left:
                end = run.process.kill if kind is KeyboardInterrupt else run.stop
                end()
            time.sleep(POLL_SECONDS)

    def start(self, job: Planned) -> RunProcess:
        """Begin or resume a run. Raises RunError or OSError."""
        busy = {place for place, run in self.going.items() if run.poll() is None}
        place = min({*range(self.workers)} - busy)
        path = job.open()
        variables = {"OMP_NUM_THREADS": str(job.config.train.threads or self.share)}
        if self.gpus:
            number = ",".join(map(str, range(self.gpus)))
            seen = os.environ.get("CUDA_VISIBLE_DEVICES") or number
            variables["CUDA_VISIBLE_DEVICES"] = seen.split(",")[place % self.gpus]
        self.going[place] = RunProcess(path, job.commands(path), variables)
        return self.going[place]


class RayEngine(contextlib.AbstractContextManager):
    """Tasks of a Ray cluster. All of its machines must see the run folders under the same path.

    A run that is killed or whose machine is lost is resumed from its last checkpoint. The code of
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

    def start(self, job: Planned) -> RayTask:
        """Begin or resume a run. Raises RunError."""
        path, threads = job.open().resolve(), job.config.train.threads or 1
        needs = {"num_cpus": threads}
        needs |= {"num_gpus": 1} if job.config.train.device == "cuda" else {}
        task = self.ray.remote(**needs, max_retries=RETRIES, retry_exceptions=[Killed])(run_there)
        return RayTask(self.ray, task.remote(path, job.commands(path), threads))


class Killed(RunError):
    """A run on a Ray cluster was killed, by a machine that is out of memory, say."""


class RayTask:
    """A run as a task of Ray, which starts it again if it is killed or its machine is lost."""

    def __init__(self, ray: Any, result: Any) -> None:
        self.ray, self.result, self.stopped = ray, result, False

    def poll(self) -> str | None:
        if not self.ray.wait([self.result], timeout=0)[0]:
            return None
        try:
            return self.ray.get(self.result)
        except self.ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)  # what the task has raised
            lost = "" if cause and not isinstance(cause, Killed) else f"lost {RETRIES + 1} times: "
            return lost + " ".join(str(cause or error).split())

    def stop(self) -> None:
        if not self.stopped:
            self.ray.cancel(self.result)
            self.stopped = True


def run_there(path: Path, commands: Sequence[list[str]], threads: int) -> str:
    """The task of a Ray worker. Raises Killed."""
    if not (path / "config.json").exists():
        return f"{socket.gethostname()} does not see {path}; a cluster must share the run folders"
    with locked(path / ".lock"):  # until the process of a worker that is lost has saved
        run = Run(path)
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
    process = RunProcess(path, commands, {"OMP_NUM_THREADS": str(threads)})
    reason, asked = None, False
    while reason is None:
        try:
            if asked:
                process.stop()
            time.sleep(POLL_SECONDS)
            reason = process.poll()
        except KeyboardInterrupt:  # as Ray cancels tasks
            asked = True
    if reason.startswith(KILLED):
        raise Killed(reason)
    return reason
