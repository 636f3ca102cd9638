"""addgpt train"""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from addgpt.cli._options import DIGITS
from addgpt.cli.main import fail, leave
from addgpt.config.errors import UsageError


@click.command("train")
@click.option("--task", help="What to learn; `addgpt tasks` lists them.")
@click.option("--recipe", metavar="NAME", help="A published recipe; `addgpt recipes` lists them.")
@DIGITS
@click.option("--seed", type=click.IntRange(0), help="Seed of weights and problems [0].")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [results/TASK-DIGITS].")
@click.option("--resume", is_flag=True, help="Continue the run in --out, if there is one.")
@click.option("--previous", is_flag=True, help="Resume from the checkpoint before the last.")
@click.option(
    "--init-from", metavar="RUN", help="Start from this run's model; its task, too, without --task."
)
@click.option("--stop-at", help="Stop once val exact match reaches this share, such as 0.999.")
@click.option(
    "--until-certified",
    is_flag=True,
    help="Train on until the model is proved right.",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    metavar="KIND",
    help="csv, tensorboard, wandb or trackio; repeatable.",
)
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting.")
def command(
    task: str | None,
    recipe: str | None,
    digits: int | None,
    seed: int | None,
    out: Path | None,
    resume: bool,
    previous: bool,
    init_from: str | None,
    stop_at: str | None,
    until_certified: bool,
    logs: tuple[str, ...],
    pairs: tuple[str, ...],
) -> None:
    """Train a model on a task and keep the run in a folder.

    The task's recipe is the default, or --recipe, a published one; --set changes options of the
    task (digits=5), the model (width=128) and the training (steps=2000). Ctrl-C saves; --resume
    continues. Under torchrun, all workers share each batch (docs/scaling.md). --log also
    writes the curves to metrics.csv or tensorboard/ in the run folder, to Weights & Biases, or to
    Trackio.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt train --task mul --digits 4 --set steps=3000 --out results/mul-4
      addgpt train --resume --out results/mul-4
      addgpt train --recipe mcleish2024-abacus --seed 1
      addgpt train --task add --digits 3 --log tensorboard
      torchrun --nproc-per-node 2 -m addgpt train --task add --digits 3
    """
    from addgpt.runs import resolve as chosen
    from addgpt.runs.run import free_folder, is_empty
    from addgpt.training.distributed import joined
    from addgpt.training.logs import checked

    short = {"digits": digits, "stop_at": stop_at, "until_certified": until_certified or None}
    settings = chosen.parse_pairs(pairs, **short)
    if resume and out is None:
        raise UsageError("--resume needs --out, the folder of the run to resume")
    begun = out if resume and out is not None and not is_empty(out) else None
    if recipe:
        from addgpt.runs.published import with_recipe

        task, settings = with_recipe(recipe, task, settings)
        out = out or free_folder(recipe, {}, seed or 0)
    if begun is not None and (seed is not None or init_from):
        raise UsageError("a resumed run has its seed and weights; drop --seed and --init-from")
    if previous and begun is None:
        raise UsageError("--previous goes with --resume, and a run that has started")
    logs = checked(logs)
    with joined() as world:
        if world.main:  # the others wait, so that one alone checks, complains and makes the folder
            if begun is not None:
                _resumed(begun, task, settings, previous, world)
            else:
                out = _started(out, task, settings, seed or 0, init_from, world)
        _train(Path(world.broadcast(str(out))), init_from, world, logs)


def _started(
    out: Path | None, task: str | None, settings: dict, seed: int, init_from: str | None, world
) -> Path:
    """Check the request, then make the folder of a new run."""
    from addgpt.runs import resolve as chosen
    from addgpt.runs.provenance import command_line, versions
    from addgpt.runs.run import Run, free_folder, initial_weights, run_path
    from addgpt.training.preflight import check_trainable

    start = Run(run_path(init_from)).config if init_from else None
    if task is None:
        if start is None:
            raise UsageError("--task is missing, or --recipe; `addgpt tasks` lists the tasks")
        # The text or file that it learned may be another one now, or a longer one.
        options = {name: value for name, value in start.options.items() if name != "sha256"}
        task, settings = start.task, options | settings
    shape = start.model if start else None
    config = chosen.configure(task, settings, seed, command_line(), versions(), shape)
    check_trainable(config, world)
    if init_from and start:
        initial_weights(run_path(init_from), config)
        _tell_other_options(start, config, settings)
    return Run.create(out or free_folder(config.task, config.options, seed), config).path


def _tell_other_options(start, config, settings: dict) -> None:
    """Say which whole numbers among the task's options are not as in the run that is gone on from,
    unless they were asked for: a text's block falls back to the default."""
    was = start.options if start.task == config.task else {}
    for name, value in config.options.items():
        if name not in settings and type(value) is int and was.get(name, value) != value:
            note = f"{name}={value}, not {was[name]} as in that run"
            click.echo(f"note: {note}; --set {name}={was[name]} keeps it", err=True)


def _resumed(out: Path, task: str | None, settings: dict, previous: bool, world) -> None:
    """Check the request, then change the settings of a run."""
    from addgpt.runs import resolve as chosen
    from addgpt.runs.provenance import command_line
    from addgpt.runs.run import Run
    from addgpt.training.preflight import check_trainable

    run = Run(out)
    run.task()  # which says that this version lacks it
    config = chosen.reconfigure(run.config, task, settings, command_line())
    check_trainable(config, world)
    if previous:
        run.restore_previous()  # or it says why not, and nothing is changed
    run.reconfigure(config)


def _train(out: Path, init_from: str | None, world, logs: tuple[str, ...] = ()) -> None:
    """Train the run of a folder and say how it went."""
    from addgpt.runs.run import Run, initial_weights, run_path
    from addgpt.training.logs import followed
    from addgpt.training.loop import Interrupted, WorkerLost, train

    run = Run(out)
    weights = initial_weights(run_path(init_from), run.config) if init_from else None
    again = f"addgpt train --resume --out {shlex.quote(str(run.path))}"
    again += "".join(f" --log {kind}" for kind in logs)
    try:
        with followed(run, logs if world.main else (), quiet=not world.main) as after_step:
            end = train(run, after_step, weights, world)
    except (Interrupted, WorkerLost) as stop:
        if not world.main:
            sys.exit(1)
        if isinstance(stop, WorkerLost):
            fail(f"{stop}; go on from the last checkpoint with: {again}", 1)
        leave(f"{stop}; everything is saved; resume with: {again}", 130)
    if world.main:
        click.echo(
            f"{run.path}: {_score(end.validation, end.val_size)} "
            f"after {end.step:,} steps, {end.seconds:.1f} s of training"
        )
        proved = not run.config.train.until_certified or _certify(run)
        _tell_next(run)
        if not proved:
            sys.exit(1)


def _certify(run) -> bool:
    """Write the certificate of a run that was trained for one, print what it says, and return
    whether it holds."""
    from addgpt.cli.certify import verdict
    from addgpt.evaluation.certify import certify

    found = certify(run)
    click.echo(verdict(found))
    if not found["proved"]:
        click.echo(f"what is wrong: addgpt certify {shlex.quote(str(run.path))}", err=True)
    return bool(found["proved"])


def _score(validation: dict[str, Any], n: int) -> str:
    """What the last validation found among n problems."""
    from addgpt.evaluation.intervals import percent

    if "val_exact" in validation:
        return f"val exact match {percent(validation['val_exact'], 1)} % (n={n:,})"
    return f"val loss {validation['val_loss']:.4f}" if "val_loss" in validation else "done"


def _tell_next(run) -> None:
    """Print the next commands, and where figures go."""
    import numpy as np

    from addgpt.calculator.questions import operators
    from addgpt.task import TextTask

    path, task = shlex.quote(str(run.path)), run.task()
    lines = []
    if task.cells() or isinstance(task, TextTask):
        score = "score it on held-out problems" if task.cells() else "its loss on unseen text"
        lines.append((f"addgpt eval {path}", score))
    if operators(task):
        (problem,) = task.batch(np.random.default_rng(0), 1, "val").problems
        lines.append((f'addgpt calc --model {path} "{problem}"', "ask it"))
    elif isinstance(task, TextTask):
        lines.append((f"addgpt sample {path}", "let it write"))
    lines.append((f"addgpt figures {path}", f"draws {run.path / 'training_curve.png'} and more"))
    width = max(len(line) for line, _ in lines)
    told = [f"  {line.ljust(width)}  # {what}" for line, what in lines]
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo("\n".join(["Next:", *told]), err=True)
