"""The shipped adder of 31 parameters: that it is proved, and what its page says of it."""

import re
from pathlib import Path

import addgpt
from addgpt.evaluation.check_certificate import check
from addgpt.runs.run import Run, run_path

FOLDER = Path(addgpt.__file__).parent / "pretrained" / "smallest-31"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "smallest.md"


def test_the_independent_checker_agrees_and_the_page_says_its_figures():
    run, found = Run(FOLDER), check(FOLDER)
    assert run.proved() and run.model().parameter_count() == 31
    text = PAGE.read_text(encoding="utf-8").split("## 96 parameters")[0]
    assert int(re.search("all ([0-9,]+) contexts", text)[1].replace(",", "")) == found["contexts"]
    assert float(re.search("the smallest margin is ([0-9.]+)", text)[1]) == round(
        found["margin"], 2
    )


def test_a_shipped_adder_is_named_as_the_calculator_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_path("smallest-31") == FOLDER
    assert Run(run_path("smallest-31")).scores == Path("results/smallest-31")
    (tmp_path / "smallest-31").mkdir()  # a folder of one's own
    assert run_path("smallest-31") == Path("smallest-31")
