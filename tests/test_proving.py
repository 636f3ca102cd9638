"""Training until proved: bounded, resumed exactly, and never begun where nothing can be proved."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch

from addgpt.config.errors import UsageError
from addgpt.evaluation.certificate import prove
from addgpt.runs.resolve import configure, reconfigure
from addgpt.runs.run import Run
from addgpt.training import proving
from addgpt.training.learners import GradientLearner
from addgpt.training.loop import Interrupted, Loop, train
from addgpt.training.preflight import check_trainable
from addgpt.training.progress import TrainingProgress
from addgpt.training.proving import Proving
from tests.helpers.processes import ends, workers
from tests.helpers.proving import search_briefly

pytestmark = pytest.mark.slow

SMALL = {
    "digits": "2", "trace": "carry", "attention": "reads", "layers": "1", "width": "16",
    "heads": "2", "steps": "20", "batch_size": "8", "eval_every": "7", "eval_size": "20",
    "save_every": "3", "warmup": "2", "threads": "1", "device": "cpu", "until_certified": "true",
}  # fmt: skip
ROUNDS = 3
LAST = 20 + ROUNDS * 4  # steps


@pytest.fixture(scope="module", autouse=True)
def few_rounds():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proving, "MAX_ROUNDS", ROUNDS)
        search_briefly(patch)
        yield


def started(path, **more):
    return Run.create(path, configure("add", SMALL | more))


def content(run):
    """All that a training leaves but the seconds."""
    tensors, progress = run.state()
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics()]
    return tensors, {k: v for k, v in progress.items() if k != "seconds"}, rows


def same(run, other):
    (one, progress, rows), (two, other_progress, other_rows) = content(run), content(other)
    assert (progress, rows) == (other_progress, other_rows)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.fixture(scope="module")
def whole(few_rounds, tmp_path_factory):
    """A run that was never stopped."""
    run = started(tmp_path_factory.mktemp("whole") / "run")
    state = train(run)
    assert (state.step, state.contexts) == (LAST, 684) and state.wrong > 0
    return run


def test_contexts_are_listed_once_for_a_training(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(proving, "list_contexts", lambda *about: told.append(about) or "all")
    proving.listed.cache_clear()
    check_trainable(configure("add", SMALL))
    run = started(tmp_path / "run")
    assert proving.listed(run.task(), run.config.model) == "all" and len(told) == 1
    proving.listed.cache_clear()


def test_rounds_are_bounded_and_the_pool_is_in_the_checkpoint(whole):
    tensors, progress, rows = content(whole)
    assert progress["step"] == LAST
    assert tensors["proving.numbers"].tolist()[:3] == [ROUNDS, LAST - 4, LAST]
    assert [row["step"] for row in rows] == [7, 14, 20, 21, 24, 28, 32]
    task, texts = whole.task(), set()
    pool = proving.Batch(*(tensors[f"proving.{name}"].numpy() for name in proving.POOL))
    for prompt, work in task.texts(pool):
        problem = task.parse(prompt)
        assert task.in_train(problem) and task.in_train_range(problem)
        assert task.read(problem, work) == task.truth(problem)
        texts.add(prompt)
    assert len(texts) > 100


@pytest.mark.parametrize("stops", [(5,), (20,), (22, 23), (24,), (19, 25, 31), (LAST - 1,)])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(whole, tmp_path, stops):
    """Within the steps asked for, at their end, within a round and between two."""
    run = started(tmp_path / "run")
    for stop in stops:

        def end(state, stop=stop):
            if state.step == stop:
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(Interrupted):
            train(Run(run.path), end)
    state = train(Run(run.path))
    assert (state.contexts, state.wrong > 0) == (684, True)
    same(run, whole)


@pytest.mark.parametrize("place", range(4))
def test_a_training_that_dies_goes_on_from_its_checkpoint(whole, tmp_path, monkeypatch, place):
    """Killed while it learns, judges, or saves what was judged."""
    run, calls = started(tmp_path / "run"), 0
    owner, name, last = [
        (GradientLearner, "learn", 23),
        (Proving, "judge", 2),
        (Proving, "_weak", 2),
        (Run, "save", 9),
    ][place]
    real = getattr(owner, name)

    def dying(self, *args, **more):
        nonlocal calls
        calls += 1
        if calls == last:
            raise KeyboardInterrupt
        return real(self, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dying)
        with pytest.raises(KeyboardInterrupt):
            train(run)
    train(Run(run.path))
    same(run, whole)


def test_a_training_that_is_done_is_not_gone_on_with(whole, tmp_path):
    before = content(whole)
    assert train(Run(whole.path)).step == LAST
    after = content(whole)
    assert before[1:] == after[1:]


@pytest.mark.parametrize(
    "more",
    [{"ema": "0.9"}, {"micro_batch": "3"}, {"score_prompt": "true"}, {"dropout": "0.2"}],
    ids=str,
)
def test_rounds_go_with_other_settings_and_resume(tmp_path, more):
    one, two = started(tmp_path / "one", **more), started(tmp_path / "two", **more)
    train(one)

    def end(state):
        if state.step == 26:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(two, end)
    train(Run(two.path))
    same(one, two)


def test_with_an_average_that_is_what_is_judged(tmp_path):
    run = started(tmp_path / "run", ema="0.9")
    state = train(run)
    assert prove(run.model(), run.task()).below(0) == state.wrong


def test_stop_at_ends_the_steps_asked_for_and_the_rounds_begin(tmp_path, monkeypatch):
    monkeypatch.setattr(Loop, "_good_enough", lambda self, exact: self.state.step >= 7)
    run = started(tmp_path / "run", stop_at="0.5")
    assert train(run).step == 7 + ROUNDS * 4
    other = started(tmp_path / "other", stop_at="0.5")

    def end(state):
        if state.step in (7, 12):
            os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(2):
        with pytest.raises(Interrupted):
            train(Run(other.path), end)
    train(Run(other.path))
    same(run, other)


def test_a_run_trained_without_goes_on_until_proved(tmp_path):
    run = started(tmp_path / "run", until_certified="false")
    assert train(run).step == 20
    run.reconfigure(reconfigure(run.config, None, {"until_certified": "true"}))
    state = train(Run(run.path))
    assert (state.step, state.contexts) == (LAST, 684)


def test_more_steps_can_be_asked_for(tmp_path):
    run = started(tmp_path / "run")

    def end(state):
        if state.step == 26:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(run, end)
    run.reconfigure(reconfigure(run.config, None, {"steps": "40"}))
    state = train(Run(run.path))
    assert state.step == 28 + 20 + 8  # the second round is 20 steps longer, the third has 8


def test_what_is_safe_needs_no_round(tmp_path, monkeypatch):
    monkeypatch.setattr(proving, "ENOUGH", -1e9)
    run = started(tmp_path / "run")
    assert train(run).step == 20
    assert "proving.tokens" not in run.state()[0]


def test_part_of_a_batch_in_a_round_are_problems_with_weak_contexts(whole):
    loop = Loop(Run(whole.path))
    pool, task = loop.proving.pool, whole.task()
    batch = task.batch(np.random.default_rng(5), 9, "train")
    mixed = loop.proving.mixed(batch, np.random.default_rng(6))
    assert len(mixed) == 9
    kept = 9 - int(9 * proving.SHARE)
    assert 0 < kept < 9
    assert task.texts(mixed)[:kept] == task.texts(batch.rows(np.arange(kept)))
    assert set(task.texts(mixed)[kept:]) <= set(task.texts(pool))
    rates = [loop.proving.rate(step) for step in range(LAST - 4, LAST)]
    assert rates == sorted(rates, reverse=True) and rates[0] == proving.RATE


def test_what_is_still_wrong_is_shown(whole, capsys):
    loop = Loop(Run(whole.path))
    with TrainingProgress(False, 0.0) as shown:
        shown(dataclasses.replace(loop.state, contexts=36399, wrong=52))
    assert "52 of 36,399 contexts wrong" in capsys.readouterr().err


def test_the_end_of_a_training_writes_the_certificate(tmp_path):
    from click.testing import CliRunner

    from addgpt.cli.main import main

    out = tmp_path / "run"
    words = [w for key, value in SMALL.items() for w in ("--set", f"{key}={value}")]
    done = CliRunner().invoke(main, ["train", "--task", "add", "--out", str(out), *words[:-2],
                                     "--until-certified"])  # fmt: skip
    assert done.exit_code == 1, done.output
    found = json.loads((out / "certificate.json").read_text())
    assert f"not proved: {found['wrong']:,} of 684 contexts wrong" in done.output


def test_what_cannot_be_proved_leaves_no_folder(tmp_path):
    from click.testing import CliRunner

    from addgpt.cli.main import main

    out = tmp_path / "run"
    words = ["train", "--task", "add", "--out", str(out), "--until-certified"]
    done = CliRunner().invoke(main, [*words, "--set", "attention=full"])
    assert isinstance(done.exception, UsageError | SystemExit) and done.exit_code != 0
    assert not out.exists()


@pytest.mark.slow
def test_two_workers_go_the_same_way(tmp_path):
    """The main one judges; a run that one worker goes on with is bounded alike."""
    out = tmp_path / "run"
    settings = SMALL | {"batch_size": "9", "steps": "10"}
    (status, told), (other, silent) = ends(workers(2, out, settings, before=search_briefly))
    assert (status, other, silent) == (1, 0, ""), (told, silent)  # not proved
    assert "contexts wrong" in told
    numbers = Run(out).state()[0]["proving.numbers"].tolist()
    assert numbers[:3] == [12, 32, 34]  # 12 rounds of 2 steps
    assert json.loads((out / "certificate.json").read_text())["contexts"] == 684


def test_another_architecture_is_refused_before_training():
    config = configure("add", {"architecture": "gru", "until_certified": "true"})
    with pytest.raises(UsageError, match="architecture=gru has no attention"):
        check_trainable(config)
