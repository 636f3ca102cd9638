"""addgpt calc"""

from __future__ import annotations

import sys

import click

from addgpt.calculator.load import load_calculator
from addgpt.config.errors import UsageError


@click.command("calc", context_settings={"ignore_unknown_options": True})
@click.argument("expression", nargs=-1)
@click.option("--model", metavar="RUN", help="A run folder [calculator: that of the package].")
@click.option("--steps", is_flag=True, help="Show the work as on paper.")
def command(expression: tuple[str, ...], model: str | None, steps: bool) -> None:
    """Calculate with a model: + - * / and parentheses, whole numbers.

    Without an expression it opens a prompt; piped lines get one answer each. Python checks each
    answer. Division truncates toward zero and leaves a remainder, which ends an expression:
    17/5 is 3 remainder 2, 17/5+1 is an error. The model of the package is proved
    right for whole numbers of any length: docs/certificate.md.

    Exit code 1: an answer was wrong or unreadable (of piped lines, stderr says which). Otherwise 2:
    bad input, in any line.

    \b
    Example:
      addgpt calc "12*(34-5)/2"
      addgpt calc --steps "345-1234"
      addgpt calc < problems.txt
    """
    check_expression(expression)
    if not expression and sys.stdin is None:
        raise UsageError('nothing to calculate: stdin is closed; give an expression, "12*34"')
    piped = not expression and not sys.stdin.isatty()
    if piped and steps:
        raise UsageError('--steps is for the prompt or an expression: addgpt calc --steps "12*34"')
    calculator = load_calculator(model)
    if expression:
        from addgpt.calculator.repl import notes, show

        solution = calculator.solve(" ".join(expression))
        text = show(calculator, solution, steps)
        if text:
            click.echo(text)
        for note in notes(solution):
            click.echo(note, err=True)
        sys.exit(0 if solution.correct else 1)
    from addgpt.calculator.repl import run_lines, run_repl

    if not piped:
        run_repl(calculator, load_calculator, steps)
        return
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    tally = run_lines(calculator, sys.stdin, sys.stdout, lambda note: click.echo(note, err=True))
    if tally.errors or tally.wrong or tally.uncovered:
        click.echo(str(tally), err=True)
    sys.exit(1 if tally.wrong or tally.stuck else 2 if tally.errors else 0)


def check_expression(parts: tuple[str, ...]) -> None:
    """Raise UsageError for what was meant as an option; `-5+3` and `--5` are expressions."""
    for part in parts:
        name = part.lstrip("-")
        if part != name and name[:1].isalpha():
            raise click.UsageError(f"no such option {part}; valid: --model, --steps, --help")
