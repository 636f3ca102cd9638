"""What is read from a completion: nothing but a finished trace of the problem that was asked."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.task import Problem, UsageError
from addgpt.task_lookup import load_task
from tests.helpers.operands import answer, operands

pytestmark = pytest.mark.slow

HINT = re.compile("[A-Z]")
ANYTHING = st.text("0123456789+-*/=#r,;", max_size=30) | st.text(max_size=12)


@settings(max_examples=25)
@given(ANYTHING)
def test_what_is_no_finished_trace_has_no_answer(any_task, text):
    for op in {cell.op for cell in any_task.cells()}:
        try:
            whole, rest = any_task.read(Problem(op, (12, 3)), text)
        except ValueError as error:
            assert "is not a finished" in str(error)
        else:
            assert text.endswith("#") and isinstance(whole, int) and isinstance(rest, int)


def shape(op: str, trace: str) -> tuple[str, str]:
    """A trace's rows, and its answer, each digit a 0 and each sign an s."""
    text = re.sub("[0-9]", "0", HINT.sub("", trace))
    text = re.sub("[-+]", "s", text) if op in "-/" else text
    work, separator, answer = text.partition("s") if op == "-" else text.rpartition("=")
    return (work + separator, answer) if separator else ("", answer or work)


@settings(max_examples=60)
@given(st.data(), operands(4), operands(4))
def test_what_is_read_has_the_shape_of_the_right_trace(binary, matrices, data, a, b):
    """Right traces with characters changed, left out, or put in."""
    task = binary(digits=4)
    b = b or 1
    batch = task.write(*matrices([(a, b)])).batch()
    right = task.texts(batch)[0][1]
    text = right
    for _ in range(data.draw(st.integers(1, 3))):
        place, new = data.draw(st.integers(0, len(text))), data.draw(st.text("05+-r=,;#A"))
        text = text[:place] + new + text[place + data.draw(st.integers(0, 3)) :]
    problem = Problem(task.op, (a, b))
    if outcome(task, problem, text) == "refused":
        return
    work, written = shape(task.op, text)
    after = getattr(task, "trace", "") == "none" and getattr(task, "sign", "") == "after"
    if not (task.op == "-" and after):
        assert work == shape(task.op, right)[0]
    assert re.fullmatch({"-": "0*s?0*#", "/": "0+r0+#"}.get(task.op, "0+#"), written)


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        ("mul", {}, "r-+/=5#"),  # no rows at all
        ("mul", {}, "80400,804000;60300,014000;60300,=8040#"),  # one too many
        ("mul", {}, "80400,804000;6030,014000;=8040#"),  # one too short
        ("mul", {"trace": "rows"}, "840,630,040;840,=8040#"),
        ("mul", {"trace": "rows"}, "840,63,040;=8040#"),
        ("div", {}, "=00r21#"),
        ("div", {}, "086,,=00r21#"),
        ("div", {"trace": "doubling"}, "86,631,272,;=00r21#"),
        ("sub", {}, "8171-2#2#"),
        ("sub", {}, "81-22#"),
        ("sub", {}, "0000-00#"),  # a negative zero
        ("sub", {"trace": "borrow"}, "6-22#"),
        ("sub", {"trace": "borrow"}, "00-00#"),
        ("sub", {"trace": "none"}, "-00#"),
        ("sub", {"trace": "none", "sign": "after"}, "00-#"),
        ("add", {"trace": "detailed"}, "x=64#"),
        ("add", {"trace": "carry", "format": "plain"}, "60=46#"),
        ("add", {"hints": True}, "ABB64#"),
        ("add", {}, "0" * 5000 + "#"),  # more than Python turns into a number
    ],
)
def test_junk_before_an_answer_is_not_read(name, options, text):
    task = load_task(name, options)
    with pytest.raises(UsageError, match="is not a finished"):
        task.read(Problem(task.op, (12, 34)), text)


@settings(max_examples=200)
@given(st.data(), operands(4), st.sampled_from("+-*/"), operands(4), st.sampled_from("+-*/"))
def test_a_mixture_reads_and_refuses_what_its_part_does(matrices, data, a, op, b, other):
    """Any text, and right traces of this and of other operations with something changed in them."""
    task = load_task("calc", data.draw(st.sampled_from(MIXTURES)))
    problem, part = Problem(op, (a, b or 1)), task.parts[op]
    sheet = task.parts[other].write(*matrices([(a, b or 1)]))
    trace = task.decode(sheet.batch().tokens[0]).partition("=")[2]
    place, new = data.draw(st.integers(0, len(trace))), data.draw(st.text("019+-r=,;#", max_size=2))
    changed = trace[:place] + new + trace[place + data.draw(st.integers(0, 2)) :]
    for text in (data.draw(ANYTHING), trace, changed):
        assert outcome(task, problem, text) == outcome(part, problem, text)
    if other == op:
        assert outcome(task, problem, trace) == answer(op, a, b or 1)


def outcome(task, problem, text):
    """What a task reads, or that it refuses."""
    try:
        return task.read(problem, text)
    except ValueError:
        return "refused"


MIXTURES = [
    {"digits": 4, "sum_digits": 4, "mul_trace": mul, "div_trace": div, "sub_trace": sub}
    for mul in ("rows", "carry", "none")
    for div in ("doubling", "carry", "none")
    for sub in ("borrow", "carry", "none")
]


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (Problem("-", (345, 12)), "333#"),  # neither sign nor trace: the digits of a sum
        (Problem("/", (15, 5)), "x,;=30#"),  # no remainder: the end of a product
        (Problem("+", (128, 367)), "766-495#"),  # a difference's
        (Problem("*", (12, 34)), "408r0#"),  # a quotient's
    ],
)
def test_a_completion_is_read_for_the_problem_that_was_asked(problem, text):
    with pytest.raises(ValueError, match="is not a finished"):
        load_task("calc").read(problem, text)
