"""What docs/explained.md says of the adder, held against interventions in contexts of sums.

Each claim is tested on contexts drawn from all those that a slot can be in where both columns have
their digits; the page gives the counts for all of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import addgpt
from addgpt.interpret.contexts import Contexts, activation_in, contexts, logits_in
from addgpt.interpret.edits import Edit, knock_out, zero
from addgpt.interpret.subject import Subject, subject
from addgpt.runs.run import Run

pytestmark = pytest.mark.slow

ADDER = Path(addgpt.__file__).parent / "pretrained" / "adder"
DRAWN = 1500
CARRY, COLUMN = 0, 1  # heads


class Tens:
    """Contexts in which both columns have their digits, and what stands there."""

    def __init__(self, of: Subject) -> None:
        self.of, self.every = of, contexts(of)
        self.all = self.every[0]
        values = [self.all.values(*where) for where in (("a", 0), ("b", 0), ("a", 1), ("b", 1))]
        self.a, self.b, self.a1, self.b1 = values
        self.t1 = self.all.values("total", 1)
        self.carry = np.array(  # by trying both of what the column before may have been carried
            [
                (x + y + received) // 10
                for x, y, t in zip(self.a1, self.b1, self.t1, strict=True)
                for received in (0, 1)
                if (x + y + received) % 10 == t
            ]
        )
        self.drawn = np.sort(np.random.default_rng(0).choice(len(self.a), DRAWN, replace=False))

    def like(self, carry: np.ndarray) -> np.ndarray:
        """For each drawn context another one with the same digits, but for the two of the column
        before, in which that column carries as said."""
        table: dict[tuple, list[int]] = {}
        keys = list(zip(self.a, self.b, self.t1, self.carry, strict=True))
        for row, key in enumerate(keys):
            table.setdefault(key, []).append(row)
        rng = np.random.default_rng(1)
        wanted = [(*keys[row][:3], c) for row, c in zip(self.drawn, carry, strict=True)]
        return np.array([rng.choice(table[key]) for key in wanted])

    def written(self, rows: np.ndarray, edits=()) -> np.ndarray:
        return logits_in(self.all.some(rows), self.of, edits).argmax(-1)

    def brought(self, rows: np.ndarray, heads: tuple[int, ...]) -> list[Edit]:
        """What heads find in other contexts."""
        found = activation_in(self.all.some(rows), self.of, "found.0")
        return [Edit("found.0", found, head, [-1]) for head in heads]


@pytest.fixture(scope="module")
def tens() -> Tens:
    return Tens(subject(str(ADDER)))


def test_it_is_the_model_that_is_proved():
    run = Run(ADDER)
    assert run.proved() and run.model().parameter_count() == 15_094


def test_the_last_digit_of_a_column_says_what_it_carries(tens):
    assert sum(len(some.tokens) for some in tens.every) == 36_399
    apart = tens.a1 + tens.b1 - tens.t1
    assert set(apart.tolist()) == {-1, 0, 9, 10}
    np.testing.assert_array_equal(apart >= 9, tens.carry == 1)


def test_one_head_looks_at_the_column_the_other_looks_back(tens):
    some = tens.all.some(tens.drawn)
    kept = []

    def keep(name, x):
        if name == "weights.0":
            kept.append(x[:, :, -1].numpy())

    logits_in(some, tens.of, (), keep)
    weights = np.concatenate(kept)
    here, before = (weights[:, :, some.at(apart)].sum(-1) for apart in (0, 1))
    assert here[:, COLUMN].mean() > 0.6 and before[:, COLUMN].mean() < 0.1
    assert before[:, CARRY].mean() > here[:, CARRY].mean() > 0.2


def test_without_what_the_head_says_of_the_column_before_exactly_sums_with_a_carry_break(tens):
    told = tens.like(np.zeros(DRAWN, int))
    best = tens.written(tens.drawn, tens.brought(told, (CARRY,)))
    right, carry = tens.all.right[tens.drawn].astype(int), tens.carry[tens.drawn] == 1
    np.testing.assert_array_equal(best[~carry], right[~carry])
    less = (right[carry] - 1) % 10
    assert (best[carry] == less).mean() > 0.98 and (best == right)[carry].mean() < 0.02
    best = tens.written(tens.drawn, tens.brought(told, (COLUMN,)))
    assert (best == right)[carry].mean() > 0.97  # the other head hardly says it
    best = tens.written(tens.drawn, tens.brought(told, (CARRY, COLUMN)))
    np.testing.assert_array_equal(best[carry], less)  # both together: all of them


def test_the_head_alone_brings_a_carry_that_is_not_there(tens):
    told = tens.like(1 - tens.carry[tens.drawn])
    best = tens.written(tens.drawn, tens.brought(told, (CARRY,)))
    assert (best == tens.all.right[told]).mean() > 0.98


def test_before_the_mlp_the_carry_is_on_one_side_of_a_plane(tens):
    half = DRAWN // 2
    streams = activation_in(tens.all.some(tens.drawn), tens.of, "mid.0")[:, 0]
    x = np.c_[streams, np.ones(DRAWN)]
    sides = 2 * tens.carry[tens.drawn] - 1
    plane = np.linalg.lstsq(x[:half], sides[:half], rcond=None)[0]
    assert ((x[half:] @ plane > 0) == (sides[half:] > 0)).mean() > 0.99


def test_the_head_of_the_column_adds_up_a_vector_for_each_digit(tens):
    found = activation_in(tens.all.some(tens.drawn), tens.of, "found.0")[:, COLUMN, 0]
    digits = [np.eye(10)[values[tens.drawn]] for values in (tens.a, tens.b)]
    x = np.c_[digits[0], digits[1]]
    left = found - x @ np.linalg.lstsq(x, found, rcond=None)[0]
    assert left.var(0).sum() < 0.05 * found.var(0).sum()


def test_the_page_says_how_much_each_head_looks_where(tens):
    kept = []

    def keep(name, x):
        if name == "weights.0":
            kept.append(x[:, :, -1].numpy())

    logits_in(tens.all.some(tens.drawn), tens.of, (), keep)
    weights = np.concatenate(kept).mean(0)
    names = {CARRY: "head 0, the **carry** head", COLUMN: "head 1, the **column** head"}
    for head, name in names.items():
        told = [int(share) for share in re.findall(r"(\d+) %", row_of_page(name))]
        found = [weights[head][tens.all.at(before)].sum() for before in (0, 1, None)]
        np.testing.assert_allclose(told, 100 * np.array(found), atol=1.5)


def test_the_page_says_what_the_parts_are_worth(tens):
    """Counts for all contexts, held against a sample."""

    def hidden(head, before):
        return lambda some: [knock_out(0, head, some.at(before), [-1])] if some.at(before) else []

    def zeros(head):
        return lambda some: [zero("found.0", head)]

    every = sum(len(some.tokens) for some in tens.every)
    rng = np.random.default_rng(2)
    sample = [some.some(np.flatnonzero(rng.random(len(some.tokens)) < 0.08)) for some in tens.every]
    size = sum(len(some.tokens) for some in sample)
    for name, edits in {
        "nothing": lambda some: [],
        "the column before, hidden from the column head": hidden(COLUMN, 1),
        "the column before, hidden from the carry head": hidden(CARRY, 1),
        "the carry head (zeros)": zeros(CARRY),
        "the own column, hidden from the carry head": hidden(CARRY, 0),
        "the column head (zeros)": zeros(COLUMN),
        "the own column, hidden from the column head": hidden(COLUMN, 0),
    }.items():
        told = int(row_of_page(name).split("|")[2].replace(",", "")) / every
        right = sum(
            int((logits_in(some, tens.of, edits(some)).argmax(-1) == some.right).sum())
            for some in sample
            if len(some.tokens)
        )
        assert abs(right / size - told) <= 4 * (told * (1 - told) / size) ** 0.5, (name, told)


def row_of_page(name: str) -> str:
    page = (Path(__file__).parents[1] / "docs" / "explained.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| {name} |")]
    return row


def test_the_mlp_makes_the_digit(tens):
    best = tens.written(tens.drawn, [zero("mlp.0")])
    assert (best == tens.all.right[tens.drawn]).mean() < 0.2


def test_a_context_alone_gives_what_the_whole_sum_gives(tens):
    from addgpt.interpret import activations

    found = activations(tens.of.model, "128+367", tens.of.task)
    some: Contexts = tens.all
    row = np.flatnonzero(
        (tens.a == 1) & (tens.b == 3) & (tens.a1 == 2) & (tens.b1 == 6) & (tens.t1 == 9)
    )
    there = found["logits"][9]  # of the slot of the hundreds
    assert len(row) == 1
    np.testing.assert_allclose(logits_in(some.some(row), tens.of)[0], there, atol=1e-3)


@pytest.mark.slow
def test_the_notebook_is_stored_with_its_outputs_and_runs():
    from tests.helpers.notebooks import check_notebook

    check_notebook("inside", 200)
