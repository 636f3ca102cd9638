"""The calculator: a trained model works out expressions, one operation at a time.

Python parses the expression, deals with signs and judges; every operation on two non-negative
numbers is written by the model, and what the model answers, right or wrong, goes into the next one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from addgpt.expression import (
    OPERATORS,
    Negation,
    Number,
    Operation,
    Value,
    brief,
    evaluate,
    parse,
    rounds,
    whole,
)
from addgpt.task import Task

if TYPE_CHECKING:
    from addgpt.decode import Generated
    from addgpt.model import GPT

MOST_TOKENS = 8_000  # of work for one operation
MOST_PAIRS = 2_500  # digits of one operand times digits of the other, for * and /
MOST_ANSWER = 4_000  # digits; Python turns no longer text into a number
TOKENS_AT_ONCE = 1 << 16  # of all rows that are decoded together: bounds memory
SLACK = 8  # tokens that may be written beyond those the task foresees
ANSWER = re.compile(r"(-?[0-9]+)(?: remainder ([0-9]+))?")

Write = Callable[[np.ndarray, int], "Generated"]
"""(B, T) prompts of equal length and the most tokens to write -> what the model wrote."""


@dataclass(frozen=True)
class Step:
    """One operation that the model worked out.

    reduction      the operation as it stands in the expression, `-3 + 5`
    result         what it became, `2`; empty where the model's answer cannot be read
    problem        what the model was asked, signs taken away: `5-3`
    completion     all that the model wrote, end mark included
    answer         its answer to `problem`; the completion where no answer can be read
    truth          the right answer to `problem`
    correct        whether they are the same
    probabilities  the model's probability of each token of the completion
    trained        whether the operands are within the lengths the model was trained on
    finished       whether the model wrote its end mark in time
    """

    reduction: str
    result: str
    problem: str
    completion: str
    answer: str
    truth: str
    correct: bool
    probabilities: tuple[float, ...]
    trained: bool
    finished: bool


@dataclass(frozen=True)
class Solution:
    """What became of one expression.

    text     as typed
    answer   the model's result, `348` or `3 remainder 2`; what it wrote if that is not a number
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
    def trained(self) -> bool:
        """Whether all operands were within the trained lengths."""
        return all(step.trained for step in self.steps)

    @property
    def confidence(self) -> float:
        """The probability of the least certain token; 1 where the model wrote nothing."""
        return min((min(step.probabilities, default=0.0) for step in self.steps), default=1.0)


class Calculator:
    """Solves expressions with a model and the task it was trained on.

    Division truncates toward zero and the remainder has the sign of the dividend, so that the model
    writes every digit of both: -17/5 is -3 remainder -2.

    Args:
        model: a trained model; not looked at if `write` is given.
        task: what it was trained on. ValueError if that is not arithmetic.
        name: what to call the model when talking to a person.
        write: writes completions in place of the model, for tests.
    """

    def __init__(
        self, model: GPT | None, task: Task, name: str = "", write: Write | None = None
    ) -> None:
        self.task = task
        self.name = name or task.name
        self.operators = "".join(op for op in OPERATORS if _can(task, op))
        if not self.operators:
            raise ValueError(f"{self.name} is no calculator: its task is {task.name}")
        self._context = None
        if model is not None and model.config.position in ("learned", "sinusoidal"):
            self._context = model.config.context
        if write is None:
            if model is None:
                raise ValueError("a calculator needs a model")
            write = _writer(model, task)
        self._write = write

    def solve(self, text: str) -> Solution:
        """Solve one expression. Raises ValueError, in one line, if it has no answer."""
        solution = self.solve_many([text])[0]
        if solution.error is not None:
            raise ValueError(solution.error)
        return solution

    def solve_many(self, texts: Iterable[str]) -> list[Solution]:
        """Solve expressions together, in their order; faults are in `Solution.error`.

        In each round, all operations that are ready, over all expressions, are decoded in batches.
        """
        jobs = [_Job(text) for text in texts]
        for turn in range(max((len(job.rounds) for job in jobs), default=0)):
            asked = [
                (job, index, question)
                for job in jobs
                for index, question in job.questions(turn)
            ]
            written = self._ask(question.problem for _, _, question in asked)
            for job, index, question in asked:
                job.take(index, question, written[question.problem])
            for job in jobs:
                job.finish(turn)
        return [job.solution() for job in jobs]

    def _ask(self, problems: Iterable[str]) -> dict[str, _Written | str]:
        """What the model writes about each problem, or why it cannot be asked."""
        found: dict[str, _Written | str] = {}
        groups: dict[tuple[int, bool], list[str]] = {}
        prompts: dict[str, np.ndarray] = {}
        for problem in dict.fromkeys(problems):
            try:
                _check_work(problem)
                prompt = self.task.encode(self.task.prompt(problem))
                trained = self.task.trained_on(problem)
            except ValueError as error:
                found[problem] = str(error)
                continue
            prompts[problem] = prompt
            groups.setdefault((len(prompt), trained), []).append(problem)
        for (length, trained), group in groups.items():
            size = max(1, 50 * TOKENS_AT_ONCE // self._most(length, trained))
            for start in range(0, len(group), size):
                part = group[start : start + size]
                rows = np.stack([prompts[problem] for problem in part])
                self._decode(part, rows, trained, found)
        return found

    def _decode(
        self,
        problems: list[str],
        prompts: np.ndarray,
        trained: bool,
        found: dict[str, _Written | str],
    ) -> None:
        """Have (B, T) prompts continued, in batches of bounded size and similar length."""
        limits = self._limits(prompts, trained)
        for row in np.flatnonzero((limits < 1) | (limits > MOST_TOKENS)):
            found[problems[row]] = f"too long for this model: {brief(problems[row])}"
        rows = np.flatnonzero((limits >= 1) & (limits <= MOST_TOKENS))
        rows = rows[np.argsort(limits[rows], kind="stable")]
        for index in _batches(rows, limits + prompts.shape[1]):
            out = self._write(prompts[index], int(limits[index[-1]]))
            # What a row is worth must not depend on the longer rows it was decoded with.
            length = np.minimum(out.length, limits[index])
            finished = out.terminated & (out.length <= limits[index])
            for place, row in enumerate(index):
                end = length[place]
                found[problems[row]] = _Written(
                    problems[row],
                    self.task.decode(out.tokens[place, :end]),
                    tuple(out.probability[place, :end].tolist()),
                    trained,
                    bool(finished[place]),
                    self.task,
                )

    def _limits(self, prompts: np.ndarray, trained: bool) -> np.ndarray:
        """(B,) how many tokens may be written after each prompt: its slots, and some more."""
        start = prompts.shape[1]
        slots = max(1, self._most(start, trained) - start)
        used = (self.task.positions(prompts, slots) != 0).any(2)  # (B, T + k)
        size = used.shape[1]
        if size < start + slots or not used.any():
            limits = np.full(len(prompts), slots)  # the task does not foresee the length
        else:
            limits = size - used[:, ::-1].argmax(1) - start + SLACK
        return limits if self._context is None else np.minimum(limits, self._context - start)

    def _most(self, start: int, trained: bool) -> int:
        """The longest sequence to reckon with after prompts of this length."""
        return self.task.longest() if trained else start + MOST_TOKENS


class _Question(NamedTuple):
    """A problem without signs, and the signs of its result and of its rest."""

    problem: str
    sign: int
    rest_sign: int
    reduction: str


class _Written(NamedTuple):
    """What the model wrote about a problem."""

    problem: str
    completion: str
    probabilities: tuple[float, ...]
    trained: bool
    finished: bool
    task: Task

    def value(self) -> Value | None:
        """The answer; None where there is none to read."""
        return _read(self.task, self.problem, self.completion) if self.finished else None


class _Job:
    """One expression while it is worked out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.error: str | None = None
        self.stuck: str | None = None
        self.steps: dict[int, Step] = {}
        self.unread = "?"
        self.rounds: list[list[int]] = []
        try:
            self.nodes = parse(text)
            # Whatever is wrong with the expression itself is told before the model is asked.
            self.exact = evaluate(self.nodes)
        except ValueError as error:
            self.error = str(error)
            return
        self.values: list[Value] = [Value(0)] * len(self.nodes)
        self.rounds = rounds(self.nodes)

    def questions(self, turn: int) -> Iterator[tuple[int, _Question]]:
        """The operations of a round, each with its node's index."""
        for index in self._nodes(turn):
            node = self.nodes[index]
            if isinstance(node, Operation):
                left, right = self.values[node.left], self.values[node.right]
                if left.rest or right.rest:
                    self.stuck = "the model made an exact division inexact"
                    return
                yield index, unsigned(node.op, whole(left), whole(right))

    def take(self, index: int, question: _Question, written: _Written | str) -> None:
        """Enter what the model wrote."""
        if isinstance(written, str):
            self._refused(index, written)
            return
        value = written.value()
        truth = written.task.truth(question.problem)
        if value is None:
            self.stuck = self.stuck or _no_answer(written)
            self.unread = written.completion
            result = ""
        else:
            self.values[index] = Value(
                question.sign * value.whole, question.rest_sign * value.rest
            )
            result = str(self.values[index])
        answer = written.completion if value is None else str(value)
        self.steps[index] = Step(
            question.reduction,
            result,
            question.problem,
            written.completion,
            answer,
            truth,
            value is not None and answer == truth,
            written.probabilities,
            written.trained,
            written.finished,
        )

    def finish(self, turn: int) -> None:
        """Work out the nodes of a round that need no model."""
        for index in self._nodes(turn):
            node = self.nodes[index]
            if isinstance(node, Number):
                self.values[index] = Value(node.value)
            elif isinstance(node, Negation):
                self.values[index] = self.values[node.of].negative()

    def solution(self) -> Solution:
        steps = tuple(self.steps[index] for index in sorted(self.steps))
        if self.error is not None:
            return Solution(self.text, steps=steps, error=self.error)
        truth = str(self.exact[-1])
        if self.stuck is not None:
            return Solution(self.text, self.unread, False, truth, steps, stuck=self.stuck)
        answer = str(self.values[-1])
        return Solution(self.text, answer, answer == truth, truth, steps)

    def _nodes(self, turn: int) -> Sequence[int]:
        over = self.error is not None or self.stuck is not None or turn >= len(self.rounds)
        return () if over else self.rounds[turn]

    def _refused(self, index: int, reason: str) -> None:
        """A problem that cannot be asked: who brought it about, the typist or the model?"""
        node = self.nodes[index]
        assert isinstance(node, Operation), node
        sides = (node.left, node.right)
        if all(self.values[side] == self.exact[side] for side in sides):
            self.error = self.error or reason
        else:
            self.stuck = self.stuck or f"after a mistake, the model could not go on: {reason}"


def unsigned(op: str, a: int, b: int) -> _Question:
    """An operation on signed numbers as one on non-negative numbers.

    >>> unsigned("+", -3, 5)
    _Question(problem='5-3', sign=1, rest_sign=1, reduction='-3 + 5')
    """
    x, y = abs(a), abs(b)
    reduction = f"{a} {op} {b}" if b >= 0 else f"{a} {op} ({b})"
    sign = rest_sign = 1
    if op in "*/":
        sign, rest_sign = (1 if (a < 0) == (b < 0) else -1), (1 if a >= 0 else -1)
    else:
        minuend, subtrahend = a, (b if op == "+" else -b)  # now to be added
        if (minuend < 0) == (subtrahend < 0) or not x or not y:
            # Zero takes the sign of the other, except that 5 - 0 and 0 - 5 are asked as they stand.
            op, sign, x, y = _same_signs(op, a, b)
        elif minuend < 0:
            op, x, y = "-", y, x
        else:
            op = "-"
    return _Question(f"{x}{op}{y}", sign, rest_sign, reduction)
