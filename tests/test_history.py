"""The history of the benchmarks grows by whole lines and never loses one."""

import csv

import pytest

from benchmarks.run import COLUMNS, remember
from benchmarks.timing import Row


def test_a_run_is_appended(tmp_path):
    path = tmp_path / "history.csv"
    rows = [Row("a, b", "seconds", [3, 1, 2], [10, 30, 20]), Row("c", "a second", [5.0])]
    remember(rows, path)
    first = path.read_text()
    remember(rows[:1], path)
    assert path.read_text().startswith(first)
    lines = list(csv.DictReader(path.read_text().splitlines()))
    assert list(lines[0]) == COLUMNS
    assert [line["benchmark"] for line in lines] == ["a, b", "c", "a, b"]
    assert (lines[0]["ours"], lines[0]["reference"], lines[0]["ratio"]) == ("2", "20", "10")
    assert (lines[1]["ours"], lines[1]["ratio"]) == ("5", "")
    assert all(line["commit"] and line["machine"] and line["date"] for line in lines)
    path.write_text("other\n")
    with pytest.raises(ValueError, match="has other columns"):
        remember(rows, path)
