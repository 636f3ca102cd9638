"""What tables of sweeps have in common: the spread of seeds, a table in text, a command line."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from addgpt.runs.files import RunError, write_atomically
from analysis import style


def named(run: str) -> tuple[str, int]:
    """Case and seed of a run called CASE-sSEED. Raises ValueError for another name."""
    match = re.fullmatch(r"(.+)-s(\d+)", run)
    if not match:
        raise ValueError(f"run {run} must be named CASE-sSEED")
    return match[1], int(match[2])


def over_seeds(runs: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """One row per value of `by`: `median`, `worst`, `best` accuracy (shares) of `seeds` runs.

    `n` is the least number of problems that a run was asked. Takes a row per run.
    """
    groups = runs.groupby(list(by), sort=False)
    found = groups["accuracy"].agg(median="median", worst="min", best="max", seeds="count")
    return found.assign(n=groups["n"].min()).reset_index()


def shares(curve: pd.DataFrame, along: str, values: Iterable[Any]) -> list[str]:
    """`median (worst)` in percent for each value of the column `along`; "" where it has none."""
    at = curve.set_index(along)
    return [
        f"{100 * at.loc[value, 'median']:.1f} ({100 * at.loc[value, 'worst']:.1f})"
        if value in at.index
        else ""
        for value in values
    ]


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in text."""
    ruled = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in ruled)


def command(
    arguments: Sequence[str] | None,
    name: str,
    about: str,
    example: str,
    collect: Callable[[Any], pd.DataFrame],
    draw: Callable[[pd.DataFrame], Figure],
    describe: Callable[[pd.DataFrame], str],
    several: bool = False,
) -> int:
    """The command line of `analysis.NAME`; returns the exit code: 2 if the runs cannot be used.

    Args:
        about: what --help says.
        example: a folder (or several) that it may be called with.
        collect: a folder (or several) to a table, which --csv writes.
        draw: that table to a figure, which --png writes.
        describe: that table to the text that is printed.
    """
    word = f"python -m analysis.{name}"
    epilog = f"example: {word} {example} --png {name}.png"
    parser = argparse.ArgumentParser(prog=word, description=about, epilog=epilog)
    what = "a folder with the runs, each evaluated" + (", or a file of --csv" if several else "")
    parser.add_argument("folder", nargs="+" if several else None, help=what)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="where the table goes")
    parser.add_argument("--png", "--out", type=Path, metavar="FILE", help="where the figure goes")
    options = parser.parse_args(arguments)
    try:
        table = collect(options.folder)
        if options.csv:
            write_atomically(options.csv, table.to_csv(index=False, float_format="%.10g"))
        if options.png:
            style.save(draw(table), options.png)
        print(describe(table))
    except (ValueError, RunError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
