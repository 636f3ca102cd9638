"""Held-out problems of a run as a task of lm-evaluation-harness, for its exported model.

The prompts are those that the model was trained on, so the score is the share of problems whose
whole completion is right (`trace_correct` in eval.csv): of a model that has learned its task, the
same number as that of right answers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.evaluation.exact_match import evaluation_problems
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
        RunError: the folder is not empty or cannot be written to.
    """
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
    new_folder(out)
    name = f"addgpt_{run.name}".replace("-", "_")
    settings = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str((out / PROBLEMS).resolve())}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{prompt}}",
        "doc_to_target": "{{completion}}",
        "target_delimiter": "",
        "num_fewshot": 0,
        "generation_kwargs": {
            "until": [task.end],
            "do_sample": False,
            "max_gen_toks": longest + EXTRA_TOKENS,
        },
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
    }
    write_atomically(out / PROBLEMS, "".join(json.dumps(row) + "\n" for row in rows))
    write_atomically(out / TASK, json.dumps(settings, indent=2) + "\n")  # JSON is YAML
    return {"task": name, "n": len(rows)}
