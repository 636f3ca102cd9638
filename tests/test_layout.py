"""The work of a calculator laid out as on paper: what the model wrote, and never an exception."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.layout import layout
from addgpt.calculator.solver import Calculator
from addgpt.task import load_task
from tests.helpers.calculators import oracle, perfect

STEP = perfect().solve("1+1").steps[0]


def shown(problem: str, name: str, options: dict | None = None) -> list[str]:
    task = load_task(name, {"digits": 4} | (options or {}))
    solution = Calculator(None, task, write=oracle(task)).solve(problem)
    return layout(solution.steps[-1]).split("\n")


def test_layout_of_sums_and_differences():
    assert shown("128+67", "add") == ["  128", "+  67", "-----", "  195"]
    carried = ["   1    carried", "  128", "+ 367", "-----", "  495"]
    assert shown("128+367", "add", {"trace": "carry"}) == carried
    assert shown("345-12", "sub") == ["  345", "-  12", "-----", "  333"]
    negative = shown("12-345", "sub")
    assert negative[3].split()[:3] == ["667", "with", "1000"] and negative[4] == "  -333"


def test_layout_of_a_product():
    assert shown("123*456", "mul") == [
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
    assert shown("12*34", "mul", {"trace": "none"}) == ["   12", "*  34", "-----", "  408"]
    assert shown("12*34", "mul", {"trace": "carry"})[-3].split()[0] == "408"


def test_layout_of_a_division():
    lines = shown("17/5", "div")
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
    guessed = shown("9876/54", "div", {"trace": "estimate"})
    assert guessed[2:5] == [
        "   98   bring down 8",
        "-  54 =   44   guess 1: 1 * 54",
        "      =   44   digit 1",
    ]


@given(
    st.integers(0, 10**6),
    st.sampled_from("+-*/"),
    st.integers(1, 10**6),
    st.text("0123456789,;=+-r#", max_size=60),
    st.text("0123456789 -", max_size=9),
)
def test_layout_never_raises(a, op, b, completion, answer):
    step = replace(STEP, problem=f"{a}{op}{b}", completion=completion, answer=answer)
    assert isinstance(layout(step), str)


def test_layout_shows_what_the_model_wrote_not_what_is_right():
    wrong = perfect(spoil=lambda prompt, text: text.replace("840,", "850,")).solve("12*34").steps[0]
    assert wrong.completion == "850,630,040;=8040#" and wrong.correct
    assert layout(wrong).split("\n")[3] == "   58   12 * 4"
    cut = replace(wrong, completion="850,6", answer="850,6")
    assert layout(cut).split("\n")[3:] == ["     58   12 * 4", "=======", "  850,6"]
