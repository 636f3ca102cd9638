"""addgpt settings"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Iterator

import click

Row = tuple[str, str, str, str]
HEAD: Row = ("setting", "default", "valid", "what it is")


@click.command("settings")
@click.option("--task", help="The options of this task instead; `addgpt tasks` lists the tasks.")
@click.option("--markdown", is_flag=True, help="As the tables of docs/settings.md.")
def command(task: str | None, markdown: bool) -> None:
    """List the settings of models and training.

    Set any of them with `addgpt train --set SETTING=VALUE`. Each architecture has settings of its
    own; a task's recipe says which differ from the defaults for it.

    \b
    Example:
      addgpt settings
      addgpt settings --task add
    """
    parts = []
    for title, rows in sections(task):
        if markdown:
            code = [(f"`{n}`", d and f"`{d}`", valid, text) for n, d, valid, text in rows]
            lines = [HEAD, ("---",) * 4, *code]
            parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(x)} |" for x in lines))
            continue
        widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(3)]
        told = [
            "  ".join([*map(str.ljust, row[:3], widths), row[3]]).rstrip() for row in [HEAD, *rows]
        ]
        parts.append("\n".join([title, *told]))
    click.echo("\n\n".join(parts))


def sections(task: str | None = None) -> Iterator[tuple[str, list[Row]]]:
    """The settings of each architecture and of training, or the options of a task."""
    from addgpt.config.architectures import CONFIGS, TOLD
    from addgpt.config.schema import TrainConfig
    from addgpt.task_lookup import task_class

    if task is not None:
        yield f"Options of task {task}", list(_rows(task_class(task)))
        return
    for cls in dict.fromkeys(CONFIGS.values()):
        names = [name for name, config in CONFIGS.items() if config is cls]
        title = "Model, " + " or ".join(f"architecture={name}" for name in names)
        yield title, [row for row in _rows(cls) if row[0] not in TOLD]
    yield "Training", list(_rows(TrainConfig))


def _rows(cls: type) -> Iterator[Row]:
    from addgpt.config.settings import as_text

    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        known = item.metadata
        valid = ", ".join(map(as_text, known.get("choices", ())))
        valid = valid or str(known.get("bounds", "")) or _of_type(hints[item.name])
        yield item.name, as_text(item.default), valid, known.get("help", "")


def _of_type(hint: object) -> str:
    """The values of a type in words."""
    if isinstance(hint, types.UnionType):
        hint = typing.get_args(hint)[0]
    if typing.get_origin(hint) is tuple:
        return f"{_of_type(typing.get_args(hint)[0])}, or several, comma-separated"
    words = {bool: "true, false", int: "a whole number", float: "a number", str: "text"}
    return words.get(hint, "")  # type: ignore[call-overload]
