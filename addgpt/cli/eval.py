"""addgpt eval"""

from __future__ import annotations

import json
import sys
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
from addgpt.evaluation.exact_match import CellResult
from addgpt.evaluation.predictions import check_file, predictions, write_predictions
from addgpt.evaluation.problem_files import scores as problem_files
from addgpt.evaluation.problem_files.records import Columns
from addgpt.evaluation.scorecard import Store, graded, read_findings
from addgpt.evaluation.tables import (
    console,
    groups_table,
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
from addgpt.training.preflight import check_reach
from addgpt.training.progress import counted

# Options that choose what is scored, and those that each excludes.
ALONE = {
    "problems": ("suite", "against", "stored", "per_cell", "split", "seed", "out", "far"),
    "suite": ("against", "stored", "per_cell", "split", "far", "predictions"),
    "stored": ("per_cell", "seed", "out", "far", "predictions"),
}
OF_PROBLEMS = ("columns", "answers", "strict")  # options that go with --problems alone
UNUSABLE = 3  # exit code: all that could be asked was scored, but some lines could not be


@dataclass(frozen=True)
class Choice:
    """The options of the command line."""

    per_cell: int | None
    split: str
    seed: int
    out: Path | None
    as_json: bool
    predictions: Path | None


FILE = click.Path(path_type=Path)


@click.command("eval")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@external_options
@click.option("--against", multiple=True, metavar="RUN", help="Runs to compare with; repeatable.")
@click.option("--stored", is_flag=True, help="Score nothing: read the eval.csv of each run.")
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--far", metavar="N,N", help="Longer operands to score, too, in digits: 20,50.")
@click.option("--problems", type=FILE, multiple=True, help="A file of your own; repeatable.")
@click.option("--columns", metavar="NAMES", help="Of --problems: problem=Q,answer=A,group=G.")
@click.option(
    "--answers",
    type=click.Choice(problem_files.ORDERS),
    default="normal",
    help="Of --problems: how the digits of answers are ordered.",
)
@click.option("--strict", is_flag=True, help="Of --problems: an unusable line is an error.")
@click.option("--predictions", type=FILE, help="Every problem, completion, answer, confidence.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the scores [the run's].")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(
    names: tuple[str, ...],
    against: tuple[str, ...],
    stored: bool,
    far: str | None,
    problems: tuple[Path, ...],
    columns: str | None,
    answers: str,
    strict: bool,
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

    --far scores longer operands than the run was trained for, too. --predictions writes every
    problem with what the model wrote, to a csv or jsonl file.

    --problems scores your own problems instead, with or without answers: csv, json, jsonl, or
    lines such as 12+34=46 (docs/problem_files.md). Lines that cannot be asked are named before the
    work; the exit code is then 3. --suite scores a named set, beside published results: held-out
    problems apart from those that training may have seen. It is written to suite-NAME.csv.

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
      addgpt eval calculator --problems my.csv --columns problem=task,answer=result
      addgpt eval results/add-3 --far 20,50 --predictions all.csv
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
    if choice.predictions:
        check_file(choice.predictions)
    if far is not None:
        a, b = ([run.scored_on(far=far) for run in runs] for runs in (a, b))
        for run in (*a, *b):
            check_reach(run.config)
    if problems:
        if len(a) > 1:
            raise UsageError(f"--problems scores one run, not {len(a)}")
        posed = problem_files.pose(a[0].path, problems, Columns.parse(columns or ""), answers)
        _score_problems(posed, problems, strict, choice)
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
    names = {name for some in ALONE.items() for name in (some[0], *some[1])}.union(OF_PROBLEMS)
    given = {name for name in names if source(name) is ParameterSource.COMMANDLINE}
    if (lonely := given.intersection(OF_PROBLEMS)) and "problems" not in given:
        raise UsageError(f"--{min(lonely)} goes with --problems")
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
    kept: list[dict] = []
    store = Store([] if stored else runs, choice.out, tell)

    def keep(run: Run, result: CellResult) -> None:
        smoothing = run.config.train.label_smoothing
        kept.extend(predictions(run.name, graded(run.task()), result, smoothing))

    if stored:
        groups.check_alike(runs, split=choice.split)
        scored = [groups.read_scored(run, choice.split) for run in runs]
        findings = read_findings(a[0].scores, choice.split)
    else:
        _prepare(runs)
        how = choice.per_cell, choice.split, choice.seed
        keeping = keep if choice.predictions else None
        for card, one in groups.score_together(runs, *how, show=counted, keep=keeping):
            scored.append(one)
            line = f"{len(scored)} of {len(runs)}: {one.name}: {headline([one])}; "
            store.put(card.run, card.write_and_tell, line if len(runs) > 1 else "")
            card.check()  # after writing: the findings stay on disk
            findings = card.mistakes.counts(), card.facts
        if choice.predictions:
            store.predict(choice.predictions, kept)
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


def _score_problems(
    posed: problem_files.Posed, paths: tuple[Path, ...], strict: bool, choice: Choice
) -> None:
    """Name what cannot be asked, then score the rest and show it."""
    faults, n = posed.faults, len(posed.faults) + len(posed.problems)
    for line in problem_files.told(faults):
        tell(line)
    if faults:
        summary = f"{len(faults):,} of {n:,} cannot be asked"
        if strict:
            raise UsageError(f"{summary}, and --strict is given")
        tell(f"{summary}; scoring the other {len(posed.problems):,}")
    for note in posed.notes:
        tell(note)
    rows = posed.score()
    if choice.predictions:
        write_predictions(choice.predictions, rows)
        tell(f"written: {choice.predictions}")
    if choice.as_json:
        click.echo(json.dumps(rows))
    else:
        click.echo(problems_text(", ".join(map(str, paths)), rows))
        if found := problem_files.by_group(rows):
            print_table(console(), groups_table(found))
    if faults:
        sys.exit(UNUSABLE)


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
