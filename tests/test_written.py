"""Every task, against Python integers: each line of each written row, and what people type."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.task import SPLITS, Problem, UsageError
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

LONG = 70  # digits: far beyond 64 bits
HINT = re.compile("[A-Z]")


class Reader:
    """Reads a row's work from left to right, as a person checking it would."""

    def __init__(self, work: str) -> None:
        self.rest = work

    def take(self, pattern: str) -> str:
        match = re.match(pattern, self.rest)
        assert match, f"expected {pattern} before {self.rest[:40]!r}"
        self.rest = self.rest[match.end() :]
        return match[0]

    def low_first(self, size: int) -> int:
        """A number of `size` digits, least significant first."""
        return int(self.take(rf"[0-9]{{{size}}}")[::-1])

    def with_carries(self, number: int, carries: list[int]) -> None:
        """A number, each digit followed by what its column carries or borrows, lowest first."""
        for place, carry in enumerate(carries):
            assert int(self.take("[0-9]")) == number // 10**place % 10
            assert int(self.take("[0-9]")) == carry


def tens(columns: int) -> list[int]:
    """10, 100, ...: what is below one is in so many of the lowest columns."""
    return [10 ** (place + 1) for place in range(columns)]


def check_add(task, a: int, b: int, read: Reader) -> None:
    if task.trace == "detailed":
        check_detailed(a, b, read)
    if task.trace == "turing":
        check_turing(a, b, read)
    body = read.take("[0-9]+")
    if task.trace == "carry":
        body, carries = body[0::2], body[1::2]
        assert [int(c) for c in carries] == [(a % t + b % t) // t for t in tens(len(body))]
        if task.format == "plain":
            size = max(len(str(a)), len(str(b)))
            assert body[::-1] == str((a + b) % 10**size).zfill(size)
            read.take("=")
            body = read.take("[0-9]+")
    total = body if task.format == "plain" else body[::-1]
    size = max(len(str(a)), len(str(b))) + 1
    assert total == (str(a + b).zfill(size) if task.format == "padded" else str(a + b))


def check_detailed(a: int, b: int, read: Reader) -> None:
    """The lines of the detailed scratchpad, digits from the operands' texts."""
    size = max(len(str(a)), len(str(b)))
    for k in range(size + 1):
        left = [str(number)[: max(0, len(str(number)) - k)] for number in (a, b)]
        settled = str((a + b) % 10**k).zfill(k) if k else ""
        carry = (a % 10**k + b % 10**k) // 10**k
        read.take(re.escape(f"{left[0]}+{left[1]},{settled},{carry}"))
        if k < size:
            x, y = (int(text[-1:] or 0) for text in left)
            total = f"{x + y + carry:02}"
            read.take(re.escape(f",{x}+{y}+{carry}={total},{total[1]},{total[0]};"))
    read.take("=")


def check_turing(a: int, b: int, read: Reader) -> None:
    """The tape after each column, from the operands' texts: what is left of them, then the sum."""
    for k in range(max(len(str(a)), len(str(b)))):
        tapes = []
        for number in (a, b):
            left = str(number)[: max(0, len(str(number)) - k)]
            tapes.append(left[:-1] + chr(ord("a") + int(left[-1:] or 0)))
        total = a % 10 ** (k + 1) + b % 10 ** (k + 1)
        found = str(total % 10 ** (k + 1)).zfill(k + 1)
        read.take(re.escape(f"{tapes[0]}+{tapes[1]},{total // 10 ** (k + 1)},{found};"))
    read.take("=")


def check_sub(task, a: int, b: int, read: Reader) -> None:
    size = max(len(str(a)), len(str(b)))
    if task.trace == "borrow":
        assert read.low_first(size) == (a - b) % 10**size
    elif task.trace == "carry":
        read.with_carries((a - b) % 10**size, [a % t < b % t for t in tens(size)])
    if task.trace != "none" or task.sign == "before":
        assert read.take("[-+]") == "-+"[a >= b]
    assert read.low_first(size) == abs(a - b)
    if task.trace == "none" and task.sign == "after":
        assert read.take("[-+]") == "-+"[a >= b]


def check_mul(task, a: int, b: int, read: Reader) -> None:
    size, count = len(str(a)), len(str(b))
    for k, digit in enumerate(map(int, str(b)[::-1])):
        settled = a * (b % 10**k) // 10**k  # what earlier rows add to this one
        if task.trace == "rows":
            assert read.low_first(size + 1) == a * digit
            read.take(",")
            if k:
                assert read.low_first(size + 1) == a * digit + settled
                read.take(";")
        elif task.trace == "carry":
            product, columns = a * digit, tens(size)
            read.with_carries(product, [a % t * digit // t for t in columns])
            assert int(read.take("[0-9]")) == product // 10**size
            read.take(",")
            carries = [(product % t + settled % t) // t for t in tens(size + 1)]
            read.with_carries(product + settled, carries)
            read.take(";")
        elif task.trace == "whole":  # from the ones upwards; the last running sum is the answer
            read.take(r"\+" if k else "")
            assert read.low_first(size + 1 + k) == a * digit * 10**k
            if 0 < k < count - 1:
                read.take(",")
                assert read.low_first(size + 1 + k) == a * (b % 10 ** (k + 1))
                read.take(";")
    if task.trace != "none":
        read.take("=")
    assert read.low_first(size + count) == a * b


def check_div(task, a: int, b: int, read: Reader) -> None:
    size = len(str(b))
    count = max(len(str(a)) - size + 1, 0)
    if task.trace in ("doubling", "carry"):
        for multiple in (2, 4, 8):
            assert read.low_first(size + 1) == multiple * b
            read.take(",")
    check_step = check_tries_with_carries if task.trace == "carry" else check_division_step
    for step in range(count if task.trace != "none" else 0):
        check_step(task.trace, a // 10 ** (count - 1 - step), b, read)
    if task.trace != "none":
        read.take("=")
    assert read.take("[0-9]+") == str(a // b).zfill(max(count, 1))
    read.take("r")
    assert read.low_first(min(len(str(a)), size)) == a % b


def check_division_step(trace: str, prefix: int, b: int, read: Reader) -> None:
    """One digit of the quotient: `prefix` is the dividend down to the digit brought down."""
    size = len(str(b))
    value = 10 * (prefix // 10 % b) + prefix % 10

    def signed_row() -> None:
        assert read.low_first(size + 1) == value % 10 ** (size + 1)
        assert read.take("[-+]") == ("-" if value < 0 else "+")

    if trace == "doubling":
        for multiple in (8, 4, 2, 1):
            value += -multiple * b if value >= 0 else multiple * b
            signed_row()
    else:
        guess = int(read.take("[0-9]"))
        assert guess - value // b in (0, 1)
        assert read.low_first(size + 1) == guess * b
        read.take(",")
        value -= guess * b
        signed_row()
    assert read.low_first(size) == prefix % b
    assert int(read.take("[0-9]")) == prefix // b % 10
    read.take(";")


def check_tries_with_carries(trace: str, prefix: int, b: int, read: Reader) -> None:
    """The same where each digit is followed by what its column carries or borrows."""
    size = len(str(b))
    value = 10 * (prefix // 10 % b) + prefix % 10
    for multiple in (8, 4, 2, 1):
        row, other = value % 10 ** (size + 1), multiple * b
        if value >= 0:
            carries = [row % t < other % t for t in tens(size + 1)]
            value -= other
        else:
            carries = [(row % t + other % t) // t for t in tens(size + 1)]
            value += other
        read.with_carries(value % 10 ** (size + 1), carries)
        assert read.take("[-+]") == ("-" if value < 0 else "+")
    assert int(read.take("[0-9]")) == prefix // b % 10
    read.take(",")
    row, given_back = value % 10 ** (size + 1), b if value < 0 else 0
    carries = [(row % t + given_back % t) // t for t in tens(size)]
    read.with_carries(prefix % b, carries)
    read.take(";")


CHECKS = {"+": check_add, "-": check_sub, "*": check_mul, "/": check_div}


def answer(op: str, a: int, b: int) -> tuple[int, int]:
    """The right answer, and the rest of a quotient."""
    return (a // b, a % b) if op == "/" else ({"+": a + b, "-": a - b, "*": a * b}[op], 0)


def part(task, op: str):
    """The task of one operation: a mixture's part, or the task itself."""
    return task.parts[op] if hasattr(task, "parts") else task


def check(task, a: int, op: str, b: int, work: str) -> None:
    """A row's work, line by line, and the answer read from it."""
    read = Reader(work)
    CHECKS[op](part(task, op), a, b, read)
    assert not read.rest, f"{read.rest!r} left over in {a}{op}{b}={work}"
    problem = Problem(op, (a, b))
    assert task.read(problem, work + "#") == answer(op, a, b) == task.truth(problem)


def operands(digits: int):
    """Numbers of 1 to `digits` digits, lengths as likely as one another, edge cases often."""
    lengths = st.integers(1, digits)
    plain = lengths.flatmap(lambda n: st.integers(10 ** (n - 1) if n > 1 else 0, 10**n - 1))
    edge = lengths.map(lambda n: 10**n - 1) | lengths.map(lambda n: 10 ** (n - 1))
    return plain | edge


@settings(max_examples=25)
@given(st.lists(st.tuples(operands(9), operands(9)), min_size=1, max_size=6))
def test_every_line_of_every_row_is_right(binary, matrices, read_rows, some):
    check_written(binary(digits=9), matrices, read_rows, some)


@pytest.mark.parametrize("first", [LONG, LONG // 2])
def test_numbers_far_beyond_64_bits(binary, matrices, read_rows, first):
    rng = np.random.default_rng(first)
    sizes = [(first, LONG), (LONG, LONG // 2), (LONG, 1), (1, LONG), (LONG, LONG)]
    some = [tuple(long_number(rng, n) for n in pair) for pair in sizes]
    check_written(binary(digits=LONG), matrices, read_rows, [*some, (10**LONG - 1,) * 2])


def long_number(rng, digits: int) -> int:
    return int("".join(map(str, [rng.integers(1, 10), *rng.integers(0, 10, digits - 1)])))


def check_written(task, matrices, read_rows, some) -> None:
    if task.op == "/":
        some = [(a, b or 1) for a, b in some]
    a, b, len_a, len_b = matrices(some)
    batch = task.write(a, b, len_a, len_b).batch()
    rows = read_rows(task, batch)
    assert [(a, b) for a, _, b, _ in rows] == some
    for row in rows:
        check(task, *row)


@pytest.mark.parametrize("split", SPLITS)
def test_every_drawn_row_is_right(any_task, read_rows, split):
    for row in read_rows(any_task, any_task.batch(np.random.default_rng(0), 300, split)):
        check(any_task, *row)


@pytest.mark.parametrize("text", ["12{0}3", " 12 {0} 3 ", "12{0}3=", "012{0}03"])
def test_prompt_and_truth_of_what_a_person_types(any_task, text):
    for op in {cell.op for cell in any_task.cells()}:
        hinted = getattr(any_task, "hints", False)
        prompt = f"B1A2{op}A3=" if hinted else f"12{op}3="
        problem = any_task.parse(text.format(op))
        assert problem == Problem(op, (12, 3)) and any_task.text(problem) == f"12{op}3"
        assert any_task.prompt(problem) == prompt
        assert any_task.truth(problem) == answer(op, 12, 3)
        assert any_task.in_train_range(problem)


@settings(max_examples=20)
@given(operands(LONG), operands(LONG))
def test_truth_is_python_s(any_task, a, b):
    for op in {cell.op for cell in any_task.cells()}:
        if b or op != "/":
            problem = Problem(op, (a, b))
            assert any_task.truth(problem) == answer(op, a, b)
            most = part(any_task, op).digits
            trained = max(len(str(a)), len(str(b))) <= most
            assert any_task.in_train_range(problem) == trained
            assert any_task.in_eval_range(problem) == trained


@pytest.mark.parametrize(
    "text", ["", "+", "1+", "1", "a+b", "1.5+2", "1e5+2", "1++2", "-1+2", "١+٢", "1+2+3", "2**3"]
)
def test_what_is_not_a_problem_is_refused_by_name(any_task, text):
    with pytest.raises(ValueError, match="is not a problem like|this model does"):
        any_task.parse(text)


@pytest.mark.parametrize("name", ["div", "calc"])
def test_division_by_zero_is_refused(name):
    task = load_task(name)
    with pytest.raises(ValueError, match="division by zero"):
        task.parse("5/00")
    for ask in (task.prompt, task.truth):
        with pytest.raises(ValueError, match="division by zero"):
            ask(Problem("/", (5, 0)))


def test_operands_longer_than_can_be_written_are_refused():
    with pytest.raises(ValueError, match="at most 1000 digits"):
        load_task("add").parse("1" * 1001 + "+1")
    with pytest.raises(ValueError, match="at most 1000 digits"):
        load_task("add").prompt(Problem("+", (10**1000, 1)))


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
        ("div", {"trace": "estimate"}, "340,21+21;=00r21#"),
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
    for div in ("doubling", "carry", "estimate", "none")
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
