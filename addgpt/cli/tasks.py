"""addgpt tasks"""

from __future__ import annotations

import sys

import click


@click.command("tasks")
def command() -> None:
    """List the tasks and their options.

    \b
    Example:
      addgpt tasks
    """
    from addgpt.task import task_class, task_names

    for name in task_names():
        cls = task_class(name)
        summary = (sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0]
        click.echo(f"{name}: {summary}")
        for option, field in cls.options().items():
            text = field.metadata.get("help", "")
            click.echo(f"  {option}={_as_text(field.default)}  {text}")


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
