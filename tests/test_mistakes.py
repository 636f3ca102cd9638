"""Tables and figures of wrong answers, from files made by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from analysis import load
from analysis.mistakes import mistakes_by_digit, mistakes_by_line

COUNTS = [
    ("+", 3, 3, "all", "carry", "1", "", 30),
    ("+", 3, 3, "all", "carry", "3", "", 4),
    ("+", 2, 3, "all", "carry", "1", "", 5),
    ("+", 3, 3, "zeros", "digit", "0", "", 7),
    ("+", 3, 3, "all", "unreadable", "", "", 2),
    ("/", 3, 1, "all", "trace", "q0", "3", 11),
    ("/", 3, 1, "all", "trace", "q2", "14", 6),
    ("/", 3, 1, "all", "answer", "r1", "", 9),
    ("/", 3, 1, "all", "unterminated", "", "4", 1),
]
ERRORS = [
    ("+", 3, 3, "all", "128+367", "495", "485", "carry", "1", "", 1, "594#", "584#"),
    ("-", 2, 3, "all", "12-345", "-333", "333", "sign", "", "", 3, "766-333#", "766+333#"),
    ("/", 2, 1, "all", "17/5", "3 remainder 2", "", "unreadable", "", "2", 4, "01,0", "01,1#"),
]


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder that has the two tables of wrong answers."""
    path = tmp_path / "some" / "calc"
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"task": "calc", "seed": 0}))
    write(path / "error_counts.csv", "op len_a len_b stratum kind digit line n", COUNTS)
    columns = "op len_a len_b stratum problem truth answer kind digit line place target written"
    write(path / "errors.csv", columns, ERRORS)
    return path


def write(path: Path, columns: str, rows: list[tuple]) -> None:
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([columns.split(), *rows])


def test_counts_are_read_with_digit_part_and_line_apart(run):
    table = load.error_counts(run.parent.parent)
    assert table["n"].tolist() == [row[-1] for row in COUNTS]
    assert set(table["run"]) == {"some/calc"}
    digits, lines = [1, 3, 1, 0, np.nan, 0, 2, 1, np.nan], [np.nan] * 5 + [3, 14, np.nan, 4]
    assert np.array_equal(table["digit"], digits, equal_nan=True)
    assert np.array_equal(table["line"], lines, equal_nan=True)
    parts = [""] * 5 + ["quotient"] * 2 + ["remainder", ""]
    assert table["part"].tolist() == parts


def test_errors_are_read_as_text(run):
    table = load.errors(run)
    assert table["answer"].tolist() == ["485", "333", ""]
    assert table["truth"].tolist() == ["495", "-333", "3 remainder 2"]
    assert table["place"].tolist() == [1, 3, 4]
    assert table["written"].tolist() == [row[-1] for row in ERRORS]


def test_a_run_without_tables_has_no_rows(run):
    (run / "errors.csv").unlink()
    assert load.errors(run).empty and "kind" in load.errors(run)
    write(run / "error_counts.csv", "op len_a len_b stratum kind digit line n", [])
    assert load.error_counts(run).empty


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (("+", 3, 3, "all", "carry", "x1", "", 30), "digit"),
        (("+", 3, 3, "all", "carry", "1", "", "many"), "many"),
        (("+", 3, 3, "all", "carry", "1", "first", 1), "first"),
        (("+", 3, 3, "all", "carry", "1", ""), "fields"),
    ],
)
def test_damage_is_told_with_its_line(run, row, says):
    columns = "op len_a len_b stratum kind digit line n"
    write(run / "error_counts.csv", columns, [*COUNTS, row])
    with pytest.raises(ValueError, match=f"error_counts.csv is damaged: line 11: .*{says}"):
        load.error_counts(run)


def numbers(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


def labels(axis) -> tuple[list[str], list[str]]:
    return (
        [label.get_text() for label in axis.get_yticklabels()],
        [label.get_text() for label in axis.get_xticklabels()],
    )


def test_digits_are_drawn_for_each_operation(run):
    figure = mistakes_by_digit(load.error_counts(run))
    plus, divided = figure.axes[:2]
    assert labels(plus) == (["carry", "digit", "unreadable"], ["none", "0", "1", "2", "3"])
    assert numbers(plus) == ["35", "4", "7", "2"]
    assert plus.get_title() == "a + b    48 wrong"
    kinds, places = labels(divided)
    assert kinds == ["trace", "answer", "unterminated"]
    assert places == ["none", "q0", "q1", "q2", "r0", "r1"]
    assert numbers(divided) == ["11", "6", "9", "1"]


def test_lines_are_drawn_of_operations_with_a_trace(run):
    axis, *bars = mistakes_by_line(load.error_counts(run)).axes
    assert len(bars) == 1 and axis.get_title() == "a / b    27 wrong"
    assert not numbers(axis)  # too many columns to read
    kinds, lines = labels(axis)
    assert kinds == ["trace", "answer", "unterminated"]
    assert lines[:2] == ["none", "2"] and axis.collections[0].get_array().size == 3 * 15


def test_runs_are_not_mixed_and_nothing_is_not_drawn(run):
    table = load.error_counts(run)
    with pytest.raises(ValueError, match="one run"):
        mistakes_by_digit(table.head(0))
    with pytest.raises(ValueError, match="one run"):
        mistakes_by_line(table[table["op"] == "+"])
    with pytest.raises(ValueError, match="2: some, other"):
        mistakes_by_digit(table.assign(run=["some"] * 4 + ["other"] * 5))


def test_the_command_draws_them_where_there_are_mistakes(run):
    done = CliRunner().invoke(main, ["figures", str(run.parent)])
    names = ["mistakes_by_digit.png", "mistakes_by_line.png"]
    assert done.exit_code == 0
    assert [Path(line).name for line in done.stdout.splitlines()] == names
    write(run / "error_counts.csv", "op len_a len_b stratum kind digit line n", [])
    done = CliRunner().invoke(main, ["figures", str(run)])
    assert done.exit_code == 0 and done.stdout == ""
