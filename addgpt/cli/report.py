"""addgpt report"""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from addgpt.cli.main import RESULTS, scores_folder
from addgpt.config.errors import UsageError


@click.command("report")
@click.argument("folder", default=RESULTS, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), default="report.html", show_default=True)
@click.option("--date", default="", help="The date on the page [the newest file's].")
def command(folder: Path, out: Path, date: str) -> None:
    """Show all runs of a folder on one page, an html file.

    FOLDER holds runs, or is one; `calculator` is the shipped run, once `addgpt eval calculator` has
    scored it. Reference runs are left out if there are others. Unreadable files are named on the
    page and on stderr.

    \b
    Example:
      addgpt report
      addgpt report results/add-3 --out add-3.html
    """
    from addgpt.runs.files import RunError, write_atomically
    from addgpt.training.progress import counted
    from analysis.report import build

    folder = scores_folder(folder)
    if not out.name:
        raise UsageError("--out takes a file, such as report.html")
    if out.is_dir() or not out.parent.is_dir():
        what = "that is a folder" if out.is_dir() else f"there is no folder {out.parent}"
        raise RunError(f"cannot write {out}: {what}")
    page = build(folder, progress=counted, date=date)
    write_atomically(out, page.html)
    for fault in page.faults:
        click.echo(fault, err=True)
    if page.left_out:
        path = shlex.quote(str(folder / "reference"))
        what = "1 reference run" if page.left_out == 1 else f"{page.left_out} reference runs"
        click.echo(f"left out: {what}, see addgpt report {path}", err=True)
    runs = "1 run" if page.runs == 1 else f"{page.runs:,} runs"
    click.echo(f"{out}: {runs}, {out.stat().st_size / 1e3:,.0f} kB")
