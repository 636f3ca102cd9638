"""Held-out problems stay held out, and a leak does not go unseen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from addgpt.evaluation.contamination import Audit, Contamination, drawn_in_training
from addgpt.evaluation.exact_match import CellResult, evaluate_cells
from addgpt.task import Batch, Cell, Problem
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.add import Add
from tasks.common import audit, splits
from tasks.sub import Sub

pytestmark = pytest.mark.slow

numbers = st.integers(0, 9) | st.integers(0, 10**4) | st.integers(0, 10**60)
COMMUTES = "+*"
CELL = Cell("+", 3, 3)


@given(numbers, numbers, st.sampled_from("+-*/"))
def test_the_second_opinion_is_the_first(matrices, a, b, op):
    commutes = op in COMMUTES
    split = splits.split_of(*matrices([(a, b)])[:2], ord(op), commutes)[0]
    small = all(len(str(number)) == 1 for number in (a, b)) or {len(str(a)), len(str(b))} == {1, 2}
    assert audit.in_train((a, b), op, commutes) == (split == 0 or small)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_it_tells_the_split_of_what_every_task_draws(any_task, split, read_rows):
    batch = any_task.batch(np.random.default_rng(5), 200, split)
    found = batch.problems.tolist()
    assert found == [Problem(op, (a, b)) for a, op, b, _ in read_rows(any_task, batch)]
    for problem in found:
        same = any_task.equivalent(problem)
        assert len(same) == (2 if problem.op in COMMUTES else 1) and same[0] == problem
        assert [any_task.in_train(one) for one in same] == [split == "train"] * len(same)
        assert len({any_task.truth(one) for one in same}) == 1


def cell_result(task, cell: Cell = CELL, split: str = "test") -> CellResult:
    """A cell's problems, of which it does not matter how they were answered."""
    batch = task.evaluation_set(np.random.default_rng(0), 200, split, cell)
    return CellResult(cell, split, task.seen(cell), batch, None)


def result(task, *cells: CellResult, draw: int = 5000) -> Contamination:
    look = Audit(task)
    for one in cells:
        look.add(one)
    return look.result(draw=draw)


def test_an_evaluation_is_clean(half_trained):
    task, model = half_trained
    cells = list(evaluate_cells(model, task, task.cells()[:12], per_cell=50))
    held_out = sum(len(one.batch) for one in cells if not one.seen)
    found = result(task, *cells)
    assert found == Contamination(held_out, 0, 5000, 0) and found.clean
    assert str(found) == (
        f"0 of {held_out} held-out problems can be drawn in training (split recomputed one by one);"
        " 0 met in 5,000 drawn"
    )


def test_problems_of_train_and_of_small_cells_are_not_held_out():
    task = load_task("add", {"digits": 3})
    seen, train = Cell("+", 1, 2), cell_result(task, split="train")
    found = result(task, cell_result(task, seen, "train"), train)
    assert (found.problems, found.drawn) == (0, 0) and found.clean
    assert "no held-out problem" in str(found)


@dataclass(frozen=True)
class Leaky(Add):
    """Takes evaluation problems from the wrong split."""

    def evaluation_set(self, rng: np.random.Generator, size: int, split: str, cell: Cell) -> Batch:
        return super().evaluation_set(rng, size, "train", cell)


@dataclass(frozen=True)
class Greedy(Add):
    """Trains on everything."""

    def batch(self, rng, size: int, split: str, cell: Cell | None = None) -> Batch:
        return super().batch(rng, size, "test" if split == "train" else split, cell)


@dataclass(frozen=True)
class Ordered(Add):
    """Forgets, where it draws, that a + b and b + a are one problem."""

    def _allowed(self, a, b, len_a, len_b, split: int) -> np.ndarray:
        return splits.split_of(a, b, ord(self.op), False) == split


@dataclass(frozen=True)
class Mirrored(Sub):
    """Writes other operands than those whose split it looked at."""

    def _written(self, a, b, len_a, len_b) -> Batch:
        return super()._written(b, a, len_b, len_a)


@dataclass(frozen=True)
class Onesided(Add):
    """Trains on sums with the larger number first."""

    def in_train(self, problem: Problem) -> bool:
        a, b = problem.operands
        return a >= b


@dataclass(frozen=True)
class Silent(Add):
    """Cannot tell what training draws."""

    def in_train(self, problem: Problem) -> None:
        return None


def test_problems_of_the_wrong_split_are_found():
    task, leaky = load_task("add"), Leaky(digits=3)
    found = result(leaky, cell_result(leaky))
    assert found.drawable == found.problems == 200 and not found.clean
    assert len(found.found) == 3 and all(task.in_train(task.parse(text)) for text in found.found)


def test_training_on_everything_is_found_by_drawing():
    task = Greedy(digits=3, carry=0.0, edges=0.0)
    found = result(task, cell_result(task), draw=50_000)
    assert found.drawable == 0 and found.met > 20 and not found.clean
    assert all(not task.in_train(task.parse(text)) for text in found.found)


def test_one_problem_in_two_orders_is_one_problem():
    found = result(Ordered(digits=3), cell_result(Ordered(digits=3)))
    assert 50 < found.drawable < 120  # four in five of those in the other order


def test_a_problem_counts_as_drawable_in_either_order():
    found = result(Onesided(digits=3), cell_result(Onesided(digits=3)))
    assert found.drawable == found.problems == 200


def test_drawing_finds_problems_in_either_order():
    task = Ordered(digits=2, carry=0.0, edges=0.0)
    cell = cell_result(task, Cell("+", 2, 2))
    drawn = drawn_in_training(task, 0, 50_000)
    alone = sum(problem in drawn for problem in cell.batch.problems)
    assert alone == 0 and result(task, cell, draw=50_000).met > 100


def test_another_problem_written_than_was_drawn_is_found():
    task = Mirrored(digits=3)
    found = result(task, cell_result(task, Cell("-", 3, 3)))
    assert 100 < found.drawable < 200


def test_a_task_that_cannot_tell_is_not_said_to_be_clean_of_itself():
    task = Silent(digits=3)
    found = result(task, cell_result(task))
    assert found.drawable is None and found.clean
    assert "200 held-out problems: the task cannot tell" in str(found)
    assert "0 met in 5,000 drawn" in str(found)


def test_draws_follow_from_the_seed():
    task = load_task("calc", {"digits": 2, "sum_digits": 3})
    one, same, other = (drawn_in_training(task, seed, 300) for seed in (1, 1, 2))
    assert one == same != other
    assert all(task.in_train(problem) for problem in one)


def test_a_contaminated_evaluation_ends_with_an_error(toy_run, monkeypatch):
    run = toy_run(steps=1)
    train(run)
    drawn = Add.evaluation_set

    def leaky(task, rng, size, split, cell):
        return drawn(task, rng, size, "train", cell)

    monkeypatch.setattr(Add, "evaluation_set", leaky)
    done = CliRunner().invoke(main, ["eval", str(run.path), "--per-cell", "5"])
    assert done.exit_code == 1 and "CONTAMINATED" in done.stderr
    assert (run.path / "eval.json").is_file()
    stored = CliRunner().invoke(main, ["eval", str(run.path), "--stored"])
    assert stored.exit_code == 1 and "CONTAMINATED" in stored.stderr
