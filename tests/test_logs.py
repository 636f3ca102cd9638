"""`--log`: the curves of a training in files that other programs read, resumed as one curve."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
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
    pytest.importorskip("trackio", exc_type=ImportError)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    done = start(tmp_path / "run", "trackio", 4)
    assert "has stopped" not in done.stderr
    assert list((tmp_path / "trackio").rglob("addgpt*.db"))


def test_a_log_that_cannot_be_kept_is_told_before_the_work(tmp_path, monkeypatch):
    assert "--log takes csv, tensorboard, wandb, trackio" in command(
        "--task", "add", "--log", "paper", "--out", tmp_path / "a", code=2
    ).stderr  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = command("--task", "add", "--log", "wandb", "--out", tmp_path / "a", code=2)
    assert "pip install 'addgpt[wandb]'" in done.stderr and not (tmp_path / "a").exists()


def test_a_log_that_fails_does_not_end_the_training(toy_run, capsys):
    run = toy_run(steps=4, eval_every=2)
    with logs.Log("csv", run) as log:
        log.write = lambda row: json.loads("{")
        train(run, log)
    assert Run(run.path).progress()["step"] == 4
    said = capsys.readouterr().err
    assert said.count("--log csv has stopped: JSONDecodeError") == 1
