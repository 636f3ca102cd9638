"""addgpt improve"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from addgpt.cli._options import AS_JSON
from addgpt.cli.main import leave
from addgpt.config.errors import UsageError


@click.command("improve")
@click.option("--task", help="Task to draw problems from; `addgpt tasks` lists them.")
@click.option("--recipe", metavar="NAME", help="A published recipe; `addgpt recipes` lists them.")
@click.option("--digits", type=int, help="Longest operand of round 0; short for --set digits=N.")
@click.option("--seed", type=click.IntRange(0), default=0, help="Seed of weights and problems [0].")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the rounds.")
@click.option(
    "--rounds", type=click.IntRange(0), default=3, show_default=True, help="Rounds after round 0."
)
@click.option(
    "--models", type=click.IntRange(1), default=3, show_default=True, help="Models that vote."
)
@click.option(
    "--agree",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.6,
    show_default=True,
    help="Share of the models that must give the same answer.",
)
@click.option(
    "--shorter",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Digits by which an answer may be shorter than the longest.",
)
@click.option(
    "--count", type=click.IntRange(100), default=5000, show_default=True, help="Problems a round."
)
@click.option("--first", type=click.IntRange(100), help="Problems of round 0 [20 * count].")
@click.option(
    "--steps", type=click.IntRange(1), help="Steps of each further round [a quarter of round 0's]."
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="As of addgpt train.")
@AS_JSON
def command(
    task: str | None,
    recipe: str | None,
    digits: int | None,
    seed: int,
    out: Path,
    rounds: int,
    models: int,
    agree: float,
    shorter: int,
    count: int,
    first: int | None,
    steps: int | None,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Let models teach themselves longer problems, digit by digit.

    Round 0 learns right answers to problems of the task, as text. In each further round the models
    answer problems with one digit more; what enough of them agree on, and what is not too short,
    they learn, too, right or wrong (Lee et al. 2025, arXiv:2502.01612). The same command goes on
    where it was stopped.

    \b
    Example:
      addgpt improve --recipe lee2025-self-improvement --out results/improve
      addgpt improve --task add --digits 2 --rounds 1 --models 2 --out results/improve-2
    """
    from addgpt.runs.published import with_recipe
    from addgpt.runs.resolve import parse_pairs, split_settings
    from addgpt.training.loop import Interrupted
    from addgpt.training.progress import TrainingProgress
    from addgpt.training.self_improvement import Plan, improve

    settings = parse_pairs(pairs, digits=digits)
    given = set(settings)
    if recipe:
        task, settings = with_recipe(recipe, task, settings)
        ids = {"level_position", "next_ids"} - given  # which text does not have
        settings = {key: value for key, value in settings.items() if key not in ids}
    if task is None:
        raise UsageError("--task is missing, or --recipe; `addgpt tasks` lists the tasks")
    options, model, train = split_settings(task, settings)
    votes, sizes = (models, agree, shorter), (count, first or 0)
    plan = Plan(task, options, model | train, seed, rounds, steps or 0, *votes, *sizes)
    told = []
    try:
        with TrainingProgress() as progress:
            for rows in improve(plan, out, progress):
                told += rows
                if not as_json:
                    _tell(rows)
    except (Interrupted, KeyboardInterrupt) as stop:
        saved = "everything is saved" if isinstance(stop, Interrupted) else "not all is saved"
        leave(f"{str(stop) or 'stopped'}; {saved}; the same command goes on from there", 130)
    if as_json:
        click.echo(json.dumps(told, indent=2))


def _tell(rows: list[dict[str, Any]]) -> None:
    """A line for a round: what was added, and how many of each length are right."""
    from addgpt.evaluation.intervals import percent

    first, parts = rows[0], []
    if first["round"]:
        added = f"{first['added_right']:,} of {first['added']:,} answers added are right"
        parts.append(added if first["added"] else "no answer was added: too few models agreed")
    for digits in dict.fromkeys(row["digits"] for row in rows):
        shares = [percent(r["right"], r["n"]) for r in rows if r["digits"] == digits]
        parts.append(f"{digits} digits {', '.join(shares)} %")
    models = max(row["model"] for row in rows) + 1
    which = f", {models} models" if models > 1 else ""
    click.echo(f"round {first['round']}{which}: {'; '.join(parts)}")
