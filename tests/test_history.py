"""The history of the benchmarks grows by whole lines and never loses one."""

import csv

import pytest

from benchmarks.page import PAGE, page
from benchmarks.run import COLUMNS, HISTORY, remember
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
    assert all(line[name] for line in lines for name in COLUMNS[:4])
    assert COLUMNS[:4] == ["date", "commit", "version", "machine"]
    path.write_text("other\n")
    with pytest.raises(ValueError, match="has other columns"):
        remember(rows, path)


def test_the_page_of_benchmarks_is_made_from_the_history():
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m benchmarks.page"


def test_the_page_shows_the_newest_run_alone(tmp_path):
    lines = [line.split(",", 2)[0] for line in HISTORY.read_text().splitlines()[1:]]
    assert len(set(lines)) > 1  # there are older ones to be left out
    path = tmp_path / "history.csv"
    path.write_text(
        ",".join(COLUMNS)
        + "\n2026-01-02 09:00,new,1.2,a machine,sums,a second,2625870,100,2.5,a note"
        + "\n2026-01-01 09:00,old,1.1,another,sums,a second,1,2,0.5,\n"
    )
    assert "| sums | a second | 2,625,870 | 100 | 2.5 | a note | 1.2 `new` |" in page(path)
    assert "a machine; measured 2026-01-02 09:00." in page(path)
    assert "another" not in page(path) and "`old`" not in page(path)
