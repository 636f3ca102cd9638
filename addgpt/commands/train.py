"""addgpt train"""

from __future__ import annotations

from pathlib import Path

import click

from addgpt.cli import RESULTS, fail


@click.command("train")
@click.option("--task", help="What to learn; `addgpt tasks` lists them.")
@click.option("--digits", type=int, help="Longest operand; short for --set digits=N.")
@click.option("--seed", type=click.IntRange(0), help="Of weights and problems [0].")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [results/TASK-DIGITS].")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if there is one.")
@click.option("--init-from", type=click.Path(path_type=Path), help="Start from this run's weights.")
@click.option("--stop-at", help="Stop once val exact match reaches this share, such as 0.999.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting.")
def command(
    task: str | None,
    digits: int | None,
    seed: int | None,
    out: Path | None,
    resume: bool,
    init_from: Path | None,
    stop_at: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Train a model on a task and keep the run in a folder.

    The task's recipe is the default; --set changes options of the task (digits=5), the model
    (width=128) and the training (steps=2000). Ctrl-C saves; --resume goes on.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt train --task mul --digits 4 --set steps=3000 --out results/mul-4
      addgpt train --resume --out results/mul-4
    """
    from addgpt import settings as chosen
    from addgpt.progress import TrainingProgress
    from addgpt.runs import Run, command_line, versions
    from addgpt.train import Interrupted, check_startable
    from addgpt.train import train as run_training

    settings = chosen.parse_pairs(pairs)
    settings |= {"digits": str(digits)} if digits is not None else {}
    settings |= {"stop_at": stop_at} if stop_at is not None else {}
    weights = None
    if resume and out is None:
        raise ValueError("--resume needs --out, the run folder to go on with")
    if resume and out.is_dir() and any(out.iterdir()):
        if seed is not None or init_from:
            raise ValueError("a resumed run has its seed and weights; drop --seed and --init-from")
        run = Run(out)
        run.reconfigure(chosen.reconfigure(run.config, task, settings, command_line()))
    else:
        if task is None:
            raise ValueError("--task is missing; `addgpt tasks` lists the tasks")
        config = chosen.configure(task, settings, seed or 0, command_line(), versions())
        check_startable(config)
        weights = Run(init_from).weights_for(config.model) if init_from else None
        run = Run.create(out or _free_folder(config.task, config.options), config)
    try:
        with TrainingProgress() as watch:
            end = run_training(run, watch, weights)
    except Interrupted as stop:
        again = f"addgpt train --resume --out {run.path}"
        fail(f"{stop}; everything is saved, go on with: {again}", 130)
    exact = end.look.get("val_exact")
    score = f"val exact match {100 * exact:.2f} %" if exact is not None else "done"
    n = f" (n={run.config.train.eval_size:,})" if exact is not None else ""
    click.echo(f"{run.path}: {score}{n} after {end.step:,} steps, {end.seconds:.1f} s of training")


def _free_folder(task: str, options: dict) -> Path:
    """results/TASK-DIGITS, or the first of results/TASK-DIGITS-2, -3, ... that is not taken."""
    name = f"{task}-{options['digits']}" if "digits" in options else task
    path, number = Path(RESULTS) / name, 1
    while path.exists():
        number += 1
        path = Path(RESULTS) / f"{name}-{number}"
    return path
