"""What docs/explained.md says of the adder of 31 parameters, held against interventions in all
contexts that a slot can be in; and its figure.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.interpret import plane as found_in
from addgpt.interpret.contexts import Contexts, logits_in
from addgpt.interpret.subject import subject
from addgpt.runs.run import Run
from analysis import plane
from analysis.plane import angle
from tests.helpers.explained import Third, array, number, numbers, row, section

pytestmark = pytest.mark.slow

TITLE = "31 parameters on a plane"
TEXT = section(TITLE)
END, ONE = 15, 1


class Plane(Third):
    """The model in three lines, as the page has it."""

    def __init__(self) -> None:
        super().__init__("smallest-31")
        self.up, self.down = (
            array(some.weight) for some in (self.block.mlp.up, self.block.mlp.down)
        )
        own, before = np.exp(array(self.biases)[0].astype(float))
        self.weigh = {0: own, 1: before, None: 1.0}  # the last bias is 0
        self.top = [some for some in self.every if some.values("a", 0) is None]

    def shares(self, some: Contexts, counts: float = 0) -> np.ndarray:
        """Attention, where a digit counts so many times as much as one of the column before."""
        weigh = self.weigh | ({1: self.weigh[0] / counts} if counts else {})
        found = np.array([weigh[before] for _, before in some.seen])
        return found / found.sum()

    def x(self, some: Contexts, written=None, counts: float = 0) -> np.ndarray:
        """(N, 2) between attention and MLP."""
        adds = (self.written if written is None else written)[some.tokens]  # (N, R, 2)
        return self.token[some.tokens[:, -1]] + np.einsum(
            "r,nrc->nc", self.shares(some, counts), adds
        )

    def pushed(self, x: np.ndarray, off: int | None = None) -> np.ndarray:
        """(N, 2) what the four units add, or three of them."""
        hidden = np.square(np.maximum(x @ self.up.T, 0))
        if off is not None:
            hidden[:, off] = 0
        return hidden @ self.down.T

    def wins(self, y: np.ndarray) -> np.ndarray:
        return (y @ self.token.T + array(self.of.model.unused)).argmax(1)

    def next(self, x: np.ndarray) -> np.ndarray:
        return self.wins(x + self.pushed(x))

    def hits(self, change=lambda x: x, **options) -> list[np.ndarray]:
        return [self.next(change(self.x(some, **options))) == some.right for some in self.every]


@pytest.fixture(scope="module")
def third() -> Plane:
    return Plane()


def told(pattern: str) -> list[float]:
    """The numbers in the only place of the page that looks like it, `#` for each."""
    found = re.findall(re.escape(pattern).replace(r"\#", r"(-?[\d,.]*\d)"), " ".join(TEXT.split()))
    assert len(found) == 1, pattern
    values = found[0] if isinstance(found[0], tuple) else found
    return [float(value.replace(",", "")) for value in values]


def total(hits: list[np.ndarray]) -> int:
    return sum(int(some.sum()) for some in hits)


def test_the_three_lines_are_the_model_that_is_proved(third):
    run = Run(third.folder)
    assert run.proved() and run.model().parameter_count() == 31
    assert third.size == total(third.hits()) == 30_399
    assert len(third.all.tokens) == 20_000
    some = third.all.some(np.arange(0, 20_000, 97))
    x = third.x(some)
    logits = (x + third.pushed(x)) @ third.token.T + array(third.of.model.unused)
    np.testing.assert_allclose(logits_in(some, third.of), logits, rtol=1e-4, atol=0.05)


def test_each_digit_of_the_column_counts_ten_times_as_much(third):
    shares = 100 * third.shares(third.all)
    own, before, signs = told(
        "column gets # % of it, each of the three digits of the column before # %, `+` and `=` # %"
    )
    wanted = [{0: own, 1: before, None: signs}[apart] for _, apart in third.all.seen]
    np.testing.assert_allclose(shares, wanted, atol=0.05)
    assert told("count ten times (#)")[0] == pytest.approx(
        third.weigh[0] / third.weigh[1], abs=0.05
    )
    for counts, right in zip(
        row(TEXT, "a digit counts"), row(TEXT, "right of 30,399"), strict=True
    ):
        found = total(third.hits(counts=float(counts)))
        assert found == pytest.approx(int(right.replace(",", "")), abs=3), counts


def test_what_digits_add_is_a_straight_ladder(third):
    digits, along = np.arange(10), third.direction[:2]
    found = third.written[:10] @ along
    slope, start = np.polyfit(digits, found, 1)
    assert told("`# d - #`") == [pytest.approx(slope, abs=0.005), pytest.approx(-start, abs=0.05)]
    left = found - np.polyval((slope, start), digits)
    assert told("(R² = #)")[0] == pytest.approx(1 - left.var() / found.var(), abs=5e-5)
    straight = third.written.astype(float)
    line = np.polyfit(digits, straight[:10], 1)
    straight[:10] = np.outer(digits, line[0]) + line[1]
    (right,) = told("on a straight line # of 30,399 stay right")
    assert total(third.hits(written=straight)) == pytest.approx(right, abs=5)


def test_a_number_stands_along_a_line(third):
    found = third.along(third.stream)
    weights, *_ = np.linalg.lstsq(np.c_[third.parts, np.ones(len(found))], found, rcond=None)
    np.testing.assert_allclose(weights, [1, 1, 0.098, 0.098, -0.095, 0.04], atol=0.005)
    assert "1.000 (a + b)  +  0.098 (a' + b')  -  0.095 t'  +  0.04" in TEXT
    assert np.abs(found - third.number).max() < told("carry**, within #:")[0]
    spread = np.linalg.svd(third.stream - third.stream.mean(0), compute_uv=False) ** 2
    (share,) = told("and # % of how they vary")
    assert 100 * spread[0] / spread.sum() == pytest.approx(share, abs=0.05)


def test_the_carry_is_a_step_to_the_next_row(third):
    carried = third.parts[:, :2].sum(1) < third.number
    before = third.written[third.all.tokens] * third.shares(third.all)[:, None]
    there = [apart == 1 for _, apart in third.all.seen]
    adds = before[:, there].sum(1) + third.token[third.all.tokens[:, -1]]
    found = adds @ third.direction[:2]
    without, with_ = told("between # and # without a carry"), told("and between # and # with one")
    for limits, some in ((without, found[~carried]), (with_, found[carried])):
        np.testing.assert_allclose(limits, (some.min(), some.max()), atol=0.01)
    step = np.where(carried, -1, 1)
    moved = third.stream + third.means[third.number + step] - third.means[third.number]
    np.testing.assert_array_equal(third.next(moved), (third.number + step) % 10)


def test_the_figure_shows_the_model(third, tmp_path):
    files = [tmp_path / "plane.csv", tmp_path / "plane.png"]
    words = ["inspect", str(third.folder), "--plane"]
    words += [word for file in files for word in ("--out", str(file))]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert "161.2 to 164.1  160.8 to 250.0" in done.stdout.splitlines()[20]
    assert files[1].stat().st_size > 50_000
    table = pd.read_csv(files[0])
    assert len(table) == 13 + 11 + 5 + 4 + 2 * (20_000 + 299)
    np.testing.assert_allclose(plane.means(table, "before"), third.means, atol=1e-3)
    names, after = plane.part(table, "after")
    x = np.concatenate([third.stream, *map(third.x, third.top)])
    np.testing.assert_allclose(after, x + third.pushed(x), rtol=1e-3, atol=0.05)
    assert set(names[20_000:]) == {plane.END, plane.ONE}
    a, b, a1, b1, written = found_in.SUM
    (at,) = np.flatnonzero((third.parts == (a, b, a1, b1, written)).all(1))
    np.testing.assert_allclose(plane.part(table, "sum")[1][-1], third.stream[at], atol=1e-3)
    with pytest.raises(UsageError, match="a plane is drawn of task add, width=2"):
        found_in.plane(subject(str(third.folder.parent / "smallest")))


def test_sectors(third):
    letters = third.of.task.alphabet
    tokens = [("token", name, *third.token[letters.index(name)]) for name in "#+=9876543210"]
    table = pd.DataFrame(tokens, columns=["part", "name", "x", "y"])
    found = {name: ends for name, *ends in plane.sectors(table)}
    assert list(found) == [*"0123456789", "=", "+", "#"]
    widths = [found[str(digit)][1] - found[str(digit)][0] for digit in range(9)]
    (width, start), (end,) = told("sectors of #° from #° on"), told("has more, up to #°")
    np.testing.assert_allclose(widths[1:], width, atol=0.06)
    assert found["0"][0] == pytest.approx(start, abs=0.05)
    assert found["9"][1] == pytest.approx(end, abs=0.05)
    turn = np.radians([at for ends in found.values() for at in (ends[0] + 0.1, ends[1] - 0.1)])
    winners = third.wins(7 * np.c_[np.cos(turn), np.sin(turn)])
    assert winners.tolist() == [letters.index(name) for name in found for _ in range(2)]


@pytest.mark.parametrize("unit", range(4))
def test_units(third, unit):
    work, push, kept = row(TEXT, str(unit))
    assert third.at_work(unit) == numbers(work)
    assert angle(third.down[:, [unit]].T)[0] == pytest.approx(
        float(push.rstrip("°")) % 360, abs=0.5
    )
    y = third.stream + third.pushed(third.stream, off=unit)
    assert third.mostly(third.wins(y) == third.all.right) == numbers(kept)
    crossing = third.means @ third.up[unit]
    assert set(np.flatnonzero(np.diff(np.sign(crossing)))) <= {7, 8, 9, 10}


def signed(points: np.ndarray) -> np.ndarray:
    """Angles from -180 to 180."""
    return (angle(points) + 180) % 360 - 180


def test_angles_before_and_after(third):
    before, after = signed(third.stream), angle(third.stream + third.pushed(third.stream))
    lines = [line for line in TEXT.splitlines() if re.match(r"\| (before|after|to)\b", line)]
    cells = [[float(cell) for cell in line.strip("|").split("|")[1:]] for line in lines]
    columns = [line for line in TEXT.splitlines() if line.startswith("| a + b + carry |")]
    for at, k in enumerate(int(cell) for cell in columns[0].strip("|").split("|")[1:]):
        some = third.number == k
        wanted = [
            value for found in (before, after) for value in (found[some].min(), found[some].max())
        ]
        np.testing.assert_allclose([line[at] for line in cells], wanted, atol=0.06)


def test_only_at_8_and_9_more_than_the_direction_counts(third):
    wrong = third.wins(third.pushed(third.stream)) != third.all.right
    late = np.isin(third.number, (8, 9))
    assert wrong[late].all()
    assert third.wins(third.pushed(third.stream[late])).max() == 7
    others = told("and # of the other #.")
    assert [wrong[~late].sum(), (~late).sum()] == others
    right = third.next(2 * third.stream) == third.all.right
    assert told("before the MLP: # stay right") == [right.sum()]
    assert right[~late].all()


def test_in_front_of_the_highest_digits_only_the_direction_is_right(third):
    x, right = (
        np.concatenate(some)
        for some in zip(*((third.x(some), some.right) for some in third.top), strict=True)
    )
    assert len(x) == 299 and set(right) == {ONE, END}
    found = signed(x)
    for limits, token in (
        (told("at #° to #°, where a + b"), ONE),
        (told("lie at #° to #°, short"), END),
    ):
        some = found[right == token]
        np.testing.assert_allclose(limits, (some.min(), some.max()), atol=0.06)
    ones = signed(third.stream[third.number == 1])
    assert ones.min() - 0.1 < found[right == ONE].min() and found[right == ONE].max() < ones.max()
    radius = np.hypot(*third.stream[third.number == 1].T).min()
    assert np.hypot(*x[right == ONE].T).max() < radius / 2
    (begins,) = told("where 0 begins (#°)")
    turn = np.radians([begins - 0.1, begins + 0.1])
    edge = third.next(40 * np.c_[np.cos(turn), np.sin(turn)])
    assert edge.tolist() == [END, 0]
    assert all((third.next(far * x) == right).all() for far in (1, 2, 4))


def test_the_ones_have_a_longer_ladder(third):
    (ones,) = [some for some in third.every if some.values("a", 1) is None and len(some.seen) == 4]
    assert told("each of their digits gets # %")[0] == pytest.approx(
        100 * third.shares(ones)[0], abs=0.05
    )
    found = third.along(third.x(ones))
    slope, start = np.polyfit(number(ones), found, 1)
    assert told("`# (a + b) - #`, within #") == [
        pytest.approx(slope, abs=0.006),
        pytest.approx(-start, abs=0.006),
        pytest.approx(np.abs(found - np.polyval((slope, start), number(ones))).max(), abs=0.006),
    ]
