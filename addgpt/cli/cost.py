"""addgpt cost"""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import click

from addgpt.cli._options import AS_JSON, DIGITS, Finite
from addgpt.config.errors import UsageError
from addgpt.config.format import duration, short


@click.command("cost")
@click.option("--task", help="What to learn; `addgpt tasks` lists them.")
@DIGITS
@click.option("--run", "run_name", help="Take the settings of this run.")
@click.option(
    "--examples", type=click.IntRange(1), help="Problems to train on [those of all steps]."
)
@click.option(
    "--utilisation",
    type=Finite(0, 1, min_open=True),
    default=0.3,
    show_default=True,
    help="Share of a GPU's peak rate; small models reach far less.",
)
@click.option(
    "--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting, as in addgpt train."
)
@AS_JSON
def command(
    task: str | None,
    digits: int | None,
    run_name: str | None,
    examples: int | None,
    utilisation: float,
    pairs: tuple[str, ...],
    as_json: bool,
) -> None:
    """Estimate what a training will cost: tokens, FLOPs, time.

    FLOPs count matrix products only. The time on this machine is measured over a few steps; on GPUs
    it follows from the published peak rate times --utilisation, at least 5 ms a step.

    \b
    Example:
      addgpt cost --task add --digits 3
      addgpt cost --task mul --digits 8 --set width=256 --examples 1000000
      addgpt cost --run results/add-3 --json
    """
    from addgpt.runs import resolve as settings
    from addgpt.runs.run import Run, run_path
    from addgpt.training import cost
    from addgpt.training.preflight import check_trainable

    if (task is None) == (run_name is None):
        raise UsageError("give --task or --run; `addgpt tasks` lists the tasks")
    if run_name is not None:
        if pairs or digits is not None:
            raise UsageError("--run has its settings; drop --set and --digits")
        config = _here(Run(run_path(run_name)).config)
    elif task is not None:
        config = settings.configure(task, settings.parse_pairs(pairs, digits=digits))
    check_trainable(config)
    plan, lengths = cost.plan(config, examples), cost.by_length(config)
    known = [("this one, measured", cost.speed(config), "")]
    known += [(name, peak * utilisation, src) for name, (peak, src) in cost.HARDWARE.items()]
    machines = [
        {
            "machine": name,
            "flops_per_second": rate,
            "source": source,
            "seconds": plan.seconds(rate, gpu=bool(source)),
        }
        for name, rate, source in known
    ]
    if as_json:
        told = asdict(plan) | {"tokens": plan.tokens, "flops": plan.flops}
        told |= {"utilisation": utilisation, "lengths": [asdict(row) for row in lengths]}
        click.echo(json.dumps(told | {"machines": machines}))
        return
    _print(plan, lengths, machines, utilisation)


def _here(config):
    """A run's config, measured on what this machine has where its own device is not here."""
    from addgpt.device import pick_device

    try:
        pick_device(config.train.device)
    except ValueError:
        return replace(config, train=replace(config.train, device="auto"))
    return config


def _print(plan, lengths: list, machines: list[dict], utilisation: float) -> None:
    from rich.table import Table

    from addgpt.evaluation.tables import console as where
    from addgpt.evaluation.tables import print_table
    from addgpt.training.cost import STEP

    console = where()
    if lengths:
        table = Table("problem", "tokens", "FLOPs, forward", "FLOPs, training")
        for row in [*lengths, plan.example]:
            sizes = f"{row.tokens:,.1f}", short(row.forward), short(row.training)
            table.add_row(row.what, *sizes)
        print_table(console, table)
    console.print(
        f"{plan.parameters:,} parameters; {plan.examples:,} problems of "
        f"{plan.example.tokens:,.1f} tokens are {short(plan.tokens)} tokens and "
        f"{short(plan.flops)} FLOPs of training steps; validation takes "
        f"{100 * plan.validation:.1f} % on top of that",
        soft_wrap=True,
    )
    title = f"GPUs at {utilisation:.0%} of peak, {1e3 * STEP:g} ms a step at least"
    table = Table("machine", "FLOP/s", "time", "source", title=title)
    for machine in machines:
        rate, took = short(machine["flops_per_second"]), duration(machine["seconds"])
        table.add_row(machine["machine"], rate, took, machine["source"])
    print_table(console, table)
