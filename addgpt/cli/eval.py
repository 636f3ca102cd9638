"""addgpt eval"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from addgpt.cli._external import answered, external_options
from addgpt.config.errors import UsageError
from addgpt.evaluation.problem_files.records import ORDERS
from addgpt.evaluation.schema import RULERS

if TYPE_CHECKING:  # `--help` needs no torch
    from addgpt.runs.run import Run

# Options that choose what is scored, and those that each excludes.
ALONE = {
    "problems": ("suite", "against", "ruler", "stored", "per_cell", "split", "seed", "out", "far"),
    "suite": ("against", "ruler", "stored", "per_cell", "split", "far", "predictions"),
    "stored": ("per_cell", "seed", "out", "far", "predictions"),
}
OF_PROBLEMS = ("columns", "answers", "strict")  # options that go with --problems alone

FILE = click.Path(path_type=Path)


@click.command("eval")
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@external_options
@click.option("--against", multiple=True, metavar="RUN", help="Runs to compare with; repeatable.")
@click.option("--stored", is_flag=True, help="Score nothing: read the eval.csv of each run.")
@click.option("--per-cell", type=click.IntRange(1), help="Problems per cell [1000; fewer if huge].")
@click.option("--split", type=click.Choice(["test", "val", "train"]), default="test")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the problems."
)
@click.option("--far", metavar="N,N", help="Longer operands to score, too, in digits: 20,50.")
@click.option("--problems", type=FILE, multiple=True, help="A file of your own; repeatable.")
@click.option("--columns", metavar="NAMES", help="With --problems: problem=Q,answer=A,group=G.")
@click.option(
    "--answers",
    type=click.Choice(ORDERS),
    default="normal",
    help="With --problems: the order of the digits of answers.",
)
@click.option("--strict", is_flag=True, help="With --problems: an unusable line is an error.")
@click.option(
    "--predictions", type=FILE, help="A file for every problem, completion, answer and confidence."
)
@click.option("--suite", help="A named set of problems, such as gpt3 or ten-digit; or a toml file.")
@click.option(
    "--ruler",
    type=click.Choice(RULERS),
    multiple=True,
    help="For a text: how its loss is measured (docs/evaluation.md); repeatable [blocks, overlap].",
)
@click.option(
    "--out", type=FILE, help="Folder for the scores, of several runs one each [the run's]."
)
@click.option("--json", "as_json", is_flag=True, help="Rows as JSON on stdout, nothing else.")
def command(
    names: tuple[str, ...],
    against: tuple[str, ...],
    stored: bool,
    far: str | None,
    problems: tuple[Path, ...],
    suite: str | None,
    asked: dict,
    **options,
) -> None:
    """Score runs: exact match by operand length.

    Decoding is greedy and free-running: a model reads what it wrote itself. Writes eval.csv into
    each run folder; errors.csv, error_counts.csv and examples.csv, which say why answers are
    wrong; and eval.json, which says how the run was scored and how many of the problems training
    could have drawn: if any, the exit code is 1. A stored score is kept: that of another --seed
    goes to eval-seed5.csv and so on, that on fewer problems to eval-quick.csv.

    A RUN is a run folder, a folder that holds runs, or a pattern such as 'results/add-*'. Several
    runs, say seeds of one recipe, get the same problems, and their median, worst and best are
    shown. Or it is an external model, hf:PATH, api:ADDRESS or answers:FILE, which is asked the
    problems of --task in text (docs/foreign_models.md).

    --problems scores your own problems instead, with or without answers: csv, json, jsonl, or
    lines such as 12+34=46 (docs/problem_files.md). If some cannot be asked, the exit code is 3.
    --suite scores a named set, beside published results, and writes suite-NAME.csv. Of a text, the
    loss on the whole held-out part is written to loss.json (docs/evaluation.md).

    \b
    Example:
      addgpt eval results/add-3
      addgpt eval 'results/add-3*' --stored
      addgpt eval 'results/add-3*' --against 'results/plain-3*'
      addgpt eval results/add-10 --suite ten-digit
      addgpt eval calculator --problems my.csv --columns problem=task,answer=result --json
      addgpt eval results/add-3 --far 20,50 --predictions all.csv
      addgpt eval results/shakespeare --ruler blocks --ruler random
    """
    from addgpt.cli import _scoring
    from addgpt.evaluation.predictions import check_file

    _check_options()
    choice = _scoring.Choice(**options)
    if choice.predictions:
        check_file(choice.predictions)
    cells = not (problems or suite or far)
    names, against, choice = answered(names, against, choice, asked, stored, cells)
    a, b = _runs(names, against, far)
    if problems:
        _scoring.score_problems(a, problems, choice)
    elif suite is not None:
        _scoring.score_suite(a, suite, choice)
    else:
        _scoring.score_runs(a, b, choice, stored)


def _runs(
    names: tuple[str, ...], against: tuple[str, ...], far: str | None
) -> tuple[list[Run], list[Run]]:
    """The runs to score, and those to compare with; on longer operands, too, if that is asked."""
    from addgpt.cli._scoring import tell
    from addgpt.evaluation.compare import runs as groups
    from addgpt.training.preflight import check_reach

    a, b = groups.find_runs(names), groups.find_runs(against)
    groups.check_apart(a, b)
    for note in (*groups.repeats(a), *groups.repeats(b)):
        tell(note)
    if far is not None:
        a, b = ([run.scored_on(far=far) for run in runs] for runs in (a, b))
        for run in (*a, *b):
            check_reach(run.config)
    return a, b


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
