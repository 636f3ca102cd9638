"""The sheet against rows written character by character."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.common import sheet
from tasks.common.digits import below, order_of
from tasks.common.sheet import ALL_KINDS, ALPHABET, KINDS, LEVELS, Kind, Sheet

END = ALPHABET.index("#")


@st.composite
def blocks(draw, rows: int):
    """Arguments of one `number` call: digits, existing and used slots, ids."""
    seed, width = draw(st.integers(0, 2**32)), draw(st.integers(1, 6))
    rng = np.random.default_rng(seed)
    shape = (rows, width)
    return {
        "digits": rng.integers(0, 10, shape),
        "exists": rng.random(shape) < draw(st.sampled_from([0.3, 0.8, 1.0])),
        "used": rng.random(shape) < draw(st.sampled_from([0.3, 0.8, 1.0])),
        "col": rng.integers(0, 50, shape),
        "step": rng.integers(0, 9, (rows, 1)),
        "most_significant_first": draw(st.booleans()),
    }


def slots(block, row: int):
    """(token, ids, used) of each slot that a block has in a row, in the order of writing."""
    columns = range(block["digits"].shape[1])
    for k in reversed(columns) if block["most_significant_first"] else columns:
        if block["exists"][row, k]:
            ids = [block["col"][row, k], block["step"][row, 0], Kind.PRODUCT]
            yield block["digits"][row, k], ids, block["used"][row, k]


def write(sheet: Sheet, block: dict) -> None:
    rest = {key: value for key, value in block.items() if key != "digits"}
    sheet.number(block["digits"], Kind.PRODUCT, **rest)


@given(st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), st.lists(blocks(n), max_size=4))))
def test_rows_are_those_written_one_by_one(case):
    rows, work = case
    sheet = Sheet(np.arange(rows))
    sheet.number(np.arange(rows)[:, None] + 1, Kind.A)
    sheet.equals()
    for block in work:
        write(sheet, block)
    batch = sheet.batch()
    for row in range(rows):
        every = [slot for block in work for slot in slots(block, row)]
        prompt = [row + 1, ALPHABET.index("=")]
        text = prompt + [token for token, _, used in every if used]
        size = batch.tokens.shape[1]
        assert batch.tokens[row].tolist() == text + [END] * (size - len(text))
        assert np.flatnonzero(batch.scored[row]).tolist() == list(range(2, len(text)))
        ids = [[1, 0, Kind.A], [0, 0, Kind.EQUALS], *(ids for _, ids, _ in every)]
        ids += [[0, 0, 0]] * size
        assert batch.positions[row].tolist() == [list(map(int, i)) for i in ids[:size]]


def test_a_batch_is_as_long_as_its_longest_row():
    sheet = Sheet(np.arange(2))
    sheet.equals()
    sheet.number(np.ones((2, 5)), Kind.TOTAL, used=np.arange(5) < np.array([[1], [3]]))
    sheet.symbol("#", Kind.TOTAL)
    batch = sheet.batch()
    assert ["".join(ALPHABET[t] for t in row) for row in batch.tokens] == ["=1###", "=111#"]
    assert batch.scored.tolist() == [[False, True, True, False, False], [False] + [True] * 4]
    assert sheet.positions().shape == (2, 7, LEVELS)  # slots that no row fills have ids too


def test_columns_count_from_the_least_significant_digit_when_not_given():
    sheet = Sheet(np.arange(1))
    sheet.number(np.array([[3, 2, 1]]), Kind.A, most_significant_first=True)
    sheet.equals()
    batch = sheet.batch()
    assert batch.tokens[0].tolist() == [1, 2, 3, ALPHABET.index("=")]
    assert batch.positions[0, :, 0].tolist() == [3, 2, 1, 0]


def test_dtypes_are_those_of_the_contract():
    sheet = Sheet(np.arange(3))
    sheet.number(np.ones((3, 2)), Kind.A)
    sheet.equals()
    batch = sheet.batch()
    found = batch.tokens.dtype, batch.scored.dtype, batch.positions.dtype
    assert found == (np.uint8, np.bool_, np.int16)


def test_digits_are_their_own_token_ids_and_kinds_are_never_no_position():
    assert ALPHABET[:10] == "0123456789"
    assert len(set(ALPHABET)) == len(ALPHABET)
    assert sorted(Kind) == list(range(1, len(Kind) + 1))
    assert Kind.REMAINDER < KINDS <= Kind.DOWN and ALL_KINDS == Kind.SUBTOTAL


@pytest.mark.parametrize("size", [1, 3, 9])
def test_positions_of_a_size_are_cut_or_filled_with_zeros(size):
    sheet = Sheet(np.arange(2))
    sheet.number(np.ones((2, 3)), Kind.A, exists=np.array([[True] * 3, [True, False, True]]))
    ids = sheet.positions(size)[:, :, 0]
    wanted = np.zeros((2, 9), int)
    wanted[0, :3], wanted[1, :2] = [1, 2, 3], [1, 3]
    assert ids.tolist() == wanted[:, :size].tolist()


@given(st.integers(1, 40), st.integers(1, 300), st.floats(0, 1), st.integers(0, 2**32))
def test_gaps_close_in_few_columns_and_in_many(columns, rows, share, seed):
    rng = np.random.default_rng(seed)
    order = order_of(columns)
    values = np.asarray(rng.integers(0, 19, (rows, columns), np.uint8), order=order)
    used = np.asarray(rng.random((rows, columns)) < share, order=order)
    kept = [row[there].tolist() for row, there in zip(values, used, strict=True)]
    size = max(map(len, kept))
    before_end = below(np.array([*map(len, kept)]), size)
    found = sheet._without_gaps(values, used, before_end)
    assert found.tolist() == [row + [END] * (size - len(row)) for row in kept]


def test_many_rows_are_written_as_few_are():
    rng = np.random.default_rng(0)
    rows = sheet.BYTES // 4  # more than are worked on at once
    values, used = rng.integers(0, 10, (rows, 8), np.uint8), rng.random((rows, 8)) < 0.5
    before_end = below(used.sum(1), 8)
    found = sheet._without_gaps(values, used, before_end)
    for some in (slice(0, 500), slice(-500, None)):
        few = sheet._without_gaps(values[some], used[some], before_end[some])
        assert (found[some] == few).all()
