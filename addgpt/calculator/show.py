"""Solutions as text for people: answers, notes, and the work as on paper."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TextIO

from addgpt.calculator.numbers import brief, number
from addgpt.calculator.solver import Calculator, Solution, Step, no_collection

CHUNK = 5_000  # piped lines that are solved together
MAX_TOLD = 20  # wrong answers to piped lines
MAX_ROWS = 60  # of a step in a terminal
MAX_STEPS = 40  # in a terminal
MAX_DECIMALS = 40  # places up to which an exact value is shown as a decimal
FAIRLY_SURE = 0.9  # probability of a token, below which there is doubt
RULE = re.compile("-+|=+")
DIGITS = re.compile(" *([-+]?) *([0-9]+)")


@dataclass(frozen=True)
class Tally:
    """What became of piped lines: how many there were, and how many of which kinds."""

    lines: int = 0
    errors: int = 0  # answered with `error: ...`
    stuck: int = 0  # of these, because the model reached no answer
    wrong: int = 0  # answered, but not with the right result
    uncovered: int = 0  # with operands of lengths not trained or scored

    def __str__(self) -> str:
        counts = f"{self.errors:,} errors, {self.wrong:,} wrong"
        return f"{self.lines:,} lines: {counts}, {self.uncovered:,} of lengths never scored"


def answer(solution: Solution, terminal: bool = False) -> str:
    """The one line that answers an expression, `error: ...` where there is no answer.

    In a terminal, ≈ stands before a rounded answer.
    """
    error = solution.error or solution.stuck
    if error is not None:
        return f"error: {error}"
    return f"≈ {solution.answer}" if terminal and solution.rounded else solution.answer


def show(
    calculator: Calculator, solution: Solution, steps: bool = False, width: int | None = None
) -> str:
    """A solution as text for a person, `steps` first: each operation as on paper.

    The last line is missing if the model reached no answer; `notes` say so. `width` is that of the
    terminal, into which long work is folded; None: there is none.
    """
    parts = [f"{text}\n" for text in works(calculator, solution, width)] if steps else []
    if solution.stuck is None:
        parts.append(answer(solution, width is not None))
    return "\n".join(parts)


def works(calculator: Calculator, solution: Solution, width: int | None = None) -> list[str]:
    """All steps as on paper, in the order in which they were done; in a terminal not too many."""
    texts = [
        work(calculator, step, width) for step in solution.steps[: MAX_STEPS if width else None]
    ]
    more = len(solution.steps) - len(texts)
    return [*texts, f"... and {more:,} more steps"] if more else texts


def work(calculator: Calculator, step: Step, width: int | None = None) -> str:
    """What a step did, and how, as on paper."""
    drawing = calculator.explain(step)
    if step.ask.op in "+-":
        drawing = with_points(drawing, step.ask.places)
    lines = folded(drawing.split("\n"), None if width is None else width - 4)
    return "\n".join([heading(step), *(f"    {line}".rstrip() for line in lines)])


def heading(step: Step) -> str:
    """What a step did: `-3 + 5 = 2   by 5-3`."""
    parts = [f"{step.reduction} = {'?' if step.result is None else step.result}"]
    places, op = step.ask.places, step.ask.op
    if step.reduction.replace(" ", "") != str(step.problem):
        moved = f", the point {places} place{'s'[: places > 1]} from the right"
        parts.append(f"by {step.problem}{moved if places and op in '*/' else ''}")
    if not step.correct:
        parts.append(f"wrong: {step.problem} is {step.truth}")
    least = min(step.probabilities, default=0.0)
    if least < FAIRLY_SURE:
        parts.append(f"least certain token: {least:.2f}")
    return "   ".join(parts)


def with_points(drawing: str, places: int) -> str:
    """A sum or difference on paper, its numbers with a point before their last `places` digits.

    >>> print(with_points("  150\\n+  75\\n-----\\n  225", 2))
      1.50
    + 0.75
    ------
      2.25
    """
    lines = drawing.split("\n")
    rules = [index for index, line in enumerate(lines) if RULE.fullmatch(line)]
    if not places or not rules:
        return drawing
    before = len(lines[rules[0]])
    width = max(before + 1, places + 4)
    out = []
    for index, line in enumerate(lines):
        left, remark = line[:before], line[before:]
        match = DIGITS.fullmatch(left)
        if RULE.fullmatch(line):
            out.append(line[0] * width)
        elif match and index >= rules[0] - 2:
            digits = match[2].zfill(places + 1)
            text = f"{digits[:-places]}.{digits[-places:]}"
            operand = left[0] in "+-" and index == rules[0] - 1
            text = match[1] + text.rjust(width - 1) if operand else (match[1] + text).rjust(width)
            out.append(text + remark)
        else:  # what was carried stays above its column
            cut = max(0, before - places)
            left = left.ljust(before)
            out.append((f"{left[:cut]} {left[cut:]}".rjust(width) + remark).rstrip())
    return "\n".join(out)


def folded(lines: list[str], width: int | None) -> list[str]:
    """Lines without their middle where there are too many or they are too long; aligned as before.

    >>> folded(["123456789", "      -89", "---------"], 7)
    ['123…789', '    -89', '---…---']
    """
    if width is None:
        return lines
    width = max(width, 16) if width > 12 else max(width, 7)
    if len(lines) > MAX_ROWS:
        half = MAX_ROWS // 2
        gap = len(lines) - 2 * half
        lines = [*lines[:half], f"... {gap:,} more lines ...", *lines[-half:]]
    longest = max(map(len, lines))
    if longest <= width:
        return lines
    start, end = width // 2, longest - (width - width // 2 - 1)
    out = []
    for line in lines:
        if len(line) > start:
            gone = line[start:end].strip()
            line = f"{line[:start]}{'…' if gone else ' '}{line[end:]}".rstrip()
        out.append(line)
    return out


def exact_text(solution: Solution) -> str:
    """The exact value where the answer is not, or not one number: `exactly 1/3`; else empty.

    Where it cannot be had the text says why.
    """
    if not (solution.rounded or solution.value is None):
        return ""
    value = solution.exactly
    if isinstance(value, str):
        return value
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > 10_000:
        return "exactly a fraction of thousands of digits"
    if isinstance(value, Fraction):
        places = value.denominator.bit_length()
        units, rest = divmod(value.numerator * 10**places, value.denominator)
        decimal = number(units, places) if not rest and places <= 3 * MAX_DECIMALS else None
        if decimal is not None and decimal.places <= MAX_DECIMALS:
            return f"exactly {decimal}"
    return f"exactly {brief(value, 'characters', 60)}"


def notes(solution: Solution) -> list[str]:
    """What a person should know about an answer: that it is wrong, or not to be relied on."""
    out = list(solution.notes)
    if solution.stuck is not None:
        out.append(f"{solution.stuck}; the right answer is {solution.truth}")
    elif solution.correct is False:
        out.append(f"wrong: the right answer is {solution.truth}")
    elif not all(step.correct for step in solution.steps):
        out.append("the answer is right, although a step on the way is wrong")
    beyond = [step.problem for step in solution.steps if not step.covered]
    if beyond:
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        out.append(f"of lengths never trained or scored: {brief(beyond[0], 'characters')}{more}")
    return out


def run_lines(
    calculator: Calculator,
    lines: Iterable[str],
    out: TextIO,
    tell: Callable[[str], None] = lambda note: None,
) -> Tally:
    """Answer each line with exactly one line, in order: the answer alone, or `error: ...`.

    `tell` is called for the first wrong answers, since they look like right ones.
    """
    tally = Tally()
    lines = iter(lines)
    while chunk := list(islice(lines, CHUNK)):
        with no_collection():
            solved = calculator.solve_many(chunk)
        told = tally.wrong
        for line, solution in enumerate(solved, tally.lines + 1):
            out.write(answer(solution) + "\n")
            if solution.correct is False and solution.stuck is None and told < MAX_TOLD:
                told += 1
                tell(f"line {line}: {', '.join(notes(solution))}")
        out.flush()
        stuck = sum(s.stuck is not None for s in solved)
        tally = Tally(
            lines=tally.lines + len(solved),
            errors=tally.errors + stuck + sum(s.error is not None for s in solved),
            stuck=tally.stuck + stuck,
            wrong=tally.wrong + sum(s.correct is False for s in solved) - stuck,
            uncovered=tally.uncovered + sum(not s.covered for s in solved),
        )
    return tally
