"""addgpt calc"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace

import click

from addgpt.calculator.load import load_calculator
from addgpt.config.errors import UsageError

OPTIONS = "--model, --steps, --division, --digits, --exact, --help"


@click.command("calc", context_settings={"ignore_unknown_options": True})
@click.argument("expression", nargs=-1)
@click.option("--model", metavar="RUN", help="A run folder [calculator, the shipped one].")
@click.option("--steps", is_flag=True, help="Show the work as on paper.")
@click.option(
    "--division",
    metavar="HOW",
    help="What / gives: decimal, 3.4; remainder, 3 remainder 2; fraction, 17/5 [decimal].",
)
@click.option(
    "--digits",
    type=int,
    default=12,
    show_default=True,
    help="Significant digits of rounded answers.",
)
@click.option("--exact", is_flag=True, help="Show the exact value beside a rounded answer.")
def command(
    expression: tuple[str, ...],
    model: str | None,
    steps: bool,
    division: str | None,
    digits: int,
    exact: bool,
) -> None:
    """Calculate with a model: + - * / // % ^, decimals and brackets.

    Without an expression it opens a prompt, with names and settings; piped lines get one answer
    each. The model does each operation on whole numbers; Python places signs and points and checks
    each answer. Quotients that do not end are rounded, half to even. The shipped model is proved
    right for whole numbers of any length: docs/certificate.md.

    Exit code 1: an answer was wrong or unreadable (of piped lines, stderr says which). Otherwise 2:
    bad input, in any line.

    \b
    Example:
      addgpt calc "12*(34-5)/2"
      addgpt calc --steps "1.5*2.25"
      addgpt calc --division fraction "1/3+1/6"
      addgpt calc < problems.txt
    """
    from addgpt.calculator.numbers import Rules

    check_expression(expression)
    rules = Rules(division or "decimal", digits)
    if not expression and sys.stdin is None:
        raise UsageError('nothing to calculate: stdin is closed; give an expression, "12*34"')
    piped = not expression and not sys.stdin.isatty()
    if piped and (steps or exact):
        option = "--steps" if steps else "--exact"
        raise UsageError(
            f'{option} is for the prompt or an expression: addgpt calc {option} "12*34"'
        )
    calculator = load_calculator(model)
    calculator.rules = replace(rules, division=division or calculator.rules.division)
    if expression:
        sys.exit(_one(calculator, expression, steps, exact))
    if not piped:
        from addgpt.calculator.repl import run_repl

        run_repl(calculator, load_calculator, steps, exact, division)
        return
    from addgpt.calculator.show import run_lines

    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")
    tally = run_lines(calculator, sys.stdin, sys.stdout, lambda note: click.echo(note, err=True))
    if tally.errors or tally.wrong or tally.uncovered:
        click.echo(str(tally), err=True)
    sys.exit(1 if tally.wrong or tally.stuck else 2 if tally.errors else 0)


def _one(calculator, parts: tuple[str, ...], steps: bool, exact: bool) -> int:
    """Answer one expression; returns the exit code."""
    from addgpt.calculator.show import exact_text, notes, show

    try:
        solution = calculator.solve(" ".join(parts))
    except UsageError as error:
        files = [part for part in parts if any(map(str.isalpha, part)) and os.path.exists(part)]
        if not files or len(parts) == 1:
            raise
        raise UsageError(
            f"the shell has put names of files in the place of *, such as {files[0]}; quote the "
            'expression: addgpt calc "3 * 4"'
        ) from error
    width = shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
    text = show(calculator, solution, steps, width)
    beside = exact_text(solution) if exact and solution.stuck is None else ""
    if text:
        click.echo(f"{text}   {beside}" if beside else text)
    for note in notes(solution):
        click.echo(note, err=True)
    return 0 if solution.correct else 1


def check_expression(parts: tuple[str, ...]) -> None:
    """Raise UsageError for what was meant as an option; `-5+3` and `--5` are expressions."""
    for part in parts:
        name = part.lstrip("-")
        if part != name and name[:1].isalpha():
            raise click.UsageError(f"no such option {part}; valid: {OPTIONS}")
