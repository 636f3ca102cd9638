"""Talking to a calculator: answers as text, notes about them, piped lines, and the REPL."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import platformdirs

from addgpt.calculator.expression import brief
from addgpt.calculator.solver import Calculator, Solution, Step
from addgpt.config.errors import UsageError
from addgpt.task import Problem

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

CHUNK = 5_000  # piped lines that are solved together
MAX_TOLD = 20  # wrong answers to piped lines
MAX_REACH = 200  # digits up to which `reach` searches
SURE, FAIRLY_SURE = 0.99, 0.9
COMMANDS = (":steps", ":model", ":help", ":quit")
LEAVE = (":quit", ":q", ":exit")
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
    stuck: int = 0  # of these, because the model got to no answer
    wrong: int = 0  # answered, but not with the right result
    uncovered: int = 0  # with operands of lengths not trained or scored

    def __str__(self) -> str:
        counts = f"{self.errors:,} errors, {self.wrong:,} wrong"
        return f"{self.lines:,} lines: {counts}, {self.uncovered:,} of lengths never scored"


def show(calculator: Calculator, solution: Solution, steps: bool = False) -> str:
    """A solution as text for a person, `steps` first: each operation as on paper.

    Without a last line if the model got to no answer, which `notes` say.
    """
    parts = [f"{work(calculator, step)}\n" for step in solution.steps if steps]
    return "\n".join(parts if solution.stuck is not None else [*parts, answer(solution)])


def work(calculator: Calculator, step: Step) -> str:
    """What a step did, and how, as on paper."""
    lines = calculator.explain(step).split("\n")
    return "\n".join([heading(step), *(f"    {line}".rstrip() for line in lines)])


def answer(solution: Solution) -> str:
    """The one line that answers an expression, `error: ...` where there is no answer."""
    error = solution.error or solution.stuck
    return solution.answer if error is None else f"error: {error}"


def heading(step: Step) -> str:
    """What a step did: `-3 + 5 = 2   by 5-3`."""
    parts = [f"{step.reduction} = {'?' if step.result is None else step.result}"]
    if step.reduction.replace(" ", "") != str(step.problem):
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
        out.append(f"of lengths never trained or scored: {brief(str(beyond[0]))}{more}")
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
        solved = calculator.solve_many(chunk)
        told = tally.wrong
        for number, solution in enumerate(solved, tally.lines + 1):
            out.write(answer(solution) + "\n")
            if solution.correct is False and solution.stuck is None and told < MAX_TOLD:
                told += 1
                tell(f"line {number}: {', '.join(notes(solution))}")
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


def reach(calculator: Calculator) -> str:
    """How long operands were in training: `+ - of up to 20 digits, * / of up to 12 digits`."""
    sizes: dict[int, list[str]] = {}
    for op in calculator.operators:
        problems = (Problem(op, (10**n - 1,) * 2) for n in range(1, MAX_REACH + 1))
        size = sum(1 for _ in takewhile(calculator.task.in_train_range, problems))
        sizes.setdefault(size, []).append(op)
    return ", ".join(f"{' '.join(ops)} of up to {size} digits" for size, ops in sizes.items())


def run_repl(
    calculator: Calculator, open_model: Callable[[str], Calculator], steps: bool = False
) -> None:
    """Read expressions and commands from a terminal until Ctrl-D or `:quit`.

    Args:
        open_model: opens the calculator of another run; UsageError, RuntimeError or OSError say,
            in one line, why it cannot.
        steps: whether to show the work from the start.
    """
    _Repl(calculator, open_model, steps).run()


def history_file() -> Path:
    """Where typed lines are kept from session to session."""
    return platformdirs.user_state_path("addgpt") / "history"


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
        if f":{command}" in (*COMMANDS, *LEAVE):  # `quit`: no expression has letters
            command = f":{command}"
        if command in LEAVE:
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
                title, _, drawing = work(self.calculator, step).partition("\n")
                self._say([("class:note" if step.correct else "class:bad", title)])
                self._say([("", drawing + "\n")])
        if solution.stuck is None:
            self._say(styled_answer(self.calculator, solution))
        for note in notes(solution):
            self._say([("class:bad" if solution.correct is False else "class:warn", note)])

    def _model(self, path: str) -> None:
        if path:
            try:
                self.calculator = self.open_model(path)
            except (UsageError, RuntimeError, OSError) as error:
                self._say([("class:bad", f"error: {error}")])
                return
        self._say([("", self._about())])

    def _about(self) -> str:
        proved = "; proved for any length" if self.calculator.proved else ""
        trained = f"trained on {reach(self.calculator)}"
        return f"{self.calculator.name}: whole numbers, {trained}{proved}"

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


def styled_answer(calculator: Calculator, solution: Solution) -> Styled:
    """The answer, its digits coloured by how sure the model was of each."""
    text = answer(solution)
    step = solution.steps[-1] if solution.steps else None
    if step is None or solution.stuck is not None or str(step.result) != solution.answer:
        return [("" if solution.correct else "class:bad", text)]
    chances = iter(calculator.digit_probabilities(step))
    pieces = [(_style(next(chances, 1.0)) if char.isdigit() else "", char) for char in text]
    return [
        (style, "".join(char for _, char in run))
        for style, run in groupby(pieces, key=lambda piece: piece[0])
    ]


def _style(probability: float) -> str:
    if probability >= SURE:
        return "class:sure"
    return "class:fairly" if probability >= FAIRLY_SURE else "class:unsure"


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
