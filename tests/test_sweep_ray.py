"""Sweeps on Ray: a real cluster of two nodes on this machine, one of whose workers is killed."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.sweep.grid import load_grid
from addgpt.sweep.ray_engine import ray_engine
from addgpt.sweep.run import plan_sweep
from addgpt.training.loop import train

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'addgpt[ray]'")

SMALL = {
    "digits": 2, "layers": 1, "width": 16, "heads": 2, "steps": 40, "batch_size": 16,
    "eval_every": 20, "eval_size": 32, "save_every": 20, "warmup": 2, "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def address():
    """A cluster of two nodes with one CPU each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def grid_file(tmp_path):
    """Writes the file of a sweep of tiny runs; its path."""

    def write(text: str = "") -> Path:
        settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in SMALL.items())
        head = f'task = "add"\nper_cell = 20\nout = "{tmp_path / "runs"}"\n'
        (tmp_path / "grid.toml").write_text(f"{head}{text}\n[set]\n{settings}\n")
        return tmp_path / "grid.toml"

    return write


def tensors(path: Path) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in Run(path).state()[0].items()}


def metrics(path: Path) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Run(path).metrics()]


def alone(folder: Path, seed: int = 0, **settings) -> Path:
    """The same run without a sweep; its path."""
    texts = {key: str(value) for key, value in (SMALL | settings).items()}
    run = Run.create(folder, configure("add", texts, seed))
    train(run)
    return run.path


def test_a_killed_worker_costs_no_more_than_the_steps_since_its_checkpoint(
    address, grid_file, tmp_path
):
    text = "\n".join(
        f"[[case]]\nname = '{name}'\nset = {{{settings}}}"
        for name, settings in {
            "killed": "steps = 600",
            "good": "width = 8",
            "wild": "lr = 1e38, muon_lr = 1e38, warmup = 0",
        }.items()
    )
    planned = plan_sweep(load_grid(str(grid_file(f"eval = false\n{text}"))), False)
    events: dict[str, list[dict]] = {one.name: [] for one in planned}
    for name, event in ray_engine(address, [0], None)(planned, lambda: 0):
        events[name].append(event)
        starts = [e for e in events["killed-s0"] if "pid" in e]
        if len(starts) == 1 and name == "killed-s0" and event.get("step", 0) >= 20:
            os.kill(starts[0]["pid"], signal.SIGKILL)
            starts.append({})
    told = events["killed-s0"]
    lost = told.index({"state": "waiting"})
    assert [e["state"] for e in told if "pid" in e] == ["training"] * 2
    assert next(e["step"] for e in told[lost:] if "step" in e) > 20
    assert told[-1] == events["good-s0"][-1] == {"state": "done"}
    assert events["wild-s0"][-1]["state"] == "failed"
    assert "try a lower rate" in events["wild-s0"][-1]["error"]
    first = [next(e for e in events[name] if "pid" in e) for name in ("killed-s0", "good-s0")]
    assert first[0]["node"] != first[1]["node"]
    whole = alone(tmp_path / "whole", steps=600)
    assert tensors(planned[0].path) == tensors(whole)
    assert metrics(planned[0].path) == metrics(whole)


def test_the_driver_has_what_the_workers_wrote(address, grid_file, tmp_path):
    file = grid_file("seeds = [0]")
    words = ["sweep", str(file), "--engine", "ray", "--ray-address", address]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    path = tmp_path / "runs" / "seed=0"
    assert tensors(path) == tensors(alone(tmp_path / "whole"))
    found = (path / "eval.csv").read_text()
    assert CliRunner().invoke(main, ["eval", str(path), "--per-cell", "20"]).exit_code == 0
    assert (path / "eval.csv").read_text() == found
    assert CliRunner().invoke(main, words).stdout == result.stdout


def test_a_stopped_sweep_is_saved_and_goes_on(address, grid_file, tmp_path):
    file = grid_file("eval = false\nseeds = [0, 1, 2]\n[grid]\nsteps = [400]")
    stop: list[str] = []
    ends = {}
    planned = plan_sweep(load_grid(str(file)), False)
    for name, event in ray_engine(address, [0], None)(planned, lambda: min(1, len(stop))):
        ends[name] = event["state"]
        if event.get("step"):
            stop.append(name)
    assert ends[stop[0]] == "interrupted"
    assert set(ends.values()) == {"interrupted", "waiting"}  # two nodes with a CPU each
    again = [one for one in plan_sweep(load_grid(str(file)), False) if one.name == stop[0]]
    assert again[0].todo == "resume" and 0 < Run(again[0].path).progress()["step"] < 400
    ends = {n: event["state"] for n, event in ray_engine(address, [0], 1)(again, lambda: 0)}
    assert ends == {stop[0]: "done"}
    whole = alone(tmp_path / "whole", again[0].config.seed, steps=400)
    assert tensors(again[0].path) == tensors(whole)


def test_a_cluster_that_is_not_there_is_told_of_in_one_line(grid_file):
    words = ["sweep", str(grid_file()), "--engine", "ray", "--ray-address", "127.0.0.1:1"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert "error: cannot reach Ray at 127.0.0.1:1" in result.stderr.strip().splitlines()[-1]
