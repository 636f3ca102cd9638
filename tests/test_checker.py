"""The independent checker refuses what does not belong together, or what float32 cannot tell."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from addgpt.evaluation.certify import certify
from addgpt.evaluation.check_certificate import NO_ID, all_shown, check, on_sphere
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, RunError, run_path
from addgpt.training.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture
def adder(tmp_path):
    """A copy of the shipped adder of 31 parameters."""
    return shutil.copytree(run_path("smallest-31"), tmp_path / "adder")


def forge(folder, weights=None, config=None):
    """Change weights or settings, and the digests in the certificate with them."""
    told = json.loads((folder / "certificate.json").read_text())
    run = json.loads((folder / "config.json").read_text())
    if weights:
        changed = weights(load_file(folder / "model.safetensors"))
        progress = {"progress": json.dumps({"step": 1})}
        save_file(changed, folder / "model.safetensors", metadata=progress)
        content = (folder / "model.safetensors").read_bytes()
        told["weights"] = hashlib.sha256(content).hexdigest()
    if config:
        config(run)
        model = json.dumps(run["model"], sort_keys=True).encode()
        told["model"] = hashlib.sha256(model).hexdigest()
        (folder / "config.json").write_text(json.dumps(run))
    (folder / "certificate.json").write_text(json.dumps(told))


def test_digests_alone_prove_nothing(adder):
    forge(adder, lambda weights: weights, lambda run: None)
    check(adder)
    rng = np.random.default_rng(0)
    forge(adder, lambda w: {n: rng.normal(size=x.shape).astype(np.float32) for n, x in w.items()})
    with pytest.raises(ValueError, match="the smallest margin is -"):
        check(adder)


def test_one_file_checks_what_is_stored_whole(tmp_path, monkeypatch):
    """Only the smallest adders need the one that writes weights out; tensors that a model has not
    change nothing."""
    monkeypatch.setitem(sys.modules, "addgpt.evaluation.check_weights", None)
    folder = shutil.copytree(run_path("adder"), tmp_path / "adder")
    found = check(folder)
    sure = np.full(19, -1e9, np.float32)
    forge(folder, lambda weights: weights | {"unused": sure, "token.off": sure[:, None]})
    assert check(folder) == found
    with pytest.raises(ModuleNotFoundError):
        check(run_path("smallest-31"))


def test_the_calculator_that_ships_is_proved():
    assert Run(run_path("calculator")).proved()
    check(run_path("calculator"))


SETTINGS = {
    "digits": "3", "trace": "carry", "width": "32", "batch_size": "64", "steps": "400",
    "eval_every": "400", "eval_size": "50", "threads": "1", "device": "cpu",
    "precision": "float32", "until_certified": "true", "content": "false", "norm": "none",
    "activation": "relu2", "attention": "reads", "biases": "visible",
}  # fmt: skip


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("proved") / "run", configure("add", SETTINGS))
    train(run)
    assert certify(run)["proved"]
    return run.path


@pytest.fixture
def folder(proved, tmp_path):
    """A copy of a run that is proved."""
    return shutil.copytree(proved, tmp_path / "run")


def test_weights_that_float32_cannot_tell_apart_are_refused(folder):
    """The same function but for rounding, which in float32 makes zeros of the values."""
    powers = {"token": -60, "positions": -60, "head": 60, "blocks.0.mlp.up": 60,
              "blocks.0.mlp.down": -60, "blocks.0.attention.value": -100,
              "blocks.0.attention.out": 100, "positions.relative": 0}  # fmt: skip

    def scaled(weights):
        found = {}
        for name, x in weights.items():
            power = [powers[start] for start in powers if name.startswith(start)][-1]
            found[name] = x * np.float32(2.0**power)
        return found

    forge(folder, scaled)
    with pytest.raises(ValueError, match="in float32 another token wins"):
        check(folder)


@pytest.mark.parametrize("more", [False, True])
def test_contexts_must_hold_what_the_model_sees_and_all_of_it(folder, more):
    """One read more makes nearly all sums of three digits wrong."""

    def change(run):
        visible = run["model"]["visible"]
        run["model"]["visible"] = (
            [*visible, [visible[0][0], 2, 1, 1 << 15]] if more else visible[1:]
        )

    forge(folder, config=change)
    with pytest.raises(ValueError, match="contexts do not hold what the model sees"):
        check(folder)


@pytest.mark.parametrize("columns, steps, right", [
    ([0, 1, NO_ID], [0, NO_ID], True), ([0, NO_ID], [0, NO_ID], False),
    ([0, 1, 2, NO_ID], [0, NO_ID], False), ([], [0, NO_ID], False), ([0, 1, NO_ID], [], True),
])  # fmt: skip
def test_windows_are_what_contexts_hold(columns, steps, right):
    """With one step alone its window does not matter; the token just read is always seen."""
    before = {(0, NO_ID, 3), (1, NO_ID, 3), (NO_ID, NO_ID, 5)}
    config = {"attention": "window", "levels": [6, 1, 25], "visible": [columns, steps, []]}
    assert all_shown(config, before, before | {(-3, NO_ID, 3)}) == right


def test_numbers_that_the_model_never_has_are_refused(adder):
    forge(adder, lambda weights: {name: x.astype(np.float64) for name, x in weights.items()})
    with pytest.raises(ValueError, match="weights are float64, not float32"):
        check(adder)


def test_another_task_is_refused(adder):
    forge(adder, config=lambda run: run["options"].update(digits=4))
    with pytest.raises(ValueError, match="of another task"):
        check(adder)


def test_a_checkpoint_that_is_saved_meanwhile_is_not_proved(adder):
    run = Run(adder)

    def say(text):
        if text.startswith("bounding"):
            model = run.model()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.normal_()
            run.save(model, {}, run.load()[1])

    with pytest.raises(RunError, match=r"another model\.safetensors"):
        certify(run, say)
    assert not run.proved()


def test_a_certificate_nested_too_deep_proves_nothing(adder):
    (adder / "SHA256SUMS").unlink()
    (adder / "certificate.json").write_text("[" * 100_000)
    assert not Run(adder).proved()


def test_a_vector_of_zeros_has_no_direction():
    """The model makes zeros of it; the ball holds them, and nothing divides by zero."""
    with np.errstate(all="raise"):
        value, error = on_sphere((np.zeros((1, 3)), np.zeros((1, 3))), 1.0)
    assert not value.any() and (error >= 1).all()
