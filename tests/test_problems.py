"""Strata and evaluation sets: the problems drawn are the problems named."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.task import Cell
from addgpt.task_lookup import load_task
from tasks.common import problems

pytestmark = pytest.mark.slow

NEAR_POWERS = {10**k + d for k in range(80) for d in (-1, 0, 1)} - {0}
PREDICATES = {
    "all": lambda a, b: True,
    "equal": lambda a, b: a == b,
    "zeros": lambda a, b: any(2 * str(n).count("0") >= len(str(n)) for n in (a, b)),
    "nines": lambda a, b: any(set(str(n)) == {"9"} for n in (a, b)),
    "power": lambda a, b: bool({a, b} & NEAR_POWERS),
    "exact": lambda a, b: a % b == 0,
    "zero_quotient": lambda a, b: a < b,
    "zero_digit": lambda a, b: a >= b and "0" in str(a // b),
}
interesting = st.one_of(
    st.integers(0, 10**6),
    st.sampled_from(sorted(NEAR_POWERS)[:20]),
    st.sampled_from([0, 5, 10, 100, 1001, 2002, 99, 990, 999999, 12, 11, 2]),
)


@pytest.fixture(scope="session")
def belongs(carry_chain):
    """Whether a problem is of a stratum, by Python integers."""

    def check(stratum: str, op: str, a: int, b: int) -> bool:
        if stratum.startswith("carry:"):
            return carry_chain(a, b, op in "-/") == int(stratum[6:])
        return PREDICATES[stratum](a, b)

    return check


def special(task) -> list[Cell]:
    return [cell for cell in task.cells() if cell.stratum != "all"]


@given(st.lists(st.tuples(interesting, interesting.filter(bool)), min_size=1, max_size=8))
def test_strata_are_told_apart_as_defined(matrices, belongs, some):
    for op, name in (("+", "add"), ("-", "sub"), ("/", "div")):
        task = load_task(name)
        strata = ["all", *problems.EDGES, "carry:0", "carry:1", "carry:2"]
        strata += ["exact", "zero_digit", "zero_quotient"] if op == "/" else []
        for stratum in strata:
            found = task.belongs(stratum, *matrices(some)[:2])
            assert found.tolist() == [belongs(stratum, op, a, b) for a, b in some], stratum


@pytest.mark.parametrize("stratum", ["zero", "carry:", "carry:x", "carry:-1", "idle:", ""])
def test_an_unknown_stratum_lists_the_valid_ones(matrices, stratum):
    valid = "all, carry:K, idle:K, zeros, equal"
    with pytest.raises(ValueError, match=f"unknown stratum .*; valid: {valid}"):
        load_task("add").belongs(stratum, *matrices([(1, 2)])[:2])


def test_every_stratum_has_problems_that_belong_to_it(any_task, read_rows, belongs):
    for cell in special(any_task):
        split = "train" if any_task.seen(cell) else "test"
        rows = read_rows(
            any_task, any_task.evaluation_set(np.random.default_rng(3), 30, split, cell)
        )
        assert rows, cell
        for a, op, b, _ in rows:
            assert belongs(cell.stratum, op, a, b), (cell, a, b)
            assert (op, len(str(a)), len(str(b))) == cell[:3]


@pytest.mark.parametrize("name", ["add", "sub", "div"])
def test_strata_of_long_operands_can_be_filled(name, read_rows, belongs):
    task = load_task(name, {"digits": 12})
    for cell in special(task):
        rows = read_rows(task, task.evaluation_set(np.random.default_rng(0), 20, "test", cell))
        assert len(rows) >= 5, cell
        assert all(belongs(cell.stratum, op, a, b) for a, op, b, _ in rows)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_exam_holds_distinct_problems_of_its_cell(any_task, read_rows, split):
    for cell in any_task.cells()[5::6]:
        rows = read_rows(
            any_task, any_task.evaluation_set(np.random.default_rng(4), 60, split, cell)
        )
        assert len({row[:3] for row in rows}) == len(rows) <= 60 or any_task.seen(cell)
        assert {(op, len(str(a)), len(str(b))) for a, op, b, _ in rows} <= {cell[:3]}
        if cell.stratum == "all" and not any_task.seen(cell):
            assert len(rows) == 60


@pytest.mark.parametrize(("len_a", "len_b"), [(1, 1), (1, 2), (2, 1)])
def test_the_exam_of_a_seen_cell_is_exhaustive(any_task, read_rows, len_a, len_b):
    spans = [range(10) if n == 1 else range(10, 100) for n in (len_a, len_b)]
    for op in {cell.op for cell in any_task.cells()}:
        cell = Cell(op, len_a, len_b)
        batch = any_task.evaluation_set(np.random.default_rng(0), 5, "train", cell)
        rows = read_rows(any_task, batch)
        wanted = {(a, b) for a, b in itertools.product(*spans) if op != "/" or b}
        assert sorted((a, b) for a, _, b, _ in rows) == sorted(wanted)


@pytest.mark.parametrize("name", ["add", "sub"])
def test_the_carry_option_lengthens_the_chains_of_training_problems(name, read_rows, carry_chain):
    cell = Cell("+" if name == "add" else "-", 8, 8)
    means = []
    for share in (0.0, 0.5, 1.0):
        task = load_task(name, {"digits": 8, "carry": share, "edges": 0.0})
        rows = read_rows(task, task.batch(np.random.default_rng(5), 2000, "train", cell))
        means.append(np.mean([carry_chain(a, b, name == "sub") for a, _, b, _ in rows]))
    assert means[0] + 0.15 < means[1] < means[2] - 0.15, means


def test_the_edges_option_adds_edge_cases_to_training_problems(read_rows, belongs):
    shares = []
    for edges in (0.0, 0.4):
        task = load_task("add", {"digits": 8, "edges": edges, "carry": 0.0})
        rows = read_rows(task, task.batch(np.random.default_rng(6), 2000, "train", Cell("+", 8, 8)))
        hits = [any(belongs(s, "+", a, b) for s in problems.EDGES) for a, _, b, _ in rows]
        shares.append(np.mean(hits))
    assert shares[0] < 0.03 and 0.36 < shares[1] < 0.46


@pytest.mark.parametrize("share", [{"carry": 1.0}, {"edges": 1.0}])
def test_held_out_problems_are_drawn_evenly_whatever_training_does(binary, read_rows, share):
    task, plain = binary(digits=4, **share), binary(digits=4, carry=0.0, edges=0.0)
    drawn = [t.batch(np.random.default_rng(7), 200, "test").tokens for t in (task, plain)]
    assert (drawn[0] == drawn[1]).all()


def test_training_draws_exact_divisions_more_often_than_chance(read_rows):
    shares = []
    for edges in (0.0, 0.5):
        task = load_task("div", {"digits": 6, "edges": edges, "carry": 0.0})
        rows = read_rows(task, task.batch(np.random.default_rng(8), 2000, "train", Cell("/", 6, 3)))
        shares.append(np.mean([a % b == 0 for a, _, b, _ in rows]))
    assert shares[0] < 0.02 and shares[1] > 0.1
