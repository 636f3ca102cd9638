"""Every task keeps the contract: batches, cells, position ids, options."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.task import SPLITS, Cell
from addgpt.task_lookup import load_task, task_names


def test_a_drawn_cell_has_its_lengths(any_task, read_rows):
    for cell in (cell for cell in any_task.cells() if cell.stratum == "all"):
        split = "train" if any_task.seen(cell) else "val"
        rows = read_rows(any_task, any_task.batch(np.random.default_rng(1), 8, split, cell))
        assert {(op, len(str(a)), len(str(b))) for a, op, b, _ in rows} == {cell[:3]}


def test_training_reaches_all_lengths_and_operations(any_task, read_rows):
    rows = read_rows(any_task, any_task.batch(np.random.default_rng(2), 4000, "train"))
    found = {(op, len(str(a)), len(str(b))) for a, op, b, _ in rows}
    assert found >= {cell[:3] for cell in any_task.cells() if cell.len_a >= cell.len_b}


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"digits": 1}, {"digits": 3, "edges": 1.0}, {"carry": 1.0}])
@pytest.mark.parametrize("split", SPLITS)
def test_division_by_zero_is_never_drawn(read_rows, options, split):
    task = load_task("div", options)
    batches = [task.batch(np.random.default_rng(3), 5000, split)]
    batches += [task.evaluation_set(np.random.default_rng(4), 30, split, c) for c in task.cells()]
    assert min(b for batch in batches for _, _, b, _ in read_rows(task, batch)) == 1


def test_differences_of_both_signs_and_zero_are_drawn(read_rows):
    task = load_task("sub", {"digits": 3})
    rows = read_rows(task, task.batch(np.random.default_rng(5), 1000, "train"))
    assert {np.sign(a - b) for a, _, b, _ in rows} == {-1, 0, 1}


def test_a_batch_keeps_its_contract(any_task):
    for split in SPLITS:
        batch = any_task.batch(np.random.default_rng(6), 200, split)
        rows, size = batch.tokens.shape
        assert (rows, batch.tokens.dtype, len(batch)) == (200, np.uint8, 200)
        assert batch.scored.shape == (rows, size) and batch.scored.dtype == bool
        assert batch.positions.shape == (rows, size, len(any_task.levels))
        assert batch.positions.dtype == np.int16
        assert batch.positions.min() >= 0
        assert (batch.positions.max((0, 1)) < any_task.levels).all()
        assert size == batch.lengths.max() <= any_task.longest()


def test_scored_runs_from_the_equals_sign_to_the_end_mark_and_no_further(any_task):
    batch = any_task.batch(np.random.default_rng(7), 200, "train")
    for tokens, scored, length in zip(batch.tokens, batch.scored, batch.lengths, strict=True):
        text = any_task.decode(tokens)
        first, last = text.index("=") + 1, text.index("#")
        assert np.flatnonzero(scored).tolist() == list(range(first, last + 1))
        assert length == last + 1


def test_longest_is_reached_and_not_passed(binary):
    task = binary(digits=3)
    slots = []
    for cell in task.cells():
        if cell.stratum == "all":
            zeros = np.zeros((1, 3), np.int8)
            sheet = task.write(zeros, zeros + 1, *(np.array([n]) for n in cell[1:3]))
            slots.append(sheet.positions().shape[1])
    assert max(slots) == task.longest()


def rows_apart(task, batch):
    """(prompt, work, its ids) of each row: prompts differ in length."""
    starts = batch.scored.argmax(1)
    for row, start in enumerate(starts):
        tokens = batch.tokens[row : row + 1]
        yield tokens[:, :start], tokens[:, start:], batch.positions[row : row + 1]


@pytest.mark.slow
@pytest.mark.parametrize("split", ["val", "test"])
def test_decoding_sees_the_positions_that_training_sees(any_task, split):
    batch = any_task.batch(np.random.default_rng(9), 60, split)
    for prompt, work, ids in rows_apart(any_task, batch):
        slots = any_task.decode(work[0]).index("#") + 1
        found = any_task.positions(prompt, slots)
        assert found.shape[1] == prompt.shape[1] + slots
        assert (found == ids[:, : found.shape[1]]).all()


@pytest.mark.slow
@settings(max_examples=20)
@given(st.data())
def test_ids_of_a_slot_depend_on_the_tokens_before_it_alone(any_task, data):
    batch = any_task.batch(np.random.default_rng(data.draw(st.integers(0, 999))), 1, "train")
    start = int(batch.scored[0].argmax())
    tokens = st.integers(0, len(any_task.alphabet) - 1)
    shared, one, other = (data.draw(st.lists(tokens, max_size=12)) for _ in range(3))
    shared = [*batch.tokens[0, :start], *shared]
    k = len(shared)
    first, second = (
        any_task.positions(np.array([[*shared, *rest]], np.uint8), 1) for rest in (one, other)
    )
    assert first.shape[1] == k + len(one) + 1
    assert (first[:, : k + 1] == second[:, : k + 1]).all()
    assert (any_task.positions(np.array([shared], np.uint8), 1) == first[:, : k + 1]).all()


def test_ids_follow_from_the_operand_lengths_alone(any_task, read_rows):
    rng = np.random.default_rng(10)
    for cell in any_task.cells()[9::5]:
        batch = any_task.evaluation_set(rng, 20, "test", cell)
        ids = [ids[:, : prompt.shape[1] + 4] for prompt, _, ids in rows_apart(any_task, batch)]
        assert all((one == other).all() for one, other in pairwise(ids))


@pytest.mark.slow
def test_ids_of_a_row_do_not_depend_on_its_batch(any_task):
    batch = any_task.batch(np.random.default_rng(11), 200, "val")
    starts = batch.scored.argmax(1)
    for start in np.unique(starts):
        prompts = batch.tokens[starts == start, :start]
        together = any_task.positions(prompts, 12)
        for prompt, ids in zip(prompts, together, strict=True):
            assert (any_task.positions(prompt[None], 12) == ids).all()


def test_the_offset_shifts_column_ids_in_training_only():
    task = load_task("add", {"digits": 3, "offset": 20})
    plain = load_task("add", {"digits": 3})
    rng = [np.random.default_rng(12) for _ in range(2)]
    shifted, still = (t.batch(r, 500, "train") for t, r in zip((task, plain), rng, strict=True))
    assert (shifted.tokens == still.tokens).all()
    change = shifted.positions - still.positions
    assert (change[..., 1:] == 0).all()
    marked = still.positions[..., 0] > 0
    assert (change[..., 0][~marked] == 0).all()
    per_row = [set(row[on].tolist()) for row, on in zip(change[..., 0], marked, strict=True)]
    assert all(len(shifts) == 1 for shifts in per_row)
    assert set.union(*per_row) == set(range(21))
    assert shifted.positions[..., 0].max() == task.levels[0] - 1
    for prompt, work, ids in rows_apart(task, task.batch(np.random.default_rng(13), 20, "val")):
        assert (task.positions(prompt, work.shape[1]) == ids).all()


@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_is_a_function_of_the_generator_alone(any_task, split, same_global_randomness):
    batches = [any_task.batch(np.random.default_rng(seed), 100, split) for seed in (1, 1, 2)]
    exams = [
        any_task.evaluation_set(np.random.default_rng(1), 9, split, any_task.cells()[9])
        for _ in "ab"
    ]
    for one, other in (batches[:2], exams):
        for field in ("tokens", "scored", "positions"):
            assert (getattr(one, field) == getattr(other, field)).all()
    same_shape = batches[0].tokens.shape == batches[2].tokens.shape
    assert not (same_shape and (batches[0].tokens == batches[2].tokens).all())


def test_shares_of_the_mixture_are_kept(read_rows):
    task = load_task("calc", {"digits": 2, "sum_digits": 3, "shares": [1, 2, 3, 4], "full": 0.5})
    rows = read_rows(task, task.batch(np.random.default_rng(14), 5000, "train"))
    found = [sum(op == row[1] for row in rows) / 5000 for op in "+-*/"]
    assert abs(np.array(found) - [0.1, 0.2, 0.3, 0.4]).max() < 0.03
    sums = [(len(str(a)), len(str(b))) for a, op, b, _ in rows if op == "+"]
    assert 0.5 < np.mean([pair == (3, 3) for pair in sums]) < 0.62  # 0.5 + 0.5 / 9


def test_the_mixture_has_one_operation_where_the_other_shares_are_zero(read_rows):
    task = load_task("calc", {"shares": [0, 0, 1, 0]})
    rows = read_rows(task, task.batch(np.random.default_rng(15), 50, "train"))
    assert {op for _, op, _, _ in rows} == {"*"}


def test_encode_and_decode_are_inverse(any_task):
    text = any_task.alphabet[::-1]
    assert any_task.decode(any_task.encode(text)) == text
    with pytest.raises(ValueError, match="'x' is not in the alphabet"):
        any_task.encode("1x")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ad", {}, "unknown task 'ad'; valid: .*add.*"),
        ("add", {"colour": 1}, "unknown key 'colour' in the options of add; valid keys: .*digits"),
        ("add", {"digits": 0}, r"digits must be in 1\.\.1000, not 0"),
        ("add", {"digits": "-3"}, r"digits must be in 1\.\.1000, not -3"),
        ("add", {"digits": 10**9}, r"digits must be in 1\.\.1000"),
        ("add", {"digits": "three"}, "digits must be a whole number, not 'three'"),
        ("add", {"digits": 2.5}, "digits in the options of add must be a whole number"),
        ("add", {"digits": True}, "digits in the options of add must be a whole number"),
        ("add", {"carry": 1.5}, r"carry must be in \[0, 1\]"),
        ("add", {"edges": "nan"}, r"edges must be in \[0, 1\]"),
        ("add", {"offset": -1}, r"offset must be in 0\.\.10000"),
        ("add", {"format": "forward"}, "format must be one of plain, reverse, padded"),
        ("add", {"trace": "long"}, "trace must be one of none, carry, detailed, turing, not 'lo"),
        ("add", {"full": 1.5}, r"full must be in \[0, 1\], not 1.5"),
        ("add", {"hints": True, "ids": "abacus"}, "hints=true writes the place value"),
        ("add", {"hints": True, "trace": "detailed"}, "trace=none or trace=carry, not detailed"),
        ("add", {"hints": True, "far": (300,)}, "letters for 237 columns; .* ask for 301"),
        ("add", {"pool": -1}, r"pool must be in 0\.\.100000, not -1"),
        ("mul", {"digits": 1, "pool": 26}, r"pool must be in 0\.\.25 at digits=1, not 26"),
        ("sub", {"digits": 9, "pool": 10**7}, r"pool must be in 0\.\.100000, not 10000000"),
        ("sub", {"trace": "rows"}, "trace must be one of carry, borrow, none"),
        ("mul", {"trace": "rose"}, "trace must be one of carry, rows, whole, none, not 'rose'"),
        ("div", {"trace": "guess"}, "trace must be one of carry, doubling, none"),
        ("calc", {"shares": (1, 1)}, r"four shares of \+ - \* /"),
        ("calc", {"shares": "0,0,0,0"}, r"four shares of \+ - \* /"),
        ("calc", {"shares": "inf,1,1,1"}, "shares must be finite, not inf"),
        ("calc", {"shares": "a,b,c,d"}, "shares must be a number, not 'a'"),
        ("calc", {"full": 2}, r"full must be in \[0, 1\]"),
        ("calc", {"sum_digits": 0}, r"sum_digits must be in 1\.\.1000"),
        ("calc", {"mul_trace": "rose"}, "mul_trace must be one of carry, rows, whole, none"),
        ("lines", {"block": -1}, "block must be at least 0, not -1"),
        ("add", {"far": (0, 20)}, r"far must be in 1\.\.1000, not 0"),
    ],
)
def test_a_wrong_option_says_what_is_valid(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_task(name, options)


def test_every_task_loads_with_text_options_and_documents_them():
    ours = {"add", "sub", "mul", "div", "calc", "sum", "lines", "shakespeare"}
    assert ours <= set(task_names())
    for name in task_names():
        task = load_task(name)
        assert task.name == name
        assert all(field.metadata["help"] for field in task.options().values())
        if name in ours:  # another's may leave settings at their defaults
            recipe = task.recipe()
            assert recipe.model["layers"] and recipe.train["steps"]


def test_text_options_are_parsed_by_type():
    task = load_task("calc", {"digits": "2", "shares": "1,0,0,1", "full": "0.5"})
    assert (task.digits, task.shares, task.full) == (2, (1.0, 0.0, 0.0, 1.0), 0.5)


def test_cells_cover_the_grid_once(binary):
    cells = binary(digits=3).cells()
    assert len(set(cells)) == len(cells)
    assert [c[1:3] for c in cells if c.stratum == "all"] == [
        (n, m) for n in (1, 2, 3) for m in (1, 2, 3)
    ]
    assert Cell(cells[0].op, 3, 3, "zeros") in cells or cells[0].op == "/"
