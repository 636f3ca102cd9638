"""What docs/explained.md says of the smallest adder, held against interventions in sums.

Slots are those of the third to the second-highest column of sums of eight digits.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import addgpt
from addgpt.interpret.edits import Edit, knock_out
from addgpt.interpret.sample import Sample, collected, hits, logits, of_batch
from addgpt.interpret.subject import Subject, subject
from addgpt.task import Cell
from addgpt.task_lookup import load_task
from tests.helpers.explained import numbers, section

SMALLEST = Path(addgpt.__file__).parent / "pretrained" / "smallest"
DIGITS = 8
TEXT = section("The adder of 184 parameters").splitlines()
LIMITS = ("lowest", "highest")
EQUALS = 2 * DIGITS + 1  # the place of the token `=`, which the ones are written after


class Sums:
    """Sums of eight digits, and what stands in their columns, lowest first."""

    def __init__(self) -> None:
        self.of = Subject(subject(str(SMALLEST)).model, load_task("add", {"digits": DIGITS}))
        rng = np.random.default_rng(0)
        cells = [Cell("+", DIGITS, DIGITS, name) for name in ("all", "carry:3", "carry:5")]
        batches = [self.of.task.batch(rng, 150, "test", cell) for cell in cells]
        self.some: Sample = of_batch(self.of, type(batches[0]).stacked(batches, 15))
        operands = np.array([problem.operands for problem in self.some.batch.problems])
        powers = 10 ** np.arange(DIGITS + 1)
        self.both = (operands[:, :, None] // powers % 10).sum(1)  # (B, 9) a + b
        self.total = operands.sum(1)[:, None] // powers % 10
        self.number = np.where(self.both % 10 == self.total, self.both, self.both + 1)
        self.columns = np.arange(2, DIGITS - 1)
        self.slots = EQUALS + self.columns

    def middle(self, x: np.ndarray) -> np.ndarray:
        return x[:, self.columns]

    def stream(self, name: str) -> np.ndarray:
        """(B, 5, 4) what passes in the slots of the middle."""
        scored = self.some.scored
        full = np.zeros((*scored.shape, 4), np.float32)
        full[scored] = collected(self.of, self.some, [name])[name]
        return full[:, self.slots]

    def right(self, *edits: Edit) -> np.ndarray:
        return hits(self.of, self.some, edits)[:, self.slots]


@pytest.fixture(scope="module")
def sums() -> Sums:
    return Sums()


def test_it_is_small_and_adds_more_digits_than_it_was_trained_on(sums):
    assert sums.of.model.parameter_count() == 184
    assert hits(sums.of, sums.some).all()


def test_a_digit_is_a_number(sums):
    block, token = sums.of.model.blocks[0], sums.of.model.token.matrix()
    values = (token @ block.attention.value.weight[0].T).detach().numpy()[:, 1]
    line = np.polyfit(np.arange(10), values[:10], 1)
    told = np.polyval(line, np.arange(10))
    np.testing.assert_allclose(line, (1.13, 0.10), atol=0.01)
    assert np.square(values[:10] - told).sum() < 5e-4 * np.square(values[:10] - told.mean()).sum()
    given = np.where(np.arange(len(values)) < 10, np.resize(told, len(values)), values)
    kept = []

    def keep(name, x):
        if name == "value.0":
            kept.append(x.numpy().copy())

    logits(sums.of, sums.some, (), keep)
    kept[0][:, 0, :, 1] = given[sums.some.tokens.numpy()]
    assert sums.right(Edit("value.0", kept[0])).mean() > 0.998


def test_the_column_before_counts_a_tenth_and_nothing_else_is_needed(sums):
    table = np.exp(sums.of.model.positions.relative.table.detach().numpy()[0])
    np.testing.assert_allclose(table[:, 4] / table[:, 5], (11.2, 9.8), atol=0.1)
    ids = sums.some.ids.numpy()[:, :, 0]
    slots, keys = ids[:, 1:, None], ids[:, None, :-1]
    far = (keys > 0) & ((slots - keys > 1) | (slots < keys))
    assert far.any() and sums.right(knock_out(0, keys=far)).all()


def test_one_number_stands_in_the_stream(sums):
    x, wanted = sums.stream("mid.0").reshape(-1, 4), sums.middle(sums.number).ravel()
    x = np.c_[x, np.ones(len(x))]
    direction = np.linalg.lstsq(x[::2], wanted[::2], rcond=None)[0]
    found = x @ direction
    assert np.abs(found - wanted)[1::2].max() < 0.3
    own, before, last = (
        part[:, sums.columns - shift].ravel()
        for part, shift in ((sums.both, 0), (sums.both, 1), (sums.total, 1))
    )
    parts = np.c_[own, before, last, np.ones(len(own))]
    weights = np.linalg.lstsq(parts, found, rcond=None)[0]
    np.testing.assert_allclose(weights[:3], (1, 0.1, -0.1), atol=0.01)


def test_that_number_decides_what_is_written(sums):
    stream, before = sums.stream("mid.0"), sums.stream("before.0")
    number = sums.middle(sums.number)
    for told in range(20):
        value = np.zeros((*sums.some.tokens.shape, 4), np.float32)
        value[:, sums.slots] = stream[number == told].mean(0) - before
        edit = Edit("attention.0", value, tokens=sums.slots)
        best = logits(sums.of, sums.some, (edit,)).argmax(-1).numpy()[:, sums.slots]
        assert (best == told % 10).all(), told


@pytest.mark.parametrize("unit", range(8))
def test_units_bend_the_line_on_one_side_of_a_threshold(sums, unit):
    """When each is at work, and which sums come out right in more than half of the cases without
    it, as the table of the page says."""
    (row,) = [line for line in TEXT if line.startswith(f"| {unit} |")]
    _, _, work, kept, _ = row.replace("*", "").split("|")
    mlp, number = sums.of.model.blocks[0].mlp, sums.middle(sums.number)
    threshold = sums.stream("mid.0") @ mlp.up.weight.detach().numpy()[unit]
    at_work = {k for k in range(20) if (threshold[number == k] > 0).mean() > 0.9}
    assert at_work == numbers(work)
    whole = mlp.down.weight.detach().clone()
    mlp.down.weight.data[:, unit] = 0
    right = sums.right()
    mlp.down.weight.data.copy_(whole)
    assert {k for k in range(20) if right[number == k].mean() > 0.5} == numbers(kept)


def test_the_lowest_and_the_highest_of_the_number(sums):
    """The page has them of ten times as many sums: here they are within, and not far inside."""
    x, wanted = sums.stream("mid.0").reshape(-1, 4), sums.middle(sums.number).ravel()
    x = np.c_[x, np.ones(len(x))]
    found = x @ np.linalg.lstsq(x, wanted, rcond=None)[0]
    table = [line.strip("|").split("|") for line in TEXT if line.startswith("| ")]
    (head,) = [row for row in table if row[0].strip() == "a + b + carry"]
    low, high = (next(row for row in table if row[0].strip() == name) for name in LIMITS)
    for at in range(1, len(head)):
        some = found[wanted == int(head[at])]
        assert float(low[at]) - 0.05 <= some.min() <= some.max() <= float(high[at]) + 0.05
        assert some.max() - some.min() > 0.2 * (float(high[at]) - float(low[at]))


def test_it_adds_ten_digits():
    of = Subject(subject(str(SMALLEST)).model, load_task("add", {"digits": 10}))
    batch = of.task.batch(np.random.default_rng(1), 500, "test", Cell("+", 10, 10))
    assert hits(of, of_batch(of, batch)).all()
