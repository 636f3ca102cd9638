"""addgpt sample"""

from __future__ import annotations

import sys

import click

from addgpt.cli._options import Finite
from addgpt.config.errors import UsageError


@click.command("sample")
@click.argument("run_name", metavar="RUN")
@click.option("--prompt", help="What the text begins with [nothing; a newline in running text].")
@click.option(
    "--tokens", type=click.IntRange(1), default=500, show_default=True, help="Most tokens to write."
)
@click.option("--lines", type=click.IntRange(1), help="Stop after this many lines, or samples.")
@click.option("--temperature", type=Finite(0), default=0.8, show_default=True)
@click.option(
    "--top-k", type=click.IntRange(0), default=0, help="Sample from the K likeliest [all]."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**63 - 1),
    default=0,
    show_default=True,
    help="Seed of the samples.",
)
def command(
    run_name: str,
    prompt: str | None,
    tokens: int,
    lines: int | None,
    temperature: float,
    top_k: int,
    seed: int,
) -> None:
    """Let a model write, character by character.

    Temperature 0 takes the likeliest character each time. Running text continues for --tokens
    characters or --lines lines; the model reads at most the last block. Sequences that end by
    themselves (lines, problems) are written --lines times. Each line of a list is marked as part of
    its train, val or test split, or as new. Problems appear as the model writes them, sums lowest
    digit first; `addgpt calc` reverses them.

    \b
    Example:
      addgpt sample results/shakespeare --prompt "ROMEO:"
      addgpt sample results/lines --lines 20 --temperature 1
      addgpt sample results/add-3 --prompt "12+34=" --temperature 0
    """
    import torch

    from addgpt.device import prepare
    from addgpt.generation.sample import Writer
    from addgpt.runs.run import Run, run_path

    prepare()
    run = Run(run_path(run_name))
    writer = Writer(run.model(), run.task(), temperature, top_k)
    rng = torch.Generator().manual_seed(seed)
    if prompt is None:
        _check_begins(writer.task)
    if writer.task.end:
        _write_samples(writer, prompt or "", tokens, lines or 1, rng)
    else:
        _write_text(writer, "\n" if prompt is None else prompt, tokens, lines, rng)


def _check_begins(task) -> None:
    """Raise UsageError if a task cannot begin with nothing."""
    from addgpt.generation.sample import begin

    try:
        begin(task, "")
    except UsageError:
        example = f'"12{task.cells()[0].op}34="' if task.cells() else "TEXT"
        raise UsageError(f"a model of {task.name} needs a problem: --prompt {example}") from None


def _write_text(writer, prompt: str, tokens: int, lines: int | None, rng) -> None:
    """A prompt and what follows, as it is written."""
    stream = writer.stream(prompt, tokens, rng)
    _show(writer.start(prompt).removeprefix("\n"))
    last = "\n"
    for char in stream:
        _show(char)
        last = char
        lines = lines - (char == "\n") if lines else lines
        if lines == 0:
            break
    if last != "\n":
        _show("\n")


def _write_samples(writer, prompt: str, tokens: int, count: int, rng) -> None:
    """Sequences from a prompt to the end mark, one a line, and the split where the task knows
    it."""
    tally: dict[str, int] = {}
    for _ in range(count):
        stream = writer.stream(prompt, tokens, rng)
        _show(writer.start(prompt).removeprefix("\n"))
        text = ""
        for char in stream:
            _show(char if char != "\n" else "")
            text += char
        split = writer.membership(prompt + text.removesuffix(writer.task.end))
        tally[split] = tally.get(split, 0) + 1
        _show(f"\t{split}\n" if split else "\n")
    if any(tally):
        parts = ", ".join(f"{number} {split}" for split, number in sorted(tally.items()))
        click.echo(f"{count} samples: {parts}", err=True)


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
