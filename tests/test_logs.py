"""`--log`: the curves of a training in files that other programs read, resumed as one curve."""

from __future__ import annotations

import csv
import importlib.util
import json
import sqlite3
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import addgpt
from addgpt.cli.main import main
from addgpt.runs.files import RunError
from addgpt.runs.run import Run
from addgpt.training import logs
from addgpt.training.loop import train

pytestmark = pytest.mark.slow

TINY = "digits=1 layers=1 width=16 heads=2 batch_size=8 eval_size=16 eval_every=2 save_every=4"
PAIRS = f"{TINY} threads=1 schedule=constant warmup=1".split()


def command(*words, code: int = 0):
    done = CliRunner().invoke(main, ["train", *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def start(out: Path, kind: str, steps: int):
    sets = [word for pair in (*PAIRS, f"steps={steps}") for word in ("--set", pair)]
    return command("--task", "add", "--out", out, "--log", kind, *sets)


def resume(out: Path, kind: str, steps: int):
    return command("--resume", "--out", out, "--log", kind, "--set", f"steps={steps}")


def curve(run: Path, name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in Run(run).metrics()]


def test_csv_is_metrics_jsonl_as_a_table(tmp_path):
    start(tmp_path / "run", "csv", 4)
    resume(tmp_path / "run", "csv", 8)
    rows = [*csv.DictReader((tmp_path / "run" / "metrics.csv").open())]
    assert [(int(r["step"]), float(r["loss"])) for r in rows] == curve(tmp_path / "run", "loss")
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8]


def test_tensorboard_reads_one_curve_of_a_resumed_training(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    start(tmp_path / "run", "tensorboard", 4)
    resume(tmp_path / "run", "tensorboard", 8)
    read = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    read.Reload()
    assert {"loss", "val_loss", "val_exact", "seconds"} <= set(read.Tags()["scalars"])
    found = [(event.step, event.value) for event in read.Scalars("val_loss")]
    wanted = curve(tmp_path / "run", "val_loss")
    assert [step for step, _ in found] == [step for step, _ in wanted] == [2, 4, 6, 8]
    assert [value for _, value in found] == pytest.approx([value for _, value in wanted])
    assert "settings/text_summary" in read.Tags()["tensors"]


def test_what_came_after_the_checkpoint_is_taken_back(toy_run, monkeypatch):
    """Validations after the last checkpoint are made, and logged, again."""
    run = toy_run(steps=8, eval_every=2, save_every=4)

    class Killed(Exception):
        pass

    with logs.Log("csv", run) as log, pytest.raises(Killed):

        def until(state):
            log(state)
            if state.step == 6:
                raise Killed

        train(run, until)
    file = run.path / "metrics.csv"
    assert [row["step"] for row in csv.DictReader(file.open())] == ["2", "4", "6"]
    with logs.Log("csv", run) as log:
        train(run, log)
    assert [row["step"] for row in csv.DictReader(file.open())] == ["2", "4", "6", "8"]


def test_wandb_offline_keeps_the_curve(tmp_path, monkeypatch):
    pytest.importorskip("wandb", exc_type=ImportError)
    for name, value in {"MODE": "offline", "SILENT": "true", "DISABLE_CODE": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    monkeypatch.chdir(tmp_path)
    done = start(tmp_path / "run", "wandb", 4)
    assert "has stopped" not in done.stderr
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))


def test_trackio_keeps_the_curve(tmp_path, monkeypatch):
    """Of a resumed training one curve; a new training of that name has its own."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read once, when imported
    pytest.importorskip("trackio.utils", exc_type=ImportError)
    done = start(tmp_path / "a" / "run", "trackio", 4)
    assert "has stopped" not in done.stderr and "Trackio" not in done.stdout
    resume(tmp_path / "a" / "run", "trackio", 8)
    start(tmp_path / "b" / "run", "trackio", 4)
    (file,) = (tmp_path / "trackio").rglob("addgpt*.db")
    with sqlite3.connect(file) as base:
        rows = base.execute("select run_id, step, metrics from metrics order by id").fetchall()
    found = {}
    for run, step, metrics in rows:
        found.setdefault(run, []).append((step, json.loads(metrics)["val_loss"]))
    assert [*found.values()] == [curve(tmp_path / name / "run", "val_loss") for name in "ab"]


def test_a_log_that_cannot_be_kept_is_told_before_the_work(tmp_path, monkeypatch):
    assert "--log takes csv, tensorboard, wandb, trackio" in command(
        "--task", "add", "--log", "paper", "--out", tmp_path / "a", code=2
    ).stderr  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = command("--task", "add", "--log", "wandb", "--out", tmp_path / "a", code=2)
    assert "pip install 'addgpt[wandb]'" in done.stderr and not (tmp_path / "a").exists()


def test_a_log_without_a_place_is_told_before_the_training(tmp_path, toy_run, monkeypatch):
    run = toy_run(steps=4)
    (run.path / "tensorboard").touch()
    (run.path / "metrics.csv").mkdir()
    for kind in ("csv", *(["tensorboard"] if importlib.util.find_spec("tensorboard") else [])):
        with pytest.raises(RunError, match=f"^--log {kind} has no place to write to: .*{run.path}"):
            addgpt.train("add", out=run.path, resume=True, log=kind, quiet=True)
        done = command("--resume", "--out", run.path, "--log", kind, code=1)
        assert "has no place" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not run.started


def test_logs_are_asked_for_in_python_too(tmp_path):
    small = {"digits": 1, "layers": 1, "width": 16, "heads": 2, "batch_size": 8, "eval_size": 16}
    small |= {"eval_every": 2, "steps": 4, "threads": 1, "warmup": 1, "quiet": True}
    for wrong in ("paper", None, 3, [["csv"]]):
        with pytest.raises(
            ValueError, match="csv, tensorboard, wandb, trackio, not .*(paper|None|3|csv)"
        ):
            addgpt.train("add", out=tmp_path / "run", log=wrong, **small)
    with pytest.raises(ValueError, match="seed must be a whole number, not 1.5"):
        addgpt.train("add", out=tmp_path / "run", seed=1.5, **small)
    assert not (tmp_path / "run").exists()
    steps = []
    run = addgpt.train(
        "add", out=tmp_path / "run", log=["csv"], on_step=lambda s: steps.append(s.step), **small
    )
    rows = [*csv.DictReader((run.path / "metrics.csv").open())]
    assert [int(row["step"]) for row in rows] == [2, 4] and steps == [1, 2, 3, 4]


def test_a_log_that_fails_does_not_end_the_training(toy_run, capsys):
    run = toy_run(steps=4, eval_every=2)
    with logs.Log("csv", run) as log:
        log.open = lambda: setattr(log, "write", lambda row: json.loads("{"))
        train(run, log)
    assert Run(run.path).progress()["step"] == 4
    said = capsys.readouterr().err
    assert said.count("--log csv has stopped: JSONDecodeError") == 1
