"""Suites: what they hold, against the rules of those who published them."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from addgpt.calculator.ask import Asker
from addgpt.calculator.expression import parse
from addgpt.calculator.job import Job
from addgpt.calculator.numbers import Rules
from addgpt.calculator.solver import Calculator, Solution
from addgpt.config.errors import UsageError
from addgpt.evaluation.problem_files.scores import pose, read_problems
from addgpt.evaluation.suites import Part, load_suite, may_be_seen, score_suite, suite_names
from addgpt.task_lookup import load_task


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
    rng = random.Random(2025)  # as the board draws them
    pairs = [(rng.randint(0, 9_999_999_999), rng.randint(0, 9_999_999_999)) for _ in range(10_000)]
    assert uniform.problems == tuple(f"{a}+{b}" for a, b in pairs)


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


@pytest.mark.parametrize("name", ["add", "mul", "calc"])
def test_what_may_have_been_seen_is_what_training_can_draw(name):
    """Against problems drawn as training and as tests draw them."""
    task = load_task(name, {"digits": 3})
    for split, seen in (("train", True), ("test", False)):
        batch = task.batch(np.random.default_rng(0), 300, split)
        for problem in batch.problems:
            assert may_be_seen(task, [problem]) is seen, problem


def test_an_operation_longer_than_trained_or_of_another_sign_is_judged_rightly():
    task = load_task("calc", {"digits": 3})
    assert not any(seen_in(task, f"{10**20 + i}+1") for i in range(50))  # never drawn
    plain, signed, turned = (
        [seen_in(task, form.format(a, b)) for a in range(300, 340) for b in (457, 961)]
        for form in ("{1}-{0}", "-{0}+{1}", "{1} + (-{0})")
    )
    assert plain == signed == turned and 0 < sum(plain) < len(plain)


def test_an_expression_is_held_out_only_if_all_its_operations_are():
    task = load_task("calc", {"digits": 3})
    seen = {(a, b): seen_in(task, f"{a}+{b}") for a in range(500, 520) for b in (731, 907)}
    for (a, b), first in seen.items():
        second = seen_in(task, f"{a + b}-400")
        assert seen_in(task, f"({a}+{b})-400") == (first or second)


def seen_in(task, text: str) -> bool:
    job = Job(text, lambda problem: None, Rules("remainder"))
    assert job.error is None and job.asked
    return may_be_seen(task, job.asked)


class Perfect:
    """In place of a calculator: right but for some problems."""

    def __init__(self, wrong: set[str]) -> None:
        self.task, self.wrong = load_task("add", {"digits": 3}), wrong

    def work_out(self, jobs: list[Solution]) -> list[Solution]:
        return jobs

    def pose(self, texts, rules=None) -> list[Solution]:
        asked = [(self.task.parse(text),) for text in texts]
        right = [text not in self.wrong for text in texts]
        rows = zip(texts, right, asked, strict=True)
        return [Solution(text, correct=good, asked=some) for text, good, some in rows]


def test_held_out_and_seen_problems_are_counted_apart():
    pairs = [f"{a}+{b}" for a in range(600, 650) for b in (123, 456)]
    task = load_task("add", {"digits": 3})
    fresh = [p for p in pairs if not task.in_train(task.parse(p))]
    wrong = {*fresh[:3], *[p for p in pairs if p not in fresh][:5]}
    (row,) = score_suite(Perfect(wrong), [Part("x", tuple(pairs), 50.0)])
    assert row == {
        "part": "x", "n": 100, "answer_correct": 92, "published": 50.0,
        "held_out_n": len(fresh), "held_out_answer_correct": len(fresh) - 3,
        "seen_n": 100 - len(fresh), "seen_answer_correct": 95 - len(fresh),
    }  # fmt: skip


def test_a_problem_that_cannot_be_asked_is_told_before_the_work(tmp_path, trained, monkeypatch):
    monkeypatch.setattr(Asker, "ask", lambda *given: pytest.fail("the model was asked"))
    bad = tmp_path / "mine.csv"
    for text, fault in [
        ("5-2", "does [+], not -"),
        ("(1+2)/0", "division by zero"),
        ("1+", "miss"),
    ]:
        parts = [Part("good", ("1+2", "3+4"), None), Part("bad", ("5+6", text), None)]
        with pytest.raises(UsageError, match=f"bad, {re.escape(text)}: .*{fault}"):
            score_suite(Calculator(trained.model(), trained.task()), parts)
        bad.write_text(f"problem\n1+2\n{text}\n")
        (refused,) = pose(trained.path, [bad]).faults
        assert refused.where == "line 3" and re.search(fault, refused.fault)


def test_an_answer_that_is_no_answer_is_told_in_one_short_line(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text(f"problem,answer\n1+2,{'9' * 5000}\n")
    (given,) = read_problems(file)
    assert re.match(r"'9{8}\.\.\.9{8} \(5,000 characters\)' is not", given.fault)


def test_operands_beyond_64_bits_are_drawn_evenly(tmp_path):
    file = tmp_path / "long.toml"
    most = 3 * 10**20
    file.write_text(f"[[part]]\nname='x'\nproblem='{{a}}'\nn=3000\na=[{-(10**20)}, {most}]\n")
    _, (part,) = load_suite(str(file))
    drawn = [int(text) for text in part.problems]
    assert -(10**20) <= min(drawn) and max(drawn) <= most and len({*drawn}) == 3000
    quarters = np.bincount([(n + 10**20) // 10**20 for n in drawn], minlength=4)
    assert abs(quarters - 750).max() < 5 * (3000 * 0.25 * 0.75) ** 0.5
    file.write_text("[[part]]\nname='x'\nproblem='{a}'\nn=2\na=[5, 1]\n")
    with pytest.raises(UsageError, match="the first must not be above the second"):
        load_suite(str(file))
