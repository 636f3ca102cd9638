"""Suites: what they hold, against the rules of those who published them."""

from __future__ import annotations

import re

import pytest

from addgpt.calculator.expression import parse
from addgpt.evaluation.suites import load_suite, suite_names


def test_gpt3_draws_ten_tasks_by_their_stated_ranges():
    _, parts = load_suite("gpt3")
    assert [part.name for part in parts] == ("2D+ 2D- 3D+ 3D- 4D+ 4D- 5D+ 5D- 2D* 1DC".split())
    for part in parts:
        assert len(part.problems) == 2000
        digits = int(part.name[0])
        operands = [int(n) for problem in part.problems for n in re.findall(r"\d+", problem)]
        assert min(operands) >= 0 and max(operands) < 10**digits
        assert len(set(operands)) > 0.9 * min(10**digits, len(operands)) / 2
    composite = parts[-1].problems
    assert all(re.fullmatch(r"\d[-+*]\(\d[-+*]\d\)", problem) for problem in composite)


def test_ten_digit_holds_ten_edge_cases_and_ten_thousand_pairs():
    _, (edges, uniform) = load_suite("ten-digit")
    assert len(edges.problems) == 10 and len(uniform.problems) == 10_000
    assert uniform.problems == load_suite("ten-digit", seed=5)[1][1].problems


@pytest.mark.parametrize("name", suite_names())
def test_every_problem_of_every_suite_can_be_read(name):
    for part in load_suite(name)[1]:
        for problem in part.problems[:200]:
            parse(problem)


@pytest.mark.parametrize(
    "text",
    ["nonsense", "title = 'x'", "part = 3", "[[part]]\nname = 'x'", "[[part]]\nname='x'\nn=-1",
     "[[part]]\nname='x'\nn=2\nproblem='{a}'", "[[part]]\nname='x'\nn=2\nproblem='1'\na=[]"],
)  # fmt: skip
def test_a_file_that_is_no_suite_is_refused(tmp_path, text):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match="bad.toml"):
        load_suite(str(file))
