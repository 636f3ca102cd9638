"""The calculator: a trained model evaluates expressions, one operation at a time.

Python parses the expression, deals with signs, places the point and judges; every operation on two
non-negative whole numbers is written by the model, and what the model answers, right or wrong, goes
into the next one.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from addgpt.calculator.ask import Asker, Write, Written
from addgpt.calculator.job import Job, Solution, Step
from addgpt.calculator.numbers import Rules, Value
from addgpt.calculator.questions import operators
from addgpt.config.errors import UsageError
from addgpt.model.build import Model
from addgpt.task import Explained, Graded, Problem, Task

__all__ = [
    "Calculator", "Event", "Finished", "Rules", "Solution", "Step", "StepFinished", "StepStarted",
    "TokenWritten",
]  # fmt: skip

FEW = 4  # questions of one expression that are decoded token by token


@dataclass(frozen=True)
class StepStarted:
    """An operation is about to be written.

    step       its number, from 0
    reduction  as it stands in the expression, `1.5 * 2`
    problem    what the model is asked, `15*2`
    prompt     the text that it continues
    """

    step: int
    reduction: str
    problem: str
    prompt: str


@dataclass(frozen=True)
class TokenWritten:
    """A token that the model wrote.

    step         the number of the operation
    place        where it stands after the prompt, from 0
    char         the token
    probability  the model's, over the highest that label smoothing allows
    expected     what the reference work has in its place; empty where there is none
    row          the number of the row of the trace that it belongs to, from 0; -1: unknown
    label        what that row is, such as `product` or `answer`
    column       its place in that row, from 0
    """

    step: int
    place: int
    char: str
    probability: float
    expected: str = ""
    row: int = -1
    label: str = ""
    column: int = -1

    @property
    def correct(self) -> bool | None:
        """Whether it is the token of the reference work; None where that is not known."""
        return self.char == self.expected if self.expected else None


@dataclass(frozen=True)
class StepFinished:
    """An operation was written: `done` says what came of it."""

    step: int
    done: Step


@dataclass(frozen=True)
class Finished:
    """The end, with the answer or what is wrong."""

    solution: Solution


Event = StepStarted | TokenWritten | StepFinished | Finished


class Calculator:
    """Solves expressions with a model and the task it was trained on.

    Args:
        model: a trained model; ignored if `write` is given.
        task: what it was trained on. UsageError if that is not arithmetic.
        name: the model's name in messages.
        write: writes completions in place of the model, for tests.
        smoothing: the label smoothing that it was trained with.
        proved: whether it has a certificate.
        rules: what `/` gives, and how many digits, where a call does not say.
    """

    def __init__(
        self,
        model: Model | None,
        task: Task,
        name: str = "",
        write: Write | None = None,
        smoothing: float = 0.0,
        proved: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.model = model
        self.name = name or task.name
        self.operators = operators(task)
        if not isinstance(task, Graded) or not self.operators:
            raise UsageError(
                f"{self.name} is not a calculator: its task, {task.name}, has none of + - * / "
                "as Python means them"
            )
        self.task = task
        self.proved = proved
        # To round up takes an addition.
        self.rules = rules or Rules("decimal" if "+" in self.operators else "remainder")
        self._asker = Asker(model, task, write, smoothing, proved)

    def solve(
        self, text: str, rules: Rules | None = None, names: Mapping[str, Value] | None = None
    ) -> Solution:
        """Solve one expression. Raises UsageError, in one line, if it has no answer.

        Args:
            rules: what `/` gives, and how many digits.
            names: values of names, as `Solution.result` has them; None: there can be none.
        """
        solution = self.solve_many([text], rules, names)[0]
        if solution.error is not None:
            raise UsageError(solution.error)
        return solution

    def solve_many(
        self,
        texts: Iterable[str],
        rules: Rules | None = None,
        names: Mapping[str, Value] | None = None,
    ) -> list[Solution]:
        """Solve expressions together, in their order; errors are in `Solution.error`.

        In each round, all operations that are ready, over all expressions, are decoded in batches.
        """
        with no_collection():
            return self.work_out(self.pose(texts, rules, names))

    def stream(
        self, text: str, rules: Rules | None = None, names: Mapping[str, Value] | None = None
    ) -> Iterator[Event]:
        """Solve one expression token by token, operation by operation.

        The last event is `Finished`, whose solution has what is wrong with the expression in its
        `error`: nothing is raised for that.

        >>> from addgpt.calculator.load import load_calculator
        >>> for event in load_calculator().stream("1.5*2"):
        ...     if isinstance(event, StepStarted):
        ...         print(event.reduction, "by", event.problem)
        ...     elif isinstance(event, TokenWritten) and event.label == "answer":
        ...         print(event.char, event.label, event.column, event.correct)
        ...     elif isinstance(event, Finished):
        ...         print(event.solution.answer)
        1.5 * 2 by 15*2
        = answer 0 True
        0 answer 1 True
        3 answer 2 True
        0 answer 3 True
        # answer 4 True
        3
        """
        (job,) = self.pose([text], rules, names)
        while asks := job.questions():
            wrote: list[Written | str] = []
            for ask in asks:
                step, problem = len(job.steps) + len(wrote), ask.question.problem
                prompt = self.task.prompt(problem)
                yield StepStarted(step, ask.reduction, str(problem), prompt)
                wrote.append((yield from self._stream(step, problem)))
                if isinstance(wrote[-1], str):
                    break
            # What was no longer asked after a refusal has no answer either.
            wrote += [str(wrote[-1])] * (len(asks) - len(wrote))
            before = len(job.steps)
            job.take(asks, wrote)
            for step in range(before, len(job.steps)):
                yield StepFinished(step, job.steps[step])
        yield Finished(job.solution())

    def _stream(self, step: int, problem: Problem) -> Generator[TokenWritten, None, Written | str]:
        places = self._places(problem)
        tokens = self._asker.stream(problem)
        while True:
            try:
                place, char, probability = next(tokens)
            except StopIteration as stop:
                return stop.value
            more = places[place] if place < len(places) else ()
            yield TokenWritten(step, place, char, probability, *more)

    def _places(self, problem: Problem) -> list[tuple[str, int, str, int]]:
        """For each slot after the prompt of a problem: what belongs there, and in which row."""
        expected = self._asker.reference(problem)
        if not isinstance(self.task, Explained):
            return [(char, -1, "", -1) for char in expected]
        rows = self.task.rows(problem, expected) if expected else []
        return [
            (char, index, row.label, column)
            for index, row in enumerate(rows)
            for column, char in enumerate(row.text)
        ]

    def pose(
        self,
        texts: Iterable[str],
        rules: Rules | None = None,
        names: Mapping[str, Value] | None = None,
    ) -> list[Job]:
        """Expressions to be evaluated; in their `error`, what is wrong with them as typed."""
        rules, many = rules or self.rules, self.task.operands_at_most
        return [Job(text, self._asker.check, rules, names, many) for text in texts]

    def work_out(self, jobs: Sequence[Job]) -> list[Solution]:
        """The second half of `solve_many`, whose first is `pose`."""
        while turn := [(job, asks) for job in jobs if (asks := job.questions())]:
            problems = [ask.question.problem for _, asks in turn for ask in asks]
            together = len(jobs) > 1 or len(problems) > FEW
            written = self._asker.ask(problems, together)
            for job, asks in turn:
                job.take(asks, [written[ask.question.problem] for ask in asks])
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


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Without garbage collection, which takes up to a third of the time: there are many small
    objects, and all of them stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
