"""Decoding with a draft writes what decoding token by token writes."""

from __future__ import annotations

import numpy as np
import pytest

from addgpt import draft
from addgpt.calculator import Calculator
from addgpt.task import load_task


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
    """How many rows each call of `draft.write` decoded."""
    counts, inner = [], draft.write

    def write(model, task, prompts, limit):
        counts.append(len(prompts))
        return inner(model, task, prompts, limit)

    monkeypatch.setattr(draft, "write", write)
    return counts


def test_the_work_of_every_task_is_what_it_trains_on(any_task):
    batch = any_task.batch(np.random.default_rng(0), 200, "val")
    rows, prompts = rows_of(batch), prompts_of(batch)
    assert len(rows) > 5
    work, wanted = any_task.worked_out(prompts), batch.rows(rows)
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
    outcome = draft.write_by_draft(model, task, prompts, 20)
    assert 0 < sum(decoded) < len(prompts)  # some rows were settled by the draft, some not
    same(outcome, draft.write(model, task, prompts, 20))


@pytest.mark.parametrize(
    "shape",
    [{}, {"prefix": True}, {"level_position": ("learned",) * 3}, {"position": "learned"}],
    ids=str,
)
def test_models_of_random_weights_write_the_same(toy_model, shape):
    task = load_task("mul", {"digits": 2})
    model = toy_model(levels=(3, 3, task.levels[2]), context=task.longest(), **shape)
    prompts = prompts_of(task.batch(np.random.default_rng(2), 60, "train"))
    limit = model.config.context - prompts.shape[1]
    outcome = draft.write_by_draft(model, task, prompts, limit)
    same(outcome, draft.write(model, task, prompts, limit))


@pytest.mark.parametrize("bound", ["limit", "memory"])
def test_drafts_that_do_not_fit_are_decoded(half_trained, decoded, monkeypatch, bound):
    task, model = half_trained
    prompts = prompts_of(task.batch(np.random.default_rng(3), 100, "train"))
    limit = 2 if bound == "limit" else 20
    if bound == "memory":
        monkeypatch.setattr(draft, "PAIRS_AT_ONCE", 3)
    outcome = draft.write_by_draft(model, task, prompts, limit)
    assert decoded == [len(prompts)]
    same(outcome, draft.write(model, task, prompts, limit))


def test_a_task_that_does_not_know_the_work_is_decoded(toy_model, decoded):
    class Silent(type(load_task("add"))):
        def worked_out(self, prompts):
            return None

    task = Silent(digits=2)
    prompts = prompts_of(task.batch(np.random.default_rng(4), 20, "train"))
    draft.write_by_draft(toy_model(levels=task.levels), task, prompts, 9)
    assert decoded == [len(prompts)]


def test_the_calculator_takes_drafts_for_several_and_answers_as_for_one(half_trained, decoded):
    task, model = half_trained
    calculator = Calculator(model, task)
    texts = [f"{a}-{b}" for a in range(3, 1000, 61) for b in range(7, 1000, 73)]
    together = calculator.solve_many(texts)
    assert 0 < sum(decoded) < len(texts)
    assert {True, False} <= {solution.correct for solution in together}
    for text, solution in zip(texts[::5], together[::5], strict=True):
        alone = calculator.solve(text)
        assert (alone.answer, alone.correct) == (solution.answer, solution.correct)
        assert [s.completion for s in alone.steps] == [s.completion for s in solution.steps]
