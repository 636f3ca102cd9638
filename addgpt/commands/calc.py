"""addgpt calc"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from addgpt.cli import load_calculator


@click.command("calc", context_settings={"ignore_unknown_options": True})
@click.argument("expression", required=False)
@click.option("--model", type=click.Path(path_type=Path), help="A run folder.")
@click.option("--steps", is_flag=True, help="Show the work, as one would write it on paper.")
def command(expression: str | None, model: Path | None, steps: bool) -> None:
    """Calculate with a model: + - * / and parentheses.

    Without an expression: a prompt; with lines piped in: one answer a line.

    \b
    Example:
      addgpt calc "12*(34-5)/2"
      addgpt calc --steps "345-1234"
      addgpt calc < problems.txt
    """
    calculator = load_calculator(model)
    if expression is not None:
        from addgpt.repl import notes, show

        solution = calculator.solve(expression)
        click.echo(show(solution, steps))
        for note in notes(solution):
            click.echo(note, err=True)
        sys.exit(0 if solution.correct else 1)
    from addgpt.repl import run_lines, run_repl

    if sys.stdin.isatty():
        run_repl(calculator, load_calculator)
    else:
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")
        tally = run_lines(calculator, sys.stdin, sys.stdout)
        if tally.errors or tally.wrong or tally.uncovered:
            click.echo(str(tally), err=True)
