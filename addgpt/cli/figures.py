"""addgpt figures"""

from __future__ import annotations

import sys
from pathlib import Path

import click

from addgpt.cli.main import RESULTS, scores_folder


@click.command("figures")
@click.argument("results", default=RESULTS, type=click.Path(path_type=Path))
def command(results: Path) -> None:
    """Draw figures of runs, into their folders.

    RESULTS is a results folder, one run folder, or `calculator`, the shipped run, once `addgpt eval
    calculator` has scored it. Figures: the training curve, exact match by operand length and by
    stratum, and where answers go wrong, each if there is something to draw. The paths are printed.
    For a sweep, one more picture compares its cases: sweep.png.

    \b
    Example:
      addgpt figures
      addgpt figures results/add-3
      addgpt figures results/widths
    """
    from addgpt.runs.files import RunError
    from analysis import figures, load, sweeps

    code, folder = 0, scores_folder(results)
    try:
        if drawn := sweeps.draw(folder):
            click.echo(drawn)
    except (ValueError, RunError) as error:
        click.echo(f"error: {error}", err=True)
        code = 1
    for run, path in load.find(folder).items():
        try:
            any_drawn = False
            for file in figures.draw(path):
                click.echo(file)
                any_drawn = True
            if not any_drawn:
                click.echo(f"{run}: nothing to draw yet", err=True)
        except (ValueError, RunError) as error:
            click.echo(f"error: {error}", err=True)
            code = 1
    sys.exit(code)
