"""The prompt: expressions and commands typed into a terminal."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import groupby, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from addgpt.calculator.numbers import DIVISIONS, Rules, Value, brief
from addgpt.calculator.show import FAIRLY_SURE, answer, exact_text, notes, works
from addgpt.calculator.solver import Calculator, Solution
from addgpt.config.errors import UsageError
from addgpt.task import Problem

if TYPE_CHECKING:
    from prompt_toolkit.completion import Completer
    from prompt_toolkit.history import History

MAX_REACH = 200  # digits up to which `reach` searches
SURE = 0.99
COMMANDS = (
    ":steps", ":exact", ":division", ":digits", ":vars", ":model", ":help", ":quit",
)  # fmt: skip
LEAVE = (":quit", ":q", ":exit")
HELP = """\
Type an expression with {operators} and brackets, such as 12*(34-5)/2.
ans is the last answer; x = 12*3 gives a name to one.
Each operation is done by the model; Python checks it.

:steps         show, or no longer show, how the model works each operation out
:exact         show, or no longer show, the exact value beside a rounded answer
:division HOW  what / gives: decimal 3.4, remainder 3 remainder 2, or fraction 17/5
:digits N      significant digits of what has to be rounded
:vars          the names that have a value
:model [RUN]   say which model this is, or use the model of another run
:help          this text
:quit          leave (so does Ctrl-D); Ctrl-C cancels a line or a computation"""
STYLES = {
    "sure": "ansigreen",
    "fairly": "ansiyellow",
    "unsure": "ansired bold",
    "bad": "ansired",
    "warn": "ansiyellow",
    "note": "ansicyan",
}

Styled = list[tuple[str, str]]
"""(style, text) pairs, as prompt_toolkit prints them."""
LEGEND: Styled = [
    ("", "digits: "), ("class:sure", "sure"), ("", f" ({SURE:.0%} or more), "),
    ("class:fairly", "fairly sure"), ("", f" ({FAIRLY_SURE:.0%}), "),
    ("class:unsure", "not sure"),
]  # fmt: skip


def reach(calculator: Calculator) -> str:
    """How long operands were in training: `+ - of up to 20 digits, * / of up to 12 digits`."""
    sizes: dict[int, list[str]] = {}
    for op in calculator.operators:
        problems = (Problem(op, (10**n - 1,) * 2) for n in range(1, MAX_REACH + 1))
        size = sum(1 for _ in takewhile(calculator.task.in_train_range, problems))
        sizes.setdefault(size, []).append(op)
    return ", ".join(f"{' '.join(ops)} of up to {size} digits" for size, ops in sizes.items())


def run_repl(
    calculator: Calculator,
    open_model: Callable[[str], Calculator],
    steps: bool = False,
    exact: bool = False,
    division: str | None = None,
) -> None:
    """Read expressions and commands from a terminal until Ctrl-D or `:quit`.

    Args:
        open_model: opens the calculator of another run; UsageError, RuntimeError or OSError say,
            in one line, why it cannot.
        steps: whether to show the work from the start.
        exact: whether to show exact values from the start.
        division: what / gives, with any model; None: what it gives with each, until the person
            says.
    """
    _Repl(calculator, open_model, steps, exact, division).run()


def history_file() -> Path:
    """Where typed lines are kept from session to session."""
    return platformdirs.user_state_path("addgpt") / "history"


class _Repl:
    def __init__(
        self,
        calculator: Calculator,
        open_model: Callable[[str], Calculator],
        steps: bool,
        exact: bool,
        division: str | None,
    ) -> None:
        self.calculator = calculator
        self.open_model = open_model
        self.steps, self.exact = steps, exact
        self.division = division  # that the person wants
        self.rules = self._rules(calculator.rules)
        self.names: dict[str, Value] = {}
        self.legend = True  # not yet shown

    def run(self) -> None:
        from prompt_toolkit import PromptSession

        session: PromptSession = PromptSession(
            history=_history(),
            completer=_completer(self.names),
            reserve_space_for_menu=len(COMMANDS),
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
        rest = rest.strip()
        # Without the colon, too, where that is no expression with a name.
        bare = f":{command}" in (*COMMANDS, *LEAVE) and command not in self.names
        if bare and rest[:1] not in tuple("=+-*/%^"):
            command = f":{command}"
        if command in LEAVE:
            return False
        if command == ":steps":
            self.steps = not self.steps
            self._say([("", f"steps are {'shown' if self.steps else 'not shown'}")])
        elif command == ":exact":
            self.exact = not self.exact
            self._say([("", f"exact values are {'shown' if self.exact else 'not shown'}")])
        elif command in (":division", ":digits"):
            self._set(command[1:], rest)
        elif command == ":vars":
            values = [f"{name} = {brief(value, most=60)}" for name, value in self.names.items()]
            self._say([("", "\n".join(values) or "no names yet; x = 12*3 gives one")])
        elif command == ":help":
            operators = " ".join([*self.calculator.operators, "//", "%", "^"])
            self._say([("", HELP.format(operators=operators))])
            self._say(LEGEND)
        elif command == ":model":
            self._model(rest)
        elif command.startswith(":"):
            text = f"unknown command {command!r}; valid: {' '.join(COMMANDS)}"
            self._say([("class:bad", text)])
        else:
            self._solve(line)
        return True

    def _set(self, rule: str, text: str) -> None:
        """`:digits 20`, or say what it is."""
        try:
            if text:
                if rule == "division":
                    self.rules = replace(self.rules, division=text)
                    self.division = text
                elif text.isdecimal():
                    self.rules = replace(self.rules, digits=int(text[:9]))
                else:
                    raise UsageError(f"digits must be a whole number, not {text!r}")
            self._say([("", f"{rule}: {getattr(self.rules, rule)}")])
        except UsageError as error:
            self._say([("class:bad", f"error: {error}")])

    def _solve(self, line: str) -> None:
        (solution,) = self.calculator.solve_many([line], self.rules, dict(self.names))
        if solution.error is not None:
            self._say([("class:bad", answer(solution))])
            return
        if self.steps:
            titles = [step.correct for step in solution.steps]
            for place, text in enumerate(works(self.calculator, solution, _width())):
                title, _, drawing = text.partition("\n")
                right = place >= len(titles) or titles[place]
                self._say([("class:note" if right else "class:bad", title)])
                self._say([("", drawing + "\n")] if drawing else [])
        if solution.stuck is None:
            self._answer(solution)
        for note in notes(solution):
            self._say([("class:bad" if solution.correct is False else "class:warn", note)])
        if solution.result is not None:
            for name in {solution.name or "ans", "ans"}:
                self.names[name] = solution.result

    def _answer(self, solution: Solution) -> None:
        styled = styled_answer(self.calculator, solution)
        beside = exact_text(solution) if self.exact else ""
        self._say([*styled, ("class:note", f"   {beside}" if beside else "")])
        unsure = any(style in ("class:fairly", "class:unsure") for style, _ in styled)
        if unsure and os.environ.get("NO_COLOR"):
            least = min(self.calculator.digit_probabilities(solution.steps[-1]))
            self._say([("", f"least certain digit: {least:.2f}")])
        elif unsure and self.legend:
            self.legend = False
            self._say(LEGEND)

    def _model(self, path: str) -> None:
        if path:
            try:
                self.calculator = self.open_model(path)
            except (UsageError, RuntimeError, OSError) as error:
                self._say([("class:bad", f"error: {error}")])
                return
        self._say([("", self._about())])
        if (rules := self._rules(self.rules)) != self.rules:
            self.rules = rules
            self._set("division", "")

    def _rules(self, rules: Rules) -> Rules:
        """The rules with the division that the person wants, or else the model's."""
        return replace(rules, division=self.division or self.calculator.rules.division)

    def _about(self) -> str:
        proved = "; proved for any length" if self.calculator.proved else ""
        trained = f"trained on {reach(self.calculator)}"
        return f"{self.calculator.name}: {trained}{proved}"

    def _say(self, text: Styled) -> None:
        from prompt_toolkit import print_formatted_text
        from prompt_toolkit.formatted_text import FormattedText
        from prompt_toolkit.styles import Style

        if not text:
            return
        if len(text) == 1 and max(map(len, text[0][1].split("\n"))) > _width():
            text = [(text[0][0], _wrapped(text[0][1], _width()))]
        print_formatted_text(FormattedText(text), style=Style.from_dict(STYLES))


def styled_answer(calculator: Calculator, solution: Solution) -> Styled:
    """The answer, its digits coloured by how sure the model was of each."""
    text = answer(solution, terminal=True)
    step = solution.steps[-1] if solution.steps else None
    plain = [("" if solution.correct else "class:bad", text)]
    if step is None or step.answer is None or solution.stuck is not None:
        return plain
    same = step.result is not None and str(step.result) == solution.answer
    if not same and solution.rounded:  # what was cut off has no digits
        same = str(getattr(step.result, "whole", step.result)) == solution.answer
    if not same:
        return plain
    chances = calculator.digit_probabilities(step)
    written = "".join(filter(str.isdigit, str(step.answer)))
    body, _, power = text.partition("e")
    digits = re.sub("[^0-9]", "", body)
    start = len(digits) - len(digits.lstrip("0")) if step.ask.places else 0
    if not written.startswith(digits[start:]):
        return plain
    sure = iter([1.0] * start + chances)  # Python writes the zeros after a point, and e-30
    pieces = [(_style(next(sure, 1.0)) if char.isdigit() else "", char) for char in body]
    pieces += [("", char) for char in text[len(body) :]]
    return [
        (style, "".join(char for _, char in run))
        for style, run in groupby(pieces, key=lambda piece: piece[0])
    ]


def _style(probability: float) -> str:
    if probability >= SURE:
        return "class:sure"
    return "class:fairly" if probability >= FAIRLY_SURE else "class:unsure"


def _width() -> int:
    return shutil.get_terminal_size().columns


def _wrapped(text: str, width: int) -> str:
    """Lines of words no wider than a terminal; the second column of a table stays one."""
    out = []
    for line in text.split("\n"):
        column = re.match(r"(:\S+(?: \S+)?\s\s+)", line)
        indent = " " * min(len(column[1]) if column else 0, width // 3)
        out += textwrap.wrap(
            line, width, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
        ) or [""]
    return "\n".join(out)


def _completer(names: dict[str, Value]) -> Completer:
    """Completes commands and what they take, folders after `:model`, and names."""
    from prompt_toolkit.completion import Completer, Completion, PathCompleter
    from prompt_toolkit.document import Document

    class Commands(Completer):
        def get_completions(self, document, complete_event):
            text = document.text_before_cursor
            command, space, rest = text.partition(" ")
            if command == ":model" and space:
                folders = PathCompleter(only_directories=True)
                yield from folders.get_completions(Document(rest), complete_event)
            elif text.startswith(":"):
                choices = COMMANDS if not space else DIVISIONS if command == ":division" else ()
                part = rest if space else text
                for name in choices:
                    if name.startswith(part):
                        yield Completion(name, -len(part))
            elif part := re.search(r"[A-Za-z][A-Za-z0-9_]*$", text):
                for name in names:
                    if name.startswith(part[0]) and name != part[0]:
                        yield Completion(name, -len(part[0]))

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
