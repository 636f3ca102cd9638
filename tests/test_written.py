"""Every task, against Python integers: each line of each written row, and what people type."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.task import SPLITS, Problem
from addgpt.task_lookup import load_task
from tests.helpers.operands import answer, operands

pytestmark = pytest.mark.slow

LONG = 70  # digits: far beyond 64 bits


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
    check_step = check_tries_with_carries if task.trace == "carry" else check_tries
    for step in range(count if task.trace != "none" else 0):
        check_step(a // 10 ** (count - 1 - step), b, read)
    if task.trace != "none":
        read.take("=")
    assert read.take("[0-9]+") == str(a // b).zfill(max(count, 1))
    read.take("r")
    assert read.low_first(min(len(str(a)), size)) == a % b


def check_tries(prefix: int, b: int, read: Reader) -> None:
    """One digit of the quotient: `prefix` is the dividend down to the digit brought down."""
    size = len(str(b))
    value = 10 * (prefix // 10 % b) + prefix % 10
    for multiple in (8, 4, 2, 1):
        value += -multiple * b if value >= 0 else multiple * b
        assert read.low_first(size + 1) == value % 10 ** (size + 1)
        assert read.take("[-+]") == ("-" if value < 0 else "+")
    assert read.low_first(size) == prefix % b
    assert int(read.take("[0-9]")) == prefix // b % 10
    read.take(";")


def check_tries_with_carries(prefix: int, b: int, read: Reader) -> None:
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


def test_prompt_and_truth_of_what_a_person_types(any_task):
    hinted = getattr(any_task, "hints", False)
    for op in {cell.op for cell in any_task.cells()}:
        prompt = f"B1A2{op}A3=" if hinted else f"12{op}3="
        for text in (f"12{op}3", f" 12 {op} 3 ", f"12{op}3=", f"012{op}03"):
            problem = any_task.parse(text)
            assert problem == Problem(op, (12, 3)) and any_task.text(problem) == f"12{op}3", text
            assert any_task.prompt(problem) == prompt, text
            assert any_task.truth(problem) == answer(op, 12, 3), text
            assert any_task.in_train_range(problem), text


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


def test_what_is_not_a_problem_is_refused_by_name(any_task):
    words = "is not a problem like|this model does"
    wrong = ["", "+", "1+", "1", "a+b", "1.5+2", "1e5+2", "1++2", "-1+2", "١+٢", "1+2+3", "2**3"]
    for text in wrong:
        with pytest.raises(ValueError, match=words):
            print("not refused:", any_task.parse(text))


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
