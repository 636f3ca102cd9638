"""addgpt problems"""

from __future__ import annotations

from pathlib import Path

import click

from addgpt.cli._options import DIGITS
from addgpt.config.errors import UsageError

FORMATS = ("csv", "jsonl", "lm-eval")


@click.command("problems")
@click.option("--task", "name", required=True, help="The task; `addgpt tasks` lists them.")
@DIGITS
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="An option of the task.")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--n", "count", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--format", "form", type=click.Choice(FORMATS), default="csv", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="A file [stdout], or folder.")
def command(
    name: str,
    digits: int | None,
    pairs: tuple[str, ...],
    split: str,
    count: int,
    seed: int,
    form: str,
    out: Path | None,
) -> None:
    """Write problems and their answers for other programs.

    They are distinct, drawn as training draws but from the split: training never draws one of
    `test`. stderr has the digest of the set, by which a paper can name it: it depends on the
    problems and their order alone. The format lm-eval is a task of lm-evaluation-harness: its yaml
    and its problems, in a folder.

    \b
    Example:
      addgpt problems --task mul --digits 5 --split test --n 1000 --out mul5.csv
      addgpt problems --task add --digits 10 --n 200 --format jsonl
      addgpt problems --task add --digits 3 --format lm-eval --out add3
      addgpt eval calculator --problems mul5.csv
    """
    from addgpt.evaluation.problem_files import export
    from addgpt.runs.files import check_writable, write_atomically
    from addgpt.runs.resolve import parse_pairs
    from addgpt.task_lookup import load_task

    task = load_task(name, parse_pairs(pairs, digits=digits)).resolved()
    if form == "lm-eval" and out is None:
        raise UsageError("--format lm-eval writes two files: name a folder with --out")
    if out is not None:
        check_writable(out if form == "lm-eval" else out.parent)
    drawn = export.draw(task, split, count, seed)
    digest = export.digest(drawn)
    if out is None:
        click.echo(export.as_text(drawn, form), nl=False)
    elif form == "lm-eval":
        for file, text in export.lm_eval(drawn, f"{task.name}_{split}").items():
            write_atomically(out / file, text)
            click.echo(f"written: {out / file}", err=True)
    else:
        write_atomically(out, export.as_text(drawn, form))
        click.echo(f"written: {out}", err=True)
    click.echo(f"{len(drawn):,} problems, sha256 {digest}", err=True)
