"""addgpt recipes"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from addgpt.cli._options import AS_JSON

if TYPE_CHECKING:
    from addgpt.runs.published import Published

ROOM = 100  # characters of a line
COLUMNS = ("recipe", "seed", "params", "seconds", "digits", "n", "correct", "far_digits", "far_n",
           "far_correct")  # fmt: skip


@click.command("recipes")
@click.argument("name", required=False)
@AS_JSON
@click.option("--markdown", is_flag=True, help="As the table of docs/recipes.md.")
@click.option(
    "--measured",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="With --markdown: a CSV of what runs of the recipes reached.",
)
def command(name: str | None, as_json: bool, markdown: bool, measured: Path | None) -> None:
    """List published recipes, or show all of one.

    A recipe holds settings of a task, a model and its training under a name, and says what its
    paper reports and what differs here. Train it with `addgpt train --recipe NAME`, with `--set` on
    top.

    \b
    Example:
      addgpt recipes
      addgpt recipes mcleish2024-abacus
      addgpt train --recipe mcleish2024-abacus --set steps=2000
    """
    import dataclasses

    from addgpt.runs.published import load_recipe, recipe_names

    if measured and not markdown:
        raise click.UsageError("--measured goes with --markdown")
    found = [load_recipe(name)] if name else [load_recipe(one) for one in recipe_names()]
    if as_json:
        told = [dataclasses.asdict(recipe) for recipe in found]
        click.echo(json.dumps(told[0] if name else told, indent=2))
    elif markdown:
        click.echo("\n".join(_markdown(found, measured)))
    elif name:
        click.echo("\n".join(_all_of(found[0])))
    else:
        width = max(len(recipe.name) for recipe in found)
        for recipe in found:
            click.echo(f"{recipe.name.ljust(width)}  {recipe.about} ({recipe.paper})")


def _all_of(recipe: Published) -> Iterator[str]:
    """Everything that a recipe says."""
    import textwrap

    from addgpt.config.settings import as_text
    from addgpt.runs.published import GROUPS

    yield f"{recipe.name}: {recipe.about}"
    rows = {"paper": recipe.paper, "reports": recipe.reports, "differs": recipe.differs}
    if recipe.example:
        rows |= {"paper's row": recipe.example.paper, "row here": recipe.example.here}
    rows["task"] = recipe.task
    for group in GROUPS:
        table = getattr(recipe, group)
        values = ((k, tuple(v) if isinstance(v, list) else v) for k, v in table.items())
        rows[group] = " ".join(f"{key}={as_text(value)}" for key, value in values)
    width = max(map(len, rows)) + 2
    for key, text in rows.items():
        wrapper = textwrap.TextWrapper(ROOM - width, break_on_hyphens=False)
        wrapper.break_long_words = False  # such as a curriculum
        lines = wrapper.wrap(text) or [""]
        yield f"{key.ljust(width)}{lines[0]}".rstrip()
        yield from (" " * width + line for line in lines[1:])
    command = f"addgpt train --recipe {recipe.name} {recipe.flags}".rstrip()
    yield f"{'train it'.ljust(width)}{command}"


def _markdown(recipes: list[Published], measured: Path | None) -> Iterator[str]:
    """The table of recipes, beside each what runs of it reached."""
    from addgpt.evaluation.schema import csv_rows

    runs: dict[str, list[dict[str, Any]]] = {}
    for row in csv_rows(measured, COLUMNS, _typed) if measured else ():
        runs.setdefault(row["recipe"], []).append(row)
    head = ("recipe", "what it is", "the paper reports", "here, in distribution", "here, beyond",
            "parameters", "minutes", "seeds")  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield f"| {' | '.join(['---'] * len(head))} |"
    for recipe in recipes:
        about = f"{recipe.about} ({recipe.paper})"
        cells = _reached(runs.get(recipe.name, []))
        yield f"| {' | '.join((f'`{recipe.name}`', about, recipe.reports, *cells))} |"


def _typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of a measurement with its numbers. Raises ValueError."""
    counts = {
        name: int(row[name] or 0) for name in ("params", "n", "correct", "far_n", "far_correct")
    }
    return row | counts | {"seconds": float(row["seconds"])}


def _reached(rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Of a recipe's runs: right in distribution and beyond, parameters, minutes, seeds."""
    from addgpt.evaluation.intervals import percent

    if not rows:
        return "not run", "", "", "", ""
    inside = ", ".join(f"{percent(row['correct'], row['n'])} %" for row in rows)
    digits = "/".join(dict.fromkeys(row["digits"] for row in rows))
    far = [row for row in rows if row["far_n"]]
    beyond = ", ".join(f"{percent(row['far_correct'], row['far_n'])} %" for row in far)
    lengths = "/".join(dict.fromkeys(row["far_digits"] for row in far))
    minutes = ", ".join(f"{row['seconds'] / 60:.1f}" for row in rows)
    sizes = ", ".join(dict.fromkeys(f"{row['params']:,}" for row in rows))
    seeds = ", ".join(row["seed"] for row in rows)
    reached = f"{inside} at {digits} digits"
    return reached, f"{beyond} at {lengths} digits" if far else "", sizes, minutes, seeds
