"""The command line: parse, call, print. Data goes to stdout, progress and errors to stderr."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

RESULTS = "results"


class Commands(click.Group):
    """Turns what users can mend into one line: exit code 2 for usage, 1 for failure."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            fail("stopped", 130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
        except MemoryError:
            fail("out of memory; try a smaller --set batch_size or width", 1)
        except RuntimeError as error:
            if "alloc" in str(error) or type(error).__name__ == "OutOfMemoryError":
                fail("out of memory; try a smaller --set batch_size or width", 1)
            if type(error).__name__ not in ("RunError", "Diverged"):
                raise
            fail(str(error), 1)

    def main(self, *args, **kwargs) -> object:
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            fail(error.format_message(), 2)
        except click.Abort:
            fail("stopped", 130)


def fail(message: str, code: int) -> None:
    click.echo(f"error: {' '.join(message.split())}", err=True)
    sys.exit(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="addgpt")
def main() -> None:
    """A small GPT learns arithmetic: train it, score it, calculate with it.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt eval results/add-3
      addgpt calc "123+456"
    """


@main.command()
@click.option("--task", help="What to learn; `addgpt tasks` lists them.")
@click.option("--digits", type=int, help="Longest operand; short for --set digits=N.")
@click.option("--seed", type=click.IntRange(0), help="Of weights and problems [0].")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder [results/TASK-DIGITS].")
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if there is one.")
@click.option("--init-from", type=click.Path(path_type=Path), help="Start from this run's weights.")
@click.option("--stop-at", help="Stop once val exact match reaches this share, such as 0.999.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Any other setting.")
def train(
    task: str | None,
    digits: int | None,
    seed: int | None,
    out: Path | None,
    resume: bool,
    init_from: Path | None,
    stop_at: str | None,
    pairs: tuple[str, ...],
) -> None:
    """Train a model on a task and keep the run in a folder.

    The task's recipe is the default; --set changes options of the task (digits=5), the model
    (width=128) and the training (steps=2000). Ctrl-C saves; --resume goes on.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt train --task mul --digits 4 --set steps=3000 --out results/mul-4
      addgpt train --resume --out results/mul-4
    """
    from addgpt import settings as chosen
    from addgpt.progress import TrainingProgress
    from addgpt.runs import Run, command_line, versions
    from addgpt.train import Interrupted, check_startable
    from addgpt.train import train as run_training

    settings = chosen.parse_pairs(pairs)
    settings |= {"digits": str(digits)} if digits is not None else {}
    settings |= {"stop_at": stop_at} if stop_at is not None else {}
    weights = None
    if resume and out is None:
        raise ValueError("--resume needs --out, the run folder to go on with")
    if resume and out.is_dir() and any(out.iterdir()):
        if seed is not None or init_from:
            raise ValueError("a resumed run has its seed and weights; drop --seed and --init-from")
        run = Run(out)
        run.reconfigure(chosen.reconfigure(run.config, task, settings, command_line()))
    else:
        if task is None:
            raise ValueError("--task is missing; `addgpt tasks` lists the tasks")
        config = chosen.configure(task, settings, seed or 0, command_line(), versions())
        check_startable(config)
        weights = Run(init_from).weights_for(config.model) if init_from else None
        run = Run.create(out or _free_folder(config.task, config.options), config)
    try:
        with TrainingProgress() as watch:
            end = run_training(run, watch, weights)
    except Interrupted as stop:
        again = f"addgpt train --resume --out {run.path}"
        fail(f"{stop}; everything is saved, go on with: {again}", 130)
    exact = end.look.get("val_exact")
    score = f"val exact match {100 * exact:.2f} %" if exact is not None else "done"
    n = f" (n={run.config.train.eval_size:,})" if exact is not None else ""
    click.echo(f"{run.path}: {score}{n} after {end.step:,} steps, {end.seconds:.1f} s of training")


@main.command("eval")
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--per-cell", type=click.IntRange(1), help="Problems a cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of problems.")
@click.option("--problems", type=click.Path(path_type=Path), help="csv or jsonl with `problem`.")
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def evaluate(
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


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("expression", required=False)
@click.option("--model", type=click.Path(path_type=Path), help="A run folder.")
@click.option("--steps", is_flag=True, help="Show the work, as one would write it on paper.")
def calc(expression: str | None, model: Path | None, steps: bool) -> None:
    """Calculate with a model: + - * / and parentheses.

    Without an expression: a prompt; with lines piped in: one answer a line.

    \b
    Example:
      addgpt calc "12*(34-5)/2"
      addgpt calc --steps "345-1234"
      addgpt calc < problems.txt
    """
    calculator = _calculator(model)
    if expression is not None:
        from addgpt.repl import notes, show

        solution = calculator.solve(expression)
        click.echo(show(solution, steps))
        for note in notes(solution):
            click.echo(note, err=True)
        sys.exit(0 if solution.correct else 1)
    from addgpt.repl import run_lines, run_repl

    if sys.stdin.isatty():
        run_repl(calculator, _calculator)
    else:
        if hasattr(sys.stdin, "reconfigure"):
            sys.stdin.reconfigure(errors="replace")
        tally = run_lines(calculator, sys.stdin, sys.stdout)
        if tally.errors or tally.wrong or tally.untrained:
            click.echo(str(tally), err=True)


@main.command()
def tasks() -> None:
    """List the tasks and their options.

    \b
    Example:
      addgpt tasks
    """
    from addgpt.task import task_class, task_names

    for name in task_names():
        cls = task_class(name)
        summary = (sys.modules[cls.__module__].__doc__ or "").strip().partition("\n")[0]
        click.echo(f"{name}: {summary}")
        for option, field in cls.options().items():
            text = field.metadata.get("help", "")
            click.echo(f"  {option}={_as_text(field.default)}  {text}")


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _free_folder(task: str, options: dict) -> Path:
    """results/TASK-DIGITS, or the first of results/TASK-DIGITS-2, -3, ... that is not taken."""
    name = f"{task}-{options['digits']}" if "digits" in options else task
    path, number = Path(RESULTS) / name, 1
    while path.exists():
        number += 1
        path = Path(RESULTS) / f"{name}-{number}"
    return path


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
    rows = score_cells(model, task, cells, size, split, seed)
    return [facts | row for row in counted(rows, len(cells), "scoring")]


def _calculator(path: Path | str | None = None):
    """The calculator of a run; by default of the shipped one, or else of the newest."""
    from addgpt.calculator import Calculator
    from addgpt.device import prepare
    from addgpt.runs import SHIPPED, Run, newest_run

    prepare()
    if path is None:
        path = SHIPPED if (SHIPPED / "config.json").exists() else newest_run(RESULTS)
    run = Run(path)
    return Calculator(run.model(), run.task(), run.name)


def _score_problems(run, path: Path, as_json: bool) -> None:
    from addgpt.problems import read_problems
    from addgpt.tables import share

    given = read_problems(path)
    solutions = _calculator(run.path).solve_many([problem.text for problem in given])
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
    calculator = _calculator(run.path)
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


if __name__ == "__main__":
    main()
