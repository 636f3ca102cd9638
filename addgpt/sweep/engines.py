"""Where runs are carried out: in processes of this machine, or as tasks of a Ray cluster.

An engine makes a run's folder and has `addgpt train --resume` and `addgpt eval` run on it.
"""

from __future__ import annotations

import contextlib
import inspect
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import types
from collections.abc import Iterator, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Protocol

import torch

import addgpt
from addgpt.config.errors import UsageError
from addgpt.device import pick_device
from addgpt.runs.files import RunError
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import Commands, run_here, run_there
from addgpt.task import task_class

ATTEMPTS = 3  # at a run whose Ray worker is lost
STOP = ".stop"  # a file in the folder of a sweep: Ray's tasks are to save and stop
# Loading these takes longer than many a small run: done once, in a process that others fork from.
LOADED = [
    "torch._dynamo",
    "addgpt.sweep.worker",
    "addgpt.cli.train",
    "addgpt.cli.eval",
    "addgpt.training.loop",
    "addgpt.evaluation.scorecard",
]


class Going(Protocol):
    """A run that is being carried out."""

    def poll(self) -> str | None:
        """None as long as it goes on; then "" or, if it did not come to its end, why."""

    def stop(self, at_once: bool) -> None:
        """Have it save and stop, or stop without saving; may be called again and again."""


class Engine(Protocol):
    """`with engine: engine.start(job)`, for up to `workers` runs at a time."""

    workers: int

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...

    def start(self, job: Planned) -> Going:
        """Begin or resume a run. Raises RunError."""


def commands(job: Planned, path: Path) -> Commands:
    """What is left to do of the run in a folder, as the words after `addgpt`."""
    found = [["train", "--resume", "--out", str(path)]] if job.status != "score" else []
    if job.score:
        cells = ["--per-cell", str(job.per_cell)] if job.per_cell else []
        found.append(["eval", str(path), *cells])
    return found


def usable_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(workers: int, cores: Sequence[int]) -> list[list[int]]:
    """Cores for each worker, equally many and no two the same while there are enough.

    >>> shares(2, [0, 1, 2, 3, 4])
    [[0, 1], [2, 3]]
    >>> shares(3, [4, 5])
    [[4], [5], [4]]
    """
    size = max(1, len(cores) // workers)
    return [[cores[(w * size + i) % len(cores)] for i in range(size)] for w in range(workers)]


class LocalEngine:
    """Processes of this machine, each on its own cores, with a thread for each core.

    Two processes with two threads each on two cores nearly stall one another.

    Args:
        planned: the runs of the sweep.
        cores: that may be used; they are shared out.
        workers: runs at a time; None is one a core (or one a GPU), but not more than runs.

    Raises ValueError if the runs ask for more threads than there are cores for.
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
        self.free = []  # places: the cores of each, and its GPU
        for number, share in enumerate(shares(self.workers, cores)):
            gpu = {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {}
            self.free.append((share, gpu))
        # Elsewhere forking is not safe once libraries such as torch are loaded.
        fork = sys.platform == "linux"
        self.context = multiprocessing.get_context("forkserver" if fork else "spawn")

    def __enter__(self) -> LocalEngine:
        if self.context.get_start_method() == "forkserver":
            self.context.set_forkserver_preload(LOADED)
            # Ctrl-C is not for the runs: this process asks them to save, and waits for it.
            handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
            with _apart():
                forkserver.ensure_running()
            signal.signal(signal.SIGINT, handler)
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def start(self, job: Planned) -> Going:
        return _Process(self, job)


class _Process:
    """A run in a process of this machine."""

    def __init__(self, engine: LocalEngine, job: Planned) -> None:
        self.engine, self.place = engine, engine.free[0]
        cores, gpu = self.place
        path = job.open(len(cores)).path
        engine.free.pop(0)
        self.log = tempfile.NamedTemporaryFile()
        threads = job.config.train.threads or len(cores)
        there = os.getcwd(), dict(os.environ) | gpu, self.log.name
        words = (commands(job, path), threads, cores, *there)
        self.process = engine.context.Process(  # type: ignore[attr-defined]  # of all contexts
            target=run_here, args=words, daemon=True
        )
        with _apart():
            self.process.start()

    def poll(self) -> str | None:
        code = self.process.exitcode
        if code is None:
            return None
        self.engine.free.append(self.place)
        with self.log:
            told = self.log.read().decode(errors="replace").strip().splitlines()
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return " ".join(" ".join(told[-3:]).split()) or f"exit code {code}" if code else ""

    def stop(self, at_once: bool) -> None:
        self.process.kill() if at_once else self.process.terminate()


@contextlib.contextmanager
def _apart() -> Iterator[None]:
    """What starts now imports from where this process does, and does not run its main script.

    It would look in the current folder first: in results there may be a folder `tasks`.
    """
    paths = {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    before = {name: os.environ.get(name) for name in paths}
    main = sys.modules["__main__"]
    os.environ.update(paths)
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        for name, value in before.items():
            os.environ.pop(name)
            os.environ |= {name: value} if value is not None else {}


class RayEngine:
    """Tasks of a Ray cluster. All of its machines must see the run folders under the same path.

    A run whose worker or machine is lost is resumed from its last checkpoint elsewhere. The code of
    addgpt and its tasks is sent along; the machines need Python, torch and the other dependencies.
    A run takes as many CPUs as `threads` says (1 if the grid does not), and a GPU if the grid says
    `device = "cuda"`.

    Args:
        planned: the runs of the sweep.
        address: of a cluster, as `ray start --head` prints it; None starts Ray on this machine.
        cores: of this machine that may be used; Ray is told their number.
        workers: most runs at a time; None is as many as the cluster has room for at the start.

    Raises ValueError if Ray is not installed.
    """

    def __init__(
        self,
        planned: Sequence[Planned],
        address: str | None,
        cores: Sequence[int],
        workers: int | None,
    ):
        try:
            import ray
        except ImportError:
            raise UsageError("--engine ray needs Ray: pip install 'addgpt[ray]'") from None
        self.ray, self.address, self.cores, self.workers = ray, address, cores, workers or 0
        self.threads = max(one.config.train.threads for one in planned) or 1
        self.stop_file = planned[0].path.parent.resolve() / STOP
        files = addgpt.__file__, inspect.getfile(task_class(planned[0].config.task))
        self.code = [str(Path(file).parent) for file in files]

    def __enter__(self) -> RayEngine:
        """Connect to the cluster, or start one on this machine. Raises RunError."""
        handler = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        try:
            if self.address:
                _check_reachable(self.address)
                code = {"py_modules": self.code}
                self.ray.init(address=self.address, runtime_env=code, **quiet)
            else:
                self.ray.init(num_cpus=len(self.cores), **quiet)
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

    def start(self, job: Planned) -> Going:
        return _Task(self, job)


class _Task:
    """A run as a task of Ray."""

    def __init__(self, engine: RayEngine, job: Planned) -> None:
        self.engine, self.attempts = engine, 0
        threads = job.config.train.threads or 1
        path = job.open(threads).path.resolve()
        self.words = (str(path), commands(job, path), threads, str(engine.stop_file))
        self.needs: dict[str, Any] = {"num_cpus": threads, "max_retries": 0}
        self.needs |= {"num_gpus": 1} if job.config.train.device == "cuda" else {}
        self._submit()

    def _submit(self) -> None:
        self.attempts += 1
        task = self.engine.ray.remote(run_there).options(**self.needs)
        self.task = task.remote(*self.words)

    def poll(self) -> str | None:
        ray = self.engine.ray
        if not ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            return ray.get(self.task)
        except ray.exceptions.RayTaskError as error:
            return " ".join(str(error.cause or error).split())
        except ray.exceptions.RayError as error:
            if self.attempts < ATTEMPTS and not self.engine.stop_file.exists():
                self._submit()
                return None
            lost = " ".join(str(error).split())
            return f"its worker was lost {self.attempts} times: {lost}"

    def stop(self, at_once: bool) -> None:
        self.engine.stop_file.touch()
        if at_once:
            self.engine.ray.cancel(self.task, force=True)


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at host:port, for which Ray itself waits minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or (colon and not port.isdigit()):
        raise UsageError("an address is host:port, as `ray start --head` prints it, or auto")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
