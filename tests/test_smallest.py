"""The table and figure of the smallest adders, from run folders made by hand."""

import json

import pytest

from analysis import smallest


@pytest.fixture
def folder(tmp_path):
    for case, params, seed, right in (("b", 771, 0, 9), ("a", 300, 1, 5), ("a", 300, 0, 4)):
        path = tmp_path / f"{case}-s{seed}"
        path.mkdir()
        config = {"task": "add", "seed": seed, "options": {}, "model": {}, "train": {}}
        (path / "config.json").write_text(json.dumps(config))
        look = {"step": 7, "examples": 70, "tokens": 1, "seconds": 3.5, "loss": 1, "val_loss": 1}
        (path / "metrics.jsonl").write_text(json.dumps(look) + "\n")
        rows = f"edge,2,2,,{params}\nuniform,10,{right},,{params}\n"
        head = "part,n,answer_correct,published,params\n"
        (path / "suite-ten-digit.csv").write_text(head + rows)
    return tmp_path


def test_parts_of_the_suite_are_added_and_small_models_come_first(folder):
    table = smallest.collect(folder)
    assert list(table) == smallest.COLUMNS
    found = table[["case", "params", "seed", "answer_correct", "n"]].values.tolist()
    assert found == [["a", 300, 0, 6, 12], ["a", 300, 1, 7, 12], ["b", 771, 0, 11, 12]]
    text = smallest.markdown(table)
    assert "| 771 | b | 0 | 7 | 4 | 11 of 12 | 91.6 % (64.6-98.5) |" in text
    (axis,) = smallest.smallest(table).axes
    line, dots = axis.lines[:2]
    assert line.get_xdata().tolist() == [300, 771]
    assert line.get_ydata().tolist() == pytest.approx([650 / 12, 1100 / 12])
    assert len(dots.get_xydata()) == 3


def test_it_writes_both_files_and_says_what_is_missing(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    files = [str(out / "t.csv"), str(out / "t.png")]
    assert smallest.main([str(folder), "--csv", files[0], "--png", files[1]]) == 0
    assert (out / "t.csv").read_text().startswith("case,seed,params")
    assert (out / "t.png").stat().st_size > 1000
    capsys.readouterr()
    (folder / "a-s0" / "suite-ten-digit.csv").write_text("part,n\n")
    assert smallest.main([str(folder)]) == 2
    assert "suite-ten-digit.csv is damaged" in capsys.readouterr().err
    for run in folder.glob("*-s*"):
        (run / "suite-ten-digit.csv").unlink()
    assert smallest.main([str(folder)]) == 2
    assert "no run in" in capsys.readouterr().err
