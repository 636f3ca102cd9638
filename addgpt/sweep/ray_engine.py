"""The runs of a sweep as tasks of a Ray cluster.

A task works in a temporary folder of whatever machine it is on. It tells how far it is, and sends
each checkpoint, through an actor beside the driver; the driver alone writes into the run folders.
So when a worker or a machine is lost, the run is taken up from its last checkpoint elsewhere.

The code of addgpt and its tasks is sent along; the machines need Python, torch and the other
dependencies. A run takes as many CPUs as `threads` says (1 if the grid does not), and a GPU if the
grid says `device = "cuda"`.
"""

from __future__ import annotations

import inspect
import signal
import socket
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import addgpt
from addgpt.runs.files import RunError, write_atomically
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.sweep.local import Event
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import carry_out, failure
from addgpt.task import task_class
from addgpt.training.loop import Interrupted

ATTEMPTS = 3  # at a run whose worker is lost
PATIENCE = 0.3  # seconds between looks at what the tasks have told

Files = dict[str, bytes]


class Inbox:
    """An actor: tasks put events in and learn whether to stop, the driver takes them out."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any], Files]] = []
        self.stopping = False

    def tell(self, key: str, event: dict[str, Any], files: Files) -> bool:
        self.events.append((key, event, files))
        return self.stopping

    def take(self, stopping: bool) -> list[tuple[str, dict[str, Any], Files]]:
        events, self.events, self.stopping = self.events, [], stopping
        return events


def train_there(
    key: str, files: Files, order: dict[str, Any], inbox: Any
) -> tuple[dict[str, Any], Files]:
    """The task: carry out a run, given its files; returns its last event and all its files."""
    import ray

    with tempfile.TemporaryDirectory(prefix="addgpt-") as name:
        folder = Path(name) / key.rpartition("/")[0]
        folder.mkdir()
        for file, content in files.items():
            write_atomically(folder / file, content)
        _note_machine(Run(folder))
        sent = None

        def tell(event: dict[str, Any]) -> None:
            nonlocal sent
            if "pid" in event:
                event["node"] = ray.get_runtime_context().get_node_id()
            news = _age(folder) != sent
            sent = _age(folder)
            if ray.get(inbox.tell.remote(key, event, read_files(folder) if news else {})):
                if "step" not in event:
                    raise Interrupted("stopped before or after training")
                signal.raise_signal(signal.SIGTERM)  # train() saves, and stops

        end = carry_out(str(folder), **order, tell=tell)
        return end, read_files(folder)


def ray_engine(address: str | None, cores: Sequence[int], workers: int | None) -> Callable:
    """An engine for `run_sweep`. Raises ValueError if Ray is not installed.

    Args:
        address: of a cluster, as `ray start --head` prints it; None starts Ray on this machine.
        cores: of this machine that may be used; Ray is told their number.
        workers: most runs at a time; None leaves it to Ray.
    """
    try:
        import ray  # noqa: F401
    except ImportError:
        raise ValueError("--engine ray needs Ray: pip install 'addgpt[ray]'") from None

    def engine(jobs: Sequence[Planned], stop: Callable[[], int]) -> Iterator[Event]:
        _connect(address, _code(jobs[0]), len(cores))
        try:
            yield from _Driver(jobs, workers or len(jobs), stop).events()
        finally:
            ray.shutdown()

    return engine


class _Driver:
    """Hands out runs as tasks, writes what they send, and hands out again what was lost."""

    def __init__(self, jobs: Sequence[Planned], most: int, stop: Callable[[], int]) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.ray, self.most, self.stop = ray, most, stop
        self.inbox = ray.remote(Inbox).options(num_cpus=0, scheduling_strategy=here).remote()
        self.waiting = deque(jobs)
        self.active: dict[Any, Planned] = {}
        self.attempts = dict.fromkeys((job.name for job in jobs), 0)
        self.begun: set[str] = set()

    def events(self) -> Iterator[Event]:
        while self.active or (self.waiting and not self.stop()):
            if self.stop() > 1:
                return
            while self.waiting and len(self.active) < self.most and not self.stop():
                yield from self._hand_out(self.waiting.popleft())
            if self.stop():
                self._cancel_queued()
            tasks = list(self.active)
            ended = self.ray.wait(tasks, timeout=PATIENCE)[0] if tasks else []
            yield from self._told()
            for task in ended:
                yield from self._ended(task, self.active.pop(task))

    def _hand_out(self, job: Planned) -> Iterator[Event]:
        self.attempts[job.name] += 1
        try:
            threads = job.config.train.threads or 1
            run = job.open(threads)
        except RunError as error:
            yield job.name, failure(str(error))
            return
        options = {"num_cpus": threads, "max_retries": 0}
        if run.config.train.device == "cuda":
            options["num_gpus"] = 1
        task = self.ray.remote(train_there).options(**options)
        files = read_files(run.path)
        self.active[task.remote(self._key(job), files, job.order, self.inbox)] = job

    def _told(self) -> Iterator[Event]:
        """What the tasks have told since; late words of a lost attempt are passed over."""
        jobs = {self._key(job): job for job in self.active.values()}
        for key, event, files in self.ray.get(self.inbox.take.remote(bool(self.stop()))):
            if key in jobs:
                self.begun.add(key)
                _write_files(jobs[key].path, files)
                yield jobs[key].name, event

    def _ended(self, task: Any, job: Planned) -> Iterator[Event]:
        try:
            event, files = self.ray.get(task)
            _write_files(job.path, files)
        except self.ray.exceptions.TaskCancelledError:
            event = {"state": "waiting"}
        except self.ray.exceptions.RayTaskError as error:
            event = failure(str(error.cause or error))
        except self.ray.exceptions.RayError as error:
            if self.stop():
                event = {"state": "interrupted"}
            elif self.attempts[job.name] < ATTEMPTS:
                self.waiting.append(job)
                event = {"state": "waiting"}
            else:
                event = failure(f"its worker was lost {self.attempts[job.name]} times: {error}")
        yield job.name, event

    def _cancel_queued(self) -> None:
        """Take back the tasks that no worker has begun."""
        for task, job in self.active.items():
            if self._key(job) not in self.begun:
                self.ray.cancel(task)

    def _key(self, job: Planned) -> str:
        return f"{job.name}/{self.attempts[job.name]}"


def _connect(address: str | None, code: list[str], cpus: int) -> None:
    """Connect to a cluster and send it our code, or start one on this machine. Raises RunError."""
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
    try:
        if address:
            _check_reachable(address)
            ray.init(address=address, runtime_env={"py_modules": code}, **quiet)
        else:
            ray.init(num_cpus=cpus, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        where = f"reach Ray at {address}" if address else "start Ray here"
        raise RunError(f"cannot {where}: {error}") from None
    signal.signal(signal.SIGTERM, handler)  # ray.init puts in its own, which ends the process


def _code(job: Planned) -> list[str]:
    """The folders of the packages that a run needs: ours, and that of its task."""
    files = addgpt.__file__, inspect.getfile(task_class(job.config.task))
    return [str(Path(file).parent) for file in files]


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at host:port, for which Ray itself waits minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or (colon and not port.isdigit()):
        raise ValueError("an address is host:port, as `ray start --head` prints it, or auto")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()


def read_files(folder: Path) -> Files:
    """The files of a run folder, in the order in which they were written."""
    paths = [path for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    return {path.name: path.read_bytes() for path in sorted(paths, key=_written)}


def _write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        write_atomically(folder / Path(name).name, content)


def _written(path: Path) -> int:
    return path.stat().st_mtime_ns


def _age(folder: Path) -> int | None:
    """When the last checkpoint was written, in nanoseconds."""
    path = folder / "state.safetensors"
    return _written(path) if path.exists() else None


def _note_machine(run: Run) -> None:
    """Put the versions of this machine into config.json; the commit stays the driver's."""
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
