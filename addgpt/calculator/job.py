"""One expression while it is evaluated: which questions it has, and what became of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from addgpt.calculator.ask import Written
from addgpt.calculator.decimals import ZERO_POWER, Decimals, Remainders
from addgpt.calculator.expression import (
    Chain,
    Expression,
    Literal,
    Name,
    Negation,
    Node,
    Operation,
    Percent,
    exact,
    operands,
    parse,
)
from addgpt.calculator.numbers import Number, Rules, Value, brief
from addgpt.calculator.questions import ZERO_DIVISION, Ask, Work, driven, exactly
from addgpt.calculator.ratios import Fractions
from addgpt.config.errors import UsageError
from addgpt.task import Answer, Problem

Arithmetic = Decimals | Fractions
KINDS: dict[str, type[Arithmetic]] = {
    "decimal": Decimals,
    "remainder": Remainders,
    "fraction": Fractions,
}
NO_NAMES: Mapping[str, Value] = {}
NOTHING = Number(0)


@dataclass(frozen=True)
class Step(Written):
    """One operation that the model did.

    ask     the operation as it stands in the expression, and what the model was asked for it
    result  what it became, 1.5; None where the model's answer cannot be read
    """

    ask: Ask = field(compare=False)
    result: Value | None

    @property
    def reduction(self) -> str:
        """The operation as it stands in the expression, `-3 + 5`."""
        return self.ask.reduction


@dataclass(frozen=True)
class Solution:
    """The result of one expression.

    text     as typed
    answer   the model's result, `348`, `2.5` or `3 remainder 2`; empty where it reached none
    correct  whether it is the right one; None where there is an error
    truth    the right result, by Python integers
    steps    the operations, in the order in which they were done
    asked    the problems, without signs, that the operations pose where all goes right
    error    why the expression has no result: invalid input
    stuck    why the model reached no result
    result   the answer as a number
    name     what the line calls its result: `x = 12*3`
    notes    what may have been meant otherwise
    """

    text: str
    answer: str = ""
    correct: bool | None = None
    truth: str = ""
    steps: tuple[Step, ...] = ()
    asked: tuple[Problem, ...] = ()
    error: str | None = None
    stuck: str | None = None
    result: Value | None = None
    name: str | None = None
    notes: tuple[str, ...] = ()
    expression: Expression | None = field(default=None, repr=False, compare=False)
    names: Mapping[str, Value] = field(default_factory=dict, repr=False, compare=False)

    @property
    def covered(self) -> bool:
        """Whether all operands were of lengths that the model was trained or is scored on."""
        return all(step.covered for step in self.steps)

    @property
    def rounded(self) -> bool:
        """Whether the answer is not the exact result, but close to it."""
        return self.result is not None and self.result.rounded

    @property
    def value(self) -> int | Fraction | None:
        """The model's answer; None where there is none, or one with a remainder."""
        return None if self.result is None else self.result.value

    @property
    def exact(self) -> int | Fraction | None:
        """The exact result, by Python's fractions: 1 of 1/3*3.

        Names stand for the values that they were given, rounded or not. None where there is an
        error, a name that stands for a quotient with a remainder, a division by what is 0 but for
        rounding, an exponent that is whole by rounding alone, or a fraction of more than 300,000
        digits on the way.
        """
        found = self.exactly
        return None if isinstance(found, str) else found

    @cached_property
    def exactly(self) -> int | Fraction | str:
        """The exact result, or what to say in its place; empty where that is nothing."""
        if self.expression is None:
            return ""
        used = {node.name for node in self.expression.nodes if isinstance(node, Name)}
        kept = {name: self.names[name].value for name in used}
        values = {name: Fraction(value) for name, value in kept.items() if value is not None}
        if len(values) < len(used):
            return ""
        try:
            found = exact(self.expression, values)
        except ZeroDivisionError:
            return f"no exact value: {ZERO_DIVISION}"
        except OverflowError:
            return "exact value not worked out: fractions of over 300,000 digits"
        except ArithmeticError as error:
            return str(error)
        return found.numerator if found.denominator == 1 else found


class Job:
    """One expression while it is evaluated.

    Whatever is wrong with the expression itself is found at once, before the model is asked: its
    truth is computed with every question answered by Python.

    Args:
        check: raises UsageError for a problem that the model cannot be asked.
        many: the most operands of a sum that it can be asked.
    """

    def __init__(
        self,
        text: str,
        check: Callable[[Problem], object],
        rules: Rules,
        names: Mapping[str, Value] | None = None,
        many: int = 2,
    ) -> None:
        self.text, self.names = text, NO_NAMES if names is None else names
        self.error: str | None = None
        self.stuck: str | None = None
        self.steps: list[Step] = []
        self.asked: list[Problem] = []
        self.arithmetic: Arithmetic = KINDS[rules.division](rules, many)
        self._check = check
        self._active: dict[int, tuple[Work, Sequence[Ask]]] = {}
        self._ready: deque[int] = deque()
        self._begun = False
        try:
            self.expression = parse(text, names)
            self._values: list[Value] = [NOTHING] * len(self.expression.nodes)
            self._find_truth()
        except UsageError as error:
            self.error = str(error)
            return
        self.truth = self._values[-1]

    def questions(self) -> list[Ask]:
        """All that can be asked now; empty: the end."""
        if self.error is not None or self.stuck is not None:
            return []
        if not self._begun:
            self._begun = True
            self._begin()
        return [ask for _, asks in self._active.values() for ask in asks]

    def take(self, asks: Sequence[Ask], written: Sequence[Written | str]) -> None:
        """Take what the model wrote for each of `questions`, or why it was not asked."""
        answers: list[Answer] = []
        for ask, wrote in zip(asks, written, strict=True):
            if isinstance(wrote, str):
                self._refused(wrote)
                continue
            result = None
            if wrote.answer is None:
                self.stuck = self.stuck or _no_answer(wrote)
            else:
                answers.append(ask.question.signed(wrote.answer))
                result = ask.result(answers[-1])
            self.steps.append(Step(**vars(wrote), ask=ask, result=result))
        if self.error is not None or self.stuck is not None:
            return
        active, self._active = self._active, {}
        start = 0
        for index, (work, turn) in active.items():
            self._advance(index, work, answers[start : start + len(turn)])
            start += len(turn)
        self._start_ready()

    def solution(self) -> Solution:
        steps = tuple(self.steps)
        if self.error is not None:
            return Solution(self.text, steps=steps, error=self.error)
        truth, result = str(self.truth), None if self.stuck is not None else self._values[-1]
        answer = "" if result is None else truth if result == self.truth else str(result)
        return Solution(
            self.text,
            answer,
            answer == truth,
            truth,
            steps,
            tuple(self.asked),
            stuck=self.stuck,
            result=result,
            name=self.expression.name,
            notes=self.expression.notes,
            expression=self.expression,
            names=self.names,
        )

    def _find_truth(self) -> None:
        for index, node in enumerate(self.expression.nodes):
            if node is not None:
                try:
                    self._values[index] = driven(self._work(node), self._truth_of)
                except UsageError as error:
                    raise UsageError(self._located(error, node)) from None

    def _truth_of(self, ask: Ask) -> Answer:
        self._check(ask.question.problem)
        self.asked.append(ask.question.problem)
        return exactly(ask)

    def _located(self, error: UsageError, node: Node) -> str:
        """An error, with the part of the expression that is to blame."""
        if isinstance(node, Operation):
            zero = {ZERO_DIVISION: node.right, ZERO_POWER: node.left}.get(str(error))
            shown = "0" if zero is None else self.expression.shown(zero)
            if shown not in ("0", "(0)"):
                return f"{error}: {shown} is 0"
        return str(error)

    def _work(self, node: Node) -> Work | Value:
        """The value of a node, or the work that finds it."""
        values, does = self._values, self.arithmetic
        if isinstance(node, Literal):
            return does.literal(node.value)
        if isinstance(node, Chain):
            if node.op == "+":
                return does.total([(sign, values[index]) for sign, index in node.terms])
            return does.product([values[index] for _, index in node.terms])
        if isinstance(node, Name):
            return does.kept(self.names[node.name])
        if isinstance(node, Negation):
            return -values[node.of]
        if isinstance(node, Percent):
            return does.percent(values[node.of])
        left, right = values[node.left], values[node.right]
        if node.op == "/":
            return does.divide(left, right)
        if node.op == "^":
            return does.power(left, right)
        return does.floored("//" if node.op == "//" else "%", left, right)

    def _begin(self) -> None:
        """Find out which node waits for which, and start those that wait for none."""
        nodes = self.expression.nodes
        self._values = [NOTHING] * len(nodes)
        self._parent = [-1] * len(nodes)
        self._waits = [0] * len(nodes)
        for index, node in enumerate(nodes):
            if node is None:
                continue
            needs = operands(node)
            self._waits[index] = len(needs)
            for need in needs:
                self._parent[need] = index
            if not needs:
                self._ready.append(index)
        self._start_ready()

    def _start_ready(self) -> None:
        while self._ready and self.stuck is None:
            index = self._ready.popleft()
            node = self.expression.nodes[index]
            assert node is not None
            try:
                work = self._work(node)
            except UsageError as error:
                self._lost(str(error))
                return
            if isinstance(work, Generator):
                self._advance(index, work, None)
            else:
                self._done(index, work)
        if len(self._active) > 1:  # asked from left to right
            self._active = dict(sorted(self._active.items()))

    def _advance(self, index: int, work: Work, answers: Sequence[Answer] | None) -> None:
        try:
            self._active[index] = work, work.send(answers)  # type: ignore[arg-type]
        except StopIteration as stop:
            self._done(index, stop.value)
        except UsageError as error:
            self._lost(str(error))

    def _done(self, index: int, value: Value) -> None:
        self._values[index] = value
        parent = self._parent[index]
        if parent >= 0:
            self._waits[parent] -= 1
            if not self._waits[parent]:
                self._ready.append(parent)

    def _refused(self, reason: str) -> None:
        """A problem that cannot be asked: because of what was typed, or of what the model wrote?"""
        if all(step.correct for step in self.steps):
            self.error = self.error or reason
        else:
            self._lost(reason)

    def _lost(self, reason: str) -> None:
        self.stuck = self.stuck or f"after a mistake, the model could not go on: {reason}"


def _no_answer(written: Written) -> str:
    what = "wrote no readable answer to" if written.finished else "did not come to an end with"
    return f"the model {what} {brief(written.problem, 'characters')}"
