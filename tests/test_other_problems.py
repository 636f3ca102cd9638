"""Figures and the report of problems that are not two operands of some lengths: of one operand,
of many, and of groups without lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import is_longer
from addgpt.task_lookup import load_task
from analysis import figures, load, seeds
from analysis.studies import ablation
from tests.helpers.report import page
from tests.helpers.run_folders import cell, write_run

SUMS = [(2, 1, 1), (2, 2, 20), (3, 2, 10), (3, 5, 4), (5, 2, 2)]  # operands, digits, right of 20


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """Sums of up to three numbers of up to two digits, and of more and longer ones."""
    cells = [cell("+", *size, 20) | {"seen": size == (2, 1), "answer_correct": right}
             for *size, right in SUMS for size in [tuple(size)]]  # fmt: skip
    cells = [one | {"n": 20} for one in cells]
    return write_run(tmp_path / "sums", {"operands": 3, "digits": 2}, "sum", cells=cells)


@pytest.fixture
def parity(tmp_path: Path) -> Path:
    cells = [cell("parity", bits, 0, 900 + bits) for bits in (8, 9, 10)]
    return write_run(tmp_path / "parity", {"bits": 10}, "parity", cells=cells)


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    cells = [cell("file", 0, 0, right, stratum=name) for name, right in (("odd", 9), ("even", 8))]
    return write_run(tmp_path / "file", {}, "file", cells=[one | {"seen": False} for one in cells])


@pytest.mark.parametrize(
    "name, options",
    [
        ("add", {"digits": 2, "far": (3,)}),
        ("sum", {"digits": 2, "operands": 3, "far": (5,)}),
        ("calc", {"digits": 2, "sum_digits": 5, "operands": 3, "far": (6,)}),
    ],
)
def test_cells_are_longer_where_training_draws_nothing_like_them(name: str, options: dict) -> None:
    task, rng = load_task(name, options), np.random.default_rng(0)
    for one in task.cells():
        split = "train" if task.seen(one) else "test"
        problems = task.evaluation_set(rng, 3, split, one).problems
        near = {task.in_train_range(problem) for problem in problems}
        assert near <= {not is_longer(one._asdict(), to_dict(task))}, one


def test_more_operands_than_digits_are_no_longer_problems(sums: Path) -> None:
    evals = load.evals(sums)
    assert evals["longer"].tolist() == [False, False, False, True, True]
    rows = page(sums).rows("Worst cell")
    assert rows["all held out 2 cells"][0].startswith("75.0 % 30 of 40")
    assert rows["a + b + … held out, longer than trained on 2 cells"] == [
        "15.0 % 6 of 40 7.0–29.0", "10.0 % 2 of 20 5 × 2 digits",
    ]  # fmt: skip
    scores = ablation._scores(evals).loc["sums"]
    assert (scores["n"], scores["far_n"]) == (40, 40)


def test_sums_are_drawn_by_the_number_of_their_operands(sums: Path) -> None:
    evals = load.evals(sums)
    for figure in (figures.accuracy_grid(evals), seeds.median_and_worst(evals)):
        axis = figure.axes[0]
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("length of each (digits)", "operands")
        assert axis.get_title().startswith("a + b + …")
    patches = figures.accuracy_grid(evals).axes[0].patches
    outline = next(patch for patch in patches if hasattr(patch, "get_width"))
    assert (outline.get_width(), outline.get_height()) == (2, 2)  # to two digits, three operands
    assert figures.diagonal(evals).empty


def test_problems_of_one_operand_are_a_line_by_its_length(parity: Path) -> None:
    evals = load.evals(parity)
    assert figures.grid(evals).empty
    (axis,) = figures.accuracy_by_length(evals).axes
    assert axis.get_title().startswith("parity of a\n")
    assert axis.get_xlabel() == "length of a (digits)"
    assert axis.lines[0].get_xdata().tolist() == [8, 9, 10]
    assert {file.name for file in figures.draw(parity)} == {
        "training_curve.png", "accuracy_by_length.png",
    }  # fmt: skip
    shown = page(parity)
    assert "parity of a held out 3 cells" in shown.rows("Worst cell")
    assert shown.rows("Worst cell")["all held out 3 cells"][1].endswith("8 digits")
    assert any(a.get("aria-label") == "parity of a" for tag, a in shown.tags if tag == "svg")


def test_groups_have_no_lengths(groups: Path) -> None:
    (axis,) = figures.strata(load.evals(groups)).axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["odd", "even"]
    assert axis.get_ylabel() == "group" and axis.get_title().startswith("file\n")
    rows = page(groups).rows("Worst cell")
    assert rows["file held out 2 cells"][1] == "0.8 % 8 of 1,000 even"
    assert ablation._scores(load.evals(groups)).loc["file", "n"] == 2000
