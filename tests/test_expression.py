"""Parsing against Python's own integers, and the questions that operations ask."""

from __future__ import annotations

import ast
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.decimals import Decimals
from addgpt.calculator.expression import Literal, exact, operands, parse
from addgpt.calculator.numbers import Number, Rules
from addgpt.calculator.questions import apply, driven, exactly, unsigned
from addgpt.calculator.solver import Finished, StepFinished, StepStarted, TokenWritten
from tests.helpers.calculators import exact as right_calculator
from tests.helpers.calculators import perfect
from tests.helpers.desk import rounded

NUMBERS = st.integers(0, 10**30) | st.integers(0, 12)


def spaced(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, f"({text})", f" {text} ", f"( {text}\t)", f"[{text}]"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from("+-*"), inner).map("".join)
    # Python reads ++ and -- as two signs, as we do; `* *` would be a power.
    signed = st.tuples(st.sampled_from("+-"), inner).map("".join)
    return (binary | signed).flatmap(spaced)


SUMS = st.recursive(NUMBERS.map(str), grown, max_leaves=30)


def pythons(text: str) -> int:
    return eval(compile(ast.parse(text.translate(str.maketrans("[]", "()")).strip(), mode="eval"),
                        "<sum>", "eval"))  # fmt: skip


@given(SUMS)
def test_value_is_pythons(text):
    assert exact(parse(text), {}) == pythons(text)
    solution = right_calculator().solve(text)
    assert solution.value == pythons(text) and solution.correct


@given(SUMS)
def test_every_node_needs_only_earlier_ones_and_no_two_need_the_same(text):
    nodes = parse(text).nodes
    used = [need for node in nodes if node is not None for need in operands(node)]
    assert len(used) == len(set(used))
    assert all(need < index for index, node in enumerate(nodes) if node for need in operands(node))


@given(st.integers(-999, 999), st.integers(-99, 99).filter(bool))
def test_division_truncates_and_the_rest_has_the_sign_of_the_dividend(a, b):
    (solution,) = right_calculator().solve_many([f"{a}/({b})"], Rules("remainder"))
    result = solution.result
    quotient, rest = (result, Number(0)) if isinstance(result, Number) else result
    assert quotient.units * b + rest.units == a and abs(rest.units) < abs(b)
    assert quotient.units == int(a / b)


@given(st.sampled_from("+-*/"), st.integers(-99, 99), st.integers(-99, 99))
def test_signs_are_taken_away_and_put_back(op, a, b):
    if op == "/" and b == 0:
        return
    question = unsigned(op, a, b)
    asked, (x, y) = question.problem
    assert min(x, y) >= 0 and asked in "+-*/"
    assert question.signed(apply(asked, x, y)) == apply(op, a, b)


def test_many_operands_are_taken_in_pairs_side_by_side(monkeypatch):
    calculator = perfect()
    monkeypatch.setattr(type(calculator.task), "operands_at_most", 2)
    sizes = []
    asked = calculator._asker.ask
    calculator._asker.ask = lambda problems, together: (
        sizes.append(len(problems)), asked(problems, together),
    )[1]  # fmt: skip
    solution = calculator.solve("+".join(map(str, range(1, 501))))
    assert solution.answer == "125250" and sizes == [250, 125, 62, 31, 16, 8, 4, 2, 1]
    assert calculator.solve("10-1-2-3").answer == "4"
    reductions = [step.reduction for step in calculator.solve("10-1-2-3").steps]
    assert reductions == ["10 - 1", "2 + 3", "9 - 5"]


def test_events_tell_the_same_as_the_solution():
    calculator = perfect()
    events = list(calculator.stream("(1.5+2)*3"))
    assert isinstance(events[-1], Finished)
    solution = events[-1].solution
    assert solution == calculator.solve("(1.5+2)*3") and solution.answer == "10.5"
    started = [event for event in events if isinstance(event, StepStarted)]
    assert [event.reduction for event in started] == ["1.5 + 2", "3.5 * 3"]
    assert [event.prompt for event in started] == ["15+20=", "35*3="]
    done = [event.done for event in events if isinstance(event, StepFinished)]
    assert tuple(done) == solution.steps
    for number, step in enumerate(done):
        tokens = [e for e in events if isinstance(e, TokenWritten) and e.step == number]
        assert "".join(token.char for token in tokens) == step.completion
        assert [token.place for token in tokens] == list(range(len(tokens)))
        assert all(token.correct for token in tokens) and tokens[-1].label == "answer"


def test_events_mark_wrong_tokens_and_say_what_is_wrong_with_a_line():
    calculator = perfect(spoil=lambda prompt, text: "0050#" if prompt == "12+34=" else text)
    *events, last = calculator.stream("12+34")
    tokens = [event for event in events if isinstance(event, TokenWritten)]
    assert [token.correct for token in tokens].count(False) == 2
    assert last.solution.answer == "50" and last.solution.correct is False
    (bad,) = calculator.stream("1+")
    assert "missing number" in bad.solution.error
    (refused,) = calculator.stream("9" * 400 + "*" + "9" * 50)
    assert "too much work" in refused.solution.error


@pytest.mark.parametrize("rules", [Rules(), Rules("remainder"), Rules("fraction")])
def test_streaming_reaches_what_solving_does(rules):
    calculator = perfect()
    for text in ("7/2", "2^10-1", "-7//2", "1.25*4%", "2/3", "1/0"):
        *_, last = calculator.stream(text, rules)
        assert last.solution == calculator.solve_many([text], rules)[0]


@pytest.mark.parametrize(("base", "exponent"), [("1.5", 1234), ("-1.5", 1233), ("1.01", 9999)])
def test_a_rounded_power_keeps_all_digits_of_its_whole_part(base, exponent):
    """Of 1.5^1234, 218: rounding on the way to it once left zeros behind the first seventeen."""
    typed = parse(f"({base})").nodes
    (number,) = (node.value for node in typed if isinstance(node, Literal))
    number = -number if base[0] == "-" else number
    found = driven(Decimals(Rules()).power(number, Number(exponent)), exactly)
    value = Fraction(base) ** exponent
    assert found.rounded and found.value == rounded(value, 12)
    assert len(str(found).lstrip("-").partition(".")[0]) == len(str(abs(int(value)))) > 12


@pytest.mark.parametrize("text", ["2^(2/3+0.333333333333)", "3^(2/3+1.333333333333)"])
def test_an_exponent_that_is_whole_by_rounding_alone_has_no_exact_power(text):
    solution = right_calculator().solve(text)
    assert solution.exact is None
    assert solution.exactly == "no exact value: an exponent is whole by rounding alone"
