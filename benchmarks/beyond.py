"""How right a calculator is far beyond what it was trained on, and how long that takes.

    python -m benchmarks.beyond calculator --out results/reference/calculator-beyond.csv
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pandas as pd

from addgpt.evaluation.exact_match import evaluate
from addgpt.evaluation.intervals import percent
from addgpt.runs.run import Run, run_path
from addgpt.task import Cell

# operation: operand lengths, problems scored
CELLS = {
    "+": [(n, n, 200) for n in (20, 50, 100, 300, 1000)],
    "-": [(n, n, 200) for n in (20, 50, 100, 300, 1000)],
    "*": [(12, 12, 200), (20, 20, 200), (30, 30, 200), (50, 50, 200), (50, 7, 200)],
    "/": [(12, 6, 200), (20, 10, 200), (40, 20, 200), (40, 3, 200), (60, 30, 200), (100, 50, 20),
          (200, 100, 2)],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a calculator's run folder, or `calculator`")
    parser.add_argument("--share", type=float, default=1.0, help="of the problems; small: a try")
    parser.add_argument("--out", type=Path, help="csv to write")
    options = parser.parse_args()
    run = Run(run_path(options.run))
    task, model, rows = run.task(), run.model(), []
    for op, cells in CELLS.items():
        for len_a, len_b, n in cells:
            began = time.perf_counter()
            cell, n = Cell(op, len_a, len_b), max(1, int(n * options.share))
            (found,) = evaluate(model, task, [cell], per_cell=n)
            seconds = time.perf_counter() - began
            keys = ("op", "len_a", "len_b", "n", "answer_correct", "trace_correct")
            rows.append({key: found[key] for key in keys} | {"seconds": round(seconds, 1)})
            rows[-1]["date"] = time.strftime("%Y-%m-%d")
            right = percent(found["answer_correct"], found["n"])
            print(f"{len_a:>5} {op} {len_b:<5} {right:>5} % of {found['n']:>4}  {seconds:6.1f} s",
                  flush=True)  # fmt: skip
            if options.out:
                pd.DataFrame(rows).to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
