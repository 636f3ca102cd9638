"""Held-out problems of a run as a task of lm-evaluation-harness, for its exported model.

The prompts are those that the model was trained on, so the score is the share of problems whose
whole completion is right (`trace_correct` in eval.csv): of a model that has learned its task, the
same number as that of right answers.
"""

from __future__ import annotations

import glob
import json
import re
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.evaluation.exact_match import evaluation_problems
from addgpt.evaluation.problem_files.export import as_yaml, harness_task
from addgpt.evaluation.scorecard import graded
from addgpt.export.huggingface import new_folder
from addgpt.generation.decode import EXTRA_TOKENS
from addgpt.runs.files import write_atomically
from addgpt.runs.run import Run

PROBLEMS, TASK = "problems.jsonl", "task.yaml"


def export_harness(run: Run, out: Path, per_cell: int, seed: int = 0) -> dict[str, Any]:
    """Write the test problems of all cells, and the yaml that says how they are scored.

    The yaml names the problems by their whole path. Returns `task`, its name there, and `n`.

    Raises:
        UsageError: the task has no end mark, or no problems.
        RunError: the run has no model to score, the folder is not empty or cannot be written to.
    """
    run.progress()  # of a sound checkpoint; else there is nothing to score
    task = graded(run.task())
    if not task.end:
        raise UsageError(f"task {task.name} has no end mark: no --to lm-eval")
    rows, longest = [], 0
    for cell in task.cells():
        batch, source = evaluation_problems(task, cell, per_cell, "test", seed)
        for problem, (prompt, completion) in zip(batch.problems, task.texts(batch), strict=True):
            longest = max(longest, len(completion))
            row = {"problem": task.text(problem), "prompt": prompt}
            row["completion"] = completion.removesuffix(task.end)
            rows.append(row | cell._asdict() | {"seen": source == "train"})
    name = "addgpt_" + re.sub(r"\W", "_", run.name)  # commas and stars mean something to it
    file = glob.escape(str((out / PROBLEMS).resolve()))  # it looks for a pattern
    settings = harness_task(name, file, "{{prompt}}", "{{completion}}", task.end)
    settings["generation_kwargs"]["max_gen_toks"] = longest + EXTRA_TOKENS
    with new_folder(out):
        write_atomically(out / PROBLEMS, "".join(json.dumps(row) + "\n" for row in rows))
        write_atomically(out / TASK, as_yaml(settings))
    return {"task": name, "n": len(rows)}
