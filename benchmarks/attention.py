"""What local attention buys: full, window and reads, on the same traces, in the same steps.

Each run trains one block, notes when val exact match reached 99 %, and is scored at its trained
length and at 2, 5 and 10 times that; where attention is local, all contexts are judged as well.

    python -m benchmarks.attention --jobs 2 --out results/reference/attention.csv
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from addgpt.runs.files import write_atomically
from addgpt.runs.provenance import versions

TRACES: dict[str, dict[str, Any]] = {
    "add": {"trace": "none", "width": 64, "batch_size": 128, "lr": 0.01, "muon_lr": 0.03},
    "sub": {"trace": "carry", "width": 64, "batch_size": 128, "lr": 0.01, "muon_lr": 0.03},
    "mul": {"trace": "carry", "width": 128, "batch_size": 48, "lr": 0.003, "muon_lr": 0.02},
    "div": {"trace": "carry", "width": 128, "batch_size": 48, "lr": 0.003, "muon_lr": 0.02},
}
STEPS = {"add": 1200, "sub": 1200, "mul": 1000, "div": 1000}
DIGITS = {"add": 3, "sub": 3, "mul": 3, "div": 4}
TIMES = {1: 200, 2: 100, 5: 40, 10: 20}  # lengths over the trained one, and problems scored
ATTENTION = ("full", "window", "reads")


def one(job: tuple[str, str, int, float]) -> dict[str, Any]:
    """Train and score one run."""
    import torch

    from addgpt.evaluation.certificate import prove
    from addgpt.evaluation.exact_match import evaluate
    from addgpt.runs.resolve import configure
    from addgpt.runs.run import Run
    from addgpt.task import Cell
    from addgpt.training.loop import train

    task, attention, seed, share = job
    torch.set_num_threads(1)
    steps = max(2, int(STEPS[task] * share))
    settings = TRACES[task] | {"digits": DIGITS[task], "layers": 1, "heads": 4, "threads": 1}
    settings |= {"attention": attention, "steps": steps, "eval_every": max(1, steps // 48)}
    settings |= {"label_smoothing": 0.0, "micro_batch": 0, "precision": "float32"}
    settings |= {"level_position": ("relative", "relative", "learned"), "eval_size": 500}
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", configure(task, settings, seed))
        end = train(run)
        lines = [row for row in run.metrics() if row["val_exact"] >= 0.99]
        first = lines[0] if lines else {"examples": None, "seconds": None, "step": None}
        row: dict[str, Any] = {
            "task": task, "trace": settings["trace"], "digits": DIGITS[task],
            "attention": attention, "seed": seed, "steps": steps, "seconds": round(end.seconds, 1),
            "step_99": first["step"], "examples_99": first["examples"],
            "seconds_99": first["seconds"], "val_exact": end.validation["val_exact"],
        }  # fmt: skip
        graded, model = run.task(), run.model()
        for times, n in TIMES.items():
            size = DIGITS[task] * times
            cell = Cell(graded.op, size, size // 2 if task == "div" else size)
            (found,) = evaluate(model, graded, [cell], per_cell=max(1, int(n * min(1, share))))
            row |= {f"right_{times}x": found["answer_correct"], f"n_{times}x": found["n"]}
        if attention == "reads" or (attention, task) == ("window", "add"):
            proof = prove(model, graded)
            row |= {"contexts": proof.contexts, "wrong": proof.below(0), "margin": proof.smallest}
    return row | {"date": time.strftime("%Y-%m-%d"), "machine": versions()["machine"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, a thread each")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(TRACES))
    parser.add_argument("--share", type=float, default=1.0, help="of the steps; small: a smoke run")
    parser.add_argument("--out", type=Path, help="csv to write, a line as each run ends")
    options = parser.parse_args()
    chosen = options.tasks.split(",")
    jobs = [
        (*job, options.share) for job in itertools.product(chosen, ATTENTION, range(options.seeds))
    ]
    jobs.sort(key=lambda job: (job[1] != "full", job[0] != "div"))  # the longest first
    rows = []
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for row in pool.imap_unordered(one, jobs):
            rows.append(row)
            print({k: v for k, v in row.items() if k not in ("date", "machine")}, flush=True)
            if options.out:
                order = ["task", "attention", "seed"]
                table = pd.DataFrame(rows).sort_values(order).to_csv(index=False)
                write_atomically(options.out, table)


if __name__ == "__main__":
    main()
