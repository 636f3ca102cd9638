"""Resuming: what it keeps, what it refuses, and that a refusal changes nothing."""

import hashlib

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, RunError, initial_weights
from addgpt.task_lookup import load_task
from addgpt.training import logs
from addgpt.training.loop import train
from addgpt.training.proving import Proving

pytestmark = pytest.mark.slow


def invoke(*words) -> str:
    done = CliRunner().invoke(main, [str(word) for word in words])
    return done.stdout + done.stderr


def test_a_refused_previous_changes_nothing(trained):
    before = (trained.path / "config.json").read_bytes()
    words = ("train", "--resume", "--previous", "--out", trained.path, "--set", "lr=0.5")
    assert "drop --previous" in invoke(*words)
    assert (trained.path / "config.json").read_bytes() == before


def test_a_finished_run_that_is_resumed_keeps_its_previous_checkpoint(toy_run):
    run = toy_run(steps=8)
    train(run)
    files = ("state.safetensors", "state.previous.safetensors", "model.safetensors")
    before = {name: (run.path / name).read_bytes() for name in files}
    assert before["state.safetensors"] != before["state.previous.safetensors"]
    train(Run(run.path))
    assert {name: (run.path / name).read_bytes() for name in files} == before
    (run.path / "model.safetensors").unlink()
    train(Run(run.path))  # which writes it anew
    assert (run.path / "model.safetensors").read_bytes() == before["model.safetensors"]


def test_a_log_goes_on_from_the_checkpoint_not_from_the_model(toy_run, tmp_path):
    run = toy_run(steps=8)
    train(run, logs.Log("csv", run))
    assert len((run.path / "metrics.csv").read_text().splitlines()) == 3
    (run.path / "model.safetensors").unlink()
    assert "after 12 steps" in invoke(
        "train", "--resume", "--out", run.path, "--set", "steps=12", "--log", "csv"
    )
    assert len((run.path / "metrics.csv").read_text().splitlines()) == 4


def test_a_log_begins_with_the_training_which_has_the_lock(toy_run):
    run = toy_run()
    with run.locked(), logs.followed(Run(run.path), ["csv"], quiet=True) as after_step:
        with pytest.raises(RunError, match="another process"):
            train(Run(run.path), after_step)
        assert not (run.path / "metrics.csv").exists()


def test_weights_of_no_dimension_go_over_to_another_run(toy_run):
    settings = {"position": "fire", "level_position": "none,none,none", "attention": "full"}
    run = toy_run(**settings)
    train(run)
    fresh = initial_weights(run.path, toy_run("other", seed=1, **settings).config)
    assert all(fresh[name].equal(x) for name, x in run.model().state_dict().items())


@pytest.mark.parametrize("asked, ends", [(400, 400), (1500, 1500)])
def test_fewer_steps_until_proved_are_heard(asked, ends):
    settings = {"attention": "window", "until_certified": "true", "steps": "1000"}
    config = configure("add", settings)
    state = Proving(load_task(config.task, config.options), config).state()
    later = configure("add", settings | {"steps": str(asked)})
    resumed = Proving(load_task(later.task, later.options), later)
    resumed.restore(state)
    assert resumed.ends == ends


def test_the_last_line_says_how_many_problems_val_has(tmp_path):
    settings = ("--set", "p=23", "--set", "steps=1", "--set", "layers=1", "--set", "width=8")
    said = invoke("train", "--task", "modular", *settings, "--out", tmp_path / "m")
    assert "(n=132)" in said


def test_a_stage_may_not_train_on_val_either():
    """The tables of all shares begin alike: more for train is taken from val first."""
    with pytest.raises(UsageError, match="trains on problems that the task holds out"):
        configure("modular", {"curriculum": "0:train_share=0.75"})


def test_a_missing_model_is_said_without_contradiction(trained):
    (trained.path / "model.safetensors").unlink()
    said = invoke("eval", trained.path)
    assert "missing; its checkpoint is sound" in said and "has not saved" not in said


def test_kept_weights_are_looked_at_by_doctor(toy_run):
    run = toy_run(keep="log", steps=4)
    train(run)
    file = run.path / "kept" / "step-00000004.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    said = invoke("doctor", run.path)
    assert "kept/step-00000004.safetensors" in said.replace("\n", "")
    assert hashlib.sha256(content).hexdigest() not in said
