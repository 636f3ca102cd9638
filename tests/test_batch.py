"""What a batch holds besides tokens: its problems, made when they are first asked for."""

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


@pytest.mark.parametrize("name", ["add", "sum"])
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
