"""The work of a calculator laid out as on paper: what the model wrote, and never an exception."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.solver import Calculator
from addgpt.task import Problem
from addgpt.task_lookup import load_task
from tests.helpers.calculators import oracle


def shown(problem: str, name: str, options: dict | None = None) -> list[str]:
    task = load_task(name, {"digits": 4} | (options or {}))
    solution = Calculator(None, task, write=oracle(task)).solve(problem)
    step = solution.steps[-1]
    return task.draw(step.problem, step.completion).split("\n")


def test_layout_of_sums_and_differences():
    assert shown("128+67", "add") == ["  128", "+  67", "-----", "  195"]
    carried = ["   1    carried", "  128", "+ 367", "-----", "  495"]
    assert shown("128+367", "add", {"trace": "carry"}) == carried
    assert shown("345-12", "sub") == ["  345", "-  12", "-----", "  333"]
    borrowed, *negative = shown("12-345", "sub")
    assert borrowed == "  111    borrowed" and negative == shown(
        "12-345", "sub", {"trace": "borrow"}
    )
    assert negative[3].split()[:3] == ["667", "with", "1000"] and negative[4] == "  -333"


def test_layout_of_a_product():
    drawn = [
        "    123",
        "*   456",
        "-------",
        "    738   123 * 6",
        "+  615    123 * 5",
        "-------",
        "   6888   so far",
        "+ 492     123 * 4",
        "-------",
        "  56088   so far",
        "=======",
        "  56088",
    ]
    assert shown("123*456", "mul", {"trace": "rows"}) == drawn
    carries = {3: "011", 4: "011", 7: "001", 9: "0011"}  # of lines in which there are any
    for line, digits in carries.items():
        drawn[line] += f", carries {digits}"
    assert shown("123*456", "mul") == drawn
    assert shown("12*34", "mul", {"trace": "none"}) == ["   12", "*  34", "-----", "  408"]


def test_layout_of_a_division():
    lines = shown("17/5", "div")
    assert lines == shown("17/5", "div", {"trace": "doubling"})  # carries are not drawn
    assert lines[2:5] == ["2 * 5 =  10", "4 * 5 =  20", "8 * 5 =  40"]
    assert lines[6:12] == [
        "    1   bring down 1",
        "-  40 =  -39",
        "+  20 =  -19",
        "+  10 =   -9",
        "+   5 =   -4",
        "+   5 =    1   digit 0",
    ]
    assert lines[-1] == "= 3 remainder 2"


@given(
    st.integers(0, 10**6),
    st.sampled_from("+-*/"),
    st.integers(1, 10**6),
    st.text("0123456789,;=+-r#", max_size=60) | st.text(max_size=9),
)
def test_any_text_is_drawn_and_its_rows_leave_nothing_out(any_task, a, op, b, completion):
    if op not in {cell.op for cell in any_task.cells()}:
        return
    problem = Problem(op, (a, b))
    assert any_task.draw(problem, completion)
    assert "".join(row.text for row in any_task.rows(problem, completion)) == completion


def test_drawings_show_what_the_model_wrote_not_what_is_right():
    task, problem = load_task("calc"), Problem("*", (12, 34))
    wrong = task.draw(problem, "80500,804000;60300,014000;=8040#").split("\n")
    assert wrong[3] == "   58   12 * 4" and wrong[-1] == "  408"
    first = task.draw(problem, "80400,904000;60300,014000;=8040#").split("\n")
    assert first[3:6] == ["   48   12 * 4", "-----", "   49   so far"]  # is not what it sums up
    cut = task.draw(problem, "80500,6").split("\n")
    assert cut[3:] == ["  58   12 * 4", "====", "   ?"]


def test_a_digit_of_a_quotient_that_is_not_written_is_not_drawn():
    work = "01,02,04,1061-1080-1090-6090-0,11;7071-7090-7001+2000+20;"
    lines = load_task("div").draw(Problem("/", (17, 5)), work).split("\n")
    digits = [line.split()[-1] for line in lines if "digit" in line and "bring" not in line]
    assert digits == ["0", "?"] and lines[-1] == "= ?"


def test_rows_are_labelled():
    assert labels("*", "80400,804000;60300,014000;=8040#") == ["product", "running"] * 2 + [
        "answer"
    ]
    task = load_task("calc")
    rows = task.rows(Problem("-", (12, 345)), "716161-333#")
    assert rows == [("signed", "716161"), ("answer", "-333#")]
    division = "01,02,04,1061-1080-1090-6090-0,11;7071-7090-7001+2000+3,20;=03r2#"
    steps = (["try"] * 4 + ["digit", "rest"]) * 2
    assert labels("/", division) == ["multiple"] * 3 + steps + ["answer"]


def test_rows_of_other_traces_are_labelled():
    traces = {"sub_trace": "borrow", "mul_trace": "rows", "div_trace": "doubling"}
    product = ["product", "product", "running", "answer"]
    assert labels("*", "840,630,040;=8040#", traces) == product
    assert labels("-", "766-333#", traces) == ["signed", "answer"]
    division = "01,02,04,16-18-19-69-10;77-79-70+20+23;=03r2#"
    steps = (["try"] * 4 + ["rest"]) * 2
    assert labels("/", division, traces) == ["multiple"] * 3 + steps + ["answer"]


def labels(op: str, completion: str, options: dict | None = None) -> list[str]:
    rows = load_task("calc", options or {}).rows(Problem(op, (12, 34)), completion)
    return [row.label for row in rows]


def test_each_digit_of_an_answer_is_found_where_it_was_written(any_task, read_rows):
    batch = any_task.batch(np.random.default_rng(3), 100, "val")
    for (a, op, b, _), (_, completion) in zip(
        read_rows(any_task, batch), any_task.texts(batch), strict=True
    ):
        problem = Problem(op, (a, b))
        digits = [completion[i] for i in any_task.answer_digits(problem, completion)]
        assert "".join(digits) == re.sub("[^0-9]", "", str(any_task.truth(problem)))
