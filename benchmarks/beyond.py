"""How right a calculator is on all short pairs of operand lengths, on strata, and far beyond.

    python -m benchmarks.beyond calculator --out results/reference/calculator-beyond.csv
    python -m benchmarks.beyond calculator --grid 1000 --out results/reference/calculator-grid.csv

A cell that `--out` has already, of as many problems, is not scored again: a run that was stopped
goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd

from addgpt.evaluation.exact_match import evaluate
from addgpt.evaluation.intervals import percent
from addgpt.runs.files import write_atomically
from addgpt.runs.run import Run, run_path
from addgpt.task import Cell, Graded

# operation: operand lengths, problems scored
FAR = {
    "+": [(n, n, 200) for n in (20, 50, 100, 300, 1000)],
    "-": [(n, n, 200) for n in (20, 50, 100, 300, 1000)],
    "*": [(12, 12, 200), (20, 20, 200), (30, 30, 200), (50, 50, 200), (50, 7, 200)],
    "/": [(12, 6, 200), (20, 10, 200), (40, 20, 200), (40, 3, 200), (60, 30, 200), (100, 50, 200),
          (200, 100, 20)],
}  # fmt: skip
SUMS = [(10, 10, 200), (30, 30, 200), (3, 1000, 200), (1000, 3, 20)]  # numbers, digits, problems
GRID = {"+": 20, "-": 20, "*": 12, "/": 12}  # longest operands
WHERE = ["op", "len_a", "len_b", "stratum"]


def far() -> Iterator[tuple[Cell, int]]:
    """Cells far beyond training, and how many problems of each."""
    for op, cells in FAR.items():
        yield from ((Cell(op, a, b), n) for a, b, n in cells)
    yield from ((Cell("+", size, size, f"sum:{count}"), n) for count, size, n in SUMS)


def grid(task: Graded, n: int) -> Iterator[tuple[Cell, int]]:
    """All pairs of lengths, shortest first, then the strata, and as many problems of each."""
    for op, most in GRID.items():
        pairs = sorted(product(range(1, most + 1), repeat=2), key=sum)
        yield from ((Cell(op, *pair), n) for pair in pairs)
    yield from ((cell, n) for cell in task.cells() if cell.stratum != "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", help="a calculator's run folder, or `calculator`")
    parser.add_argument("--grid", type=int, help="all short pairs, and strata; problems of each")
    parser.add_argument("--share", type=float, default=1.0, help="of the problems; small: a try")
    parser.add_argument("--out", type=Path, help="csv to write, or to go on with")
    options = parser.parse_args()
    run = Run(run_path(options.run))
    task, model, rows = run.task(), run.model(), dict[tuple, dict[str, Any]]()
    if options.out and options.out.exists():
        kept = pd.read_csv(options.out).to_dict("records")
        rows = {tuple(row[name] for name in WHERE): row for row in kept}
    for cell, most in grid(task, options.grid) if options.grid else far():
        n = max(1, int(most * options.share))
        if rows.get(cell, {"asked": 0})["asked"] >= n:
            continue
        began = time.perf_counter()
        for found in evaluate(model, task, [cell], per_cell=n):
            seconds = round(time.perf_counter() - began, 1)
            keys = (*WHERE, "seen", "n", "answer_correct", "trace_correct")
            about = {"seconds": seconds, "asked": n, "date": time.strftime("%Y-%m-%d")}
            rows[cell] = {key: found[key] for key in keys} | about
            right = percent(found["answer_correct"], found["n"])
            where = f"{cell.len_a:>5} {cell.op} {cell.len_b:<5} {cell.stratum:<9}"
            print(f"{where} {right:>5} % of {found['n']:>4}  {seconds:6.1f} s", flush=True)
            if options.out:
                write_atomically(options.out, pd.DataFrame(rows.values()).to_csv(index=False))


if __name__ == "__main__":
    main()
