"""The table and figure of the smallest adders, from run folders made by hand."""

import json

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from analysis.studies import smallest


@pytest.fixture
def folder(tmp_path):
    planned = []
    for case, params, seed, right in (("b", 771, 0, 9), ("a", 300, 1, 5), ("a", 300, 0, 4)):
        path = tmp_path / f"run{len(planned)}"  # whose name says nothing
        row = {"run": path.name, "combination": case, "seed": seed, "state": "done"}
        planned.append(row)
        path.mkdir()
        config = {"task": "add", "seed": seed, "options": {}, "model": {}, "train": {}}
        (path / "config.json").write_text(json.dumps(config))
        look = {"step": 7, "examples": 70, "tokens": 1, "seconds": 3.5, "loss": 1, "val_loss": 1}
        (path / "metrics.jsonl").write_text(json.dumps(look) + "\n")
        rows = f"edge,2,2,,{params}\nuniform,10,{right},,{params}\n"
        head = "part,n,answer_correct,published,params\n"
        (path / "suite-ten-digit.csv").write_text(head + rows)
    (tmp_path / "sweep.json").write_text(json.dumps({"task": "add", "runs": planned}))
    return tmp_path


def test_parts_of_the_suite_are_added_and_small_models_come_first(folder):
    table = smallest.collect(folder)
    assert list(table) == smallest.COLUMNS
    found = table[["case", "params", "seed", "answer_correct", "n"]].values.tolist()
    assert found == [["a", 300, 0, 6, 12], ["a", 300, 1, 7, 12], ["b", 771, 0, 11, 12]]
    text = smallest.describe(table)
    assert "| 771 | b | 0 | 7 | 4 | 11 of 12 | 91.6 % (64.6-98.5) |" in text
    (axis,) = smallest.draw(table).axes
    line, dots = axis.lines[:2]
    assert line.get_xdata().tolist() == [300, 771]
    assert line.get_ydata().tolist() == pytest.approx([650 / 12, 1100 / 12])
    assert len(dots.get_xydata()) == 3


def test_it_writes_both_files_and_says_what_is_missing(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    files = [str(out / "t.csv"), str(out / "t.png")]
    words = ["study", "smallest", str(folder)]
    done = CliRunner().invoke(main, [*words, "--csv", files[0], "--png", files[1]])
    assert done.exit_code == 0
    assert (out / "t.csv").read_text().startswith("case,pad,seed,params")
    assert (out / "t.png").stat().st_size > 1000
    (folder / "run2" / "suite-ten-digit.csv").write_text("part,n\n")
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "suite-ten-digit.csv is damaged" in done.stderr
    for run in folder.glob("run?"):
        (run / "suite-ten-digit.csv").unlink()
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "no run in" in done.stderr
