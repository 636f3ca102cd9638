"""What docs/explained.md says of the adder of 96 parameters, held against interventions in all
contexts that a slot can be in.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

import addgpt
from addgpt.interpret.contexts import Contexts, activation_in, contexts, logits_in
from addgpt.interpret.edits import Edit
from addgpt.interpret.subject import subject
from addgpt.runs.run import Run
from tests.helpers.pages import numbers

pytestmark = pytest.mark.slow

PROVED = Path(addgpt.__file__).parent / "pretrained" / "smallest-proved"
OWN, BEFORE, SIGNS = range(3)  # biases
COLUMNS = (("a", 0), ("b", 0), ("a", 1), ("b", 1), ("total", 1))


class Third:
    """The contexts of a third column, and what stands there."""

    def __init__(self) -> None:
        self.of = subject(str(PROVED))
        self.every = contexts(self.of)
        self.size = sum(len(some.tokens) for some in self.every)
        self.all = self.every[0]
        model = self.of.model
        self.block, self.biases = model.blocks[0], model.positions.relative.table
        self.token = array(model.token.matrix())  # (V, 3)
        self.written = self.token @ array(self.block.attention.value.weight[0]).T
        self.written = self.written @ array(self.block.attention.out.weight).T  # by full weight
        self.parts = np.array([self.all.values(*where) for where in COLUMNS]).T
        self.number = number(self.all)
        self.stream = activation_in(self.all, self.of, "mid.0")[:, 0]
        x = np.c_[self.stream, np.ones(len(self.stream))]
        self.direction = np.linalg.lstsq(x, self.number, rcond=None)[0]
        self.means = np.array([self.stream[self.number == k].mean(0) for k in range(20)])

    def along(self, stream: np.ndarray) -> np.ndarray:
        """The number that stands in a stream (..., 3)."""
        return stream @ self.direction[:3] + self.direction[3]

    def writes(self, stream: np.ndarray) -> np.ndarray:
        """What a slot writes with a stream (..., 3) between attention and MLP."""
        with torch.no_grad():
            x = torch.from_numpy(stream.astype(np.float32))
            y = array(x + self.block.mlp(x)) @ self.token.T
        return (y + array(self.of.model.unused)).argmax(-1)

    def right(self, edit=lambda some: ()) -> list[np.ndarray]:
        """Which of all contexts are right."""
        return [
            logits_in(some, self.of, edit(some)).argmax(-1) == some.right for some in self.every
        ]

    def count(self, edit=lambda some: ()) -> int:
        return sum(int(some.sum()) for some in self.right(edit))

    def valued(self, written: np.ndarray):
        """Edits in which tokens say what writes (V, 3)."""
        out = array(self.block.attention.out.weight)
        values = np.linalg.solve(out.astype(float), written.T).T

        def edit(some: Contexts) -> list[Edit]:
            text = np.zeros((len(some.tokens), 2 * some.tokens.shape[1] - 1), int)
            text[:, ::2] = some.tokens
            return [Edit("value.0", values[text][:, None].astype(np.float32))]

        return edit


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def number(some: Contexts) -> np.ndarray:
    """a + b + carry."""
    both = some.values("a", 0) + some.values("b", 0)
    return np.where(both % 10 == some.right, both, both + 1)


@pytest.fixture(scope="module")
def third() -> Third:
    return Third()


def section() -> str:
    page = (Path(__file__).parents[1] / "docs" / "explained.md").read_text(encoding="utf-8")
    return page.split("\n## The smallest proved adder\n")[1].split("\n## ")[0]


def row(name: str) -> list[str]:
    """The cells of a table's row, without stars."""
    (line,) = [line for line in section().splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.replace("*", "").strip("|").split("|")][1:]


def test_it_is_the_model_that_is_proved(third):
    run = Run(PROVED)
    assert run.proved() and run.model().parameter_count() == 96
    assert third.size == third.count() == 30_399 and len(third.all.tokens) == 20_000


def test_a_column_counts_ten_times_as_much_as_the_one_before(third):
    weigh = np.exp(array(third.biases)[0].astype(float))
    assert weigh[OWN] / weigh[BEFORE] == pytest.approx(10.2, abs=0.05)
    shares = 100 * weigh / (weigh @ [2, 3, 2])
    told = [float(share) for share in re.findall(r"([\d.]+) %", section())][:3]
    np.testing.assert_allclose(told, shares, atol=0.05)
    kept = third.biases.detach().clone()
    try:
        for ratio, told in zip(row("a digit counts"), row("right of 30,399"), strict=True):
            third.biases.data[0, BEFORE] = kept[0, OWN] - np.log(float(ratio))
            assert third.count() == pytest.approx(int(told.replace(",", "")), abs=3), ratio
    finally:
        third.biases.data.copy_(kept)


def test_what_a_digit_writes_is_a_straight_line(third):
    digits = np.arange(10)
    found = third.written[:10] @ third.direction[:3]
    slope, start = np.polyfit(digits, found, 1)
    left = found - np.polyval((slope, start), digits)
    assert (slope, start) == (pytest.approx(4.42, abs=0.01), pytest.approx(-13.06, abs=0.02))
    assert 1 - left.var() / found.var() > 0.9999
    own = np.polyfit(digits, third.token[:10] @ third.direction[:3], 1)[0]
    assert own == pytest.approx(-0.19, abs=0.005)
    straight, every = third.written.astype(float), third.written.astype(float)
    along = third.direction[:3] / np.square(third.direction[:3]).sum()
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
    for at, told in enumerate(row("a + b + carry")):
        some = found[third.number == int(told)]
        limits = [float(row(name)[at]) for name in ("lowest", "highest")]
        np.testing.assert_allclose(limits, (some.min(), some.max()), atol=0.01)


def test_the_number_decides_what_is_written(third):
    np.testing.assert_array_equal(third.writes(third.means), np.arange(20) % 10)
    carried = third.parts[:, :2].sum(1) < third.number
    number = third.number[carried]
    without = third.writes(third.stream[carried] + third.means[number - 1] - third.means[number])
    assert (without == (number - 1) % 10).mean() > 0.995
    for at, told in enumerate(row("a + b + carry")):  # where digits begin along the line of means
        k, (begin, end) = int(told), (row(name)[at] for name in ("begins at", "ends at"))
        for place, side in ((begin, 1), (end, -1)):
            if place != "-":
                inside, outside = float(place) + 0.01 * side, float(place) - 0.01 * side
                found = third.writes(np.array([on_line(third.means, x) for x in (inside, outside)]))
                assert found[0] == k % 10 != found[1]


def on_line(means: np.ndarray, at: float) -> np.ndarray:
    """The point of the broken line through the means of 0 to 19, its ends prolonged."""
    low = int(np.clip(np.floor(at), 0, 18))
    return means[low] + (at - low) * (means[low + 1] - means[low])


@pytest.mark.parametrize("unit", range(6))
def test_units_bend_the_line(third, unit):
    work, kept = row(str(unit))
    mlp = third.block.mlp
    threshold = third.stream @ array(mlp.up.weight)[unit]
    at_work = {k for k in range(20) if (threshold[third.number == k] > 0).mean() > 0.9}
    assert at_work == numbers(work)
    whole = mlp.down.weight.detach().clone()
    mlp.down.weight.data[:, unit] = 0
    right = third.right()
    mlp.down.weight.data.copy_(whole)
    by_number = {k for k in range(20) if right[0][third.number == k].mean() > 0.5}
    assert by_number == numbers(kept)
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
