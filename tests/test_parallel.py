"""Training by several processes: the same problems, the same loss, nothing lost."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from addgpt.config.schema import TrainConfig
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.distributed import WorkerLost, World, joined
from addgpt.training.loop import train
from addgpt.training.preflight import check_shares
from tests.helpers.processes import ends, forked, free_port, wait_for, workers

pytestmark = pytest.mark.slow

SMALL = {
    "digits": "3", "layers": "1", "width": "16", "heads": "2", "steps": "12", "batch_size": "15",
    "eval_every": "4", "eval_size": "31", "save_every": "4", "warmup": "2", "threads": "1",
    "optimizer": "muon", "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run that one process trained."""
    run = Run.create(tmp_path_factory.mktemp("alone") / "run", configure("add", SMALL))
    train(run)
    return run


def close(one: Run, other: Run) -> None:
    """The same curve and weights, to what the order of sums changes."""
    for row, wanted in zip(one.metrics(), other.metrics(), strict=True):
        for key in ("step", "examples", "tokens"):
            assert row[key] == wanted[key]
        for key in ("loss", "val_loss"):
            assert row[key] == pytest.approx(wanted[key], rel=1e-4)
    weights = other.model().state_dict()
    for name, tensor in one.model().state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=1e-2, atol=1e-4)


def test_two_workers_learn_as_one_and_one_goes_on_where_two_stopped(alone, tmp_path):
    out = tmp_path / "run"
    (status, told), (other, silent) = ends(workers(2, out, SMALL | {"steps": "8"}))
    assert (status, other) == (0, 0)
    assert "step 8/8" in told and silent == ""
    assert [row["step"] for row in Run(out).metrics()] == [4, 8]
    (done,) = ends(workers(1, out, {"steps": "12"}, "--resume"))
    assert done[0] == 0, done
    # The schedule of the rate depends on the number of steps, so the first 8 differ a little.
    whole = Run.create(tmp_path / "whole", configure("add", SMALL | {"steps": "8"}))
    train(whole)
    from addgpt.runs.resolve import reconfigure

    whole.reconfigure(reconfigure(whole.config, None, {"steps": "12"}))
    train(Run(whole.path))
    close(Run(out), whole)


def test_a_killed_worker_ends_the_job_and_resuming_goes_on(alone, tmp_path):
    out = tmp_path / "run"
    slow = SMALL | {"steps": "100000", "save_every": "10", "eval_every": "10"}
    main, other = workers(2, out, slow)
    wait_for((out / "state.safetensors").exists)
    other.send(signal.SIGKILL)
    (status, told), _ = ends([main, other])
    assert status == 1
    line = [text for text in told.splitlines() if text.startswith("error")]
    assert len(line) == 1 and "a worker was lost" in line[0], told
    assert line[0].endswith(f"checkpoint with: addgpt train --resume --out {out}")
    step = Run(out).state()[1]["step"]
    assert step >= 10
    more = {"steps": str(step + 2)}
    (status, told), _ = ends(workers(2, out, more, "--resume"))
    assert status == 0 and f"step {step + 2}/" in told
    whole = Run.create(tmp_path / "whole", configure("add", slow))
    from addgpt.training.loop import Interrupted

    def stop(moment):
        if moment.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(whole, stop)
    found = [row for row in Run(out).metrics() if row["step"] <= step]
    for row, wanted in zip(found, whole.metrics(), strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=0.05)


def test_the_whole_of_torchrun(alone, tmp_path):
    """As a person calls it, here beside another `tasks`, which is not taken."""
    (tmp_path / "tasks.py").write_text("x = 1\n")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "addgpt", "train", "--task", "add", "--out", "run"]
    command += [w for key, value in SMALL.items() for w in ("--set", f"{key}={value}")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("after 12 steps") == 1
    close(Run(tmp_path / "run"), alone)


def test_a_signal_to_one_worker_stops_all_at_the_same_step(tmp_path):
    out = tmp_path / "run"
    main, other = workers(2, out, SMALL | {"steps": "100000"})
    wait_for((out / "state.safetensors").exists)
    other.send(signal.SIGTERM)
    (status, told), (silent, nothing) = ends([main, other])
    assert (status, silent) == (130, 1) and nothing == ""
    step = Run(out).state()[1]["step"]
    assert f"stopped at step {step}; everything is saved" in told


def test_bad_settings_are_said_by_one_worker(tmp_path):
    done = ends(workers(2, tmp_path / "run", SMALL | {"batch_size": "1"}))
    assert done[0][0] == 2
    lines = [text for _, told in done for text in told.splitlines() if "error:" in text]
    assert "error: batch_size=1 is too small for 2 workers" in lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_disjoint_alike_long_and_together_the_batch(size):
    task = load_task("add", {"digits": 9})
    batch = task.batch(np.random.default_rng(0), 50, "train")
    shares = [World(rank, size).shard(batch) for rank in range(size)]
    assert sum(map(len, shares)) == 50
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    rows = [task.decode(row).rstrip("#") for share in shares for row in share.tokens]
    assert sorted(rows) == sorted(task.decode(row).rstrip("#") for row in batch.tokens)
    tokens = [int(share.lengths.sum()) for share in shares]
    assert max(tokens) - min(tokens) <= 0.3 * max(tokens)
    assert sum(int(share.scored.sum()) for share in shares) == int(batch.scored.sum())


def test_a_world_of_one_changes_nothing():
    world = World()
    assert world.main and world.sum([1.5, 2]) == [1.5, 2]
    assert world.any(True) and not world.any(False)
    assert world.broadcast("results/ä") == "results/ä"
    batch = load_task("add").batch(np.random.default_rng(0), 4, "train")
    assert world.shard(batch) is batch
    with joined() as found:
        assert found == world


def threads() -> list[str]:
    tasks = Path("/proc/self/task")
    return [path.joinpath("comm").read_text().strip() for path in tasks.iterdir()]


def leave(rank: int, end: str, port: int, told: Path) -> None:
    """In a process of its own: one of two workers, the other of which is a second slower."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ.update(place | {"RANK": str(rank)})
    try:
        with joined() as world:
            world.sum([1.0])
            assert any("gloo" in name for name in threads()), threads()
            weight = torch.nn.Parameter(torch.ones(1))
            torch.optim.AdamW([weight]).step()  # which loads more of torch
            world.sum([1.0])
            if rank == 1:
                time.sleep(1)
            if end == "error":
                raise WorkerLost("as if")
            began = time.monotonic()
        told.write_text(f"{time.monotonic() - began:.2f}")
    except WorkerLost:
        pass
    left = [name for name in threads() if "gloo" in name]
    assert not left, left


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are listed in /proc")
@pytest.mark.parametrize("end", ["done", "error"])
def test_workers_wait_for_each_other_and_leave_no_threads(tmp_path, end):
    port = free_port()
    both = [forked(leave, rank, end, port, tmp_path / str(rank)) for rank in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    if end == "done":
        waited = float((tmp_path / "0").read_text())
        assert waited > 0.5  # the first was ready a second before the other


def test_more_workers_than_problems_are_refused():
    config = configure("add", SMALL)
    assert isinstance(config.train, TrainConfig)
    check_shares(config, World(0, 15))
    with pytest.raises(ValueError, match="batch_size=15 is too small for 16 workers"):
        check_shares(config, World(0, 16))


def test_a_worker_that_never_comes_is_lost(monkeypatch):
    import datetime

    from addgpt.training import distributed as parallel

    monkeypatch.setattr(parallel, "TIMEOUT", datetime.timedelta(seconds=1))
    with socket.socket() as silent:  # it does not listen, and nobody else can take its port
        silent.bind(("127.0.0.1", 0))
        port = str(silent.getsockname()[1])
        place = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in place.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(WorkerLost, match="a worker was lost"), joined():
            pass
