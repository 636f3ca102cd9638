"""The calculator: a trained model evaluates expressions, one operation at a time.

Python parses the expression, deals with signs and judges; every operation on two non-negative
numbers is written by the model, and what the model answers, right or wrong, goes into the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from addgpt.calculator import expression
from addgpt.calculator.ask import Asker, Write, Written
from addgpt.calculator.expression import (
    OPERATORS,
    Addition,
    Negation,
    Number,
    Operation,
    Question,
    brief,
)
from addgpt.config.errors import UsageError
from addgpt.model.build import Model
from addgpt.task import Answer, Explained, Graded, Problem, Task


@dataclass(frozen=True)
class Step(Written):
    """One operation that the model did.

    reduction  the operation as it stands in the expression, `-3 + 5`
    result     what it became, 2; None where the model's answer cannot be read
    """

    reduction: str
    result: Answer | None


@dataclass(frozen=True)
class Solution:
    """The result of one expression.

    text     as typed
    answer   the model's result, `348` or `3 remainder 2`; empty where it reached none
    correct  whether it is the right one; None where there is an error
    truth    the right result by Python integers
    steps    the operations, in the order in which a person would do them
    asked    the problems, without signs, that the operations pose where all goes right
    error    why the expression has no result: invalid input
    stuck    why the model reached no result
    """

    text: str
    answer: str = ""
    correct: bool | None = None
    truth: str = ""
    steps: tuple[Step, ...] = ()
    asked: tuple[Problem, ...] = ()
    error: str | None = None
    stuck: str | None = None

    @property
    def covered(self) -> bool:
        """Whether all operands were of lengths that the model was trained or is scored on."""
        return all(step.covered for step in self.steps)


class Calculator:
    """Solves expressions with a model and the task it was trained on.

    Division truncates toward zero and the remainder has the sign of the dividend, so that the model
    writes every digit of both: -17/5 is -3 remainder -2.

    Args:
        model: a trained model; ignored if `write` is given.
        task: what it was trained on. UsageError if that is not arithmetic.
        name: the model's name in messages.
        write: writes completions in place of the model, for tests.
        smoothing: the label smoothing that it was trained with.
        proved: whether it has a certificate.
    """

    def __init__(
        self,
        model: Model | None,
        task: Task,
        name: str = "",
        write: Write | None = None,
        smoothing: float = 0.0,
        proved: bool = False,
    ) -> None:
        self.name = name or task.name
        self.operators = operators(task)
        if not isinstance(task, Graded) or not self.operators:
            raise UsageError(
                f"{self.name} is no calculator: its task, {task.name}, has none of + - * / "
                "as Python means them"
            )
        self.task = task
        self.proved = proved
        self._asker = Asker(model, task, write, smoothing, proved)

    def solve(self, text: str) -> Solution:
        """Solve one expression. Raises UsageError, in one line, if it has no answer."""
        solution = self.solve_many([text])[0]
        if solution.error is not None:
            raise UsageError(solution.error)
        return solution

    def solve_many(self, texts: Iterable[str]) -> list[Solution]:
        """Solve expressions together, in their order; faults are in `Solution.error`.

        In each round, all operations that are ready, over all expressions, are decoded in batches.
        """
        return self.work_out(self.pose(texts))

    def pose(self, texts: Iterable[str]) -> list[Job]:
        """Expressions to be worked out; in their `error`, what is wrong with them as typed."""
        joined = self.task.operands_at_most > 2
        return [Job(text, self._asker.check, joined) for text in texts]

    def work_out(self, jobs: Sequence[Job]) -> list[Solution]:
        """The second half of `solve_many`, whose first is `pose`."""
        for turn in range(max((len(job.rounds) for job in jobs), default=0)):
            asked = [(job, *question) for job in jobs for question in job.questions(turn)]
            problems = (question.problem for _, _, question in asked)
            written = self._asker.ask(problems, together=len(jobs) > 1)
            for job, index, question in asked:
                job.take(index, question, written[question.problem])
            for job in jobs:
                job.finish(turn)
        return [job.solution() for job in jobs]

    def explain(self, step: Step) -> str:
        """A step as one would write it on paper; where the task draws nothing, what was written."""
        if isinstance(self.task, Explained):
            return self.task.draw(step.problem, step.completion)
        return f"{step.problem} = {step.completion.removesuffix(self.task.end)}"

    def digit_probabilities(self, step: Step) -> list[float]:
        """The model's probability of each digit of a step's answer, as a person reads it.

        Where the digits cannot be found, each gets the least probability of the whole completion.
        """
        if isinstance(self.task, Explained) and step.answer is not None:
            places = self.task.answer_digits(step.problem, step.completion)
            return [step.probabilities[place] for place in places]
        least = min(step.probabilities, default=0.0)
        return [least] * sum(map(str.isdigit, str(step.answer)))


class Job:
    """One expression while it is worked out. `check` raises UsageError for what cannot be asked."""

    def __init__(self, text: str, check: Callable[[Problem], object], joined: bool = False) -> None:
        self.text = text
        self.error: str | None = None
        self.stuck: str | None = None
        self.steps: dict[int, Step] = {}
        self.rounds: list[list[int]] = []
        try:
            self.nodes = expression.parse(text)
            # Errors of the expression itself are reported before the model is asked.
            self.exact = expression.evaluate(self.nodes)
            if joined:
                self.nodes = expression.joined(self.nodes, self.exact)
                self.exact = expression.evaluate(self.nodes)
            self.asked = expression.problems(self.nodes, self.exact)
            for problem in self.asked:
                check(problem)
        except UsageError as error:
            self.error = str(error)
            return
        self.values: list[Answer] = [Answer(0)] * len(self.nodes)
        self.rounds = expression.rounds(self.nodes)

    def questions(self, turn: int) -> Iterator[tuple[int, Question]]:
        """The operations of a round, each with its node's index."""
        for index in self._nodes(turn):
            node = self.nodes[index]
            if isinstance(node, Operation | Addition):
                values = [self.values[place] for place in node.operands]
                numbers = [value.whole for value in values]
                negative = isinstance(node, Addition) and min(numbers) < 0
                if negative or any(value.rest for value in values):
                    what = "a negative number in a sum" if negative else "inexact division"
                    self.stuck = f"after a mistake, the model could not go on: {what}"
                    return
                yield index, expression.unsigned(node.op, *numbers)

    def take(self, index: int, question: Question, written: Written | str) -> None:
        """Enter what the model wrote, or why it was not asked."""
        if isinstance(written, str):
            self._refused(index, written)
            return
        result = None
        if written.answer is None:
            self.stuck = self.stuck or _no_answer(written)
        else:
            result = self.values[index] = question.signed(written.answer)
        self.steps[index] = Step(**vars(written), reduction=question.reduction, result=result)

    def finish(self, turn: int) -> None:
        """Evaluate the nodes of a round that need no model."""
        for index in self._nodes(turn):
            node = self.nodes[index]
            if isinstance(node, Number):
                self.values[index] = Answer(node.value)
            elif isinstance(node, Negation):
                self.values[index] = expression.negative(self.values[node.of])

    def solution(self) -> Solution:
        steps = tuple(self.steps[index] for index in sorted(self.steps))
        if self.error is not None:
            return Solution(self.text, steps=steps, error=self.error)
        truth = str(self.exact[-1])
        answer = str(self.values[-1]) if self.stuck is None else ""
        right = answer == truth
        return Solution(self.text, answer, right, truth, steps, self.asked, stuck=self.stuck)

    def _nodes(self, turn: int) -> Sequence[int]:
        over = self.error is not None or self.stuck is not None or turn >= len(self.rounds)
        return () if over else self.rounds[turn]

    def _refused(self, index: int, reason: str) -> None:
        """A problem that cannot be asked: who brought it about, the typist or the model?"""
        node = self.nodes[index]
        assert isinstance(node, Operation | Addition), node
        if all(self.values[place] == self.exact[place] for place in node.operands):
            self.error = self.error or reason
        else:
            self.stuck = self.stuck or f"after a mistake, the model could not go on: {reason}"


def _no_answer(written: Written) -> str:
    what = "wrote no readable answer to" if written.finished else "did not come to an end with"
    return f"the model {what} {brief(str(written.problem))}"


def operators(task: Task) -> str:
    """Those of + - * / that a task has, and means as Python does."""
    return "".join(op for op in OPERATORS if _can(task, op))


def _can(task: Task, op: str) -> bool:
    """Whether a task has the operation, and means by it what Python does, of large numbers too."""
    if not isinstance(task, Graded):
        return False
    try:
        means = task.truth(Problem(op, (7, 3))) == expression.apply(op, 7, 3)
    except UsageError:
        return False
    with contextlib.suppress(UsageError):  # a task may have no large ones
        means = means and task.truth(Problem(op, (54321, 678))) == expression.apply(op, 54321, 678)
    return means
