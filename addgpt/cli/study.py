"""addgpt study"""

from __future__ import annotations

from pathlib import Path

import click

FILE = click.Path(path_type=Path)


@click.command("study")
@click.argument("name", required=False, default="")
@click.argument("paths", nargs=-1, type=FILE)
@click.option("--csv", type=FILE, help="Write the table there.")
@click.option("--png", type=FILE, help="Write the figure there.")
@click.option("--out", type=FILE, help="With english: write the text there.")
@click.option("--without", type=FILE, help="With english: a text whose last tenth is left out.")
@click.option("--root", type=FILE, default="/", help="With english: where the packages are.")
def command(
    name: str,
    paths: tuple[Path, ...],
    csv: Path | None,
    png: Path | None,
    out: Path | None,
    without: Path | None,
    root: Path,
) -> None:
    """Make the table and the figure of a study in docs/.

    PATHS are folders of evaluated runs, or files that --csv wrote. Without a NAME, the
    studies are listed, with what each reads and draws. `english` is not a study: it makes
    the text that pretraining reads, from Debian packages.

    \b
    Example:
      addgpt study
      addgpt study lengths results/length --png length.png
      addgpt study efficiency results/reference/sample_efficiency.csv
      addgpt study english --out english.txt --without tinyshakespeare.txt
    """
    from analysis.studies import STUDIES, study

    text = {"--out": out, "--without": without}
    table = {"PATHS": paths, "--csv": csv, "--png": png}
    strange = table | text if not name else table if name == "english" else text
    if given := [option for option, value in strange.items() if value]:
        where = f"addgpt study {name}" if name else "addgpt study without a NAME"
        raise click.UsageError(f"{where} takes no {' or '.join(given)}; see addgpt study --help")
    if not name:
        width = max(map(len, STUDIES))
        for one, (reads, draws) in STUDIES.items():
            click.echo(f"{one.ljust(width)}  reads {reads}\n{' ' * width}  draws {draws}")
        return
    if name == "english":
        _write_english(out, without, root)
        return
    module = study(name)
    if not paths:
        raise click.UsageError(f"addgpt study {name} needs PATHS; it reads {STUDIES[name][0]}")
    from addgpt.runs.files import write_atomically
    from analysis import style

    rows = module.collect(*paths)
    if csv:
        write_atomically(csv, rows.to_csv(index=False, float_format="%.10g"))
    if png:
        style.save(module.draw(rows), png)
    click.echo(module.describe(rows))
    for file in filter(None, (csv, png)):
        click.echo(f"written: {file}", err=True)


def _write_english(out: Path | None, without: Path | None, root: Path) -> None:
    from analysis.studies import english

    if out is None:
        raise click.UsageError("addgpt study english needs --out FILE")
    for line in english.write(out, without, root):
        click.echo(line)
