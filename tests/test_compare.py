"""Spreads against plain Python, the interval against published values and against known truth."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from addgpt.evaluation.compare.statistics import (
    Marks,
    Scored,
    Spread,
    by_cell,
    by_kind,
    check_same,
    compare,
    difference,
    held_out,
    student,
)
from addgpt.evaluation.compare.tables import headline
from addgpt.task import Cell

pytestmark = pytest.mark.slow

PLAIN, SMALL, CHAIN = Cell("+", 3, 3), Cell("+", 1, 1), Cell("+", 3, 3, "carry:2")
MINUS = Cell("-", 2, 3)
SIZES = {PLAIN: 400, SMALL: 100, CHAIN: 50, MINUS: 250}


def scored(name: str, seed: int, right: dict[Cell, np.ndarray], marked: bool = True) -> Scored:
    """A run that got these problems right."""
    rows = [
        cell._asdict()
        | {"split": "test", "seen": cell == SMALL, "n": len(r), "answer_correct": int(r.sum())}
        for cell, r in right.items()
    ]
    marks = {cell: Marks(r, f"digest of {cell}") for cell, r in right.items()}
    return Scored(name, seed, rows, marks if marked else None)


def group(name: str, shares: list[float], rng: np.random.Generator) -> list[Scored]:
    return [
        scored(f"{name}{i}", i, {cell: rng.random(n) < share for cell, n in SIZES.items()})
        for i, share in enumerate(shares)
    ]


# The spread of several runs.


def test_spread_is_that_of_plain_python():
    runs = group("a", [0.9, 0.5, 0.7, 0.8], np.random.default_rng(0))
    spread = held_out(runs)
    shares = []
    for run in runs:
        fresh = [row for row in run.rows if not row["seen"]]
        shares.append(sum(row["answer_correct"] for row in fresh) / 700)
    assert spread.n == 700 == sum(n for cell, n in SIZES.items() if cell != SMALL)
    assert spread.shares == shares
    ordered = sorted(shares)
    assert spread.median == pytest.approx((ordered[1] + ordered[2]) / 2)
    assert (spread.worst, spread.best) == (ordered[0], ordered[-1])
    mean = sum(shares) / 4
    assert spread.deviation == pytest.approx(math.sqrt(sum((s - mean) ** 2 for s in shares) / 3))


def test_spreads_by_operation_leave_out_what_was_seen():
    runs = group("a", [0.9, 0.5], np.random.default_rng(1))
    kinds = by_kind(runs)
    assert {key: spread.n for key, spread in kinds.items()} == {
        ("+", "plain"): 400, ("+", "special"): 50, ("-", "plain"): 250
    }  # fmt: skip
    assert kinds["-", "plain"].right == tuple(int(r.marks[MINUS].right.sum()) for r in runs)
    cells = by_cell(runs)
    assert set(cells) == set(SIZES)
    assert cells[SMALL].right == tuple(int(r.marks[SMALL].right.sum()) for r in runs)


@pytest.mark.parametrize(
    ("right", "median"),
    [((10, 20), "15.0"), ((10, 20, 30, 90), "25.0"), ((97, 98), "97.5"), ((5, 9, 1), "5.0")],
)
def test_the_median_of_an_even_number_is_the_mean_of_the_two_in_the_middle(right, median):
    runs = [scored(f"r{i}", i, {PLAIN: np.arange(100) < n}) for i, n in enumerate(right)]
    assert held_out(runs).median == statistics.median(n / 100 for n in right)
    assert f"median {median} %" in headline(runs)


def test_one_run_has_no_deviation():
    assert Spread(10, (9,)).deviation is None
    assert Spread(10, (9, 9)).deviation == 0


def test_headline_rounds_nothing_up_to_100():
    right = np.ones(20_000, bool)
    wrong = right.copy()
    wrong[0] = False
    runs = [scored("a", 7, {PLAIN: right}), scored("b", 3, {PLAIN: wrong})]
    text = "median 99.99 %, worst 99.99 % of 20,000 held-out problems, 2 runs (seeds 7, 3)"
    assert headline(runs) == text
    assert headline(runs[:1]) == "100 % of 20,000 held-out problems, 1 run (seed 7)"


# The interval.


def counts(both: int, a: int, b: int, neither: int) -> tuple[list, list]:
    """One cell, one run a side, with so many problems solved by both, by one alone, by none."""
    mine = [True] * both + [True] * a + [False] * b + [False] * neither
    other = [True] * both + [False] * a + [True] * b + [False] * neither
    return [np.array([mine])], [np.array([other])]


def test_one_cell_and_one_run_a_side_is_bonett_and_price():
    """The worked example of ci.prop.ps(.05, 12, 4, 26, 6) of the R package statpsych 1.8."""
    result = difference(*counts(6, 26, 4, 12))
    assert (result.low, result.high) == pytest.approx((0.2548067, 0.6251933), abs=1e-7)
    assert result.difference == pytest.approx(22 / 48)
    assert (result.n, result.cells) == (48, 1) and result.significant


@pytest.mark.parametrize("table", [(1, 1, 7, 12), (59, 6, 16, 80), (0, 0, 0, 9), (5, 0, 0, 0)])
def test_one_run_a_side_is_the_published_formula(table):
    """Bonett and Price 2012, from the counts that only one side solved."""
    both, a, b, neither = table
    n = sum(table)
    p, q = (a + 1) / (n + 2), (b + 1) / (n + 2)
    half = 1.959963984540054 * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    result = difference(*counts(*table))
    assert result.low == pytest.approx(max(-1, p - q - half))
    assert result.high == pytest.approx(min(1, p - q + half))


def test_no_error_at_all_still_leaves_room():
    result = difference(*counts(1000, 0, 0, 0))
    assert result.difference == 0
    assert result.low == pytest.approx(-result.high) and 0.002 < result.high < 0.004


def test_swapping_the_sides_turns_the_sign():
    rng = np.random.default_rng(0)
    a, b = ([rng.random((runs, n)) < 0.8 for n in (50, 200)] for runs in (3, 2))
    there, back = difference(a, b), difference(b, a)
    assert there.difference == -back.difference
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low))


def test_each_cell_weighs_the_same_however_many_problems_it_has():
    a = [np.array([[1, 1, 1, 0]], bool), np.ones((1, 1000), bool)]
    b = [np.zeros((1, 4), bool), np.ones((1, 1000), bool)]
    assert difference(a, b).difference == pytest.approx((0.75 + 0) / 2)


def test_luck_that_both_sides_share_cancels():
    """Hard problems are hard for both: pairing must see that."""
    rng = np.random.default_rng(0)
    hard = rng.random(2000) < 0.5
    a = [np.array([~hard | (rng.random(2000) < 0.02)])]
    b = [np.array([~hard])]
    shuffled = [rng.permutation(b[0], axis=1)]
    paired, unpaired = difference(a, b), difference(a, shuffled)
    assert paired.high - paired.low < 0.35 * (unpaired.high - unpaired.low)


@pytest.mark.parametrize(
    ("freedom", "value"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (4, 2.7764), (10, 2.2281), (30, 2.0423),
     (120, 1.9799), (math.inf, 1.9600)],
)  # fmt: skip
def test_student_quantiles_are_those_of_printed_tables(freedom, value):
    assert student(0.975, freedom) == pytest.approx(value, abs=1e-4)


def test_with_endless_problems_it_is_welch_s_interval_of_the_runs():
    """Runs of 0.70, 0.75, 0.80 against 0.50, 0.55, 0.60: 4 degrees of freedom, t = 2.7764."""
    n = 100_000
    sides = [
        [np.array([np.arange(n) < share * n for share in shares])] * 2  # two cells
        for shares in ((0.70, 0.75, 0.80), (0.50, 0.55, 0.60))
    ]
    result = difference(*sides)
    half = 2.7764 * math.sqrt(2 * 0.05**2 / 3)
    assert (result.low, result.high) == pytest.approx((0.2 - half, 0.2 + half), rel=5e-3)


def coverage(
    a_runs: int, b_runs: int, spread: float, times: int = 400, paired: bool = True
) -> float:
    """How often the interval holds the true difference, over fresh problems and fresh runs.

    Problems are solved with a chance of 0.95 or 0.55, by B with 0.95 of that; each run with so much
    of it as its own skill allows, which is 0.85 on average, with standard deviation `spread`.
    """
    rng = np.random.default_rng([a_runs, b_runs, int(100 * spread)])
    truth = 0.75 * (1 - 0.95) * 0.85
    hits = 0
    for _ in range(times):
        sides: tuple[list, list] = ([], [])
        skills = [rng.normal(0.85, spread, (runs, 1)) for runs in (a_runs, b_runs)]
        for n in (60, 150, 300):
            chances = np.where(rng.random(n) < 0.5, 0.95, 0.55)
            for side, factor, skill in zip(sides, (1, 0.95), skills, strict=True):
                side.append(rng.random((len(skill), n)) < factor * skill * chances)
        result = difference(*sides, paired=paired)
        hits += result.low <= truth <= result.high
    return hits / times


NOISE = 3 * math.sqrt(0.95 * 0.05 / 400)  # three standard errors of a simulated coverage


@pytest.mark.parametrize(
    ("a_runs", "b_runs", "spread"), [(3, 3, 0.05), (5, 3, 0.05), (2, 2, 0.05), (3, 3, 0), (1, 1, 0)]
)
def test_the_interval_holds_the_truth_as_often_as_it_says(a_runs, b_runs, spread):
    share = coverage(a_runs, b_runs, spread)
    assert share > 0.95 - NOISE
    if a_runs == b_runs == 1:
        assert share < 0.95 + NOISE  # exact here; elsewhere it may be on the safe side


@pytest.mark.parametrize(("a_runs", "b_runs"), [(3, 3), (1, 1)])
def test_the_interval_of_counts_is_on_the_safe_side(a_runs, b_runs):
    assert coverage(a_runs, b_runs, 0, paired=False) > 0.95 - NOISE


def test_the_interval_of_counts_of_one_cell_is_that_of_two_samples():
    """At large n it is the plain formula, 1.96 sqrt(p q / n + p q / n)."""
    n = 40_000
    a, b = ([np.array([np.arange(n) < share * n])] for share in (0.8, 0.6))
    result = difference(a, b, paired=False)
    half = 1.96 * math.sqrt((0.16 + 0.24) / n)
    assert (result.low, result.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-4)
    assert difference(a, b).high - difference(a, b).low < 1.9 * half  # nested: paired is narrower


def test_one_run_a_side_cannot_know_how_seeds_differ():
    """Which is why the output says so: the interval then holds the truth far less often."""
    assert coverage(1, 1, 0.05) < 0.85


# Groups of runs.


def test_compare_uses_held_out_cells_and_says_what_it_cannot_know():
    rng = np.random.default_rng(3)
    a, b = group("a", [0.9, 0.8], rng), group("b", [0.6], rng)
    result = compare(a, b)
    assert set(result.cells) == {PLAIN, CHAIN, MINUS}

    def mean(runs, cell):
        return statistics.mean(run.marks[cell].right.mean() for run in runs)

    gaps = {cell: mean(a, cell) - mean(b, cell) for cell in result.cells}
    assert result.cells[CHAIN].difference == pytest.approx(gaps[CHAIN])
    assert result.overall.difference == pytest.approx((gaps[PLAIN] + gaps[MINUS]) / 2)
    assert result.ops["-"].difference == pytest.approx(gaps[MINUS])
    assert result.special.difference == pytest.approx(gaps[CHAIN])
    assert result.overall.n == 650
    assert result.caveat().startswith("B has one run")
    assert compare(a, a[:1] + b).caveat() == ""
    assert compare(a[:1], b).caveat().startswith("A and B have one run each")


def test_problems_that_differ_are_refused():
    right = np.ones(5, bool)
    a = scored("a", 0, {PLAIN: right})
    other = Scored("b", 0, a.rows, {PLAIN: Marks(right, "another digest")})
    with pytest.raises(ValueError, match=r"a and b .* different problems .*3\+3 all: 5 and 5"):
        compare([a], [other])
    with pytest.raises(ValueError, match=r"3\+3 carry:2: 0 and 5"):
        check_same([a, scored("c", 0, {PLAIN: right, CHAIN: right})])
    with pytest.raises(ValueError, match="evaluation seeds 0 and 1"):
        check_same([Scored("d", 0, a.rows, None, 0), Scored("e", 0, a.rows, None, 1)])
    check_same([Scored("d", 0, a.rows, None, 0), Scored("e", 0, a.rows, None, None)])


def test_nothing_to_compare_is_refused():
    right = np.ones(5, bool)
    half = scored("a", 0, {PLAIN: right}, marked=False)
    assert not compare([half], [scored("b", 0, {PLAIN: right})]).paired
    with pytest.raises(ValueError, match="no held-out problems to compare"):
        compare([scored("a", 0, {SMALL: right})], [scored("b", 0, {SMALL: right})])
