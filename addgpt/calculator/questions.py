"""Questions about whole numbers, which the model answers, and operations that ask them.

An operation is a generator: it yields the questions that it can ask now, is sent the answers, and
returns its value. Whoever drives it decides who answers: the model, or Python for the truth.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple, TypeVar

from addgpt.calculator.numbers import Quotient, Value, number
from addgpt.config.errors import UsageError
from addgpt.task import MAX_DIGITS, TOO_LARGE, Answer, Graded, Problem, Task

# An operation, and which of its operands are negative -> the problem on their absolute values:
# the operation, whether they change places, and the sign of the result.
SIGNS = {
    ("+", False, False): ("+", False, 1),
    ("+", False, True): ("-", False, 1),
    ("+", True, False): ("-", True, 1),
    ("+", True, True): ("+", False, -1),
    ("-", False, False): ("-", False, 1),
    ("-", False, True): ("+", False, 1),
    ("-", True, False): ("+", False, -1),
    ("-", True, True): ("-", True, 1),
}


OPERATORS = "+-*/"  # that a model may have
ZERO_DIVISION = "division by zero"


class Question(NamedTuple):
    """A problem without signs, and the signs of its result and of its rest."""

    problem: Problem
    sign: int
    rest_sign: int

    def signed(self, answer: Answer) -> Answer:
        """The result that an answer to the problem stands for."""
        return Answer(self.sign * answer.whole, self.rest_sign * answer.rest)


class Ask:
    """One of + - * / on whole numbers, which may be negative.

    op           the operation
    numbers      the units that it is asked of
    shown        the numbers that they stand for
    places       of the result, after the point
    rest_places  of the remainder of a division
    """

    __slots__ = ("numbers", "op", "places", "question", "rest_places", "shown")

    def __init__(
        self,
        op: str,
        numbers: Sequence[int],
        shown: Sequence[Value],
        places: int = 0,
        rest_places: int = 0,
    ) -> None:
        self.op, self.numbers, self.shown = op, numbers, shown
        self.places, self.rest_places = places, rest_places
        if max(numbers) >= TOO_LARGE or min(numbers) <= -TOO_LARGE:
            raise UsageError(
                f"an intermediate result has more than {MAX_DIGITS:,} digits, the limit"
            )
        self.question = unsigned(op, *numbers)

    @property
    def reduction(self) -> str:
        """The operation with its numbers, `-3 + 5`."""
        first, *others = map(str, self.shown)
        bare = (x if x[0] != "-" and "/" not in x else f"({x})" for x in others)
        return f" {self.op} ".join([f"({first})" if "/" in first else first, *bare])

    def result(self, answer: Answer) -> Value:
        """What a signed answer says about the numbers."""
        whole = number(answer.whole, self.places)
        return Quotient(whole, number(answer.rest, self.rest_places)) if answer.rest else whole


Item = TypeVar("Item")
Steps = Generator[Sequence[Ask], Sequence[Answer], Item]
Work = Steps[Value]


def unsigned(op: str, *numbers: int) -> Question:
    """An operation on signed numbers as one on non-negative numbers.

    Of a sum of more than two none may be negative.

    >>> unsigned("+", -3, 5)
    Question(problem=Problem(op='-', operands=(5, 3)), sign=1, rest_sign=1)
    """
    if min(numbers) >= 0:
        return Question(Problem(op, numbers), 1, 1)
    a, b = numbers
    x, y = abs(a), abs(b)
    if op in "*/":
        sign = 1 if (a < 0) == (b < 0) else -1
        return Question(Problem(op, (x, y)), sign, 1 if a >= 0 else -1)
    asked, swap, sign = SIGNS[op, a < 0, b < 0]
    return Question(Problem(asked, (y, x) if swap else (x, y)), sign, 1)


def apply(op: str, *operands: int) -> Answer:
    """One exact operation. A division truncates toward zero and the remainder has the sign of the
    dividend. Raises UsageError for a division by zero."""
    if op == "+":
        return Answer(sum(operands))
    left, right = operands
    if op == "-":
        return Answer(left - right)
    if op == "*":
        return Answer(left * right)
    if right == 0:
        raise UsageError(ZERO_DIVISION)
    quotient, rest = divmod(abs(left), abs(right))
    return Answer(
        quotient if (left < 0) == (right < 0) else -quotient, rest if left >= 0 else -rest
    )


def operators(task: Task) -> str:
    """Those of + - * / that a task has, and means as Python does."""
    return "".join(op for op in OPERATORS if _can(task, op))


def _can(task: Task, op: str) -> bool:
    """Whether a task has the operation, and means by it what Python does, of large numbers too."""
    if not isinstance(task, Graded):
        return False
    try:
        means = task.truth(Problem(op, (7, 3))) == apply(op, 7, 3)
    except UsageError:
        return False
    with contextlib.suppress(UsageError):  # a task may have no large ones
        means = means and task.truth(Problem(op, (54321, 678))) == apply(op, 54321, 678)
    return means


def exactly(ask: Ask) -> Answer:
    """The right answer to a question."""
    return apply(ask.op, *ask.numbers)


def driven(work: Work | Value, answer: Callable[[Ask], Answer]) -> Value:
    """The value of an operation whose questions are answered one by one."""
    if not isinstance(work, Generator):
        return work
    try:
        asks = next(work)
        while True:
            asks = work.send([answer(ask) for ask in asks])
    except StopIteration as stop:
        return stop.value


def side_by_side(works: Sequence[Steps[Item]]) -> Steps[list[Item]]:
    """Several operations at once, the questions of all of them together."""
    if len(works) == 1:
        return [(yield from works[0])]
    results: list = [None] * len(works)
    asked: dict[int, Sequence[Ask]] = {}

    def send(index: int, answers: Sequence[Answer] | None) -> None:
        try:
            asked[index] = works[index].send(answers)  # type: ignore[arg-type]
        except StopIteration as stop:
            asked.pop(index, None)
            results[index] = stop.value

    for index in range(len(works)):
        send(index, None)
    while asked:
        turn = list(asked.items())
        answers = yield [ask for _, asks in turn for ask in asks]
        start = 0
        for index, asks in turn:
            send(index, answers[start : start + len(asks)])
            start += len(asks)
    return results


def in_pairs(combine: Callable[[Item, Item], Steps[Item]], items: Sequence[Item]) -> Steps[Item]:
    """One item of many: neighbours are combined, then their results, and so on."""
    while len(items) > 2:
        pairs = zip(items[::2], items[1::2], strict=False)
        done = yield from side_by_side([combine(*pair) for pair in pairs])
        items = [*done, *items[len(done) * 2 :]]
    return (yield from combine(*items)) if len(items) == 2 else items[0]
