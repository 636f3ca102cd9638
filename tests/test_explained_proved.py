"""What docs/explained.md says of the adder of 96 parameters, held against interventions in all
contexts that a slot can be in.
"""

from __future__ import annotations

import re

import numpy as np
import pytest

from addgpt.interpret.contexts import activation_in
from addgpt.runs.run import Run
from tests.helpers.explained import (
    BEFORE,
    OWN,
    Third,
    array,
    number,
    numbers,
    on_line,
    row,
    section,
)

pytestmark = pytest.mark.slow

TEXT = section("The adder of 96 parameters")


@pytest.fixture(scope="module")
def third() -> Third:
    return Third("smallest-proved")


def test_it_is_the_model_that_is_proved(third):
    run = Run(third.folder)
    assert run.proved() and run.model().parameter_count() == 96
    assert third.size == third.count() == 30_399 and len(third.all.tokens) == 20_000


def test_a_column_counts_ten_times_as_much_as_the_one_before(third):
    weigh = np.exp(array(third.biases)[0].astype(float))
    assert weigh[OWN] / weigh[BEFORE] == pytest.approx(10.2, abs=0.05)
    shares = 100 * weigh / (weigh @ [2, 3, 2])
    told = [float(share) for share in re.findall(r"([\d.]+) %", TEXT)][:3]
    np.testing.assert_allclose(told, shares, atol=0.05)
    kept = third.biases.detach().clone()
    try:
        for ratio, told in zip(
            row(TEXT, "a digit counts"), row(TEXT, "right of 30,399"), strict=True
        ):
            third.biases.data[0, BEFORE] = kept[0, OWN] - np.log(float(ratio))
            assert third.count() == pytest.approx(int(told.replace(",", "")), abs=3), ratio
    finally:
        third.biases.data.copy_(kept)


def test_what_a_digit_writes_is_a_straight_line(third):
    digits = np.arange(10)
    found = third.written[:10] @ third.direction[:-1]
    slope, start = np.polyfit(digits, found, 1)
    left = found - np.polyval((slope, start), digits)
    assert (slope, start) == (pytest.approx(4.42, abs=0.01), pytest.approx(-13.06, abs=0.02))
    assert 1 - left.var() / found.var() > 0.9999
    own = np.polyfit(digits, third.token[:10] @ third.direction[:-1], 1)[0]
    assert own == pytest.approx(-0.19, abs=0.005)
    straight, every = third.written.astype(float), third.written.astype(float)
    along = third.direction[:-1] / np.square(third.direction[:-1]).sum()
    straight[:10] -= np.outer(left, along)
    assert third.count(third.valued(straight)) >= third.size - 15
    line = np.polyfit(digits, every[:10], 1)
    every[:10] = np.outer(digits, line[0]) + line[1]
    assert third.count(third.valued(every)) == pytest.approx(29_280, abs=10)


def test_the_number_is_a_sum_of_place_values(third):
    found = third.along(third.stream)
    parts = np.c_[third.parts, np.ones(len(found))]
    weights, *_ = np.linalg.lstsq(parts, found, rcond=None)
    np.testing.assert_allclose(weights, [1, 1, 0.098, 0.098, -0.094, 0.04], atol=0.005)
    assert np.abs(found - third.number).max() < 0.26
    for at, told in enumerate(row(TEXT, "a + b + carry")):
        some = found[third.number == int(told)]
        limits = [float(row(TEXT, name)[at]) for name in ("lowest", "highest")]
        np.testing.assert_allclose(limits, (some.min(), some.max()), atol=0.01)


def test_the_number_decides_what_is_written(third):
    np.testing.assert_array_equal(third.writes(third.means), np.arange(20) % 10)
    carried = third.parts[:, :2].sum(1) < third.number
    number = third.number[carried]
    without = third.writes(third.stream[carried] + third.means[number - 1] - third.means[number])
    assert (without == (number - 1) % 10).mean() > 0.995
    for at, told in enumerate(
        row(TEXT, "a + b + carry")
    ):  # where digits begin along the line of means
        k, (begin, end) = int(told), (row(TEXT, name)[at] for name in ("begins at", "ends at"))
        for place, side in ((begin, 1), (end, -1)):
            if place != "-":
                inside, outside = float(place) + 0.01 * side, float(place) - 0.01 * side
                found = third.writes(np.array([on_line(third.means, x) for x in (inside, outside)]))
                assert found[0] == k % 10 != found[1]


@pytest.mark.parametrize("unit", range(6))
def test_units_bend_the_line(third, unit):
    work, kept = row(TEXT, str(unit))
    assert third.at_work(unit) == numbers(work)
    right = third.without(unit)
    assert third.mostly(right[0]) == numbers(kept)
    if unit == 5:  # what breaks without it is the 1 above the highest digits, nothing else
        pairs = zip(third.every, right, strict=True)
        broken = np.concatenate([some.right[~good] for some, good in pairs])
        assert len(broken) == 92 and set(broken) == {1}


def test_above_the_highest_digits_a_threshold_says_whether_there_is_a_1(third):
    ends = [some for some in third.every if some.values("a", 0) is None]
    assert sum(len(some.tokens) for some in ends) == 299
    streams = np.concatenate([activation_in(some, third.of, "mid.0")[:, 0] for some in ends])
    found, right = third.along(streams), np.concatenate([some.right for some in ends])
    assert set(right) == {1, third.of.task.alphabet.index("#")}
    assert found[right == 1].min() > 3.6 > found[right != 1].max()


def test_the_ones_have_a_longer_ruler(third):
    (ones,) = [some for some in third.every if some.values("a", 1) is None and len(some.seen) == 4]
    found = third.along(activation_in(ones, third.of, "mid.0")[:, 0])
    slope, start = np.polyfit(number(ones), found, 1)
    assert (slope, start) == (pytest.approx(1.07, abs=0.005), pytest.approx(-0.71, abs=0.01))
    assert np.abs(found - np.polyval((slope, start), number(ones))).max() < 0.11
