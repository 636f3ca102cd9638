"""What a batch holds besides tokens: its problems, made when they are first asked for."""

import gc
import pickle
import weakref
from dataclasses import replace

import numpy as np
import pytest

from addgpt.task import Batch, Problem
from addgpt.task_lookup import load_task

ROWS = np.zeros((3, 2), np.uint8), np.ones((3, 2), bool), np.zeros((3, 2, 0), np.int16)


def test_problems_are_made_once_and_only_if_asked_for():
    made = []

    def make() -> np.ndarray:
        made.append(1)
        return np.fromiter([Problem("+", (n, n)) for n in range(3)], object)

    batch = Batch(*ROWS, make)
    some = batch.rows([2, 0]).rows([1])
    assert len(batch) == 3 and len(some) == 1 and not made
    some = replace(some, tokens=ROWS[0][:1])
    assert batch.problems[1] == Problem("+", (1, 1)) and batch.problems is batch.problems
    assert some.problems.tolist() == [Problem("+", (0, 0))] and made == [1]
    assert len(Batch(*ROWS).problems) == len(Batch(*ROWS).rows([1]).problems) == 0


def test_rows_do_not_keep_the_whole_batch():
    """Thousands of single rows of large batches are kept while a certificate is worked for."""
    batch = load_task("add", {}).batch(np.random.default_rng(0), 9, "train")
    some, whole = batch.rows([3]), weakref.ref(batch.tokens)
    problem = batch.rows([0, 3]).problems[1]
    del batch
    gc.collect()
    assert whole() is None and some.problems.tolist() == [problem]


def test_a_batch_can_be_pickled():
    """As workers of a data loader do."""
    batch = load_task("add", {}).batch(np.random.default_rng(0), 5, "train")
    again = pickle.loads(pickle.dumps(batch))
    assert again.problems.tolist() == batch.problems.tolist()
    assert np.array_equal(again.positions, batch.positions)


@pytest.mark.parametrize("name", ["add", "sum", "calc"])
def test_training_makes_no_problems(name, monkeypatch):
    """A batch costs as much time again with them."""

    def never(digits):
        raise AssertionError("problems were made")

    task = load_task(name, {})
    monkeypatch.setattr("tasks.common.digits.to_int", never)
    batch = task.batch(np.random.default_rng(0), 5, "train").rows([1, 2])
    monkeypatch.undo()
    texts = [prompt for prompt, _ in task.texts(batch)]
    assert [task.prompt(problem) for problem in batch.problems] == texts
