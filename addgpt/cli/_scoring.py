"""How `addgpt eval` scores and shows: on the grid, on files, on suites, on texts."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from addgpt.cli._external import near
from addgpt.config.errors import UsageError
from addgpt.device import prepare
from addgpt.evaluation import perplexity, suites
from addgpt.evaluation.compare import runs as groups
from addgpt.evaluation.compare.statistics import check_same
from addgpt.evaluation.compare.tables import facts, headline, print_groups
from addgpt.evaluation.exact_match import CellResult
from addgpt.evaluation.predictions import predictions, write_predictions
from addgpt.evaluation.problem_files import scores as problem_files
from addgpt.evaluation.problem_files.records import Columns
from addgpt.evaluation.scorecard import Store, read_findings
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
from addgpt.training.progress import counted

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
    ruler: tuple[str, ...]
    columns: str | None
    answers: str
    strict: bool


def tell(line: str) -> None:
    click.echo(line, err=True)


def _prepare(runs: list[Run]) -> None:
    """Choose the threads that pay for the largest of these models."""
    prepare(weights=max(weight_count(run.config.model) for run in runs), tokens=CPU_TOKENS_AT_ONCE)


def score_runs(a: list[Run], b: list[Run], choice: Choice, stored: bool) -> None:
    """Score runs as their tasks are: by exact match over the grid, or by the loss on a text."""
    texts = [run for run in (*a, *b) if not run.task().cells()]
    if len(texts) < len(a) + len(b):
        if texts:
            raise UsageError(f"{texts[0].path} is of a text, which is scored apart from problems")
        if choice.ruler:
            raise UsageError("--ruler is for texts; problems are scored by exact match")
        score_cells(a, b, choice, stored)
    elif b or stored or choice.per_cell is not None or choice.predictions:
        wrong = "--against, --stored, --per-cell or --predictions"
        raise UsageError(f"a text is scored as a whole: no {wrong}")
    else:
        score_texts(a, choice)


def score_cells(a: list[Run], b: list[Run], choice: Choice, stored: bool) -> None:
    """Score all cells of runs, or read their stored scores, and show them."""
    runs, scored = [*a, *b], []
    kept: list[dict] = []
    store = Store([] if stored else runs, choice.out, tell)

    def keep(run: Run, result: CellResult) -> None:
        kept.extend(predictions(run, result))

    if stored:
        groups.check_alike(runs, split=choice.split)
        scored = [groups.read_scored(run, choice.split) for run in runs]
        for note in filter(None, map(groups.outdated, runs, scored)):
            tell(note)
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
        print_eval(console(), mine[0].rows, a[0].config.trained_options)
        if findings is not None:
            print_mistakes(console(), *findings)
            near(findings[1])
    store.close()


def score_problems(runs: list[Run], paths: tuple[Path, ...], choice: Choice) -> None:
    """Name what cannot be asked, then score the rest and show it."""
    if len(runs) > 1:
        raise UsageError(f"--problems scores one run, not {len(runs)}")
    columns = Columns.parse(choice.columns or "")
    posed = problem_files.pose(runs[0].path, paths, columns, choice.answers)
    faults, n = posed.faults, len(posed.faults) + len(posed.problems)
    for line in problem_files.told(faults):
        tell(line)
    if faults:
        summary = f"{len(faults):,} of {n:,} cannot be asked"
        if choice.strict:
            raise UsageError(f"{summary}, and --strict is given")
        tell(f"{summary}; scoring the other {len(posed.problems):,}")
    for note in posed.notes:
        tell(note)
    rows = posed.score()
    if choice.predictions:
        named = [{"generated" if k == "model" else k: v for k, v in row.items()} for row in rows]
        write_predictions(choice.predictions, named)  # columns as of scores over the grid
        tell(f"written: {choice.predictions}")
    if choice.as_json:
        click.echo(json.dumps(rows))
    else:
        click.echo(problems_text(", ".join(map(str, paths)), rows))
        if found := problem_files.by_group(rows):
            print_table(console(), groups_table(found))
    if faults:
        sys.exit(UNUSABLE)


def score_texts(runs: list[Run], choice: Choice) -> None:
    _prepare(runs)
    store, rows = Store(runs, choice.out, tell), []
    rulers = tuple(dict.fromkeys(choice.ruler))
    for run in runs:
        found = perplexity.score_loss(run, choice.split, counted, rulers, choice.seed)
        write = partial(perplexity.write_loss, rows=found, task=run.task(), rulers=rulers)
        store.put(run, write)
        rows += found
    click.echo(json.dumps(rows)) if choice.as_json else print_table(console(), loss_table(rows))
    store.close()


def score_suite(runs: list[Run], name: str, choice: Choice) -> None:
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
