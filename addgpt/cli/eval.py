"""addgpt eval"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click

from addgpt.config.errors import UsageError


@dataclass(frozen=True)
class Choice:
    """What was asked for on the command line, but for the runs."""

    stored: bool
    per_cell: int | None
    split: str
    seed: int
    problems: Path | None
    suite: str | None
    out: Path | None
    as_json: bool

    def check(self, runs: int, against: int) -> None:
        """Raise ValueError for options that do not go together."""
        if self.problems is not None and self.suite is not None:
            raise UsageError("--problems and --suite exclude each other")
        if runs + against > 1 and self.problems is not None:
            raise UsageError(f"--problems scores one run, not {runs + against}")
        given = self.problems is not None or self.suite is not None
        if self.stored and (against or self.per_cell or self.seed or given or self.out):
            others = "--against, --per-cell, --seed, --problems, --suite or --out"
            raise UsageError(f"--stored reads the counts of eval.csv: it goes without {others}")
        if given and (self.per_cell or self.split != "test"):
            raise UsageError("--problems and --suite name the problems: no --per-cell or --split")
        if self.problems is not None and (self.seed or self.out):
            raise UsageError("--problems names the problems and stores nothing: no --seed or --out")
        if self.suite is not None and against:
            raise UsageError("--suite goes without --against")


@click.command("eval")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--against", multiple=True, metavar="RUN", help="Runs to compare with; repeatable.")
@click.option("--stored", is_flag=True, help="Score nothing: read the eval.csv of each run.")
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--problems", type=click.Path(path_type=Path), help="csv or jsonl with `problem`.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the scores [the run's].")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(names: tuple[str, ...], against: tuple[str, ...], **options) -> None:
    """Score runs: exact match by operand length, free-running greedy decoding.

    Writes eval.csv into each run folder; errors.csv, error_counts.csv and examples.csv, which say
    why answers are wrong; and eval.json, which says how this was scored and how many problems
    training could have drawn: if any, the exit code is 1. A score on fewer problems than the stored
    one of the same checkpoint does not replace it: it goes to eval-quick.csv and so on, or to --out
    (of several runs, a folder each in it).

    A RUN is a run folder, a folder that holds runs, or a pattern such as 'results/add-*'. Several
    runs, say seeds of one recipe, are asked the same problems; median, worst and best of them
    follow. With --against, the runs are compared with those others, problem by problem.

    With --problems, scores anybody's problems instead: a csv or jsonl file with `problem` (12+34)
    and optionally `answer`. With --suite, a named set, beside what others scored on it: problems
    that were held out of training apart from those that may have been seen. It is written to
    suite-NAME.csv.

    A text has no right answers: what is scored is the loss on the whole held-out part, written to
    loss.json. Each character is predicted once, in consecutive blocks of the length of training;
    and once more in blocks that overlap by half.

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
    from addgpt.evaluation.compare.runs import check_apart, find_runs, repeats

    choice = Choice(**options)
    a, b = find_runs(names), find_runs(against)
    check_apart(a, b)
    for note in (*repeats(a), *repeats(b)):
        tell(note)
    choice.check(len(a), len(b))
    if choice.problems is not None:
        _score_problems(a[0], choice.problems, choice.as_json)
    elif choice.suite is not None:
        _score_suite(a, choice.suite, choice)
    elif not any(run.task().cells() for run in (*a, *b)):
        if b or choice.stored or choice.per_cell is not None:
            raise UsageError("a text is scored as a whole: no --against, --stored or --per-cell")
        _score_texts(a, choice)
    else:
        _score_cells(a, b, choice)


def tell(line: str) -> None:
    click.echo(line, err=True)


def _prepare(runs: list) -> None:
    """Choose the threads that pay for the largest of these models."""
    from addgpt.device import prepare
    from addgpt.model.forward import CPU_TOKENS_AT_ONCE
    from addgpt.runs.checkpoint import weight_count

    weights = max(weight_count(run.config.model) for run in runs)
    prepare(weights=weights, tokens=CPU_TOKENS_AT_ONCE)


def _score_cells(a: list, b: list, choice: Choice) -> None:
    """Score all cells of runs, or read their stored scores, and show them."""
    from addgpt.evaluation.compare.runs import check_alike, read_scored, score_together
    from addgpt.evaluation.compare.statistics import check_same
    from addgpt.evaluation.compare.tables import facts, headline, print_groups
    from addgpt.evaluation.scorecard import Store, read_findings
    from addgpt.evaluation.tables import console, print_eval, print_mistakes
    from addgpt.training.progress import counted

    runs, scored = [*a, *b], []
    store = Store(runs if not choice.stored else [], choice.out, tell)
    if choice.stored:
        check_alike(runs, split=choice.split)
        scored = [read_scored(run, choice.split) for run in runs]
        findings = read_findings(a[0].path, choice.split)
    else:
        _prepare(runs)
        how = choice.per_cell, choice.split, choice.seed
        for card, one in score_together(runs, *how, show=counted):
            scored.append(one)
            line = f"{len(scored)} of {len(runs)}: {one.name}: {headline([one])}; "
            store.put(card.run, card.write, line if len(runs) > 1 else "")
            card.check()  # after writing: what was found stays to be looked at
            findings = card.mistakes.counts(), card.facts
    check_same(scored)
    mine, others = scored[: len(a)], scored[len(a) :]
    if choice.as_json:
        click.echo(json.dumps(facts(mine, others) if len(scored) > 1 else mine[0].rows))
    elif len(scored) > 1:
        print_groups(console(), mine, others)
    else:
        print_eval(console(), mine[0].rows)
        if findings is not None:
            print_mistakes(console(), *findings)
    store.close()


def _score_problems(run, path: Path, as_json: bool) -> None:
    from addgpt.calculator.load import load_calculator
    from addgpt.evaluation.intervals import share
    from addgpt.evaluation.problem_files import read_problems, score_problems

    given = read_problems(path)
    try:
        rows, notes = score_problems(load_calculator(run.path), given)
    except ValueError as error:
        raise UsageError(f"{path}, {error}") from None
    for note in notes:
        tell(f"{path}, {note}")
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        if not row["correct"]:
            click.echo(f"wrong: {row['problem']} = {row['answer']}, the model says {row['model']}")
    right = sum(row["correct"] for row in rows)
    click.echo(f"{path}: {right:,} of {len(rows):,} right, {share(right, len(rows))}")


def _score_texts(runs: list, choice: Choice) -> None:
    from addgpt.evaluation.perplexity import score_run, write_loss
    from addgpt.evaluation.scorecard import Store
    from addgpt.evaluation.tables import console, loss_table
    from addgpt.training.progress import counted

    _prepare(runs)
    store, rows = Store(runs, choice.out, tell), []
    for run in runs:
        found = score_run(run, choice.split, counted)
        store.put(run, partial(write_loss, rows=found, split=choice.split))
        rows += found
    click.echo(json.dumps(rows)) if choice.as_json else console().print(loss_table(rows))
    store.close()


def _score_suite(runs: list, name: str, choice: Choice) -> None:
    from addgpt.calculator.solver import Calculator
    from addgpt.evaluation.scorecard import Store
    from addgpt.evaluation.suites import load_suite, score_suite, write_suite
    from addgpt.evaluation.tables import console, suite_table

    title, parts = load_suite(name, choice.seed)
    _prepare(runs)
    store, found = Store(runs, choice.out, tell), {}
    for run in runs:
        model = run.model()
        rows = score_suite(Calculator(model, run.task(), run.name), parts)
        found[str(run.path)] = rows = [row | {"params": model.parameter_count()} for row in rows]
        store.put(run, partial(write_suite, name=name, rows=rows))
        if not choice.as_json:
            click.echo(f"{run.path}: {rows[0]['params']:,} parameters")
            console().print(suite_table(title, rows))
    if choice.as_json:
        click.echo(json.dumps(found if len(runs) > 1 else rows))
    store.close()
