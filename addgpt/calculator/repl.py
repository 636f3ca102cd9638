"""Talking to a calculator: answers as text, notes about them, piped lines, and the REPL."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from addgpt.calculator.expression import brief
from addgpt.calculator.layout import layout
from addgpt.calculator.solver import Calculator, Solution, Step

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

CHUNK = 5_000  # piped lines that are solved together
MOST_SHOWN = 60  # characters of an answer that is no number
MOST_TOLD = 20  # wrong answers to piped lines
MOST_REACH = 200  # digits up to which `reach` looks
SURE, FAIRLY_SURE = 0.99, 0.9
COMMANDS = (":steps", ":model", ":help", ":quit")
HELP = """\
Type an expression of whole numbers with {operators} and parentheses, such as 12*(34-5)/2.
An inexact division answers 3 remainder 2. Each operation is done by the model; Python checks it.
Answers are green where the model is sure of a digit, yellow where less so, red where it is not.

:steps        show, or no longer show, how the model works each operation out
:model [RUN]  say which model this is, or use the model of another run
:help         this text
:quit         leave (so does Ctrl-D); Ctrl-C cancels a line or a computation"""

Styled = list[tuple[str, str]]
"""(style, text) pairs, as prompt_toolkit prints them."""


@dataclass(frozen=True)
class Tally:
    """What became of piped lines: how many there were, and how many of which kinds."""

    lines: int = 0
    errors: int = 0  # answered with `error: ...`
    wrong: int = 0  # answered, but not with the right result
    uncovered: int = 0  # with operands of lengths not trained or scored

    def __str__(self) -> str:
        counts = f"{self.errors:,} errors, {self.wrong:,} wrong"
        return f"{self.lines:,} lines: {counts}, {self.uncovered:,} of lengths never scored"


def show(solution: Solution, steps: bool = False) -> str:
    """A solution as text for a person, `steps` first: each operation as on paper."""
    parts = [f"{heading(step)}\n{_indented(layout(step))}\n" for step in solution.steps if steps]
    return "\n".join([*parts, answer(solution)])


def answer(solution: Solution) -> str:
    """The one line that answers an expression, `error: ...` if need be."""
    if solution.error is not None:
        return f"error: {solution.error}"
    if solution.stuck is None:
        return solution.answer
    shown = solution.answer
    return shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."


def heading(step: Step) -> str:
    """What a step did: `-3 + 5 = 2   by 5-3`."""
    parts = [f"{step.reduction} = {step.result or '?'}"]
    if step.reduction.replace(" ", "") != step.problem:
        parts.append(f"by {step.problem}")
    if not step.correct:
        parts.append(f"wrong: {step.problem} is {step.truth}")
    least = min(step.probabilities, default=0.0)
    if least < FAIRLY_SURE:
        parts.append(f"least certain token: {least:.2f}")
    return "   ".join(parts)


def notes(solution: Solution) -> list[str]:
    """What a person should know about an answer: that it is wrong, or not to be relied on."""
    out = []
    if solution.stuck is not None:
        out.append(f"{solution.stuck}; the right answer is {solution.truth}")
    elif solution.correct is False:
        out.append(f"wrong: the right answer is {solution.truth}")
    elif not all(step.correct for step in solution.steps):
        out.append("the answer is right, although a step on the way is wrong")
    beyond = [step.problem for step in solution.steps if not step.covered]
    if beyond:
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        out.append(f"of lengths never trained or scored: {brief(beyond[0])}{more}")
    return out


def run_lines(
    calculator: Calculator,
    lines: Iterable[str],
    out: TextIO,
    tell: Callable[[str], None] = lambda note: None,
) -> Tally:
    """Answer each line with exactly one line, in order: the answer alone, or `error: ...`.

    `tell` is told of the first wrong answers, since they look like right ones.
    """
    tally = Tally()
    lines = iter(lines)
    while chunk := list(islice(lines, CHUNK)):
        solved = calculator.solve_many(chunk)
        told = tally.wrong
        for number, solution in enumerate(solved, tally.lines + 1):
            stuck = solution.stuck is not None
            out.write((f"error: {solution.stuck}" if stuck else answer(solution)) + "\n")
            if solution.correct is False and not stuck and told < MOST_TOLD:
                told += 1
                tell(f"line {number}: {', '.join(notes(solution))}")
        out.flush()
        errors = sum(s.error is not None or s.stuck is not None for s in solved)
        wrong = sum(s.correct is False and s.stuck is None for s in solved)
        uncovered = sum(not s.covered for s in solved)
        tally = Tally(
            tally.lines + len(solved),
            tally.errors + errors,
            tally.wrong + wrong,
            tally.uncovered + uncovered,
        )
    return tally


def reach(calculator: Calculator) -> str:
    """How long operands were in training: `+ - of up to 20 digits, * / of up to 12 digits`."""
    sizes: dict[int, list[str]] = {}
    for op in calculator.operators:
        problems = (f"{'9' * size}{op}{'9' * size}" for size in range(1, MOST_REACH + 1))
        size = sum(1 for _ in takewhile(calculator.task.trained_on, problems))
        sizes.setdefault(size, []).append(op)
    return ", ".join(f"{' '.join(ops)} of up to {size} digits" for size, ops in sizes.items())


def run_repl(
    calculator: Calculator, open_model: Callable[[str], Calculator], steps: bool = False
) -> None:
    """Read expressions and commands from a terminal until Ctrl-D or `:quit`.

    Args:
        open_model: opens the calculator of another run; ValueError, RuntimeError or OSError say,
            in one line, why it cannot.
        steps: whether to show the work from the start.
    """
    _Repl(calculator, open_model, steps).run()


def history_file() -> Path:
    """Where typed lines are kept from session to session."""
    state = os.environ.get("XDG_STATE_HOME", "")
    # The specification says that a relative path is to be ignored.
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "addgpt" / "history"


class _Repl:
    def __init__(
        self, calculator: Calculator, open_model: Callable[[str], Calculator], steps: bool
    ) -> None:
        self.calculator = calculator
        self.open_model = open_model
        self.steps = steps

    def run(self) -> None:
        from prompt_toolkit import PromptSession

        session: PromptSession = PromptSession(
            history=_history(), completer=_completer(), reserve_space_for_menu=len(COMMANDS)
        )
        self._say([("", f"{self._about()}. :help for help, Ctrl-D to leave.")])
        while True:
            try:
                text = session.prompt("> ")
                # A pasted text may hold several lines: an expression each.
                for line in text.splitlines():
                    if line.strip() and not self._handle(line.strip()):
                        return
            except KeyboardInterrupt:
                self._say([("class:note", "cancelled")])
            except EOFError:
                return

    def _handle(self, line: str) -> bool:
        """Do what a line says. False to leave."""
        command, _, rest = line.partition(" ")
        if command in (":quit", ":q", ":exit"):
            return False
        if command == ":steps":
            self.steps = not self.steps
            self._say([("", f"steps are {'shown' if self.steps else 'not shown'}")])
        elif command == ":help":
            self._say([("", HELP.format(operators=" ".join(self.calculator.operators)))])
        elif command == ":model":
            self._model(rest.strip())
        elif command.startswith(":"):
            text = f"unknown command {command!r}; valid: {' '.join(COMMANDS)}"
            self._say([("class:bad", text)])
        else:
            self._solve(line)
        return True

    def _solve(self, line: str) -> None:
        solution = self.calculator.solve_many([line])[0]
        if solution.error is not None:
            self._say([("class:bad", answer(solution))])
            return
        if self.steps:
            for step in solution.steps:
                self._say([("class:note" if step.correct else "class:bad", heading(step))])
                self._say([("", _indented(layout(step)) + "\n")])
        self._say(styled_answer(solution))
        for note in notes(solution):
            self._say([("class:bad" if solution.correct is False else "class:warn", note)])

    def _model(self, path: str) -> None:
        if path:
            try:
                self.calculator = self.open_model(path)
            except (ValueError, RuntimeError, OSError) as error:
                self._say([("class:bad", f"error: {error}")])
                return
        self._say([("", self._about())])

    def _about(self) -> str:
        return f"{self.calculator.name}: whole numbers, trained on {reach(self.calculator)}"

    def _say(self, text: Styled) -> None:
        from prompt_toolkit import print_formatted_text
        from prompt_toolkit.formatted_text import FormattedText
        from prompt_toolkit.styles import Style

        style = {
            "sure": "ansigreen",
            "fairly": "ansiyellow",
            "unsure": "ansired bold",
            "bad": "ansired",
            "warn": "ansiyellow",
            "note": "ansicyan",
        }
        print_formatted_text(FormattedText(text), style=Style.from_dict(style))


def styled_answer(solution: Solution) -> Styled:
    """The answer, its digits coloured by how sure the model was of each."""
    text = answer(solution)
    step = solution.steps[-1] if solution.steps else None
    if step is None or solution.stuck is not None or step.result != solution.answer:
        return [("" if solution.correct else "class:bad", text)]
    chances = iter(digit_probabilities(step))
    pieces = [(_style(next(chances, 1.0)) if char.isdigit() else "", char) for char in text]
    return [
        (style, "".join(char for _, char in run))
        for style, run in groupby(pieces, key=lambda piece: piece[0])
    ]


def digit_probabilities(step: Step) -> list[float]:
    """The model's probability of each digit of a step's answer, as the answer is read.

    The digits are looked up at the end of the completion, in whichever order they stand there;
    where they cannot be found, each gets the least probability of the whole completion.
    """
    least = min(step.probabilities, default=0.0)
    body = step.completion.partition("#")[0]
    start = body.rfind("=") + 1
    numbers = re.findall("[0-9]+", step.answer)
    fields = [(m.start() + start, m[0]) for m in re.finditer("[0-9]+", body[start:])]
    fields = fields[-2:] if "r" in body else fields[-1:]
    out: list[float] = []
    for index, number in enumerate(numbers):
        where = None
        if index < len(fields):
            where = _places(*fields[index], number, first="r" in body and index == 0)
        out += [step.probabilities[i] for i in where] if where else [least] * len(number)
    return out


def _places(start: int, field: str, number: str, first: bool) -> list[int] | None:
    """Where the digits of a number stand in a field of a completion; quotients in normal order."""
    if not first and field[::-1].lstrip("0").rjust(1, "0") == number:
        return list(range(start, start + len(number)))[::-1]
    if field.lstrip("0").rjust(1, "0") == number:
        end = start + len(field)
        return list(range(end - len(number), end))
    return None


def _style(probability: float) -> str:
    if probability >= SURE:
        return "class:sure"
    return "class:fairly" if probability >= FAIRLY_SURE else "class:unsure"


def _indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.split("\n"))


def _completer() -> Completer:
    """Completes commands, and folders after `:model`."""
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class Commands(Completer):
        def get_completions(self, document, complete_event):
            text = document.text_before_cursor
            command, space, path = text.partition(" ")
            if command == ":model" and space:
                folders = PathCompleter(only_directories=True)
                yield from folders.get_completions(Document(path), complete_event)
            elif text.startswith(":"):
                for name in COMMANDS:
                    if name.startswith(text):
                        yield Completion(name, -len(text))

    return Commands()


def _history() -> History:
    """The history of earlier sessions; only this session's where it cannot be kept."""
    from prompt_toolkit.history import FileHistory, InMemoryHistory

    class Kept(FileHistory):
        """A full disk or a file of somebody else must not end the session."""

        def store_string(self, string: str) -> None:
            with contextlib.suppress(OSError):
                super().store_string(string)

        def load_history_strings(self) -> Iterator[str]:
            with contextlib.suppress(OSError):
                yield from super().load_history_strings()

    try:
        path = history_file()
        path.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home
        return InMemoryHistory()
    return Kept(str(path))
