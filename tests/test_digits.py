"""Digit matrices against Python integers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.common import digits

numbers = st.integers(0, 10**80)
small = st.integers(0, 10**9)
pairs = st.lists(st.tuples(numbers, numbers), min_size=1, max_size=5)


def ints(matrix) -> list[int]:
    return [int("".join(map(str, row[::-1]))) for row in matrix.tolist()]


@given(numbers, st.integers(0, 5))
def test_from_int_is_the_digits_lowest_first_and_zeros_above(value, more):
    row = digits.from_int(value, len(str(value)) + more)
    assert row.tolist() == [int(char) for char in str(value)[::-1]] + [0] * more


@pytest.mark.parametrize(("value", "width"), [(-1, 5), (1000, 3)])
def test_from_int_refuses_what_does_not_fit(value, width):
    with pytest.raises(ValueError, match=f"{value} has no {width}-digit form"):
        digits.from_int(value, width)


@given(st.lists(st.integers(1, 70), min_size=1), st.integers(0, 2**32))
def test_draw_gives_numbers_of_exactly_the_lengths_asked(lengths, seed):
    drawn = digits.draw(np.random.default_rng(seed), np.array(lengths), max(lengths))
    assert drawn.shape == (len(lengths), max(lengths))
    assert [len(str(value)) for value in ints(drawn)] == lengths
    assert ((drawn >= 0) & (drawn <= 9)).all()


def test_draw_is_uniform_over_the_numbers_of_a_length():
    drawn = digits.draw(np.random.default_rng(0), np.repeat([1, 2], 50_000), 2)
    values = np.array(ints(drawn))
    for part, count in ((values[:50_000], 10), (values[50_000:], 90)):
        found = np.unique(part, return_counts=True)[1]
        assert len(found) == count
        assert abs(found / 50_000 * count - 1).max() < 0.2


@pytest.mark.parametrize("lengths", [[0, 2], [4]])
def test_draw_refuses_lengths_outside_the_width(lengths):
    with pytest.raises(ValueError, match=r"lengths must be in 1\.\.3"):
        digits.draw(np.random.default_rng(0), np.array(lengths), 3)


@given(
    st.integers(1, 60).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-180, 180), min_size=n, max_size=n), min_size=1, max_size=4
        )
    ),
    st.integers(0, 4),
)
def test_carried_digits_and_carry_are_the_total(columns, more):
    width = len(columns[0]) + more
    got, carry = digits.carried(np.array(columns, np.int16), width)
    assert ((got >= 0) & (got <= 9)).all()
    totals = [sum(c * 10**k for k, c in enumerate(row)) for row in columns]
    wanted = [divmod(total, 10**width) for total in totals]
    assert list(zip(carry.tolist(), ints(got), strict=True)) == wanted


@given(pairs)
def test_sums_differences_and_products(matrices, some):
    a, b, len_a, len_b = matrices(some)
    width = a.shape[1]
    total, _ = digits.carried(digits.wide(a, width + 1) + digits.wide(b, width + 1))
    assert ints(total) == [x + y for x, y in some]
    less, borrow = digits.carried(digits.wide(a, width) - digits.wide(b, width))
    assert ints(less) == [(x - y) % 10**width for x, y in some]
    assert (borrow < 0).tolist() == [x < y for x, y in some]
    assert ints(digits.times(a, b, 2 * width)) == [x * y for x, y in some]
    assert digits.length(a).tolist() == len_a.tolist()


@given(pairs, st.integers(1, 90))
def test_times_keeps_the_lowest_digits(matrices, some, width):
    a, b, _, _ = matrices(some)
    assert ints(digits.times(a, b, width)) == [x * y % 10**width for x, y in some]


divisors = st.integers(1, 10**40) | st.integers(1, 99)


@given(st.lists(st.tuples(numbers, divisors), min_size=1, max_size=5))
def test_divide_is_divmod(matrices, some):
    a, b, _, _ = matrices(some)
    quotient, rest = digits.divide(a, b)
    wanted = [divmod(x, y) for x, y in some]
    assert list(zip(ints(quotient), ints(rest), strict=True)) == wanted


def test_divide_asserts_a_divisor():
    with pytest.raises(AssertionError, match="division by zero"):
        digits.divide(np.ones((2, 3), np.int8), np.zeros((2, 3), np.int8))


@given(st.lists(st.tuples(small, small), min_size=1, max_size=8))
def test_longest_chain_follows_its_definition(matrices, carry_chain, some):
    passing = [(x, int("".join(str(9 - int(c)) for c in str(x)))) for x, _ in some]
    for problems in (some, passing, [(x, x) for x, _ in some]):
        a, b, _, _ = matrices(problems)
        for borrow in (False, True):
            wanted = [carry_chain(x, y, borrow) for x, y in problems]
            assert digits.longest_chain(a, b, borrow).tolist() == wanted


@pytest.mark.parametrize(
    ("a", "b", "borrow", "chain"),
    [
        (95, 7, False, 2),
        (999, 1, False, 3),
        (55, 55, False, 1),
        (44, 44, False, 0),
        (1000, 1, True, 3),
        (12, 345, True, 1),
        (77, 77, True, 0),
    ],
)
def test_longest_chain_of_worked_examples(matrices, a, b, borrow, chain):
    assert digits.longest_chain(*matrices([(a, b)])[:2], borrow).tolist() == [chain]


def columns_of(a: int, b: int, borrow: bool) -> list[tuple[int, int]]:
    """Of each column, what its digits make by themselves (9, or 0 of a difference, is what passes a
    carry on) and what is carried to it: by hand, lowest first."""
    size, carry, found = max(len(str(a)), len(str(b))), 0, []
    for x, y in zip(str(a).zfill(size)[::-1], str(b).zfill(size)[::-1], strict=True):
        alone = int(x) - int(y) if borrow else int(x) + int(y)
        found.append((alone, carry))
        carry = int(alone - carry < 0 if borrow else alone + carry > 9)
    return found


@given(st.lists(st.tuples(small, small), min_size=1, max_size=8))
def test_a_carry_runs_through_sums_of_nine_or_finds_none(matrices, some):
    nearly = [(x, int("".join(str(9 - int(c)) for c in str(x))) + y % 2) for x, y in some]
    for problems in (some, nearly, [(x, x + y % 3) for x, y in some]):
        a, b, _, _ = matrices(problems)
        for borrow in (False, True):
            passes = 0 if borrow else 9
            runs = {0: [], 1: []}  # by what is carried to such a column
            for x, y in problems:
                there = columns_of(x, y, borrow)
                for carry, longest in runs.items():
                    text = "".join("x" if one == (passes, carry) else "." for one in there)
                    longest.append(max(map(len, text.split("."))))
            assert digits.longest_idle(a, b, borrow).tolist() == runs[0]
            carried = [any(carry for _, carry in columns_of(x, y, borrow)) for x, y in problems]
            chains = digits.longest_chain(a, b, borrow).tolist()
            for through, chain, some_carry in zip(runs[1], chains, carried, strict=True):
                assert not some_carry or chain == 1 + through
