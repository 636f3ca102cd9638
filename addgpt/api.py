"""The Python API: what `import addgpt` offers. Nothing here loads torch before it is called.

    calculator = addgpt.load_calculator()       # the shipped one
    calculator.solve("12*(34-5)/2").answer      # '174'

    run = addgpt.train("add", digits=4, steps=800, seed=1)     # -> results/add-4-s1
    table = addgpt.evaluate(run, per_cell=200)                 # a pandas.DataFrame
    run.model(), run.task()                                    # a torch module, and its task

Settings are Python values: `digits=4`, `tied=True`, `level_position=("relative", "none",
"learned")`. `addgpt settings` and `addgpt settings --task add` list them. Wrong arguments raise a
ValueError whose one line names the valid choices; a run folder that cannot be used raises a
RunError, which is a RuntimeError.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.task import SPLITS, Answer, Cell, Problem, Task
from addgpt.task_lookup import load_task as _load_task

if TYPE_CHECKING:
    import pandas as pd

    from addgpt.calculator.solver import Calculator
    from addgpt.model.build import Model
    from addgpt.runs.run import Run
    from addgpt.task import Graded
    from addgpt.training.loop import TrainState

__all__ = ["Answer", "Problem", "evaluate", "load_calculator", "load_run", "load_task", "train"]


def load_task(name: str | Path, **options: Any) -> Task:
    """A task by its name or by the file that defines it, with options.

    Args:
        name: such as `add` (`addgpt tasks` lists them), or the path of a file, `./double.py`, which
            is executed.
        options: by their names, as values or as text.

    Raises:
        ValueError: no such task or option.

    Examples:
        >>> task = load_task("add", digits=3)
        >>> problem = task.parse("128+367")
        >>> task.prompt(problem), str(task.truth(problem))
        ('128+367=', '495')
    """
    return _load_task(str(name), _plain(options))


def load_run(run: str | Path) -> Run:
    """A run by its folder, or the shipped one by its name, `calculator`.

    `.model()` is its model, a torch module in evaluation mode on the CPU; `.task()` its task;
    `.config` its settings; `.metrics()` a dict for each validation pass.

    Raises:
        RunError: there is no such run, or it is damaged.

    Examples:
        >>> run = load_run("calculator")
        >>> run.task().name, run.config.model.width, run.model().parameter_count()
        ('calc', 96, 122388)
    """
    from addgpt.runs.run import Run, run_path

    return Run(run_path(run))


def load_calculator(run: str | Path | Run | None = None) -> Calculator:
    """The calculator of a trained run; None: the shipped one.

    `.solve(text)` evaluates one expression, `.solve_many(texts)` several at once, which is faster.
    A `Solution` has the model's `answer`, the `truth`, whether it is `correct`, and the `steps`;
    its `value` is the answer as a number, `exact` the exact one. `.stream(text)` yields the work
    token by token.

    Raises:
        RunError: there is no such run.
        ValueError: the run has not learned + - * or /.

    Examples:
        >>> calculator = load_calculator()
        >>> calculator.solve("12*(34-5)/2").answer
        '174'
        >>> [solution.answer for solution in calculator.solve_many(["128+367", "17/5"])]
        ['495', '3.4']
    """
    from addgpt.calculator.load import load_calculator as load

    return load(run if run is None or isinstance(run, str | Path) else run.path)


def train(
    task: str | Path | Task,
    *,
    digits: int | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    resume: bool = False,
    init_from: str | Path | Run | None = None,
    recipe: str | None = None,
    quiet: bool = False,
    on_step: Callable[[TrainState], None] | None = None,
    log: str | Sequence[str] = (),
    **settings: Any,
) -> Run:
    """Train a model on a task, keep the run in a folder, and return it.

    Args:
        task: its name, the path of a file that defines it, or what `load_task` returned.
        digits: longest operand; an option of most tasks.
        out: the run folder. None: results/TASK-DIGITS, or the first such name that is free.
        seed: of weights and problems.
        resume: continue the run in `out`, if there is one; a finished run is returned at once.
            Only settings of training may change.
        init_from: start from the model of this run.
        recipe: a published recipe for the task, below `settings`; `addgpt recipes` lists them.
        quiet: show no progress on stderr.
        on_step: called after every step with a `TrainState`: step, steps, examples, tokens, seconds
            of training, loss (nats a token), and validation, the last line of metrics.jsonl.
        log: where else curves are kept: csv, tensorboard, wandb, trackio, or several of these.
        settings: options of the task, settings of the model and of training, as values.

    Raises:
        ValueError: an unknown setting, or a value out of its range; a log whose package is missing;
            without `resume`, `out` holds something already.
        RunError: what `out` holds cannot be resumed; a log cannot be written; training diverged.
        Interrupted: Ctrl-C; all is saved; continue with `resume=True`.

    Examples:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> run = train("add", digits=2, steps=4, batch_size=8, width=16, heads=2,
        ...             out=f"{folder.name}/run", quiet=True)
        >>> run.task().digits, run.config.train.steps, run.metrics()[-1]["step"]
        (2, 4, 4)
    """
    from addgpt.runs.run import initial_weights
    from addgpt.training import logs, loop

    kinds = logs.checked(log)
    settings |= {} if digits is None else {"digits": digits}
    start = load_run(init_from) if isinstance(init_from, str | Path) else init_from
    name, settings = _named(task, settings, recipe)
    run = _run_in(out, resume, name, settings, seed, start)
    weights = None if start is None else initial_weights(start.path, run.config)
    with logs.followed(run, kinds, quiet, on_step) as after_step:
        loop.train(run, after_step, weights)
    return run


def evaluate(
    run: str | Path | Run | Model,
    task: str | Path | Task | None = None,
    *,
    per_cell: int | None = None,
    split: str = "test",
    seed: int = 0,
    cells: Sequence[Cell] | None = None,
    quiet: bool = True,
) -> pd.DataFrame:
    """Exact match in each cell (operand lengths and stratum), by greedy decoding.

    Args:
        run: a run, its folder or name, or a model; a model needs the task.
        task: the task of a model. A run is scored on its own.
        per_cell: problems of each cell; by default 1,000, fewer where there are many cells.
        split: test, val or train.
        seed: of the problems.
        cells: those of `task.cells()` to score; by default all.
        quiet: show no progress on stderr.

    Returns:
        A row per cell: the columns of eval.csv (counts), and `accuracy` with its Wilson 95 %
        interval `low`, `high`, as shares. What only a run knows is missing for a model.

    Raises:
        ValueError: a task without cells, or none given for a model; a cell that is not the task's.
        RunError: there is no such run, or it was scored on what it may have been trained on.

    Examples:
        >>> table = evaluate("calculator", per_cell=5, cells=[Cell("+", 3, 3), Cell("*", 2, 2)])
        >>> table[["op", "len_a", "n", "answer_correct", "accuracy"]].values.tolist()
        [['+', 3, 5, 5, 1.0], ['*', 2, 5, 5, 1.0]]
    """
    import pandas as pd

    from addgpt.evaluation.contamination import Audit
    from addgpt.evaluation.exact_match import evaluate_cells
    from addgpt.evaluation.intervals import wilson
    from addgpt.evaluation.schema import EVAL_COLUMNS
    from addgpt.evaluation.scorecard import check_clean, usual_size
    from addgpt.training.progress import counted

    model, judged, name, facts = _to_score(run, task)
    chosen = judged.cells() if cells is None else list(cells)
    size = usual_size(judged) if per_cell is None else per_cell
    _check_asked(judged, chosen, size, split, seed)
    results = evaluate_cells(model, judged, chosen, per_cell=size, split=split, seed=seed)
    rows, audit = [], Audit(judged)
    for result in results if quiet else counted(results, len(chosen), f"scoring {name}"):
        audit.add(result)
        rows.append(facts | result.row())
    check_clean(audit.result(seed))
    table = pd.DataFrame(rows).reindex(columns=list(EVAL_COLUMNS))
    low, high = wilson(table["answer_correct"], table["n"])
    return table.assign(accuracy=table["answer_correct"] / table["n"], low=low, high=high)


def _to_score(
    run: str | Path | Run | Model, task: str | Path | Task | None
) -> tuple[Model, Graded, str, dict[str, Any]]:
    """A model, the task that it is scored on, what to call it, and what is known of it."""
    from addgpt.evaluation.scorecard import graded, run_facts
    from addgpt.runs.run import Run

    opened = load_run(run) if isinstance(run, str | Path) else run
    if isinstance(task, str | Path):
        task = load_task(task)
    if isinstance(opened, Run):
        if task not in (None, opened.task()):
            raise UsageError("a run is scored on its own task; leave task= out, or give its model")
        model, progress = opened.load()
        return model, graded(opened.task()), opened.name, run_facts(opened, model, progress)
    if task is None:
        raise UsageError("a model needs its task: evaluate(model, load_task('add', digits=3))")
    params = sum(weights.numel() for weights in opened.parameters())
    return opened, graded(task), task.name, {"task": task.name, "params": params}


def _check_asked(task: Graded, cells: list[Cell], size: Any, split: str, seed: Any) -> None:
    """Raise UsageError for problems that cannot be drawn."""
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}; valid: {', '.join(SPLITS)}")
    for name, number, least in (("per_cell", size, 1), ("seed", seed, 0)):
        if not isinstance(number, int | np.integer) or number < least:
            raise UsageError(f"{name} must be a whole number from {least} on, not {number!r}")
    known = set(task.cells())
    if strange := [cell for cell in cells if cell not in known]:
        raise UsageError(f"task {task.name} has no cell {strange[0]!r}; valid: those of cells()")


def _run_in(
    out: str | Path | None,
    resume: bool,
    name: str,
    settings: dict[str, Any],
    seed: int,
    start: Run | None,
) -> Run:
    """The run to train: a new one, or the one to resume."""
    from addgpt.runs.files import no_folder
    from addgpt.runs.run import is_empty

    if not isinstance(seed, int | np.integer):
        raise UsageError(f"seed must be a whole number, not {seed!r}")
    seed = int(seed)
    if resume and out is None:
        raise UsageError("resume=True needs out=, the folder of the run to resume")
    if out is None or is_empty(Path(out)):
        return _created(name, settings, seed, out, start)
    if resume:
        return _reopened(Path(out), name, settings, seed, start)
    if not Path(out).is_dir():
        raise UsageError(no_folder(Path(out)))
    raise UsageError(
        f"{out} is not empty: resume the run in it with resume=True, name another folder, "
        "or leave out `out` for a new one"
    )


def _created(
    name: str, settings: Mapping[str, Any], seed: int, out: str | Path | None, start: Run | None
) -> Run:
    """A new run in a folder of its own, after checking that it can be trained."""
    from addgpt.runs.provenance import versions
    from addgpt.runs.resolve import configure
    from addgpt.runs.run import Run, free_folder, initial_weights
    from addgpt.training.preflight import check_trainable

    shape = None if start is None else start.config.model
    command = _command(name, settings, seed)
    config = configure(name, settings, seed, command, versions(), shape)
    check_trainable(config)
    if start is not None:
        command += f" --init-from {shlex.quote(str(start.path))}"
        initial_weights(start.path, config)
    folder = free_folder(config.task, config.options, seed) if out is None else Path(out)
    command += "" if out is None else f" --out {shlex.quote(str(out))}"
    return Run.create(folder, replace(config, command=command))


def _reopened(
    out: Path, name: str, settings: Mapping[str, Any], seed: int, start: Run | None
) -> Run:
    """The run in a folder, with new settings of training if given."""
    from addgpt.runs.resolve import reconfigure
    from addgpt.training.preflight import check_trainable

    run = load_run(out)
    if seed != run.config.seed or start is not None:
        raise UsageError(
            f"{out} has its weights, and seed {run.config.seed}; resume it with that seed, "
            "without init_from="
        )
    config = reconfigure(run.config, name, settings)
    check_trainable(config)
    run.reconfigure(config)
    return run


def _named(
    task: str | Path | Task, settings: Mapping[str, Any], recipe: str | None
) -> tuple[str, dict[str, Any]]:
    """The name of a task, and all settings: those of a recipe, the options of a task object on top,
    and then those given."""
    from addgpt.config.settings import to_dict
    from addgpt.runs.published import with_recipe

    name, settings = str(task), _plain(settings)
    if isinstance(task, Task):
        name, settings = _source(task), to_dict(task) | settings
    return (name, settings) if recipe is None else with_recipe(recipe, name, settings)


def _source(task: Task) -> str:
    """What a run keeps of where a task comes from: the name of ours, or the path of a file."""
    module = type(task).__module__
    if module == f"tasks.{task.name}":
        return task.name
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or module == "__main__":
        raise UsageError("define the task in a file of its own: a run keeps the path of that file")
    return file


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with numpy's numbers as Python's."""
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in settings.items()}


def _command(name: str, settings: Mapping[str, Any], seed: int) -> str:
    """The equivalent command line, for readers of the run."""
    from addgpt.config.settings import as_text

    words = ["addgpt", "train", "--task", name]
    words += [word for k, v in settings.items() for word in ("--set", f"{k}={as_text(v)}")]
    return shlex.join([*words, *(["--seed", str(seed)] if seed else [])])
