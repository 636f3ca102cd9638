"""Train, val and test never share a problem."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.task import SPLITS, Cell
from addgpt.task_lookup import load_task
from tasks.common import digits, splits

pytestmark = pytest.mark.slow

numbers = st.integers(0, 10**60)
COMMUTES = "+*"


def canonical(rows) -> set:
    """Problems as what must not be shared between splits: operands sorted where they commute."""
    return {(op, *(sorted((a, b)) if op in COMMUTES else (a, b))) for a, op, b, _ in rows}


def numbers_of_length(length: int) -> int:
    return 10 if length == 1 else 9 * 10 ** (length - 1)


def distinct(a: int, b: int) -> int:
    return numbers_of_length(len(str(a))) * numbers_of_length(len(str(b)))


@given(numbers, numbers, st.integers(0, 40), st.sampled_from(b"+-*/"), st.booleans())
def test_leading_zeros_do_not_matter(matrices, a, b, more, salt, commutes):
    short = matrices([(a, b)])[:2]
    long = [np.pad(side, ((0, 0), (0, more))) for side in short]
    assert splits.split_of(*short, salt, commutes) == splits.split_of(*long, salt, commutes)


@given(numbers, numbers, st.sampled_from(b"+*"))
def test_order_does_not_matter_where_operands_commute(matrices, a, b, salt):
    first, second = matrices([(a, b), (b, a)])[:2]
    assert len(set(splits.split_of(first, second, salt, True).tolist())) == 1


def test_order_matters_where_operands_do_not_commute(matrices):
    a, b = matrices([(n, n + 12345) for n in range(300)])[:2]
    assert (splits.split_of(a, b, ord("-"), False) != splits.split_of(b, a, ord("-"), False)).any()


@pytest.mark.parametrize("length", [2, 3, 18, 19, 40])
@pytest.mark.parametrize("salt", b"+-*/")
def test_shares_are_80_10_10_at_every_length(length, salt):
    rng = np.random.default_rng(length)
    a, b = (digits.draw(rng, np.full(40_000, length), length) for _ in range(2))
    found = np.bincount(splits.split_of(a, b, salt, chr(salt) in COMMUTES), minlength=3) / 40_000
    assert abs(found - [0.8, 0.1, 0.1]).max() < 0.015  # 2 digits: 8,100 distinct pairs


@pytest.mark.parametrize(
    ("op", "golden"),
    [
        ("+", "0000010000000000201000020100010000200000000000200010010200001010"),
        ("/", "1000000000122000000000000100000002002100000000020000011002200000"),
    ],
)
def test_splits_are_those_of_every_earlier_release(matrices, op, golden):
    pairs = [(10**k + 7 * k, 3 * 10 ** (k // 2) + k) for k in range(64)]
    found = splits.split_of(*matrices(pairs)[:2], ord(op), op in COMMUTES)
    assert "".join(map(str, found)) == golden


def test_no_problem_is_in_two_splits(variant, read_rows):
    """With two digits, where the draws of two splits would meet many times if they could."""
    name, options = variant
    more = {"sum_digits": 2} if name == "calc" else {}
    task = load_task(name, options | more | {"digits": 2})
    rng = np.random.default_rng(0)
    drawn = {split: canonical(read_rows(task, task.batch(rng, 4000, split))) for split in SPLITS}
    assert all(len(problems) > 100 for problems in drawn.values())
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        assert not drawn[one] & drawn[other]


def test_exams_hold_no_problem_that_training_draws(any_task, read_rows):
    rng = np.random.default_rng(1)
    trained = canonical(read_rows(any_task, any_task.batch(rng, 8000, "train")))
    held_out = [cell for cell in any_task.cells() if not any_task.seen(cell)]
    for cell in held_out[::4]:
        rows = read_rows(any_task, any_task.evaluation_set(rng, 40, "test", cell))
        assert not canonical(rows) & trained, cell


def test_cells_too_small_to_hold_out_are_all_in_train(any_task, read_rows):
    rng = np.random.default_rng(2)
    for split in ("val", "test"):
        rows = read_rows(any_task, any_task.batch(rng, 2000, split))
        assert min(distinct(a, b) for a, _, b, _ in rows) >= 1000
    trained = read_rows(any_task, any_task.batch(rng, 2000, "train"))
    assert any(distinct(a, b) < 1000 for a, _, b, _ in trained)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_seen_cells_are_those_of_fewer_than_1000_problems(name):
    task = load_task(name, {"digits": 5})
    for cell in task.cells():
        count = numbers_of_length(cell.len_a) * numbers_of_length(cell.len_b)
        assert task.seen(cell) == (count < 1000)


def test_a_seen_cell_has_no_held_out_problems():
    task = load_task("add", {"digits": 3})
    assert len(task.batch(np.random.default_rng(0), 50, "test", Cell("+", 1, 1))) == 0


def test_one_digit_tasks_draw_every_split_from_all_problems(read_rows):
    task = load_task("mul", {"digits": 1})
    for split in SPLITS:
        rows = read_rows(task, task.batch(np.random.default_rng(0), 2000, split))
        assert {(a, b) for a, _, b, _ in rows} == {(a, b) for a in range(10) for b in range(10)}
