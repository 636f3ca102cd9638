"""The calculator: a trained model works out expressions, one operation at a time.

Python parses the expression, deals with signs and judges; every operation on two non-negative
numbers is written by the model, and what the model answers, right or wrong, goes into the next one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from addgpt.calculator import expression
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
from addgpt.generation import decode
from addgpt.generation.decode import EXTRA_TOKENS, Generated
from addgpt.generation.verify import verify_or_write
from addgpt.model.build import Model
from addgpt.task import Answer, Explained, Graded, Problem, Task

MAX_TOKENS = 8_000  # of work for one operation
MAX_PAIRS = 2_500  # digits of one operand times digits of the other, for * and /
TOKENS_AT_ONCE = 1 << 16  # of all rows that are decoded together: bounds memory
MIN_BATCH = 16  # rows that are worth a batch of their own

Write = Callable[[np.ndarray, int], Generated]
"""(B, T) prompts of equal length and the most tokens to write -> what the model wrote."""


@dataclass(frozen=True)
class Written:
    """What the model wrote about a problem.

    problem        what the model was asked, without signs: 5-3
    completion     all that the model wrote, end mark included
    answer         its answer to `problem`; None where none can be read
    truth          the right answer to `problem`
    probabilities  the model's probability of each token of the completion
    covered        whether the operands are of lengths that the model was trained or is scored on
    finished       whether the model wrote its end mark in time
    """

    problem: Problem
    completion: str
    answer: Answer | None
    truth: Answer
    probabilities: tuple[float, ...]
    covered: bool
    finished: bool

    @property
    def correct(self) -> bool:
        return self.answer == self.truth


@dataclass(frozen=True)
class Step(Written):
    """One operation that the model worked out.

    reduction  the operation as it stands in the expression, `-3 + 5`
    result     what it became, 2; None where the model's answer cannot be read
    """

    reduction: str
    result: Answer | None


@dataclass(frozen=True)
class Solution:
    """What became of one expression.

    text     as typed
    answer   the model's result, `348` or `3 remainder 2`; empty where it got to none
    correct  whether it is the right one; None where there is an error
    truth    the right result by Python integers
    steps    the operations, in the order in which a person would do them
    error    why the expression has no result: the fault of who typed it
    stuck    why the model got to no result: its own fault
    """

    text: str
    answer: str = ""
    correct: bool | None = None
    truth: str = ""
    steps: tuple[Step, ...] = ()
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
        model: a trained model; not looked at if `write` is given.
        task: what it was trained on. UsageError if that is not arithmetic.
        name: what to call the model when talking to a person.
        write: writes completions in place of the model, for tests.
    """

    def __init__(
        self, model: Model | None, task: Task, name: str = "", write: Write | None = None
    ) -> None:
        self.name = name or task.name
        self.operators = operators(task)
        if not isinstance(task, Graded) or not self.operators:
            raise UsageError(
                f"{self.name} is no calculator: its task, {task.name}, has none of + - * / "
                "as Python means them"
            )
        self.task = task
        self._context = model.config.longest if model is not None else None
        if write is not None:
            self._alone = self._together = write
        elif model is not None:
            model.eval()
            self._alone = partial(decode.write, model, task)
            self._together = partial(verify_or_write, model, task)
        else:
            raise UsageError("a calculator needs a model")

    def solve(self, text: str) -> Solution:
        """Solve one expression. Raises UsageError, in one line, if it has no answer."""
        solution = self.solve_many([text])[0]
        if solution.error is not None:
            raise UsageError(solution.error)
        return solution

    def solve_many(self, texts: Iterable[str]) -> list[Solution]:
        """Solve expressions together, in their order; faults are in `Solution.error`.

        In each round, all operations that are ready, over all expressions, are decoded in batches.
        One expression is decoded token by token; of several the right work is a draft that the
        model confirms, so that only what it would have written otherwise takes as many passes.
        """
        jobs = [_Job(text, self.task.operands_at_most > 2) for text in texts]
        write = self._together if len(jobs) > 1 else self._alone
        for turn in range(max((len(job.rounds) for job in jobs), default=0)):
            asked = [(job, *question) for job in jobs for question in job.questions(turn)]
            written = self._ask((question.problem for _, _, question in asked), write)
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

    def _ask(self, problems: Iterable[Problem], write: Write) -> dict[Problem, Written | str]:
        """What the model writes about each problem, or why it cannot be asked."""
        found: dict[Problem, Written | str] = {}
        groups: dict[tuple[int, bool], list[tuple[Problem, np.ndarray]]] = {}
        for problem in dict.fromkeys(problems):
            try:
                _check_work(problem)
                prompt = self.task.encode(self.task.prompt(problem))
            except UsageError as error:
                found[problem] = str(error)
                continue
            trained = self.task.in_train_range(problem)
            groups.setdefault((len(prompt), trained), []).append((problem, prompt))
        for (start, trained), group in groups.items():
            slots = max(1, self._longest - start) if trained else MAX_TOKENS
            size = max(1, 50 * TOKENS_AT_ONCE // (start + slots))  # rows whose ids fit into memory
            for place in range(0, len(group), size):
                asked, prompts = zip(*group[place : place + size], strict=True)
                self._write(asked, np.stack(prompts), slots, found, write)
        return found

    def _write(
        self,
        problems: Sequence[Problem],
        prompts: np.ndarray,
        slots: int,
        found: dict[Problem, Written | str],
        write: Write,
    ) -> None:
        """Have (B, T) prompts continued, in batches of bounded size and similar length."""
        task, limits = self.task, self._limits(prompts, slots)
        fits = (limits >= 1) & (limits <= MAX_TOKENS)
        for row in np.flatnonzero(~fits).tolist():
            found[problems[row]] = f"too long for this model: {brief(str(problems[row]))}"
        rows = np.flatnonzero(fits)
        rows = rows[np.argsort(limits[rows], kind="stable")]
        for index in _batches(rows, limits + prompts.shape[1]):
            out = write(prompts[index], int(limits[index[-1]]))
            # What a row is worth must not depend on the longer rows it was decoded with.
            length = np.minimum(out.length, limits[index])
            finished = out.terminated & (out.length <= limits[index])
            for place, row in enumerate(index.tolist()):
                problem, text = problems[row], task.decode(out.tokens[place, : length[place]])
                shown = [i for i, char in enumerate(text) if char not in task.hidden]
                completion, answer = "".join(text[i] for i in shown), None
                if finished[place]:
                    with contextlib.suppress(UsageError):
                        answer = task.read(problem, text)
                found[problem] = Written(
                    problem=problem,
                    completion=completion,
                    answer=answer,
                    truth=task.truth(problem),
                    probabilities=tuple(out.probability[place, shown].tolist()),
                    covered=task.in_eval_range(problem),
                    finished=bool(finished[place]),
                )

    def _limits(self, prompts: np.ndarray, slots: int) -> np.ndarray:
        """(B,) how many tokens may be written after each prompt: its slots, and some more."""
        start = prompts.shape[1]
        used = (self.task.positions(prompts, slots) != 0).any(2)  # (B, T + slots)
        limits = np.full(len(prompts), slots)  # where ids do not tell the length
        if used.any():
            limits = used.shape[1] - used[:, ::-1].argmax(1) - start + EXTRA_TOKENS
        return limits if self._context is None else np.minimum(limits, self._context - start)

    @cached_property
    def _longest(self) -> int:
        return self.task.longest()  # a task writes its longest problem to find out


class _Job:
    """One expression while it is worked out."""

    def __init__(self, text: str, joined: bool) -> None:
        self.text = text
        self.error: str | None = None
        self.stuck: str | None = None
        self.steps: dict[int, Step] = {}
        self.rounds: list[list[int]] = []
        try:
            self.nodes = expression.parse(text)
            # Whatever is wrong with the expression itself is told before the model is asked.
            self.exact = expression.evaluate(self.nodes)
            if joined:
                self.nodes = expression.joined(self.nodes, self.exact)
                self.exact = expression.evaluate(self.nodes)
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
        """Work out the nodes of a round that need no model."""
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
        if self.stuck is not None:
            return Solution(self.text, "", False, truth, steps, stuck=self.stuck)
        answer = str(self.values[-1])
        return Solution(self.text, answer, answer == truth, truth, steps)

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


def _check_work(problem: Problem) -> None:
    """Refuse what would be too much to write, before any of it is laid out."""
    op = problem.op
    if op in "+-":
        return
    a, b = (len(str(operand)) for operand in problem.operands)
    rows = b if op == "*" else max(1, a - b + 1)  # partial products, or steps
    if rows * (a if op == "*" else b) > MAX_PAIRS:
        raise UsageError(
            f"too much work: {a:,} digits {op} {b:,} digits; the most is {MAX_PAIRS:,} pairs "
            "of digits"
        )


def _batches(rows: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows, sorted by length, in groups of at most TOKENS_AT_ONCE tokens (but at least a row).

    Many short rows are kept apart from long ones, whose cache they would only carry around.
    """
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows):
            count, length = end - start, lengths[rows[end]]
            apart = count >= MIN_BATCH and length > 2 * lengths[rows[start]]
            if not apart and (count + 1) * length <= TOKENS_AT_ONCE:
                continue
        yield rows[start:end]
        start = end
