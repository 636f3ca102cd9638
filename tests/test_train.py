"""The training loop: resuming, interrupting, diverging, stopping."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from addgpt.model.forward import forward
from addgpt.runs.run import Run, RunError
from addgpt.training import learners, optim
from addgpt.training import loop as module
from addgpt.training.learners import GradientLearner
from addgpt.training.loop import Diverged, Interrupted, train

OPTIMIZERS = ("muon", "adamw")
ODD = {"dropout": 0.2, "save_every": 4, "eval_every": 3, "steps": 12}


@pytest.fixture(autouse=True)
def heard():
    """Ctrl-C is heard, also where whoever started the tests has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Cut(Exception):
    """A crash in the middle of training."""


def at(step: int, act):
    """A callback that acts once a step is done."""

    def on_step(state) -> None:
        if state.step == step:
            act()

    return on_step


def crash() -> None:
    raise Cut


def send(number: int):
    return lambda: os.kill(os.getpid(), number)


def files(run: Run) -> dict[str, bytes]:
    return {name: (run.path / f"{name}.safetensors").read_bytes() for name in ("model", "state")}


def tensors(run: Run) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in run.state()[0].items()}


def metrics(run: Run) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics()]


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "stop",
    [(7, crash), (8, crash), (6, send(signal.SIGTERM))],
    ids=["between-saves", "after-a-save", "by-a-signal"],
)
@pytest.mark.parametrize("micro_batch", [0, 5])
def test_a_resumed_run_ends_as_an_uninterrupted_one(toy_run, optimizer, stop, micro_batch):
    settings = ODD | {"optimizer": optimizer, "micro_batch": micro_batch}
    whole, cut = toy_run("whole", **settings), toy_run("cut", **settings)
    end = train(whole)
    with pytest.raises((Cut, Interrupted)):
        train(cut, at(*stop))
    assert tensors(cut) != tensors(whole)
    resumed = train(Run(cut.path))
    assert tensors(cut) == tensors(whole)
    assert metrics(cut) == metrics(whole)
    assert (resumed.step, resumed.examples, resumed.tokens) == (end.step, end.examples, end.tokens)
    assert resumed.loss == end.loss


def test_a_crash_before_the_first_checkpoint_starts_afresh(toy_run):
    whole, cut = toy_run("whole"), toy_run("cut", eval_every=1)
    train(whole)
    with pytest.raises(Cut):
        train(cut, at(3, crash))
    train(Run(cut.path))
    assert tensors(cut) == tensors(whole)
    assert [row["step"] for row in cut.metrics()] == list(range(1, 13))


def test_training_is_a_function_of_the_seed_alone(toy_run, same_global_randomness):
    one, same, other = toy_run("one", seed=1), toy_run("same", seed=1), toy_run("other", seed=2)
    train(one)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        train(same)
    train(other)
    assert tensors(one) == tensors(same) != tensors(other)
    assert metrics(one) == metrics(same)


def test_validating_more_often_changes_no_weight(toy_run):
    often, seldom = toy_run("often", eval_every=1, dropout=0.2), toy_run("seldom", dropout=0.2)
    train(often)
    train(seldom)
    assert tensors(often) == tensors(seldom)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_says_so(toy_run, number):
    run = toy_run(save_every=100)
    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match="stopped at step 7"):
        train(run, at(7, send(number)))
    assert run.progress()["step"] == 7
    assert signal.getsignal(number) is before


def test_a_signal_during_a_step_finishes_it(toy_run, monkeypatch):
    run = toy_run(save_every=100)
    clip, calls = optim.clip, []

    def interrupt(*args) -> None:
        calls.append(clip(*args))
        if len(calls) == 3:
            send(signal.SIGTERM)()

    monkeypatch.setattr(optim, "clip", interrupt)
    with pytest.raises(Interrupted, match="step 3"):
        train(run)
    assert run.progress()["step"] == 3


def test_a_second_signal_stops_at_once(toy_run):
    run = toy_run()

    def twice() -> None:
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    with pytest.raises(KeyboardInterrupt):
        train(run, at(6, twice))
    assert run.progress()["step"] == 4


def test_the_same_request_to_stop_may_come_twice(toy_run):
    """From a launcher, and from whoever the launcher has it from."""
    run = toy_run(save_every=100)

    def twice() -> None:
        send(signal.SIGTERM)()
        send(signal.SIGTERM)()

    with pytest.raises(Interrupted, match="stopped at step 7"):
        train(run, at(7, twice))
    assert run.progress()["step"] == 7


def test_a_signal_in_the_last_step_lets_training_end(toy_run):
    run = toy_run()
    assert train(run, at(12, send(signal.SIGTERM))).step == 12
    assert run.progress()["step"] == 12


def test_a_loss_that_is_no_number_leaves_the_last_good_checkpoint(toy_run, monkeypatch):
    run = toy_run()
    with pytest.raises(Cut):
        train(run, at(6, crash))
    good = files(run)
    monkeypatch.setattr(learners, "next_token_loss", lambda logits, *_: logits.sum() * float("nan"))
    with pytest.raises(Diverged, match=r"the loss is nan at step 4; try a lower rate") as caught:
        train(Run(run.path))
    assert "\n" not in str(caught.value)
    assert files(run) == good


def test_weights_that_are_no_numbers_are_never_saved(toy_run, monkeypatch):
    run = toy_run(save_every=2)

    def poison(optimizers, limit) -> None:
        if moments and moments[-1].step == 3:
            optimizers[-1].param_groups[0]["params"][0].grad.fill_(float("nan"))

    moments = []
    monkeypatch.setattr(optim, "clip", poison)
    with pytest.raises(Diverged, match="weights are no longer numbers at step 4"):
        train(run, moments.append)
    assert run.progress()["step"] == 2
    assert all(t.isfinite().all() for t in run.model().state_dict().values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_an_absurd_rate_diverges_with_a_clear_line(toy_run, optimizer):
    run = toy_run(optimizer=optimizer, lr=1e38, muon_lr=1e38, warmup=0)
    with pytest.raises(Diverged, match="try a lower rate"):
        train(run)


def test_training_stops_once_val_is_good_enough(toy_run, monkeypatch):
    scores = iter([0.25, 0.5, 0.875])
    monkeypatch.setattr(
        module,
        "loss_and_exact",
        lambda model, batch: (1.0, np.arange(len(batch)) < next(scores) * len(batch)),
    )
    run = toy_run(steps=100, stop_at=0.5)
    assert train(run).step == 8
    assert run.progress()["step"] == 8
    assert [row["val_exact"] for row in run.metrics()] == [0.25, 0.5]
    for _ in range(2):  # however often it is resumed, it stays done, and knows its score
        again = train(Run(run.path))
        assert again.step == 8 and len(run.metrics()) == 2
        assert again.validation["val_exact"] == run.progress()["val_exact"] == 0.5


def test_without_stop_at_training_goes_on(toy_run, monkeypatch):
    monkeypatch.setattr(module, "loss_and_exact", lambda model, batch: (1.0, np.ones(len(batch))))
    assert train(toy_run()).step == 12


@pytest.mark.parametrize("task", ["add", "mul", "calc"])
@pytest.mark.parametrize("rows", [1, 5, 16])
def test_micro_batches_sum_to_the_gradient_of_the_batch(toy_run, task, rows):
    gradients, losses = [], []
    for size in (0, rows):
        loop = module.Loop(toy_run(f"{task}{size}", task=task, micro_batch=size))
        for parameter in loop.model.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(0))
        batch = loop.task.batch(np.random.default_rng(0), 16, "train")
        losses.append(loop.learner.backward(batch))
        gradients.append([p.grad.clone() for p in loop.model.parameters()])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_batches_of_training_are_those_of_seed_and_step(toy_run, monkeypatch):
    run, drawn = toy_run(seed=7, steps=3), []
    learn = GradientLearner.learn

    def note(learner, batch, *args):
        drawn.append(batch.tokens)
        return learn(learner, batch, *args)

    monkeypatch.setattr(GradientLearner, "learn", note)
    train(run)
    for step, tokens in enumerate(drawn):
        wanted = run.task().batch(np.random.default_rng((7, step, 0)), 16, "train").tokens
        assert (tokens == wanted).all()


def test_given_weights_are_where_training_starts(toy_run):
    first, second = toy_run("first"), toy_run("second", lr=0.0, muon_lr=0.0)
    train(first)
    weights = first.model().state_dict()
    train(second, weights=weights)
    found = second.model().state_dict()
    assert all(torch.equal(found[name], weights[name]) for name in weights)


def test_validation_passes_each_row_through_the_model_once(toy_run, monkeypatch):
    seen = 0

    def count(model, batch):
        nonlocal seen
        seen += 0 if model.training else len(batch)
        return forward(model, batch)

    monkeypatch.setattr("addgpt.model.forward.forward", count)
    run = toy_run(steps=8, eval_every=4, eval_size=40)
    train(run)
    assert seen == 2 * 40


def test_metrics_have_one_line_for_each_validation(toy_run):
    run = toy_run(steps=10, batch_size=8)
    end = train(run)
    assert [row["step"] for row in run.metrics()] == [4, 8, 10]
    assert [row["examples"] for row in run.metrics()] == [32, 64, 80]
    assert all(0 <= row["val_exact"] <= 1 and row["val_loss"] > 0 for row in run.metrics())
    assert end.validation == run.metrics()[-1]
    assert run.metrics()[-1]["val_loss"] < 2.9


@pytest.mark.slow
def test_a_folder_in_use_refuses_a_second_process(toy_run):
    run = toy_run()
    code = f"from addgpt.runs.run import Run\nwith Run({str(run.path)!r}).locked(): pass"
    with run.locked():
        with pytest.raises(RunError, match="is being written by another process"):
            train(Run(run.path))
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert held.returncode and "is being written by another process" in held.stderr
    assert not run.started
    train(run)


def test_a_checkpoint_of_another_model_is_refused(toy_run):
    small, large = toy_run("small"), toy_run("large", width=32)
    train(small)
    (large.path / "state.safetensors").write_bytes(files(small)["state"])
    with pytest.raises(RunError, match="does not fit the model in config.json"):
        train(Run(large.path))


def test_bfloat16_trains(toy_run):
    run = toy_run(precision="bfloat16")
    assert train(run).loss < 2.9
    assert {t.dtype for t in run.model().state_dict().values()} == {torch.float32}
