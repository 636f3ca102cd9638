"""addgpt doctor"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from addgpt.cli._options import AS_JSON
from addgpt.cli.main import RESULTS


@click.command("doctor")
@click.argument("names", metavar="[RUN]...", nargs=-1)
@click.option(
    "--results", type=click.Path(path_type=Path), default=RESULTS, help="Folder of runs [results]."
)
@AS_JSON
def command(names: tuple[str, ...], results: Path, as_json: bool) -> None:
    """Check the installation, and the files of every run.

    Versions, device, speed and extras come first, what to do comes last. Exit code 1 if something
    is broken. With a RUN, or a folder of runs, nothing but these are checked.

    \b
    Example:
      addgpt doctor
      addgpt doctor results/add-3
      addgpt doctor --results /scratch/runs --json
    """
    from addgpt.runs.doctor import diagnose, examine, runs_in
    from addgpt.runs.run import Run, run_path

    runs = []
    for path in map(run_path, names):
        runs += runs_in(path) or [Run(path).path]  # which says that it is none
    found = []
    for finding in examine(sorted(set(runs))) if names else diagnose(results):
        found.append(finding)
        if not as_json:
            mark = "BROKEN" if finding.bad else "note" if finding.advice else "ok"
            click.echo(f"{mark:>6}  {finding.what}: {finding.found}")
    if as_json:
        click.echo(json.dumps([finding._asdict() for finding in found]))
    else:
        advice = [f"{f.what}: {f.advice}" for f in found if f.advice]
        click.echo("\nWhat to do:")
        fine = "nothing" if names else "nothing; try: addgpt train --task add --digits 3"
        for line in dict.fromkeys(advice or [fine]):
            click.echo(f"  {line}")
    sys.exit(1 if any(finding.bad for finding in found) else 0)
