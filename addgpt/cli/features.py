"""addgpt features"""

from __future__ import annotations

from collections.abc import Iterator

import click

Row = tuple[str, str, str, str]
HEAD: Row = ("feature", "setting", "paper", "what it does")


@click.command("features")
@click.option("--markdown", is_flag=True, help="As the table of docs/features.md.")
def command(markdown: bool) -> None:
    """List the published ideas that are settings, and their papers.

    Each is switched on with `addgpt train --set SETTING`, and can be combined; a combination
    that cannot be is refused with the reason before training starts.

    \b
    Example:
      addgpt features
      addgpt train --task add --set attention=full --set position=alibi
    """
    rows = list(catalogue())
    if markdown:
        click.echo(
            "\n".join(f"| {' | '.join(row)} |" for row in [HEAD, ("---",) * 4, *_code(rows)])
        )
        return
    widths = [max(len(row[column]) for row in [HEAD, *rows]) for column in range(3)]
    for row in [HEAD, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        click.echo("  ".join([*cells, row[3]]))


def catalogue() -> Iterator[Row]:
    """Name, setting, paper and purpose of each feature of the model, of training and of tasks."""
    from addgpt.config.architectures import CONFIGS
    from addgpt.config.schema import TrainConfig
    from addgpt.config.settings import features_of
    from addgpt.task_lookup import task_class, task_names

    told = set()
    for settings in (*CONFIGS.values(), TrainConfig, *map(task_class, task_names())):
        for field, value, feature in features_of(settings):
            row = (feature.name, f"{field}={value}", feature.paper, feature.does)
            if row not in told:  # tasks have options in common
                yield row
            told.add(row)


def _code(rows: list[Row]) -> Iterator[Row]:
    for name, setting, paper, does in rows:
        yield name, f"`{setting}`", paper, does
