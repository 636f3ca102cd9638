"""The rows of eval.csv for a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from addgpt.evaluation.exact_match import CellResult, evaluate_cells
from addgpt.runs.run import Run
from addgpt.task import Graded, Task


def eval_rows(
    run: Run,
    per_cell: int | None = None,
    split: str = "test",
    seed: int = 0,
    watch: Callable[[CellResult], None] = lambda result: None,
) -> Iterator[dict[str, Any]]:
    """One row a cell: exact match, as counts, of the run's model on `per_cell` problems.

    `watch` is shown each cell's problems and outcomes. Raises ValueError if the task has no cells.
    """
    task, model = run.task(), run.model()
    cells = task.cells()
    if not isinstance(task, Graded) or not cells:
        raise ValueError(f"task {task.name} has no cells to score; its loss is in metrics.jsonl")
    size = per_cell or usual_size(task)
    progress = run.progress()
    facts = {
        "run": run.name,
        "task": task.name,
        "seed": run.config.seed,
        "params": model.parameter_count(),
        **{key: progress[key] for key in ("step", "examples", "seconds")},
    }
    for result in evaluate_cells(model, task, cells, per_cell=size, split=split, seed=seed):
        watch(result)
        yield facts | result.row()


def usual_size(task: Task) -> int:
    """Problems a cell by default: 1,000, fewer where the task has more than 100 cells."""
    return max(100, min(1000, 100_000 // max(1, len(task.cells()))))
