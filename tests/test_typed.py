"""What people type: read as they mean it, or refused with what to type instead; never in part."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from addgpt.calculator.expression import parse
from addgpt.calculator.numbers import Rules
from addgpt.calculator.show import exact_text
from addgpt.calculator.typed import tokens
from benchmarks.calculator import compare
from tests.helpers.calculators import exact
from tests.helpers.desk import evaluate, random_expression, random_line, translated

pytestmark = pytest.mark.slow

CALCULATOR = exact()
TYPED = """
1,000+2|1002
1_000_000*2|2000000
1 234 567+1|1234568
3 x 4|12
12 × 3|36
12·3|36
84 ÷ 7|12
−5+3|-2
5 – 3|2
2^10|1024
2**10|1024
10%3|1
50%|0.5
200*15%|30
1.5*2|3
0.1+0.2|0.3
10/4|2.5
1/3|0.333333333333
17/5+1|4.4
(17/5)*5|17
7//2|3
-7//2|-4
10 mod 3|1
10 - -3|13
=12+3|15
12+3=|15
(2)(3)|6
2(3+4)|14
1e3+1|1001
３＋４|7
[1+2]*3|9
{1+2}*3|9
1+2 # a comment|3
12 plus 3|15
what is 2+2?|4
2²|4
2^-3|0.125
10⁻²|0.01
2^3^2|512
-2^2|-4
(-2)^2|4
0^0|1
15% of 80|12
-7%3|2
7%-3|error
7 mod -3|-2
7 % -3|-2
50% - 3|-2.5
7.5 % 2|1.5
100%|1
1\u202f000\u00a0000+1|1000001
1’000+1|1001
.5+5.|5.5
1,234.5*2|2469
3x4|12
0 x 4|0
10x4|40
2X3|6
8:2|4
8⁄2|4
8∕2|4
2(3)4|24
6/2(1+2)|9
How much is 3 squared|9
2 to the power of 5|32
12 divided by 4 =?|3
  7 |7
\ufeff1+1|2
2\u200b+2|4
٣+1|4
0.000|0
-0|0
1e-30|1e-30
2/3|0.666666666667
1/3*3|0.999999999999
1/8|0.125
2/3e20|0.00000000000000000000666666666667
1e15/3|333333333333333
"""


def answer(text: str, **rules) -> str:
    (solution,) = CALCULATOR.solve_many([text], Rules(**rules))
    assert solution.error is not None or solution.correct
    return "error" if solution.error else solution.answer


@pytest.mark.parametrize("line", TYPED.strip("\n").split("\n"))
def test_what_people_type(line):
    text, _, wanted = line.rpartition("|")
    assert answer(text) == wanted


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \t # nothing", "empty"),
        ("six plus 1", "'six': numbers are typed in digits, 6"),
        ("sqrt(16)", "no function 'sqrt'; valid: 0-9"),
        ("5!", "type the product"),
        ("1/0", "division by zero"),
        ("5/(2-2)", r"division by zero: \(2-2\) is 0"),
        ("5%(1-1)", r"division by zero: \(1-1\) is 0"),
        ("0^-1", "^0 to a negative power has no value$"),
        ("2+(1-1)^-3", r"0 to a negative power has no value: \(1-1\) is 0"),
        ("1.2.3+1", "more than one point"),
        ("1,23+4", "'1,23' is not a number: for a decimal type 1.23, for thousands 1,234"),
        ("0,123", "for a decimal type 0.123"),
        ("1,0000", "1.0000"),
        ("1,234,56", "group by three"),
        ("1234,567", "1234.567"),
        ("1.234,56", "group by three"),
        ("1_00", "group by three"),
        ("1'00", "group by three"),
        ("1 23", "missing operator before '23'"),
        ("1 234 56", "missing operator before '234'"),
        ("1,234 567", "missing operator before '567'"),
        ("1 2345", "missing operator"),
        ("2^0.5", "exponents must be, as in 2\\^10"),
        ("2^(1/3)", "exponents must be, as in 2\\^10"),
        ("2^99999", "the limit is 9,999"),
        ("2^9999", "more than 1,000 digits"),
        ("9**9**9", "the exponent 38742048.* is too large"),
        ("0.5^9999", "more than 1,000 digits"),
        ("7%-3", "'%-' may be a percentage less something"),
        ("50%-3", "'%-' may be"),
        ("1+0x10", "'0x' may begin a hexadecimal number"),
        ("x = 3", "names have values only at the prompt"),
        ("ans+1", "names have values only at the prompt"),
        ("5 apples", "unknown word 'apples'"),
        ("1=2", "'=' may only stand"),
        ("12+3==", "'=' may only stand|missing number"),
        ("12 $ 3", r"unknown character '\$'; valid: 0-9"),
        ("½+1", r"type \(1/2\)"),
        ("√16", "roots are not supported"),
        ("2+?3", "'\\?' may only stand at the end"),
        ("1+.", "a point needs digits"),
        ("()", "empty brackets"),
        ("(1+2", r"'\(' is not closed"),
        ("1+2)", r"'\)' was never opened"),
        ("[1+2)", r"'\[' is closed by '\)'"),
        ("1+", r"missing number after '\+', at the end"),
        ("1*/2", "missing number before '/'"),
        ("%3", "missing number before '%'"),
        ("1e9999", "the limit is 1,000"),
        ("1e-9999", "the limit is 1,000"),
        ("1e99999999999", "the limit is 1,000"),
        ("1" * 1001, "1,001 digits; the limit is 1,000"),
        ("1+" * 50001 + "1", "too long: 100,003 characters"),
        ("(" * 1001 + "1", "too deep"),
        ("9" * 1000 + "*2+1", "more than 1,000 digits|too much work"),
        ("1e-900*1e-900", "more than 1,000 decimal places"),
    ],
)
def test_what_cannot_be_answered_says_why_in_one_line(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        CALCULATOR.solve(text)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 200


@pytest.mark.parametrize("division", ["decimal", "remainder", "fraction"])
def test_zero_has_no_negative_power_whatever_a_division_gives(division):
    texts = ["0^-1", "(2-2)^(1-2)", "0^0", "(0/5)^3"]
    bare, typed, *good = CALCULATOR.solve_many(texts, Rules(division))
    assert bare.error == "0 to a negative power has no value"
    assert typed.error == f"{bare.error}: (2-2) is 0"
    assert [solution.answer for solution in good] == ["1", "0"]


def test_ten_thousand_terms_and_deep_nesting_end_without_recursion():
    assert answer("+".join(map(str, range(1, 10_001)))) == "50005000"
    assert answer("-".join(["1"] * 10_000)) == "-9998"
    assert answer("(" * 1000 + "5" + ")" * 1000) == "5"
    assert answer("-" * 9_000 + "1") == "1"
    assert answer("2*" * 800 + "1") == str(2**800)
    assert answer("2*" * 4000 + "1") == "error"  # 1,205 digits
    assert answer("1/" * 500 + "1") == "1"
    assert answer("1^" * 900 + "1") == "1"


def test_ten_thousand_random_expressions_are_what_python_makes_of_them():
    answered, _, refused = compare(CALCULATOR, 10_000, seed=0)
    assert answered > 8_000 and answered + refused == 10_000


@pytest.mark.parametrize("division", ["fraction", "decimal"])
def test_exact_values_are_those_of_fractions(division):
    rng, checked = random.Random(1), 0
    for _ in range(1_000):
        python = random_expression(rng, 2)
        try:
            wanted = evaluate(python, None).value
        except ArithmeticError:
            continue
        (solution,) = CALCULATOR.solve_many([python], Rules(division))
        if solution.error is None and "//" not in python and "%" not in python:
            assert solution.exact == wanted, python
            assert division == "decimal" or solution.value == wanted, python
            assert solution.rounded or solution.value == wanted, python
            checked += 1
    assert checked > 400


def test_ten_thousand_fuzzed_lines_have_no_traceback_and_no_wrong_number():
    rng, checked, accepted = random.Random(2), 0, 0
    for _ in range(10_000):
        line = random_line(rng)
        (solution,) = CALCULATOR.solve_many([line])
        if solution.error is not None:
            assert len(solution.error.splitlines()) == 1 and len(solution.error) < 250, line
            continue
        accepted += 1
        assert solution.correct, line
        try:
            wanted = evaluate(translated(line))
        except (SyntaxError, AttributeError):  # the translation knows less than the calculator
            continue
        checked += 1
        assert (solution.value, solution.rounded) == wanted, (line, translated(line))
    assert accepted > 2_000 and checked > 0.9 * accepted


@settings(max_examples=500, deadline=None)
@given(st.text("0123456789.,_ '+-*/%^()[]{}=?#xe²×−", max_size=24) | st.text(max_size=12))
@example("(" * 5000)
@example("1+" * 600 + "1")
@example("\ud800+1")
@example("\x00")
@example(" " * 20_000 + "!")
@example("divided" + " " * 20_000)
@example("1" * 90_000)
@example("1," * 40_000)
def test_any_text_is_answered_or_refused_in_one_line(text):
    (solution,) = CALCULATOR.solve_many([text])
    if solution.error is None:
        assert solution.correct
    else:
        assert len(solution.error.splitlines()) == 1 and len(solution.error) < 250


@given(st.integers(0, 10**12), st.sampled_from(",_ '’\u00a0\u202f\u2009"))
def test_separators_that_group_by_three_are_read(number, mark):
    text = f"{number:,}".replace(",", mark)
    (token,) = tokens(text)
    assert token.value.value == number


@given(st.from_regex(r"[0-9]{1,4}(?:[,_'][0-9]{1,4}){1,3}", fullmatch=True))
def test_a_number_is_never_taken_by_halves(text):
    """All of the digits, or none."""
    try:
        (token,) = tokens(text)
    except ValueError:
        return
    assert str(token.value) == "".join(filter(str.isdigit, text))
    first, *groups = "".join(c if c.isdigit() else " " for c in text).split()
    assert len(first) <= 3 and all(len(group) == 3 for group in groups)


def test_names():
    three = CALCULATOR.solve("x = 12*3/12", names={})
    assert three.name == "x" and three.answer == "3"
    names = {"x": three.result, "ans": three.result, "half": CALCULATOR.solve("1/2").result}
    for text, wanted in {
        "x": "3", "2x": "6", "2 x 4": "8", "x x x": "9", "2 x - 1": "5", "x^2": "9",
        "(x)(x)": "9", "ans%2": "1", "half*x": "1.5", "-x": "-3", "x = x+1": "4", "x%": "0.03",
    }.items():  # fmt: skip
        assert CALCULATOR.solve(text, names=names).answer == wanted, text
    for text, words in {
        "hafl*2": "'hafl' has no value; did you mean half",
        "y+1": "'y' has no value; y = 12",
        "ans = 3": "'ans' is the last answer",
        "x3 = 1": "'x3' reads as times 3",
        "plus = 1": "'plus' is a word",
        "half(3": "no function 'half'|not closed",
    }.items():
        with pytest.raises(ValueError, match=words):
            CALCULATOR.solve(text, names=names)
    assert CALCULATOR.solve("half", Rules("fraction"), names).answer == "1/2"
    third = {"third": CALCULATOR.solve("1/3", Rules("fraction")).result}
    assert CALCULATOR.solve("third", names=third).answer == "0.333333333333"


def test_a_kept_quotient_with_a_remainder_has_no_exact_value():
    rules = Rules("remainder")
    (kept,) = CALCULATOR.solve_many(["17/5"], rules)
    names = {"x": kept.result, "two": CALCULATOR.solve("2").result}
    assert kept.answer == "3 remainder 2" and exact_text(kept) == "exactly 3.4"
    for text, shown in {"x": "3 remainder 2", "-x": "-3 remainder -2"}.items():
        again = CALCULATOR.solve(text, rules, names)
        assert (again.answer, again.exact, exact_text(again)) == (shown, None, "")
    other = CALCULATOR.solve("two/3", rules, names)  # names that are not in it change nothing
    assert other.exact == Fraction(2, 3) and exact_text(other) == "exactly 2/3"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("(1.0001^9999/2.7181)^9999", "exact value not worked out: fractions of over 300,000"),
        ("*".join(["(1.0001^9999/3)"] * 9), "exact value not worked out: fractions of over"),
        ("1/(1/3*3-1)", "no exact value: division by zero"),
        ("(1/3*3-1)^-2", "no exact value: division by zero"),
    ],
)
@pytest.mark.timeout(20)
def test_an_exact_value_that_cannot_be_had_is_given_up_in_words(text, shown):
    solution = CALCULATOR.solve(text)
    assert solution.rounded and solution.exact is None
    assert exact_text(solution).startswith(shown)


def test_a_long_exact_value_is_worked_out_but_not_shown():
    solution = CALCULATOR.solve("1.0001^9999")
    assert solution.exact == Fraction("1.0001") ** 9999
    assert exact_text(solution) == "exactly a fraction of thousands of digits"


def test_notes_say_what_may_have_been_meant():
    assert "6/2" in parse("6/2(1+2)").notes[0]
    assert "15%" in parse("200+15%").notes[0] and not parse("200*15%").notes
    assert not parse("2(3)").notes and not parse("6/2*(1+2)").notes
