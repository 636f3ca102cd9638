"""Arithmetic modulo a number, weights kept along the training, progress measures."""

from __future__ import annotations

import numpy as np
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.evaluation.check_task import check_task
from addgpt.interpret.grokking import grokking, key_frequencies, projected, waves
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Problem
from addgpt.task_lookup import load_task
from addgpt.training.loop import is_kept, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("op", ["+", "-", "*"])
def test_the_table_is_split_once_and_for_all_and_answers_are_right(op):
    task = load_task("modular", {"p": 13, "op": op, "train_share": 0.3})
    seen = set()
    for split, count in (("train", 51), ("val", 59), ("test", 59)):
        batch = task.batch(np.random.default_rng(0), 1000, split)
        assert len(batch) == count
        for problem, (prompt, completion) in zip(batch.problems, task.texts(batch), strict=True):
            a, b = problem.operands
            assert task.prompt(problem) == prompt and task.parse(f"{a}{op}{b}") == problem
            right = {"+": a + b, "-": a - b, "*": a * b}[op] % 13
            assert task.read(problem, completion).whole == task.truth(problem).whole == right
            assert task.in_train(problem) == (split == "train")
        seen |= {problem.operands for problem in batch.problems}
    assert len(seen) == 13**2
    with pytest.raises(UsageError, match=r"0\.\.12"):
        task.prompt(Problem(op, (13, 1)))


def test_the_share_of_the_table_can_be_set():
    config = configure("modular", {"train_share": "0.3", "share": "kv"})
    assert (config.options["train_share"], config.model.share) == (0.3, "kv")


def test_kept_steps_are_about_a_fifth_apart():
    kept = [step for step in range(1, 2000) if is_kept(step)]
    assert kept[:4] == [1, 2, 3, 4]
    late = np.array([step for step in kept if step > 50])
    np.testing.assert_allclose(late[1:] / late[:-1], 2**0.25, atol=0.02)


@pytest.mark.parametrize("p", [7, 12])
def test_all_waves_together_are_all_that_depends_on_the_sum(p):
    value = np.random.default_rng(0).normal(size=(p, p))  # of each residue, by a + b
    a, b = np.divmod(np.arange(p * p).reshape(p, p), p)
    logits = value[(a + b) % p]
    every = projected(logits, list(range(1, p // 2 + 1)))
    np.testing.assert_allclose(every, logits - logits.mean((0, 1)), atol=1e-9)


def test_waves_are_found_and_projected_out():
    p = 11
    rng = np.random.default_rng(0)
    a, b, c = np.indices((p, p, p))
    signal = sum(np.cos(2 * np.pi * k * (a + b - c) / p) for k in (2, 5))
    noise = 0.01 * rng.normal(size=(p, p, p))
    assert key_frequencies(signal + noise) == [2, 5]
    np.testing.assert_allclose(projected(signal, [2, 5]), signal, atol=1e-9)
    np.testing.assert_allclose(projected(signal, [3]), 0, atol=1e-9)
    both = waves(p, 3).reshape(2, -1)
    np.testing.assert_allclose(both @ both.T, np.eye(2), atol=1e-9)


@pytest.fixture
def modular(tmp_path) -> Run:
    small = {"p": 7, "layers": 1, "width": 16, "heads": 2, "steps": 12, "eval_every": 4}
    small |= {"batch_size": 16, "eval_size": 32, "save_every": 4, "threads": 1, "keep": "log"}
    config = configure("modular", {key: str(value) for key, value in small.items()}, 0)
    return Run.create(tmp_path / "modular", config)


def test_weights_along_the_training_stay_and_are_measured(modular, toy_run, tmp_path):
    train(modular)
    kept = list(modular.kept())
    assert [step for step, _ in kept] == [step for step in range(1, 13) if is_kept(step)]
    first, last = (model.state_dict()["token.weight"] for _, model in (kept[0], kept[-1]))
    assert not first.equal(last)
    rows = grokking(modular)
    assert [row["step"] for row in rows] == [step for step, _ in kept]
    for row in rows:
        assert 0 <= row["val_exact"] <= 1 and row["restricted"] > 0
    words = ["inspect", str(modular.path), "--grokking", "--out", str(tmp_path / "g.png")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "restricted" in done.stdout, done.output
    with pytest.raises(UsageError, match="--task modular"):
        grokking(toy_run("sum"))


def test_a_run_that_kept_nothing_says_how_to(modular):
    with pytest.raises(UsageError, match="keep=log"):
        grokking(modular)


@pytest.mark.parametrize("p", [7, 53])
def test_a_small_table_keeps_the_contract(p):
    task = load_task("modular", {"p": p})
    assert not [fault for _, faults in check_task(task) for fault in faults]
