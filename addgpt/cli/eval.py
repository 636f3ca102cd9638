"""addgpt eval"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
from click.core import ParameterSource

from addgpt.cli._external import answered, external_options, near
from addgpt.config.errors import UsageError
from addgpt.device import prepare
from addgpt.evaluation import perplexity, suites
from addgpt.evaluation.compare import runs as groups
from addgpt.evaluation.compare.statistics import check_same
from addgpt.evaluation.compare.tables import facts, headline, print_groups
from addgpt.evaluation.problem_files import score_file
from addgpt.evaluation.scorecard import Store, read_findings
from addgpt.evaluation.tables import (
    console,
    loss_table,
    print_eval,
    print_mistakes,
    print_table,
    problems_text,
    suite_table,
)
from addgpt.model.forward import CPU_TOKENS_AT_ONCE
from addgpt.runs.checkpoint import weight_count
from addgpt.runs.run import Run
from addgpt.training.progress import counted

# Options that choose what is scored, and those that each excludes.
ALONE = {
    "problems": ("suite", "against", "stored", "per_cell", "split", "seed", "out"),
    "suite": ("against", "stored", "per_cell", "split"),
    "stored": ("against", "per_cell", "seed", "out"),
}


@dataclass(frozen=True)
class Choice:
    """The options of the command line."""

    per_cell: int | None
    split: str
    seed: int
    out: Path | None
    as_json: bool


@click.command("eval")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@external_options
@click.option("--against", multiple=True, metavar="RUN", help="Runs to compare with; repeatable.")
@click.option("--stored", is_flag=True, help="Score nothing: read the eval.csv of each run.")
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--problems", type=click.Path(path_type=Path), help="csv or jsonl with `problem`.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the scores [the run's].")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(
    names: tuple[str, ...],
    against: tuple[str, ...],
    stored: bool,
    problems: Path | None,
    suite: str | None,
    asked: dict,
    **options,
) -> None:
    """Score runs: exact match by operand length, free-running greedy decoding.

    Writes eval.csv into each run folder; errors.csv, error_counts.csv and examples.csv, which say
    why answers are wrong; and eval.json, which says how the run was scored and how many of the
    problems training could have drawn: if any, the exit code is 1. A stored score is kept: that of
    another --seed goes to eval-seed5.csv and so on, that on fewer problems to eval-quick.csv. With
    --out, all goes there (with several runs, into a folder each).

    A RUN is a run folder, a folder that holds runs, or a pattern such as 'results/add-*'. Several
    runs, say seeds of one recipe, get the same problems, and their median, worst and best are
    shown. With --against, they are compared with other runs, problem by problem.

    --problems scores your own problems instead: a csv or jsonl file with `problem` (12+34) and
    optionally `answer`. --suite scores a named set, beside published results: held-out problems
    apart from those that training may have seen. It is written to suite-NAME.csv.

    Of a text, the loss on the whole held-out part is written to loss.json. Each character is
    predicted once, in consecutive blocks of the length of training, and once more in blocks that
    overlap by half.

    A RUN may be a model of others: hf:PATH, api:ADDRESS or answers:FILE. It is asked the problems
    of --task in text; what it replies is kept, and scored as any run (docs/foreign_models.md).

    \b
    Example:
      addgpt eval results/add-3
      addgpt eval results/add-3 results/add-3-s1 results/add-3-s2
      addgpt eval 'results/add-3*' --stored
      addgpt eval 'results/add-3*' --against 'results/plain-3*'
      addgpt eval results/add-10 --suite ten-digit
      addgpt eval results/add-3 --problems my.csv --json
      addgpt eval results/add-3 --per-cell 10 --out /tmp/quick
    """
    choice = Choice(**options)
    names, against, choice = answered(
        names, against, choice, asked, stored, problems is None and suite is None
    )
    a, b = groups.find_runs(names), groups.find_runs(against)
    groups.check_apart(a, b)
    for note in (*groups.repeats(a), *groups.repeats(b)):
        tell(note)
    _check_options()
    if problems is not None:
        if len(a) > 1:
            raise UsageError(f"--problems scores one run, not {len(a)}")
        _score_problems(a[0], problems, choice.as_json)
    elif suite is not None:
        _score_suite(a, suite, choice)
    elif any(run.task().cells() for run in (*a, *b)):
        _score_cells(a, b, choice, stored)
    elif b or stored or choice.per_cell is not None:
        raise UsageError("a text is scored as a whole: no --against, --stored or --per-cell")
    else:
        _score_texts(a, choice)


def tell(line: str) -> None:
    click.echo(line, err=True)


def _check_options() -> None:
    """Raise UsageError for options that do not go together."""
    source = click.get_current_context().get_parameter_source
    names = {name for some in ALONE.items() for name in (some[0], *some[1])}
    given = {name for name in names if source(name) is ParameterSource.COMMANDLINE}
    for one, others in ALONE.items():
        clash = [f"--{name.replace('_', '-')}" for name in others if name in given]
        if one in given and clash:
            raise UsageError(f"--{one} goes without {', '.join(clash)}")


def _prepare(runs: list[Run]) -> None:
    """Choose the threads that pay for the largest of these models."""
    prepare(weights=max(weight_count(run.config.model) for run in runs), tokens=CPU_TOKENS_AT_ONCE)


def _score_cells(a: list[Run], b: list[Run], choice: Choice, stored: bool) -> None:
    """Score all cells of runs, or read their stored scores, and show them."""
    runs, scored = [*a, *b], []
    store = Store([] if stored else runs, choice.out, tell)
    if stored:
        groups.check_alike(runs, split=choice.split)
        scored = [groups.read_scored(run, choice.split) for run in runs]
        findings = read_findings(a[0].scores, choice.split)
    else:
        _prepare(runs)
        how = choice.per_cell, choice.split, choice.seed
        for card, one in groups.score_together(runs, *how, show=counted):
            scored.append(one)
            line = f"{len(scored)} of {len(runs)}: {one.name}: {headline([one])}; "
            store.put(card.run, card.write_and_tell, line if len(runs) > 1 else "")
            card.check()  # after writing: the findings stay on disk
            findings = card.mistakes.counts(), card.facts
    check_same(scored)
    for note in (*groups.mixtures(a), *groups.mixtures(b)):
        tell(note)
    mine, others = scored[: len(a)], scored[len(a) :]
    if choice.as_json:
        click.echo(json.dumps(facts(mine, others) if len(scored) > 1 else mine[0].rows))
    elif len(scored) > 1:
        print_groups(console(), mine, others)
    else:
        print_eval(console(), mine[0].rows, a[0].config.options)
        if findings is not None:
            print_mistakes(console(), *findings)
            near(findings[1])
    store.close()


def _score_problems(run: Run, path: Path, as_json: bool) -> None:
    rows, notes = score_file(run.path, path)
    for note in notes:
        tell(note)
    click.echo(json.dumps(rows) if as_json else problems_text(path, rows))


def _score_texts(runs: list[Run], choice: Choice) -> None:
    _prepare(runs)
    store, rows = Store(runs, choice.out, tell), []
    for run in runs:
        found = perplexity.score_loss(run, choice.split, counted)
        store.put(run, partial(perplexity.write_loss, rows=found, split=choice.split))
        rows += found
    click.echo(json.dumps(rows)) if choice.as_json else print_table(console(), loss_table(rows))
    store.close()


def _score_suite(runs: list[Run], name: str, choice: Choice) -> None:
    title, parts = suites.load_suite(name, choice.seed)
    _prepare(runs)
    store, found = Store(runs, choice.out, tell), {}
    for run, rows in suites.score_runs(runs, parts):
        found[str(run.path)] = rows
        store.put(run, partial(suites.write_suite, name=name, rows=rows))
        if not choice.as_json:
            click.echo(f"{run.path}: {rows[0]['params']:,} parameters")
            print_table(console(), suite_table(title, rows))
    if choice.as_json:
        click.echo(json.dumps(found if len(runs) > 1 else rows))
    store.close()
