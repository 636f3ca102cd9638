"""Decoding with a draft writes what decoding token by token writes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from addgpt.calculator.solver import Calculator
from addgpt.generation import verify as draft
from addgpt.generation.decode import write
from addgpt.task import Batch
from addgpt.task_lookup import load_task
from tests.helpers.baselines import scrambled

pytestmark = pytest.mark.slow


def rows_of(batch) -> np.ndarray:
    """The rows of a batch whose prompts have the most frequent length."""
    start = batch.scored.argmax(1)
    return np.flatnonzero(start == np.bincount(start).argmax())


def prompts_of(batch) -> np.ndarray:
    rows = rows_of(batch)
    return batch.tokens[rows, : batch.scored[rows[0]].argmax()]


def same(one, other) -> None:
    for row, length in enumerate(other.length):
        assert one.length[row] == length and one.terminated[row] == other.terminated[row]
        np.testing.assert_array_equal(one.tokens[row, :length], other.tokens[row, :length])
        chances = one.probability[row, :length], other.probability[row, :length]
        np.testing.assert_allclose(*chances, atol=1e-5)


@pytest.fixture
def decoded(monkeypatch):
    """How many rows each call of `write` decoded for want of a draft that holds."""
    counts = []

    def counted(model, task, prompts, limit):
        counts.append(len(prompts))
        return write(model, task, prompts, limit)

    monkeypatch.setattr(draft, "write", counted)
    return counts


def test_the_work_of_every_task_is_what_it_trains_on(any_task):
    batch = any_task.batch(np.random.default_rng(0), 200, "val")
    rows, prompts = rows_of(batch), prompts_of(batch)
    assert len(rows) > 5
    work, wanted = any_task.reference(prompts), batch.rows(rows)
    length = wanted.lengths
    np.testing.assert_array_equal(work.lengths, length)
    ids = any_task.positions(prompts, any_task.longest() - prompts.shape[1])
    for row, end in enumerate(length):
        for name in ("tokens", "scored", "positions"):
            found, whole = getattr(work, name), getattr(wanted, name)
            np.testing.assert_array_equal(found[row, :end], whole[row, :end], name)
        shared = min(ids.shape[1], end)
        np.testing.assert_array_equal(work.positions[row, :shared], ids[row, :shared])


def test_a_model_that_is_right_at_times_writes_the_same(half_trained, decoded):
    task, model = half_trained
    prompts = prompts_of(task.batch(np.random.default_rng(1), 400, "test"))
    outcome = draft.verify_or_write(model, task, prompts, 20)
    assert 0 < sum(decoded) < len(prompts)  # some rows were settled by the draft, some not
    same(outcome, write(model, task, prompts, 20))


class Echo:
    """A task whose drafts are what a model writes itself, every third one spoiled."""

    def __init__(self, task, model, limit: int) -> None:
        self.task, self.model, self.limit = task, model, limit

    def __getattr__(self, name: str):
        return getattr(self.task, name)

    def reference(self, prompts: np.ndarray) -> Batch:
        out, start = write(self.model, self.task, prompts, self.limit), prompts.shape[1]
        tokens = np.concatenate([prompts, out.tokens], 1)
        end = start + out.length
        spoiled = ~out.terminated | (np.arange(len(prompts)) % 3 == 0)
        tokens[spoiled, start] = (tokens[spoiled, start] + 1) % 10
        scored = (np.arange(tokens.shape[1]) >= start) & (np.arange(tokens.shape[1]) < end[:, None])
        ids = self.task.positions(prompts, self.limit)
        ids = np.pad(ids, [(0, 0), (0, tokens.shape[1] - ids.shape[1]), (0, 0)])
        return Batch(tokens, scored, ids)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"prefix": True},
        {"position": "learned"},
        {"position": "fire", "log_scale": True},
        {"level_position": ("learned",) * 3},
        {"level_position": ("relative", "none", "learned"), "next_ids": False},
        {"kind": "gru"},
    ],
    ids=str,
)
def test_drafts_that_hold_are_settled_in_all_kinds_of_models(toy_model, decoded, shape):
    task = load_task("mul", {"digits": 2})
    config = {"levels": (3, 3, task.levels[2]), "context": task.longest()} | shape
    if "kind" in shape:
        models = (scrambled(vocab=19, seed=seed, **config).eval() for seed in range(100))
    else:
        models = (toy_model(seed, **config) for seed in range(100))
    prompts = prompts_of(task.batch(np.random.default_rng(2), 60, "train"))
    limit = task.longest() - prompts.shape[1]
    # A model of random weights may never write the end mark: take one that mostly does.
    model = next(m for m in models if write(m, task, prompts, limit).terminated.mean() > 0.8)
    outcome = draft.verify_or_write(model, Echo(task, model, limit), prompts, limit)
    settled = len(prompts) - sum(decoded)
    assert len(prompts) / 3 < settled <= 2 * len(prompts) / 3
    same(outcome, write(model, task, prompts, limit))


@pytest.mark.parametrize("bound", ["limit", "memory", "vocab"])
def test_drafts_that_do_not_fit_are_decoded(half_trained, decoded, monkeypatch, bound):
    task, model = half_trained
    prompts = prompts_of(task.batch(np.random.default_rng(3), 100, "train"))
    limit = 2 if bound == "limit" else 20
    if bound == "memory":
        monkeypatch.setattr(draft, "pairs_at_once", lambda config: 3)
    if bound == "vocab":
        monkeypatch.setattr(model, "config", replace(model.config, vocab=3))
    outcome = draft.verify_or_write(model, task, prompts, limit)
    assert decoded == [len(prompts)]
    monkeypatch.undo()
    same(outcome, write(model, task, prompts, limit))


def test_sums_that_need_one_more_hint_than_there_are_break_nothing(toy_model):
    task = load_task("add", {"digits": 2, "hints": True})
    model = toy_model(vocab=len(task.alphabet), levels=task.levels, context=60)
    calculator = Calculator(model, task)
    solutions = calculator.solve_many(["999+999", "998+999"])
    assert [s.error for s in solutions] == [None, None]


class Backwards(type(load_task("add"))):
    """A task that asks with operands lowest digit first, and whose drafts are for others."""

    def reference(self, prompts):
        work = super().reference(prompts)
        work.tokens[:, :3] = work.tokens[:, 2::-1]
        return work


class Silent(type(load_task("add"))):
    def reference(self, prompts):
        return None


@pytest.mark.parametrize("kind", [Backwards, Silent])
def test_work_for_other_prompts_or_none_is_no_draft(toy_model, decoded, kind):
    task = kind(digits=2)
    prompts = prompts_of(task.batch(np.random.default_rng(4), 40, "train"))
    prompts = prompts[prompts[:, 0] != prompts[:, 2]]
    assert len(prompts) > 3
    draft.verify_or_write(toy_model(levels=task.levels), task, prompts, 9)
    assert decoded == [len(prompts)]


def test_the_calculator_takes_drafts_for_several_and_answers_as_for_one(half_trained, decoded):
    task, model = half_trained
    calculator = Calculator(model, task)
    texts = [f"{a}-{b}" for a in range(3, 1000, 61) for b in range(7, 1000, 73)]
    together = calculator.solve_many(texts)
    assert 0 < sum(decoded) < len(texts)
    assert {True, False} <= {solution.correct for solution in together}
    decoded.clear()
    drafts = []
    calculator._asker._together = lambda *asked: drafts.append(asked)
    for text, solution in zip(texts[::5], together[::5], strict=True):
        alone = calculator.solve(text)
        assert (alone.answer, alone.correct) == (solution.answer, solution.correct)
        assert [s.completion for s in alone.steps] == [s.completion for s in solution.steps]
    assert drafts == [] == decoded  # token by token, without a draft
