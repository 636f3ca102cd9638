"""addgpt eval"""

from __future__ import annotations

import json
from pathlib import Path

import click

from addgpt.cli import load_calculator


@click.command("eval")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--problems", type=click.Path(path_type=Path), help="csv or jsonl with `problem`.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(
    run_folder: Path,
    per_cell: int | None,
    split: str,
    seed: int,
    problems: Path | None,
    suite: str | None,
    as_json: bool,
) -> None:
    """Score a run: exact match by operand length, free-running greedy decoding.

    Writes eval.csv into the run folder. With --problems, scores anybody's problems instead: a csv
    or jsonl file with `problem` (12+34) and optionally `answer`. With --suite, a named set, beside
    what others scored on it.

    \b
    Example:
      addgpt eval results/add-3
      addgpt eval results/add-10 --suite ten-digit
      addgpt eval results/add-3 --problems my.csv --json
    """
    from rich.console import Console

    from addgpt.runs import Run
    from addgpt.tables import print_eval

    run = Run(run_folder)
    if problems is not None and suite is not None:
        raise ValueError("--problems and --suite exclude each other")
    if problems is not None:
        _score_problems(run, problems, as_json)
        return
    if suite is not None:
        _score_suite(run, suite, seed, as_json)
        return
    rows = _evaluated(run, per_cell, split, seed)
    file = run.write_eval(rows, split)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        print_eval(Console(), rows)
        click.echo(f"written: {file}")


def _evaluated(run, per_cell: int | None, split: str, seed: int) -> list[dict]:
    """Rows of eval.csv for a run."""
    from addgpt.device import prepare
    from addgpt.evaluate import evaluate as score_cells
    from addgpt.progress import counted

    prepare()
    task, model = run.task(), run.model()
    cells = task.cells()
    if not cells:
        raise ValueError(f"task {task.name} has no cells to score; its loss is in metrics.jsonl")
    size = per_cell or max(100, min(1000, 100_000 // len(cells)))
    progress = run.progress()
    facts = {
        "run": run.name,
        "task": task.name,
        "seed": run.config.seed,
        "params": model.parameter_count(),
        **{key: progress[key] for key in ("step", "examples", "seconds")},
    }
    rows = score_cells(model, task, cells, per_cell=size, split=split, seed=seed)
    return [facts | row for row in counted(rows, len(cells), "scoring")]


def _score_problems(run, path: Path, as_json: bool) -> None:
    from addgpt.problems import read_problems
    from addgpt.tables import share

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


def _score_suite(run, name: str, seed: int, as_json: bool) -> None:
    from rich.console import Console

    from addgpt.runs import write_csv
    from addgpt.suites import load_suite
    from addgpt.tables import suite_table

    title, parts = load_suite(name, seed)
    calculator = load_calculator(run.path)
    rows = []
    for part in parts:
        solutions = calculator.solve_many(part.problems)
        for problem, solution in zip(part.problems, solutions, strict=True):
            if solution.error:
                raise ValueError(f"{part.name}, {problem}: {solution.error}")
        right = sum(solution.correct is True for solution in solutions)
        rows.append({"part": part.name, "n": len(solutions), "answer_correct": right})
        rows[-1]["published"] = part.published
    write_csv(run.path / f"suite-{Path(name).stem}.csv", list(rows[0]), rows)
    if as_json:
        click.echo(json.dumps(rows))
        return
    Console().print(suite_table(title, rows))
    click.echo(f"{run.model().parameter_count():,} parameters")
