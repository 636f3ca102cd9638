"""addgpt tasks"""

from __future__ import annotations

import ast
import inspect
import keyword
import sys
from collections import Counter
from pathlib import Path

import click


@click.command("tasks")
@click.option("--check", "name", metavar="NAME", help="Check that a task keeps its contract.")
@click.option("--new", metavar="NAME", help="Write NAME.py, a task to start from, and its test.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="An option of the task."
)
def command(name: str | None, new: str | None, settings: tuple[str, ...]) -> None:
    """List the tasks; begin one of your own, or check it.

    --check draws problems as training and evaluation do, and lists what was checked: shapes,
    splits, position ids, traces against right answers. Exit code 1: there are faults, one a line;
    or a task of the list cannot be imported, which stderr names. Tasks of other packages (entry
    points of the group addgpt.tasks) are in the list.

    --new writes a task of a few lines into this folder, with comments, and a test of it.

    \b
    Example:
      addgpt tasks
      addgpt tasks --check add --set digits=5
      addgpt tasks --new double
    """
    from addgpt.cli.main import explained
    from addgpt.cli.settings import sections
    from addgpt.task_lookup import TASKS, installed, task_class, task_names

    if new is not None:
        if name is not None or settings:
            raise click.UsageError("--new goes alone")
        _new(new)
        return
    if name is not None:
        _check(name, settings)
        return
    if settings:
        raise click.UsageError("--set goes with --check NAME")
    broken = False
    for name in [*task_names(), *installed(TASKS)]:
        try:
            file = Path(inspect.getfile(task_class(name)))
            text = ast.get_docstring(ast.parse(file.read_bytes())) or ""  # also with `python -OO`
            lines = [f"{name}: {text.partition(chr(10))[0]}"]
            for _, options in sections(name):
                for option, default, valid, text in options:
                    lines.append(f"  {option}={default}  {text}; valid: {valid}")
        except Exception as error:
            broken = True
            click.echo(f"{name}: {explained(error)[0]}", err=True)
            continue
        click.echo("\n".join(lines))
    sys.exit(1 if broken else 0)


def _new(name: str) -> None:
    """Write the file of a new task and that of its test."""
    from addgpt.runs.files import write_atomically

    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        raise click.UsageError(f"a task's name is a Python name such as double, not {name!r}")
    files = {Path(f"{name}.py"): "task.txt", Path(f"test_{name}.py"): "test.txt"}
    for path in files:
        if path.exists():
            raise click.UsageError(f"{path} is there already")
    title = "".join(word.capitalize() for word in name.split("_")) or name
    for path, template in files.items():
        text = (Path(__file__).parent / "new_task" / template).read_text(encoding="utf-8")
        write_atomically(path, text.replace("NAME", name).replace("TITLE", title))
        click.echo(path)
    click.echo(
        f"Next:\n  addgpt tasks --check ./{name}.py\n  addgpt train --task ./{name}.py", err=True
    )


def _check(name: str, settings: tuple[str, ...]) -> None:
    """Print what was checked and every fault; exit with 1 if there are any."""
    from addgpt.evaluation.check_task import check_task
    from addgpt.runs.resolve import parse_pairs
    from addgpt.task_lookup import load_task

    found = check_task(load_task(name, parse_pairs(settings)).resolved())
    times = Counter(fault for _, faults in found for fault in faults)
    for what, faults in found:
        click.echo(f"{'FAULT' if faults else 'ok   '}  {what}")
        for fault in faults:
            if n := times.pop(fault, 0):  # what fails everywhere is said once
                more = f"; {n} times in all" if n > 1 else ""
                click.echo(f"       {' '.join(fault.split())}{more}")
    sys.exit(1 if any(faults for _, faults in found) else 0)
