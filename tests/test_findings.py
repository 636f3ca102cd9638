"""What an evaluation finds out about wrong answers: counts, samples and the files it leaves."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from addgpt.evaluation.exact_match import CellResult, Outcome, evaluate_cells
from addgpt.evaluation.mistakes import (
    COUNT_COLUMNS,
    EACH,
    ERROR_COLUMNS,
    EXAMPLE_COLUMNS,
    MOST,
    Tally,
    mistakes,
)
from addgpt.evaluation.scorecard import read_findings, score_run
from addgpt.evaluation.tables import print_mistakes
from addgpt.runs.files import RunError
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Cell
from addgpt.task_lookup import load_task
from addgpt.training.loop import train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(half_trained):
    """The scored cells of a half-trained subtracter."""
    task, model = half_trained
    return task, list(evaluate_cells(model, task, task.cells(), per_cell=60))


def filled(task, cells) -> Tally:
    tally = Tally(task)
    for result in cells:
        tally.add(result)
    return tally


def test_every_wrong_answer_is_counted_once(cells):
    task, results = cells
    tally = filled(task, results)
    wrong = sum(len(one.outcome.wrong) for one in results)
    assert wrong > 300
    assert sum(tally.kinds().values()) == sum(row["n"] for row in tally.counts()) == wrong
    for one in results:
        mine = [row for row in tally.counts() if tuple(row[f] for f in Cell._fields) == one.cell]
        assert sum(row["n"] for row in mine) == one.row()["n"] - one.row()["answer_correct"]
        for mistake, (row, written) in zip(
            mistakes(task, one), sorted(one.outcome.wrong.items()), strict=True
        ):
            assert mistake.truth == str(task.truth(task.parse(mistake.problem))) != mistake.answer
            assert mistake.written == written
            assert (mistake.kind == "unterminated") == one.outcome.unterminated[row]
    assert list(tally.kinds().values()) == sorted(tally.kinds().values(), reverse=True)


def test_the_sample_is_bounded_and_does_not_depend_on_the_order_of_cells(cells):
    task, results = cells
    sample = filled(task, results).sample()
    assert sample == filled(task, results[::-1]).sample()
    assert all(list(row) == ERROR_COLUMNS for row in sample)
    groups = Counter((row["op"], row["stratum"], row["kind"]) for row in sample)
    totals = Counter()
    for row in filled(task, results).counts():
        totals[row["op"], row["stratum"], row["kind"]] += row["n"]
    assert {group: min(EACH, n) for group, n in totals.items()} == groups
    assert len(sample) > len(groups)


def many(task, strata: int) -> list[CellResult]:
    """Cells with nothing but wrong answers."""
    cells = []
    for number in range(strata):
        batch = task.batch(np.random.default_rng(number), 30, "test", Cell("+", 3, 3))
        false, wrong = np.zeros(30, bool), dict.fromkeys(range(30), "=#")
        outcome = Outcome(false, false, false, wrong)
        cells.append(CellResult(Cell("+", 3, 3, f"{number}"), "test", False, batch, outcome))
    return cells


def test_a_large_sample_is_cut_evenly():
    task = load_task("add", {"digits": 3})
    sample = filled(task, many(task, 150)).sample()
    assert len(sample) == MOST
    assert set(Counter(row["stratum"] for row in sample).values()) == {13, 14}


def test_examples_are_right_and_of_the_longest_work(cells):
    task, results = cells
    rows = filled(task, results).examples()
    plain = [one for one in results if one.cell.stratum == "all" if one.row()["trace_correct"]]
    largest = max(plain, key=lambda one: one.cell.len_a + one.cell.len_b)
    assert len(rows) == min(2, largest.row()["trace_correct"])
    for row in rows:
        assert list(row) == EXAMPLE_COLUMNS
        assert row["len_a"] + row["len_b"] == largest.cell.len_a + largest.cell.len_b
        problem = task.parse(row["problem"])
        assert task.truth(problem) == task.read(problem, row["written"])
        assert row["truth"] == str(task.truth(problem))


def read(path) -> list[dict]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A hardly trained adder, scored: its Scorecard."""
    tiny = "digits=2 layers=1 width=16 heads=2 steps=12 batch_size=16 eval_size=32 threads=1"
    settings = dict(pair.split("=") for pair in tiny.split())
    run = Run.create(tmp_path_factory.mktemp("scored") / "run", configure("add", settings))
    train(run)
    return score_run(run, per_cell=10, seed=3)


def test_an_evaluation_leaves_its_files(scored):
    names = ["eval.csv", "errors.csv", "error_counts.csv", "examples.csv", "eval.json"]
    assert [path.name for path in scored.write()] == names
    folder = scored.run.path
    errors, counts = read(folder / "errors.csv"), read(folder / "error_counts.csv")
    assert list(errors[0]) == ERROR_COLUMNS and list(counts[0]) == COUNT_COLUMNS
    wrong = sum(int(row["n"]) - int(row["answer_correct"]) for row in read(folder / "eval.csv"))
    assert sum(int(row["n"]) for row in counts) == wrong > 0
    facts = json.loads((folder / "eval.json").read_text())
    assert facts["n"] - facts["answer_correct"] == sum(facts["mistakes"].values()) == wrong
    assert (facts["split"], facts["evaluation_seed"], facts["per_cell"]) == ("test", 3, 10)
    assert facts["contamination"]["problems"] > 0 and facts["contamination"]["drawable"] == 0
    assert {"command", "date", "seconds", "versions", "task", "run"} <= set(facts)
    stored, found = read_findings(folder)
    assert found == facts and [row | {"n": str(row["n"])} for row in stored] == counts


def test_another_split_has_its_name_in_the_names(scored):
    paths = replace(scored, split="val").write()
    assert all("-val." in path.name for path in paths)
    assert read_findings(scored.run.path, "val") is not None
    assert read_findings(scored.run.path, "train") is None


def test_tables_without_rows_have_their_header(scored):
    for path in replace(scored, mistakes=Tally(scored.run.task()), split="val").write():
        columns = {
            "errors-val.csv": ERROR_COLUMNS,
            "error_counts-val.csv": COUNT_COLUMNS,
            "examples-val.csv": EXAMPLE_COLUMNS,
        }
        if path.name in columns:
            assert path.read_text() == ",".join(columns[path.name]) + "\n"


@pytest.mark.parametrize("name", ["eval-val.json", "error_counts-val.csv"])
@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "n\nmany\n", "op,n\n+,3\n"])
def test_damaged_findings_are_told_in_one_line(scored, name, text):
    replace(scored, split="val").write()
    (scored.run.path / name).write_text(text)
    with pytest.raises(RunError, match="damaged"):
        read_findings(scored.run.path, "val")


def test_kinds_are_printed_with_their_most_frequent_place(capsys):
    facts = {"n": 1000, "answer_correct": 940, "trace_correct": 937}
    facts["contamination"] = {"summary": "0 of 900"}
    row = {"op": "*", "len_a": 2, "len_b": 2, "stratum": "all"}
    counts = [
        row | {"kind": "trace", "digit": "0", "line": "3", "n": 20},
        row | {"kind": "trace", "digit": "1", "line": "3", "n": 15},
        row | {"kind": "trace", "digit": "2", "line": "1", "n": 18},
        row | {"kind": "answer", "digit": "2", "line": "", "n": 7},
    ]
    print_mistakes(Console(width=100), counts, facts)
    printed = capsys.readouterr().out
    for text in ("why 60 of 1,000", "line 3 (35)", "88.3 %", "digit 2 (7)", "11.6 %", "0 of 900"):
        assert text in printed
    assert "3 right answers are written otherwise" in printed
    print_mistakes(Console(width=100), [], facts | {"answer_correct": 1000, "trace_correct": 1000})
    assert capsys.readouterr().out.splitlines() == ["no answer is wrong", "0 of 900"]
