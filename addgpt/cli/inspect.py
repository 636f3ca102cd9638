"""addgpt inspect"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from addgpt.cli._options import AS_JSON
from addgpt.cli.main import fail
from addgpt.config.errors import UsageError

Rows = Sequence[dict[str, Any]]
Writer = Callable[[Path], object]


@click.command("inspect")
@click.argument("run")
@click.argument("problem", required=False)
@click.option("--ablate", is_flag=True, help="Exact match without each head and MLP.")
@click.option("--cascades", is_flag=True, help="With --ablate: by how far a carry travels.")
@click.option(
    "--patch", is_flag=True, help="Which parts transfer a carry to a problem without one."
)
@click.option(
    "--probe",
    metavar="[carry|borrow|sum]",
    help="What a linear probe reads off the residual stream.",
)
@click.option("--fourier", is_flag=True, help="The spectrum of the embeddings of digits.")
@click.option("--grokking", is_flag=True, help="Progress measures of modular sums, over steps.")
@click.option("--plane", is_flag=True, help="An adder of width 2: its points and sectors.")
@click.option("--examples", type=click.IntRange(2), default=500, show_default=True)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the problems."
)
@click.option("--out", multiple=True, type=click.Path(path_type=Path), help="File; repeatable.")
@AS_JSON
def command(
    run: str,
    problem: str | None,
    ablate: bool,
    cascades: bool,
    patch: bool,
    probe: str | None,
    fourier: bool,
    grokking: bool,
    plane: bool,
    examples: int,
    seed: int,
    out: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Look inside a model: its heads, its parts, its activations.

    With a PROBLEM: for each token that was written, what each head attended to. --out page.html is
    a page to click through, with the work laid out as on paper; .png its picture; .npz all
    activations as arrays.

    Without one: --ablate removes each head and MLP on --examples held-out problems, everywhere and
    in single rows of the work; with --cascades, on --examples problems of each carry chain, from
    none to all columns, and of columns that would pass a carry on but get none; --patch puts each
    part's activation from a problem with a carry into one without; --probe reads carries, borrows
    or sums of two digits off the residual stream, on held-out problems; --fourier shows the
    spectrum of the embeddings of digits; --grokking follows a run of --task modular with keep=log
    through its training; --plane draws all that an adder of width 2 does. For these, --out takes
    .csv and .png.

    \b
    Example:
      addgpt inspect calculator "128+367"
      addgpt inspect calculator "12*34" --out page.html
      addgpt inspect results/add-3 --ablate --out ablation.csv --out ablation.png
      addgpt inspect results/add-3 --ablate --cascades
      addgpt inspect results/add-3 --probe carry
    """
    views = {"PROBLEM": problem, "--ablate": ablate, "--patch": patch, "--probe": probe,
             "--fourier": fourier, "--grokking": grokking, "--plane": plane}  # fmt: skip
    asked = [name for name, value in views.items() if value]
    if len(asked) != 1:
        said = f"not {' and '.join(asked)}" if asked else "none is given"
        raise click.UsageError(f"inspect takes one of {', '.join(views)}; {said}")
    if cascades and not ablate:
        raise click.UsageError("--cascades goes with --ablate")
    _check_out(out, ("html", "png", "npz") if problem else ("csv", "png"))
    if problem:
        _problem(run, problem, out, as_json)
        return
    rows, shown, drawn = _measured(run, views, cascades, examples, seed)
    from addgpt.evaluation.schema import csv_text
    from analysis import style

    writers: dict[str, Writer] = {
        "csv": lambda path: _write(path, csv_text(list(rows[0]), rows)),
        "png": lambda path: style.save(drawn(rows), path),
    }
    click.echo(json.dumps(rows, indent=1) if as_json else _table(shown))
    _write_all(out, writers)


def _measured(
    run: str, views: dict[str, Any], cascades: bool, examples: int, seed: int
) -> tuple[Rows, Rows, Callable[[Rows], Any]]:
    """Rows of a measure, those of them that are printed, and what draws them."""
    from addgpt.interpret import ablation, patching, probes
    from addgpt.interpret.grokking import grokking
    from addgpt.interpret.plane import plane as points
    from addgpt.interpret.sample import sample
    from addgpt.interpret.subject import subject
    from addgpt.runs.run import Run, run_path
    from analysis import inside
    from analysis import plane as drawing

    of = subject(run)
    if cascades:
        rows = ablation.ablate_cascades(of, examples, seed)
        return rows, _by_cell(rows), inside.draw_cascades
    if views["--ablate"]:
        rows = ablation.ablate(of, sample(of, examples, seed))
        return rows, _exact(rows), inside.draw_ablation
    if views["--patch"]:
        rows = patching.patch_pairs(of, examples, seed)
        return rows, rows, inside.draw_patching
    if views["--probe"]:
        rows = probes.probe(of, sample(of, examples, seed), views["--probe"])
        return rows, rows, inside.draw_probes
    if views["--fourier"]:
        rows = probes.spectrum(of.model, getattr(of.task, "residues", 10))
        return rows, rows, inside.draw_spectrum
    if views["--plane"]:
        rows = points(of)
        return rows, drawing.summary(rows), drawing.draw
    rows = grokking(Run(run_path(run)))
    return rows, rows, inside.draw_grokking


def _problem(run: str, problem: str, out: tuple[Path, ...], as_json: bool) -> None:
    """Show what each head attended to while a problem was worked out."""
    from addgpt.interpret.activations import read
    from addgpt.interpret.page import page, page_data
    from addgpt.interpret.subject import subject, written
    from analysis import inside, style

    of = subject(run)
    work = written(of, problem)
    found = read(of, work)
    data = page_data(of, work, found, problem.strip())
    writers: dict[str, Writer] = {
        "html": lambda path: _write(path, page(data)),
        "png": lambda path: style.save(inside.draw_attention(data), path),
        "npz": found.save,
    }
    click.echo(json.dumps(data, ensure_ascii=False) if as_json else _looks(data))
    _write_all(out, writers)


def _looks(data: dict[str, Any]) -> str:
    """What each head attended to most, a line for each written token."""
    tokens, heads = data["tokens"], range(data["heads"])
    titles = [f"{block}.{head}" for block in range(data["blocks"]) for head in heads]
    rows = []
    for slot in data["slots"]:
        token = tokens[slot["token"]]
        row = {"row": token["kind"], "column": token["place"] or "", "wrote": _shown(token["char"])}
        looks = [look for block in slot["looks"] for look in block]
        for title, some in zip(titles, looks, strict=True):
            most = [f"{_shown(tokens[at]['char'])} {_share(share)}" for at, share in some[:2]]
            row[f"head {title}"] = ", ".join(most)
        rows.append(row)
    names = [name for block in data["names"] for name in block]
    heads_text = [f"head {t}: {name}" for t, name in zip(titles, names, strict=True)]
    answer = f"{data['problem']} = {data['answer']}" if data["answer"] else ""
    wrong = "  (wrong)" if data["right"] is False else ""
    return "\n".join(filter(None, [answer + wrong, _table(rows), "", *heads_text]))


def _exact(rows: Rows) -> Rows:
    """The rows of an ablation that are about whole traces."""
    keep = ("part", "how", "at", "n", "right")
    return [{key: row[key] for key in keep} for row in rows if row["row"] == "all"]


def _by_cell(rows: Rows) -> Rows:
    """An ablation by cells, a line for each part: how many are right; the counts stand above."""
    first = [row for row in rows if row["part"] == "none"]
    found: dict[tuple[str, str], dict[str, Any]] = {
        ("", ""): {"part": "problems", "how": ""} | {row["cell"]: row["n"] for row in first}
    }
    for row in rows:
        line = {"part": row["part"], "how": row["how"]}
        found.setdefault((row["part"], row["how"]), line)[row["cell"]] = row["right"]
    return list(found.values())


def _table(rows: Rows) -> str:
    """Rows as people read them."""
    names = list(rows[0])
    texts = [[_text(row[name]) for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *texts, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [names, *texts]
    ]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.3f}"
    return "0.999" if text == "1.000" and value < 1 else text  # not all is right


def _shown(char: str) -> str:
    return {"\n": "↵", " ": "␣"}.get(char, char)


def _share(share: float) -> str:
    return f"{100 * share:.0f}%"


def _check_out(out: tuple[Path, ...], valid: tuple[str, ...]) -> None:
    for path in out:
        if path.suffix.lstrip(".") not in valid:
            ends = " or ".join(f".{end}" for end in valid)
            raise UsageError(f"--out {path}: its name must end in {ends} here")
        if path.is_dir():
            fail(f"--out {path}: that is a folder", 1)
        if not path.parent.is_dir():
            fail(f"--out {path}: there is no folder {path.parent}", 1)


def _write(path: Path, text: str) -> None:
    from addgpt.runs.files import write_atomically

    write_atomically(path, text)


def _write_all(out: tuple[Path, ...], writers: dict[str, Writer]) -> None:
    for path in out:
        writers[path.suffix.lstrip(".")](path)
        click.echo(f"wrote {path}", err=True)
