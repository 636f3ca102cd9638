"""addgpt export"""

from __future__ import annotations

import shlex
from pathlib import Path

import click
from click.core import ParameterSource

FORMATS = ("hf", "onnx", "lm-eval", "adderboard")
OPTIONS = {"author": "adderboard", "per_cell": "lm-eval", "seed": "lm-eval"}  # of one format alone


@click.command("export")
@click.argument("run_name", metavar="RUN")
@click.option("--to", type=click.Choice(FORMATS), required=True, help="The format.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder; adderboard: a new file.",
)
@click.option("--author", default="", help="adderboard: whose submission it is.")
@click.option("--per-cell", type=click.IntRange(1), default=100, show_default=True,
              help="lm-eval: problems per cell.")  # fmt: skip
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True,
              help="lm-eval: seed of the problems.")  # fmt: skip
def command(run_name: str, to: str, out: Path, author: str, per_cell: int, seed: int) -> None:
    """Write a run in the format of another tool.

    hf: a folder for transformers, with a character tokenizer and a model card. A plain GPT is
    written as GPT-2 or Llama; any other model of addgpt's own brings its code along, and is loaded
    with trust_remote_code=True. onnx: tokens and position ids in, logits out. lm-eval: the run's
    held-out problems as a task of lm-evaluation-harness. adderboard: a small adder as one Python
    file, a submission to the AdderBoard. An exported model is loaded and compared.

    \b
    Example:
      addgpt export results/add-3 --to hf --out exported/add-3
      addgpt export calculator --to onnx --out exported/calculator-onnx
      addgpt export results/add-3 --to lm-eval --out exported/add-3-task
      addgpt export results/smallest --to adderboard --out adder.py --author "Your Name"
    """
    from addgpt.device import prepare
    from addgpt.runs.run import Run, run_path

    source = click.get_current_context().get_parameter_source
    for name, form in OPTIONS.items():
        if to != form and source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"--{name.replace('_', '-')} goes with --to {form}")
    prepare()
    run = Run(run_path(run_name))
    if to == "hf":
        from addgpt.export.huggingface import export_huggingface

        found = export_huggingface(run, out)
        kind = found["stock"] or "with its own code (trust_remote_code=True)"
        click.echo(f"{out}: {kind}; {_compared(found)}")
    elif to == "onnx":
        from addgpt.export.onnx import export_onnx

        found = export_onnx(run, out)
        click.echo(f"{out}: inputs {', '.join(found['inputs'])}; {_compared(found)}")
    elif to == "lm-eval":
        from addgpt.export.harness import export_harness

        found = export_harness(run, out, per_cell, seed)
        where = shlex.quote(str(out))
        click.echo(f"{out}: {found['n']:,} problems; lm_eval --include_path {where} "
                   f"--tasks {found['task']}")  # fmt: skip
    else:
        from addgpt.export.adderboard import export_adderboard

        found = export_adderboard(run, out, author)
        click.echo(f"{out}: {found['params']} parameters; {_compared(found)}")


def _compared(found: dict) -> str:
    told = f"largest difference of logits {found['difference']:.2g} on {found['checked']} problems"
    return told + (f", largest logit {found['largest']:.2g}" if "largest" in found else "")
