"""Parsing and exact evaluation, against Python's own integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.expression import (
    MAX_DEPTH,
    MAX_DIGITS,
    Operation,
    apply,
    evaluate,
    parse,
    rounds,
    unsigned,
)
from addgpt.task import Answer

NUMBERS = st.integers(0, 10**30) | st.integers(0, 12)


def spaced(text: str) -> st.SearchStrategy[str]:
    return st.sampled_from([text, f"({text})", f" {text} ", f"( {text}\t)"])


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from("+-*"), inner).map("".join)
    # Python reads ++ and -- as two signs, as we do.
    signed = st.tuples(st.sampled_from("+-"), inner).map("".join)
    return (binary | signed).flatmap(spaced)


SUMS = st.recursive(NUMBERS.map(str), grown, max_leaves=30)


@given(SUMS)
def test_value_is_pythons(text):
    assert evaluate(parse(text))[-1] == Answer(eval(text))


@given(st.integers(-999, 999), st.integers(-99, 99).filter(bool))
def test_division_truncates_and_the_rest_has_the_sign_of_the_dividend(a, b):
    quotient, rest = evaluate(parse(f"{a}/({b})"))[-1]
    assert quotient * b + rest == a
    assert abs(rest) < abs(b)
    assert rest == 0 or (rest < 0) == (a < 0)
    assert quotient == int(a / b)


@given(st.integers(-999, 999), st.integers(-99, 99).filter(bool), st.integers(1, 50))
def test_exact_division_inside_an_expression(a, b, c):
    assert evaluate(parse(f"{c}+({a}*({b})*2)/({b})-{c}"))[-1] == Answer(2 * a)


@given(st.sampled_from("+-*/"), st.integers(-99, 99), st.integers(-99, 99))
def test_signs_are_taken_away_and_put_back(op, a, b):
    if op == "/" and b == 0:
        return
    question = unsigned(op, a, b)
    asked, (x, y) = question.problem
    assert min(x, y) >= 0 and asked in "+-*/"
    assert question.signed(apply(asked, x, y)) == apply(op, a, b)
    assert evaluate(parse(question.reduction))[-1] == apply(op, a, b)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2+3*4", "14"),
        ("(2+3)*4", "20"),
        ("10-3-2", "5"),
        ("24/4/2", "3"),
        ("2*-3", "-6"),
        ("--3", "3"),
        ("-+-+3", "3"),
        ("007", "7"),
        ("-0", "0"),
        ("-7/2", "-3 remainder -1"),
        ("7/-2", "-3 remainder 1"),
        ("-(7/2)", "-3 remainder -1"),
        ("1/-3", "0 remainder 1"),
        ("12 + 34 =", "46"),
        ("\t1\n+ 1", "2"),
        ("-" * 9000 + "1", "1"),
        ("(" * MAX_DEPTH + "5" + ")" * MAX_DEPTH, "5"),
        ("9" * MAX_DIGITS + "+1", "1" + "0" * MAX_DIGITS),
    ],
)
def test_examples(text, value):
    assert str(evaluate(parse(text))[-1]) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \t ", "empty"),
        ("12 $ 3", "unknown character '$'"),
        ("x+1", "unknown character 'x'"),
        ("2×3", "write *"),
        ("１２+1", "not an ASCII digit"),
        ("٣+1", "not an ASCII digit"),
        ("2²", "not an ASCII digit"),
        ("1.5", "decimal point"),
        (".5", "decimal point"),
        ("1e5", "exponents"),
        ("2E-3", "exponents"),
        ("2**3", "powers"),
        ("7//2", "//"),
        ("()", "empty parentheses"),
        ("2*()", "empty parentheses"),
        ("(1+2", "unbalanced"),
        ("1+2)", "unbalanced"),
        ("1+", "missing operand after '+'"),
        ("-", "missing operand after '-'"),
        ("1*/2", "missing operand before '/'"),
        ("*3", "missing operand before '*'"),
        ("(1+)", "missing operand before ')'"),
        ("1 2", "missing operator before '2'"),
        ("2(3)", "missing operator before '('"),
        ("1==", "unknown character '='"),
        ("1" * (MAX_DIGITS + 1), "1,001 digits"),
        ("1+" * 5001 + "1", "too long"),
        ("(" * 1001 + "1" + ")" * 1001, "too deep"),
        ("(" * 4999, "too deep"),
        ("1/0", "division by zero"),
        ("1/(2-2)", "division by zero"),
        ("7/2*2", "must be exact"),
        ("1-7/2", "3 remainder 1"),
        ("*".join(["9" * 900] * 3), "intermediate result"),
    ],
)
def test_bad_input_is_one_clear_line(text, words):
    with pytest.raises(ValueError, match=".") as caught:
        evaluate(parse(text))
    message = str(caught.value)
    assert words in message
    assert "\n" not in message and len(message) < 200


@given(SUMS)
def test_every_round_needs_only_earlier_ones(text):
    nodes = parse(text)
    done: set[int] = set()
    for turn in rounds(nodes):
        operations = [i for i in turn if isinstance(nodes[i], Operation)]
        assert all({nodes[i].left, nodes[i].right} <= done for i in operations)
        done |= set(turn)
    assert done == set(range(len(nodes)))
