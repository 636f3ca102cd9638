"""Training on a fixed set of problems, and on more problems of full length."""

import numpy as np
import pytest

from addgpt.evaluation.scorecard import score_run
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import SPLITS
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.common import digits, splits

pytestmark = pytest.mark.slow

NAMES = ("add", "sub", "mul", "div")
BATCH = ("tokens", "scored", "positions")


@pytest.fixture(params=NAMES)
def operation(request):
    """The task of each operation, as a function of its other options."""
    quick = {} if request.param == "add" else {"trace": "none"}
    return lambda **more: load_task(request.param, quick | more)


def problems(task, batch, read_rows) -> list[tuple]:
    """The problem of each row; those that differ in the order of operands are one."""
    rows = [(a, b) for a, _, b, _ in read_rows(task, batch)]
    return [tuple(sorted(pair)) for pair in rows] if task.commutes else rows


def drawn(task, read_rows, seeds=range(2), size=1500) -> set[tuple]:
    batches = [task.batch(np.random.default_rng(seed), size, "train") for seed in seeds]
    return {pair for batch in batches for pair in problems(task, batch, read_rows)}


def same(one, other) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in BATCH)


@pytest.mark.parametrize("size", [1, 200])
def test_training_reaches_all_problems_of_the_pool_and_no_other(operation, read_rows, size):
    task = operation(digits=3, pool=size)
    assert len(drawn(task, read_rows)) == size
    a, b, len_a, len_b = task.pooled
    assert len(a) == len(b) == size
    assert (digits.length(a) == len_a).all() and (digits.length(b) == len_b).all()


def test_a_pool_is_drawn_once(operation, monkeypatch):
    task = operation(digits=3, pool=50)
    task.batch(np.random.default_rng(0), 10, "train")
    monkeypatch.setattr(type(task), "propose", None)
    task.batch(np.random.default_rng(1), 10, "train")


def test_a_pool_is_of_the_train_split(operation):
    a, b, len_a, len_b = (task := operation(digits=3, pool=2000)).pooled
    tens = np.where(len_a == 1, 10, 9 * 10 ** (len_a - 1.0))
    large = tens * np.where(len_b == 1, 10, 9 * 10 ** (len_b - 1.0)) >= splits.SMALL
    assert large.mean() > 0.5
    assert (splits.split_of(a, b, ord(task.op), task.commutes)[large] == 0).all()


def test_a_small_pool_is_part_of_a_large_one(operation, read_rows):
    pools = [drawn(operation(digits=3, pool=size), read_rows) for size in (40, 41, 150)]
    assert pools[0] < pools[1] < pools[2]
    assert len(pools[1] - pools[0]) == 1


def test_a_pool_has_the_lengths_that_training_draws():
    _, _, len_a, len_b = load_task("add", {"digits": 4, "pool": 4000}).pooled
    found = {(n, m): np.mean((len_a == n) & (len_b == m)) for n in (3, 4) for m in (3, 4)}
    assert all(0.06 < share < 0.12 for share in found.values())  # 1/16, more as small cells fill up


def test_formats_share_a_pool(read_rows):
    formats = [{"format": "plain"}, {"format": "reverse"}, {"trace": "carry"}]
    tasks = [load_task("add", one | {"pool": 100}) for one in formats]
    rows = [problems(t, t.batch(np.random.default_rng(3), 50, "train"), read_rows) for t in tasks]
    assert rows[0] == rows[1] == rows[2]


def test_val_and_test_are_what_they_are_without_a_pool(operation, read_rows):
    pooled, free = operation(digits=3, pool=300), operation(digits=3)
    known = drawn(pooled, read_rows)
    for split in ("val", "test"):
        one, other = (t.batch(np.random.default_rng(5), 200, split) for t in (pooled, free))
        assert same(one, other)
        assert not known & set(problems(pooled, one, read_rows))
        cell = free.cells()[8]
        assert same(
            *(t.evaluation_set(np.random.default_rng(6), 50, split, cell) for t in (pooled, free))
        )


def test_train_cells_of_a_pooled_task_hold_the_pool_and_nothing_else(operation, read_rows):
    task = operation(digits=3, pool=400)
    known, asked = drawn(task, read_rows, range(8)), set()
    for cell in task.cells():
        batch = task.batch(np.random.default_rng(0), 60, "train", cell)
        assert set(problems(task, batch, read_rows)) <= known
        for a, _, b, _ in read_rows(task, batch):
            assert (len(str(a)), len(str(b))) == (cell.len_a, cell.len_b)
            pair = (digits.from_int(n, task.digits)[None] for n in (a, b))
            assert cell.stratum == "all" or task.belongs(cell.stratum, *pair).all()
        if not task.seen(cell):  # others are asked whole
            cell_set = task.evaluation_set(np.random.default_rng(1), 1000, "train", cell)
            rows = problems(task, cell_set, read_rows)
            assert len(rows) == len(set(rows)) and set(rows) <= known
            asked.update(rows if cell.stratum == "all" else ())
    counts = {1: 10, 2: 90, 3: 900}
    large = {p for p in known if np.prod([counts[len(str(n))] for n in p]) >= splits.SMALL}
    assert asked == large and len(large) > 200


def test_eval_of_the_train_split_asks_what_was_trained_on(tmp_path, read_rows):
    settings = {"digits": "2", "pool": "100", "width": "16", "layers": "1", "threads": "1"}
    run = Run.create(tmp_path / "run", configure("add", settings | {"steps": "1"}))
    train(run)
    known, shown = drawn(run.task(), read_rows), []
    card = score_run(run, split="train", on_cell=shown.append)
    fresh = [one for one in shown if not one.seen]
    assert all(set(problems(run.task(), one.batch, read_rows)) <= known for one in fresh)
    assert {row["split"] for row in card.rows} == {"train"}
    assert 0 < sum(len(one.batch) for one in fresh if one.cell.stratum == "all") <= 100


def test_a_train_cell_that_a_pool_misses_is_empty(operation):
    task = operation(digits=3, pool=1)
    empty = [
        c for c in task.cells() if not len(task.batch(np.random.default_rng(0), 9, "train", c))
    ]
    assert len([c for c in task.cells() if c.stratum == "all" and c not in empty]) == 1


def test_without_a_pool_batches_do_not_change(operation):
    """The default draws as ever: the generator is asked for nothing more."""
    one, other = operation(digits=3), operation(digits=3, pool=0)
    for split in SPLITS:
        assert same(*(t.batch(np.random.default_rng(7), 100, split) for t in (one, other)))


@pytest.mark.parametrize("size", [1, 2, 64])
def test_a_batch_from_a_pool_is_a_function_of_the_generator_alone(operation, read_rows, size):
    for seed in range(5):
        fresh = (operation(digits=3, pool=200) for _ in "ab")
        one, other = (t.batch(np.random.default_rng(seed), size, "train") for t in fresh)
        assert same(one, other) and len(one) == size


def test_the_offset_moves_ids_of_pooled_problems():
    task = load_task("add", {"digits": 3, "pool": 5, "offset": 9})
    positions = task.batch(np.random.default_rng(8), 300, "train").positions
    assert len(set(positions[..., 0].max(1).tolist())) > 9


def test_a_resumed_run_trains_on_the_same_pool(tmp_path):
    settings = {
        "digits": "2", "pool": "30", "layers": "1", "width": "16", "steps": "8",
        "batch_size": "8", "eval_every": "4", "eval_size": "16", "threads": "1",
    }  # fmt: skip
    whole = Run.create(tmp_path / "whole", configure("add", settings))
    train(whole)
    halves = Run.create(tmp_path / "halves", configure("add", settings | {"save_every": "4"}))

    def stop(moment) -> None:
        if moment.step == 5:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train(halves, stop)
    train(Run(tmp_path / "halves"))
    ends = [run.model().state_dict() for run in (whole, halves)]
    assert all(ends[0][name].equal(ends[1][name]) for name in ends[0])


def test_a_pool_that_cannot_be_filled_is_one_line(monkeypatch):
    monkeypatch.setattr("tasks.common.arithmetic.POOL_DRAWS", (8, 8))
    with pytest.raises(ValueError, match="pool=100 is too large: 1[0-6] distinct problems"):
        load_task("add", {"pool": 100}).batch(np.random.default_rng(0), 1, "train")


@pytest.mark.parametrize("digits_", [1, 2, 3])
def test_the_largest_pool_can_be_filled(operation, digits_):
    task = operation(digits=digits_, pool=min(25 * 10 ** (2 * digits_ - 2), 5000))
    assert len(task.pooled[0]) == task.pool


@pytest.mark.parametrize("split", SPLITS)
def test_a_share_of_sums_has_full_length(read_rows, split):
    task = load_task("add", {"digits": 3, "full": 0.75})
    rows = read_rows(task, task.batch(np.random.default_rng(9), 4000, split))
    share = np.mean([min(a, b) > 99 for a, _, b, _ in rows])
    assert abs(share - (0.75 + 0.25 / 9)) < (0.03 if split == "train" else 0.08)
