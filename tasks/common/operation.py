"""Problems of one binary operation on Python integers: asked, read back, classified, drawn."""

from __future__ import annotations

import re
from abc import abstractmethod
from typing import ClassVar

import numpy as np

from addgpt.config.errors import quoted
from addgpt.task import (
    MAX_CHARACTERS,
    MAX_DIGITS,
    TOO_LARGE,
    Answer,
    Cell,
    ErrorType,
    Explained,
    Graded,
    HeldOut,
    Place,
    Problem,
    Row,
    UsageError,
)
from tasks.common import audit, carries, errors, paper, written
from tasks.common.sheet import Kind

NUMBER = f"([0-9]{{1,{MAX_CHARACTERS}}})"  # of an answer, which may have too many digits or too few


class Operation(Graded, HeldOut, Explained):
    """What a task of one operation says about single problems, in Python integers and text.

    op       one of + - * /, or a name of its own: `max`
    symbol   the character that stands for it in prompts; by default `op` itself
    form     how people write a problem: `max({a},{b})`; by default `{a}{op}{b}`
    """

    op: ClassVar[str]
    symbol: ClassVar[str] = ""
    form: ClassVar[str] = ""
    commutes: ClassVar[bool] = False
    digits: int  # of the longest operand that is trained on

    @property
    @abstractmethod
    def span(self) -> tuple[int, ...]:
        """The operand lengths that are scored."""

    @abstractmethod
    def compute(self, a: int, b: int, /) -> Answer:
        """The right answer by Python integers."""

    def row_names(self) -> dict[int, str]:
        """What people call the rows of each kind."""
        return {kind: kind.name.lower().replace("_", " ") for kind in Kind}

    def numbers(self, problem: Problem, completion: str) -> list[list[int]]:
        """Where each number of the answer stands: the places of its digits, highest first.

        Raises UsageError unless the completion is a finished trace: rows of the number and lengths
        that follow from the lengths of the operands, then the answer. By default all that is
        written is one number, lowest digit first.
        """
        return [self.matched(f"{NUMBER}#", completion)[0][::-1]]

    def matched(self, pattern: str, completion: str) -> list[list[int]]:
        """The span of each group of a pattern. Raises UsageError where it does not match."""
        match = re.fullmatch(pattern, completion, re.DOTALL)
        if match is None:
            raise UsageError(f"{completion!r} is not a finished trace of {self.op}")
        return [list(range(*group)) for group in match.regs[1:]]

    def labels(self) -> dict[str, str]:
        """What the rows of a trace are, by the character that ends each; the last is the answer."""
        return {}

    def check(self, problem: Problem) -> tuple[int, ...]:
        """The operands of a problem. Raises UsageError unless it can be asked."""
        if problem.op != self.op:
            raise UsageError(f"this model does {self.op}, not {problem.op}")
        most, count = self.operands_at_most, len(problem.operands)
        if not 2 <= count <= most:
            valid = "2" if most == 2 else f"2 to {most:,}"
            raise UsageError(f"this model takes {valid} operands, not {count:,}")
        if max(problem.operands) >= TOO_LARGE:
            raise UsageError(f"operands may have at most {MAX_DIGITS} digits")
        return problem.operands

    @property
    def char(self) -> str:
        """The character of the operation in prompts."""
        return self.symbol or self.op

    def prompt(self, problem: Problem) -> str:
        return f"{self.char.join(map(str, self.check(problem)))}="

    def text(self, problem: Problem) -> str:
        if not self.form:
            return super().text(problem)
        a, b = problem.operands
        return self.form.replace("{a}", str(a)).replace("{b}", str(b))

    def parse(self, text: str) -> Problem:
        if not self.form:
            return super().parse(text)
        digits, asked = f"([0-9]{{1,{MAX_DIGITS}}})", text.strip()
        for form in (f"{self.form}=", f"{{a}}{self.char}{{b}}=", self.form):  # the second: a prompt
            pattern = re.escape(form).replace(r"\{a\}", digits).replace(r"\{b\}", digits)
            if match := re.fullmatch(pattern.replace(r"\ ", r"\s+"), asked, re.ASCII):
                break
        if match is None:
            example = self.text(Problem(self.op, (12, 34)))
            raise UsageError(f"{quoted(text)} is not a problem like {example}")
        problem = Problem(self.op, (int(match[1]), int(match[2])))
        self.prompt(problem)
        return problem

    def truth(self, problem: Problem) -> Answer:
        return self.compute(*self.check(problem))

    def read(self, problem: Problem, completion: str) -> Answer:
        numbers = self.numbers(problem, completion)
        return Answer(*(int("".join(completion[i] for i in places)) for places in numbers))

    def in_train_range(self, problem: Problem) -> bool:
        return max(self.check(problem)) < 10**self.digits

    def in_eval_range(self, problem: Problem) -> bool:
        return all(len(str(operand)) in self.span for operand in self.check(problem))

    def equivalent(self, problem: Problem) -> list[Problem]:
        a, b = self.check(problem)
        return [problem, Problem(self.op, (b, a))] if self.commutes else [problem]

    def in_train(self, problem: Problem) -> bool:
        return audit.in_train(self.check(problem), self.op, self.commutes)

    def error_type(self, problem: Problem, answer: Answer) -> ErrorType:
        return errors.of_number(problem, self.truth(problem).whole, answer.whole)

    def rows(self, problem: Problem, completion: str) -> list[Row]:
        return paper.cut(completion, self.labels())

    def answer_digits(self, problem: Problem, completion: str) -> list[int]:
        answer = self.read(problem, completion)
        shown = (answer.whole, answer.rest) if answer.rest else (answer.whole,)
        numbers = zip(self.numbers(problem, completion), shown, strict=False)
        return [place for places, value in numbers for place in places[-len(str(abs(value))) :]]

    def draw(self, problem: Problem, completion: str) -> str:
        return self.on_paper(problem, completion)

    def placed(self, text: str, ids: np.ndarray) -> list[Place]:
        return written.placed(text, ids)

    def column_fact(self, name: str, problem: Problem, column: int) -> int:
        """What is true of a column: see `carries.column_fact`. Raises UsageError."""
        return carries.column_fact(name, problem, column)

    def pairs(
        self, rng: np.random.Generator, size: int, op: str = ""
    ) -> list[tuple[Problem, Problem, int]]:
        """Pairs of problems that differ in one carry or borrow, and into which column."""
        return carries.pairs(rng, size, op or self.op, self.digits)

    def cascades(self) -> list[Cell]:
        """Cells by how far a carry or borrow travels, and how far it might have: none here."""
        return []

    def on_paper(self, problem: Problem, completion: str, above=(), below=()) -> str:
        """A drawing: operands, answer, and lines above and below the operands."""
        a, b = (paper.Line(str(operand)) for operand in problem.operands)
        answer = paper.Line(self.shown(problem, completion))
        operands = [a, b._replace(sign=self.char), paper.Underline()]
        return paper.drawn([*above, *operands, *below, answer])

    def shown(self, problem: Problem, completion: str) -> str:
        """The answer of a completion as text, a question mark where there is none to read."""
        try:
            return str(self.read(problem, completion))
        except UsageError:
            return paper.MISSING


def row_of(digits: int) -> str:
    """The pattern of a row of so many digits."""
    return f"[0-9]{{{digits}}}"


def sizes(problem: Problem) -> list[int]:
    """The number of digits of each operand."""
    return [len(str(operand)) for operand in problem.operands]
