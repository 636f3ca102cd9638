"""Sweeps on Ray: with a stand-in, and on a real cluster of two nodes where Ray is installed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.sweep import engines
from addgpt.sweep.engines import Killed, RayEngine, run_there
from addgpt.sweep.grid import load_grid
from addgpt.sweep.plan import plan_sweep
from addgpt.sweep.run import run_sweep
from addgpt.training.loop import train
from tests.helpers.processes import forked
from tests.helpers.sweeps import SMALL, holder, tensors, trained, until, write_grid

pytestmark = pytest.mark.slow

SETTINGS = {"steps": 40, "eval_every": 20, "save_every": 20}
LONG = {"steps": 260, "eval_every": 20, "save_every": 130}


class RayError(Exception):
    """A worker is lost."""


class RayTaskError(RayError):
    """A task has raised an error."""

    cause = None


class FakeTask:
    """In a process of its own, and again in another one if that is lost."""

    def __init__(self, function, words: tuple, retries: int) -> None:
        self.retries, self.work = retries, (function, words, f"{words[0]}.result")
        self.process = forked(write_result, *self.work)

    def done(self) -> bool:
        if self.process.exitcode and self.retries:  # killed
            self.retries -= 1
            self.process = forked(write_result, *self.work)
        return self.process.exitcode is not None


def write_result(function, words: tuple, file: str) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ray's workers do
    try:
        Path(file).write_text(function(*words))
    except Killed as error:
        Path(file).write_text(str(error))
        sys.exit(1)


class FakeRay(types.ModuleType):
    """What of Ray is used."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def init(self, **how) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def shutdown(self) -> None:
        pass

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, num_cpus, max_retries, retry_exceptions):
        assert retry_exceptions == [Killed]
        return lambda function: types.SimpleNamespace(
            remote=lambda *words: FakeTask(function, words, max_retries)
        )

    def wait(self, tasks, timeout):
        return [t for t in tasks if t.done()], [t for t in tasks if not t.done()]

    def get(self, task):
        if task.process.exitcode:
            error = RayTaskError()
            error.cause = Killed(Path(task.work[2]).read_text())
            raise error
        return Path(task.work[2]).read_text()

    def cancel(self, task) -> None:
        os.kill(task.process.pid, signal.SIGINT)


@pytest.fixture(scope="module", params=["fake", "real"])
def address(request):
    """A cluster of two nodes with one CPU each, or what stands in for it."""
    if request.param == "fake":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "ray", FakeRay("ray"))
            yield None
        return
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'addgpt[ray]'")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def interruptible():
    """Ctrl-C is heard, also where the tests run in the background, with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def swept(address, tmp_path):
    """Runs a sweep of tiny runs on Ray, while something else happens; its rows by name."""

    def carry_out(file: Path, meanwhile=lambda: None) -> tuple[dict[str, dict], bool]:
        grid = load_grid(str(file))
        planned = plan_sweep(grid, on_this_machine=False)
        other = threading.Thread(target=meanwhile)
        other.start()
        rows, stopped = run_sweep(grid, planned, RayEngine(planned, address, 1, None))
        other.join()
        return {row["run"]: row for row in rows}, stopped

    return carry_out


def metrics(path: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run(path).metrics()]


def alone(folder: Path, seed: int = 0, **settings) -> Path:
    """The same run without a sweep; its path."""
    texts = {key: str(value) for key, value in (SMALL | SETTINGS | settings).items()}
    run = Run.create(folder, configure("add", texts, seed))
    train(run)
    return run.path


def test_a_killed_worker_costs_no_more_than_the_steps_since_its_checkpoint(
    swept, tmp_path, monkeypatch
):
    monkeypatch.setattr(engines, "RETRIES", 1)
    cases = {"killed": "steps = 300", "doomed": "steps = 1000000", "good": "width = 8"}
    text = "".join(f"[[case]]\nname = '{name}'\nset = {{{cases[name]}}}\n" for name in cases)
    victims = []

    def kill() -> None:
        for name in ("killed", *["doomed"] * 2):
            path = tmp_path / "runs" / f"{name}-s0"
            seen: list = []  # once found, it may let go of the lock the next moment

            def found(path=path, seen=seen) -> bool:
                seen[:] = [holder(path)]
                return trained(path) and seen[0] not in (None, *victims)

            until(found)
            victims.append(seen[0])
            os.kill(victims[-1], signal.SIGKILL)

    rows, stopped = swept(write_grid(tmp_path, f"eval = false\n{text}", **SETTINGS), kill)
    assert not stopped and len(set(victims)) == 3
    states = [rows[f"{name}-s0"]["state"] for name in cases]
    assert states == ["done", "failed", "done"]
    told = "lost 2 times: killed by SIGKILL (out of memory?)"
    assert told in rows["doomed-s0"]["error"]
    whole = alone(tmp_path / "whole", steps=300)
    assert tensors(tmp_path / "runs" / "killed-s0") == tensors(whole)
    assert metrics(tmp_path / "runs" / "killed-s0") == metrics(whole)


def test_runs_and_scores_are_those_of_single_runs(address, tmp_path):
    words = ["sweep", str(write_grid(tmp_path, **SETTINGS)), "--engine", "ray"]
    words += ["--ray-address", address] if address else []
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    path = tmp_path / "runs" / "seed=0"
    assert tensors(path) == tensors(alone(tmp_path / "whole"))
    found = (path / "eval.csv").read_text()
    (path / "eval.csv").unlink()
    assert CliRunner().invoke(main, ["eval", str(path), "--per-cell", "20"]).exit_code == 0
    assert (path / "eval.csv").read_text() == found
    assert CliRunner().invoke(main, words).stdout == result.stdout


def test_a_stopped_sweep_is_saved_and_resumed(interruptible, swept, tmp_path):
    file = write_grid(tmp_path, "eval = false\nseeds = [0, 1, 2]", **SETTINGS | LONG)
    first, second = (tmp_path / "runs" / f"seed={n}" for n in (0, 1))

    def stop() -> None:
        working = []
        for path in (first, second):
            until(lambda path=path: trained(path) and holder(path))
            working.append(holder(path))
            os.kill(working[-1], signal.SIGSTOP)  # it waits for us
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(1.5)  # until both are asked to stop
        for process in working:
            os.kill(process, signal.SIGCONT)

    rows, stopped = swept(file, stop)
    assert stopped and [row["state"] for row in rows.values()] == ["interrupted"] * 2 + ["waiting"]
    assert 0 < Run(first).progress()["step"] < LONG["steps"]
    rows, stopped = swept(file)
    assert not stopped and {row["state"] for row in rows.values()} == {"done"}
    for seed in (0, 2):
        whole = alone(tmp_path / f"whole{seed}", seed, **LONG)
        assert tensors(tmp_path / "runs" / f"seed={seed}") == tensors(whole)


def test_a_task_that_is_started_again_waits_for_the_run_of_a_worker_that_is_lost(tmp_path):
    (job,) = plan_sweep(load_grid(str(write_grid(tmp_path, "eval = false", **SETTINGS | LONG))))
    words = job.open(), job.commands(job.path), 1
    worker = forked(run_there, *words)
    until(lambda: trained(job.path) and holder(job.path))
    run = holder(job.path)
    os.kill(run, signal.SIGSTOP)
    worker.kill()
    threading.Timer(1, os.kill, (run, signal.SIGCONT)).start()  # it saves and stops
    assert run_there(*words) == ""
    assert tensors(job.path) == tensors(alone(tmp_path / "whole", **LONG))


def test_a_machine_that_does_not_see_the_run_folder_says_so(tmp_path):
    told = run_there(tmp_path / "run", [], 1)
    assert "does not see" in told and not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there_is_told_of_in_one_line(address, tmp_path):
    words = ["sweep", str(write_grid(tmp_path)), "--engine", "ray", "--ray-address", "127.0.0.1:1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "error: cannot reach Ray at 127.0.0.1:1" in result.stderr.strip().splitlines()[-1]
    for wrong in ("127.0.0.1:x", "ray://127.0.0.1:1"):
        result = CliRunner().invoke(main, [*words[:-1], wrong])
        assert result.exit_code == 1 and f"cannot reach Ray at {wrong}: " in result.stderr
