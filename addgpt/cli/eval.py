"""addgpt eval"""

from __future__ import annotations

import json
from pathlib import Path

import click

from addgpt.calculator.load import load_calculator


@click.command("eval")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--against", multiple=True, metavar="RUN", help="Runs to compare with; repeatable.")
@click.option("--stored", is_flag=True, help="Score nothing: read the eval.csv of each run.")
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--problems", type=click.Path(path_type=Path), help="csv or jsonl with `problem`.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(
    names: tuple[str, ...],
    against: tuple[str, ...],
    stored: bool,
    per_cell: int | None,
    split: str,
    seed: int,
    problems: Path | None,
    suite: str | None,
    as_json: bool,
) -> None:
    """Score runs: exact match by operand length, free-running greedy decoding.

    Writes eval.csv into each run folder; errors.csv, error_counts.csv and examples.csv, which say
    why answers are wrong; and eval.json, which says how this was scored and how many problems
    training could have drawn: if any, the exit code is 1. A RUN is a run folder, a folder that
    holds runs, or a pattern such as 'results/add-*'. Several runs, say seeds of one recipe, are
    asked the same problems; median, worst and best of them follow. With --against, the runs are
    compared with those others, problem by problem.

    With --problems, scores anybody's problems instead: a csv or jsonl file with `problem` (12+34)
    and optionally `answer`. With --suite, a named set, beside what others scored on it; written to
    suite-NAME.csv in each run folder.

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
    """
    from addgpt.evaluation.compare.runs import check_apart, find_runs, repeats

    a, b = find_runs(names), find_runs(against)
    check_apart(a, b)
    for note in (*repeats(a), *repeats(b)):
        click.echo(note, err=True)
    fresh = bool(b or per_cell or seed or problems is not None or suite is not None)
    _check_options(len(a) + len(b), stored, fresh, problems, suite)
    if (problems is not None or suite is not None) and (per_cell or split != "test"):
        raise ValueError("--problems and --suite name the problems: no --per-cell or --split")
    if problems is not None and seed:
        raise ValueError("--problems names the problems: no --seed")
    if problems is not None:
        _score_problems(a[0], problems, as_json)
    elif suite is not None:
        if b:
            raise ValueError("--suite goes without --against")
        _score_suite(a, suite, seed, as_json)
    elif not any(run.task().cells() for run in (*a, *b)):
        if b or stored or per_cell is not None:
            raise ValueError("a text is scored as a whole: no --against, --stored or --per-cell")
        _score_texts(a, split, as_json)
    else:
        scored = _scored([*a, *b], stored, per_cell, split, seed)
        _show(scored[: len(a)], scored[len(a) :], as_json)
        if not as_json and len(scored) == 1:
            _show_findings(a[0].path, split)


def _check_options(
    runs: int, stored: bool, fresh: bool, problems: Path | None, suite: str | None
) -> None:
    """Raises ValueError; `fresh` says that something was asked for that needs a model's answers."""
    if problems is not None and suite is not None:
        raise ValueError("--problems and --suite exclude each other")
    if runs > 1 and problems is not None:
        raise ValueError(f"--problems scores one run, not {runs}")
    if stored and fresh:
        others = "--against, --per-cell, --seed, --problems or --suite"
        raise ValueError(f"--stored reads the counts of eval.csv: it goes without {others}")


def _scored(runs: list, stored: bool, per_cell: int | None, split: str, seed: int) -> list:
    """Each run scored, or read as stored, on the same problems; tells of each as it is done."""
    from addgpt.evaluation.compare.runs import check_alike, check_trained, read_scored
    from addgpt.evaluation.compare.statistics import check_same
    from addgpt.evaluation.scorecard import file_of

    several = len(runs) > 1
    if several:
        check_alike(runs, split=split, seed=seed)
    if stored:
        scored = [read_scored(run, split) for run in runs]
    else:
        if several:
            check_trained(runs)
        scored = []
        for run in runs:
            scored.append(_evaluated(run, per_cell, split, seed, paired=several))
            _tell(scored[-1], len(scored), len(runs), file_of(run.path, "eval.csv", split))
    check_same(scored)
    return scored


def _tell(scored, number: int, total: int, file: Path) -> None:
    from addgpt.evaluation.compare.tables import headline

    note = f"{number} of {total}: {scored.name}: {headline([scored])}; " if total > 1 else ""
    click.echo(f"{note}written: {file}", err=True)


def _show(a: list, b: list, as_json: bool) -> None:
    """The rows of one run; the spread of several; or the difference of two groups."""
    from rich.console import Console

    from addgpt.evaluation.compare.statistics import compare
    from addgpt.evaluation.compare.tables import (
        comparison_facts,
        group_facts,
        print_comparison,
        print_spread,
    )
    from addgpt.evaluation.tables import print_eval

    comparison = compare(a, b) if b else None
    if as_json and len(a) == 1 and not b:
        click.echo(json.dumps(a[0].rows))
    elif as_json:
        groups = {"a": group_facts(a)} | ({"b": group_facts(b)} if b else {})
        facts = {"difference": comparison_facts(comparison)} if comparison else {}
        click.echo(json.dumps(groups | facts))
    elif comparison:
        print_comparison(Console(), a, b, comparison)
    elif len(a) > 1:
        print_spread(Console(), a)
    else:
        print_eval(Console(), a[0].rows)


def _evaluated(run, per_cell: int | None, split: str, seed: int, paired: bool):
    """A run scored cell by cell, written down; if `paired`, with its marks of each problem."""
    from addgpt.device import prepare
    from addgpt.evaluation.compare.runs import Marker
    from addgpt.evaluation.compare.statistics import Scored
    from addgpt.evaluation.scorecard import score_run
    from addgpt.model.forward import IN_CACHE
    from addgpt.runs.checkpoint import weight_count
    from addgpt.training.progress import counted

    prepare(weights=weight_count(run.config.model), tokens=IN_CACHE)
    marker = Marker(run.task()) if paired else None
    watch = {"watch": marker.add} if marker else {}
    card = score_run(run, per_cell, split, seed, show=counted, **watch)
    card.write()  # what was found stays to be looked at: readers of eval.csv look at eval.json, too
    card.check()
    return Scored(str(run.path), run.config.seed, card.rows, marker.marks if marker else None)


def _show_findings(folder: Path, split: str) -> None:
    """Why answers are wrong, and whether training could have known them, where that is stored."""
    from rich.console import Console

    from addgpt.evaluation.scorecard import read_findings
    from addgpt.evaluation.tables import print_mistakes

    found = read_findings(folder, split)
    if found is not None:
        print_mistakes(Console(), *found)


def _score_problems(run, path: Path, as_json: bool) -> None:
    from addgpt.evaluation.intervals import share
    from addgpt.evaluation.problem_files import read_problems

    given = read_problems(path)
    solutions = load_calculator(run.path).solve_many([problem.text for problem in given])
    rows = []
    for problem, solution in zip(given, solutions, strict=True):
        if solution.error:
            raise ValueError(f"{path}, line {problem.line}: {solution.error}")
        if problem.answer not in (None, solution.truth):
            note = f"line {problem.line} answers {problem.answer}, Python {solution.truth}"
            click.echo(f"{path}, {note}; scored by the file", err=True)
        truth = problem.answer or solution.truth
        row = {"problem": problem.text, "answer": truth, "model": solution.answer}
        rows.append(row | {"correct": solution.answer == truth})
    right = sum(row["correct"] for row in rows)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        if not row["correct"]:
            click.echo(f"wrong: {row['problem']} = {row['answer']}, the model says {row['model']}")
    click.echo(f"{path}: {right:,} of {len(rows):,} right, {share(right, len(rows))}")


def _score_texts(runs: list, split: str, as_json: bool) -> None:
    from rich.console import Console

    from addgpt.device import prepare
    from addgpt.evaluation.perplexity import file_of, score_run
    from addgpt.evaluation.tables import loss_table
    from addgpt.model.forward import IN_CACHE
    from addgpt.runs.checkpoint import weight_count
    from addgpt.training.progress import counted

    prepare(weights=max(weight_count(run.config.model) for run in runs), tokens=IN_CACHE)
    rows = [row for run in runs for row in score_run(run, split, counted)]
    if as_json:
        click.echo(json.dumps(rows))
        return
    Console().print(loss_table(rows))
    click.echo(f"written: {', '.join(str(file_of(run.path, split)) for run in runs)}")


def _score_suite(runs: list, name: str, seed: int, as_json: bool) -> None:
    from rich.console import Console

    from addgpt.evaluation.suites import load_suite
    from addgpt.evaluation.tables import suite_table

    title, parts = load_suite(name, seed)
    found = {}
    for run in runs:
        found[str(run.path)] = rows = _suite_rows(run, name, parts)
        if not as_json:
            click.echo(f"{run.path}: {rows[0]['params']:,} parameters")
            Console().print(suite_table(title, rows))
    if as_json:
        click.echo(json.dumps(found if len(runs) > 1 else rows))


def _suite_rows(run, name: str, parts: list) -> list[dict]:
    """A run's score of each part of a suite, written down."""
    from addgpt.runs.files import write_csv

    calculator, rows = load_calculator(run.path), []
    params = run.model().parameter_count()
    for part in parts:
        solutions = calculator.solve_many(part.problems)
        for problem, solution in zip(part.problems, solutions, strict=True):
            if solution.error:
                raise ValueError(f"{part.name}, {problem}: {solution.error}")
        right = sum(solution.correct is True for solution in solutions)
        rows.append({"part": part.name, "n": len(solutions), "answer_correct": right})
        rows[-1] |= {"published": part.published, "params": params}
    write_csv(run.path / f"suite-{Path(name).stem}.csv", list(rows[0]), rows)
    return rows
