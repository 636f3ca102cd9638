"""addgpt sweep"""

from __future__ import annotations

import sys
from typing import Any

import click

from addgpt.cli.main import fail
from addgpt.config.errors import UsageError


@click.command("sweep")
@click.argument("grid_name", metavar="GRID")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option("--workers", type=click.IntRange(1), help="Runs at a time [local: one per core].")
@click.option("--ray-address", help="Address of a Ray cluster [this machine].")
@click.option(
    "--dry-run", is_flag=True, help="List the runs and their remaining work; run nothing."
)
def command(
    grid_name: str, engine: str, workers: int | None, ray_address: str | None, dry_run: bool
) -> None:
    """Train and score a grid of settings and seeds.

    GRID is a toml file, or the name of one that comes with addgpt. Ctrl-C saves; rerun the same
    command to resume. Finished runs are skipped, so a grid may grow; a run that fails does not stop
    the others, is reported at the end, and leaves its output in sweep.log in its folder.
    sweep.json has a row for each run.

    \b
    Grids that come with addgpt:
      formats, sample-efficiency, length, length-3, length-200, length-mul,
      ablation-add, ablation-length, ablation-mul, ablation-text,
      gated-mul, gated-text, baselines-add, baselines-lines, smallest,
      smallest-padded, recipes

    \b
    A grid:
      task = "add"
      seeds = [0, 1, 2]
      out = "results/widths"        # default: results/NAME-OF-THE-FILE
      per_cell = 500                # problems per cell; eval = false: no scoring
      [set]                         # settings of all runs, as --set of addgpt train
      digits = 3
      [grid]                        # every combination of these values
      width = [32, 64]
      format = ["plain", "reverse"]
      [[case]]                      # and named combinations
      name = "tiny"
      set = {width = 16, heads = 2}

    \b
    Example:
      addgpt sweep formats
      addgpt sweep widths.toml --workers 2
      addgpt sweep widths.toml --engine ray --ray-address 10.0.0.1:6379
    """
    from addgpt.device import allowed_cores
    from addgpt.sweep.engines import LocalEngine, RayEngine
    from addgpt.sweep.grid import load_grid
    from addgpt.sweep.plan import plan_sweep
    from addgpt.sweep.run import run_sweep

    if ray_address and engine != "ray":
        raise UsageError("--ray-address goes with --engine ray")
    grid = load_grid(grid_name)
    planned = plan_sweep(grid, on_this_machine=engine == "local")
    cores = len(allowed_cores())
    where: LocalEngine | RayEngine
    if engine == "ray":
        where = RayEngine(planned, ray_address, cores, workers)
    else:
        where = LocalEngine(planned, cores, workers)
    if dry_run:
        for one in planned:
            click.echo(f"{one.status:7} {one.path}")
        return
    _report(str(grid.folder), *run_sweep(grid, planned, where))


def _report(folder: str, rows: list[dict[str, Any]], stopped: bool) -> None:
    """Say what came of a sweep, and exit."""
    from addgpt.evaluation.tables import console, print_table
    from addgpt.sweep.table import outcome_table, tally

    for row in rows:
        if row["state"] == "failed":
            click.echo(f"failed: {row['run']}: {row['error']}", err=True)
    if stopped:
        fail(f"stopped: {tally(rows)}; everything is saved; rerun the same command to resume", 130)
    print_table(console(), outcome_table(f"{folder} ({tally(rows)})", rows))
    sys.exit(0 if all(row["state"] == "done" for row in rows) else 1)
