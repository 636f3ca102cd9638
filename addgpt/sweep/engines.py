"""Where runs are carried out: in processes of this machine, or as tasks of a Ray cluster.

An engine makes a run's folder, runs `addgpt train --resume` and `addgpt eval` on it in one process
(loading torch takes longer than many a small run), and waits for its end.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

import addgpt
from addgpt.device import pick_device
from addgpt.runs.files import RunError
from addgpt.runs.provenance import versions
from addgpt.runs.run import Run
from addgpt.sweep.plan import Planned
from addgpt.sweep.worker import shares
from addgpt.task import task_class

POLL_SECONDS = 0.2
ATTEMPTS = 3  # at a run whose Ray worker is lost
RELEASE_SECONDS = 60  # that a process may take to save and end after its Ray worker is lost
STOP = ".stop"  # a file in the folder of the sweep: Ray's tasks are to save and end

# Sweeps import nothing from the command line; the processes that they start are commands.
PROGRAM = """
import json, sys
sys.path[:], cores, commands = json.loads(sys.argv[1])
from addgpt.sweep.worker import begin
begin(cores)
from addgpt.cli.main import main
for words in commands:
    sys.argv[:] = ["addgpt", *words]
    main(words)
"""

Commands = list[list[str]]
Stop = Callable[
    [], int
]  # how often the user asked to stop: once, runs save; twice, they are killed


class Engine:
    """`with engine: engine.run(job, stop)`, in up to `workers` threads at a time."""

    workers: int

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run(self, job: Planned, stop: Stop) -> str:
        """Carry out a run; returns "" or, if it did not come to its end, why. Raises RunError."""
        raise NotImplementedError


def commands(job: Planned, path: Path) -> Commands:
    """The words after `addgpt` of what is left to do of a run in a folder."""
    found = [["train", "--resume", "--out", str(path)]] if job.status != "score" else []
    if job.score:
        cells = ["--per-cell", str(job.per_cell)] if job.per_cell else []
        found.append(["eval", str(path), *cells])
    return found


def process_words(cores: Sequence[int], todo: Commands) -> list[str]:
    """What starts a process that imports from where this one does, never from its folder."""
    order = [[path for path in sys.path if path], cores, todo]
    return [sys.executable, "-P", "-c", PROGRAM, json.dumps(order)]


def run_commands(
    todo: Commands, cores: Sequence[int], stop: Stop, environment: Mapping[str, str]
) -> str:
    """Run commands in a process of their own; returns "" or why it failed, in one line."""
    with tempfile.TemporaryFile() as log:
        # A session of its own: Ctrl-C reaches the sweep alone, which then asks runs to save.
        process = subprocess.Popen(
            process_words(cores, todo),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            env=os.environ | environment,
        )
        with process:  # closes its stdin, which stops it, whatever happens here
            while process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_SECONDS)
                    break
                if stop():
                    process.kill() if stop() > 1 else process.terminate()
        log.seek(0)
        return _reason(process.returncode, log.read().decode(errors="replace"))


def _reason(code: int, log: str) -> str:
    if code == 0:
        return ""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    lines = log.strip().splitlines() or ["no message"]
    if lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    return f"exit code {code}: " + " ".join(" ".join(lines[-3:]).split())


class LocalEngine(Engine):
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
            raise ValueError(
                f"{self.workers} workers with threads={threads} need more than the {len(cores)} "
                f"cores here; valid: --workers 1..{most}"
            )
        self.places: queue.SimpleQueue[tuple[list[int], dict[str, str]]] = queue.SimpleQueue()
        for number, share in enumerate(shares(self.workers, cores)):
            gpu = {"CUDA_VISIBLE_DEVICES": str(number % gpus)} if gpus else {}
            self.places.put((share, gpu))

    def run(self, job: Planned, stop: Stop) -> str:
        cores, gpu = place = self.places.get()
        try:
            path = job.open(len(cores)).path
            threads = str(job.config.train.threads or len(cores))
            return run_commands(
                commands(job, path), cores, stop, gpu | {"OMP_NUM_THREADS": threads}
            )
        finally:
            self.places.put(place)


class RayEngine(Engine):
    """Tasks of a Ray cluster. All of its machines must see the run folders under the same path.

    A run whose worker or machine is lost is resumed from its last checkpoint elsewhere. The code of
    addgpt and its tasks is sent along; the machines need Python, torch and the other dependencies.
    A run takes as many CPUs as `threads` says (1 if the grid does not), and a GPU if the grid says
    `device = "cuda"`.

    Args:
        planned: the runs of the sweep.
        address: of a cluster, as `ray start --head` prints it; None starts Ray on this machine.
        cores: of this machine that may be used; Ray is told their number.
        workers: most runs at a time; None is as many as the cluster has room for now.

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
            raise ValueError("--engine ray needs Ray: pip install 'addgpt[ray]'") from None
        self.ray, self.address, self.cores, self.workers = ray, address, cores, workers or 0
        self.threads = max(one.config.train.threads for one in planned) or 1
        self.stop_file = planned[0].path.parent.resolve() / STOP
        self.code = [addgpt.__file__, inspect.getfile(task_class(planned[0].config.task))]

    def __enter__(self) -> Engine:
        """Connect to the cluster, or start one on this machine. Raises RunError."""
        handler = signal.getsignal(signal.SIGTERM)
        quiet = {"log_to_driver": False, "logging_level": "ERROR", "include_dashboard": False}
        try:
            if self.address:
                _check_reachable(self.address)
                code = {"py_modules": [str(Path(file).parent) for file in self.code]}
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

    def run(self, job: Planned, stop: Stop) -> str:
        threads = job.config.train.threads or 1
        path = job.open(threads).path.resolve()
        gpus = {"num_gpus": 1} if job.config.train.device == "cuda" else {}
        task = self.ray.remote(run_there).options(num_cpus=threads, max_retries=0, **gpus)
        words = (str(path), commands(job, path), str(self.stop_file), threads)
        for _ in range(ATTEMPTS):
            try:
                return self._result(task.remote(*words), stop)
            except self.ray.exceptions.RayTaskError as error:
                return " ".join(str(error.cause or error).split())
            except self.ray.exceptions.RayError as error:
                lost = " ".join(str(error).split())
                if stop():
                    break
                _await_release(Run(path))
        return f"its worker was lost {ATTEMPTS} times: {lost}"

    def _result(self, task: object, stop: Stop) -> str:
        while True:
            try:
                return self.ray.get(task, timeout=POLL_SECONDS)
            except self.ray.exceptions.GetTimeoutError:
                if stop():
                    self.stop_file.touch()
                if stop() > 1:
                    return "stopped at once"


def run_there(path: str, todo: Commands, stop: str, threads: int) -> str:
    """The task of a Ray worker: `run_commands` on a run folder, until there is a file `stop`."""
    if not Path(path, "config.json").exists():
        return f"{socket.gethostname()} does not see {path}; a cluster must share the run folders"
    if Path(stop).exists():
        return "stopped before it began"
    run = Run(path)
    here = {key: value for key, value in versions().items() if key != "commit"}
    run.reconfigure(replace(run.config, versions=run.config.versions | here))
    environment = {"OMP_NUM_THREADS": str(threads)}
    return run_commands(todo, (), lambda: int(Path(stop).exists()), environment)


def _await_release(run: Run) -> None:
    """Wait until the process of a lost worker has saved and let go of the run folder."""
    end = time.monotonic() + RELEASE_SECONDS
    while time.monotonic() < end:
        with contextlib.suppress(RunError), run.locked():
            return
        time.sleep(POLL_SECONDS)


def _check_reachable(address: str) -> None:
    """Raise OSError if nothing answers at host:port, for which Ray itself waits minutes."""
    host, colon, port = address.rpartition(":")
    if "//" in address or (colon and not port.isdigit()):
        raise ValueError("an address is host:port, as `ray start --head` prints it, or auto")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()
