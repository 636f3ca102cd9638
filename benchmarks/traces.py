"""Which scratchpad learns best in equal training time?

Each design of an operation trains for the same number of seconds of one core's time (the steps that
fit are measured first, so that the learning rate decays over the whole time), then is scored on
held-out problems. Processor time is counted, not the clock, so that other work matters little.

    python -m benchmarks.traces --seconds 75 --out results/reference/traces.csv
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from addgpt.evaluation.exact_match import evaluate
from addgpt.evaluation.schema import csv_text
from addgpt.runs.files import write_atomically
from addgpt.runs.provenance import versions
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Cell
from addgpt.training.loop import train

LOCAL = {"trace": "carry", "attention": "reads"}  # of the others all tokens see all before them
DESIGNS = {
    "add": ({"format": "plain"}, {"format": "reverse"}, {"trace": "carry"}, LOCAL),
    "sub": (
        {"trace": "none", "sign": "before"},
        {"trace": "none", "sign": "after"},
        {"trace": "borrow"},
        {"trace": "carry"},
        LOCAL,
    ),
    "mul": ({"trace": "none"}, {"trace": "rows"}, {"trace": "carry"}, LOCAL),
    "div": (
        {"trace": "none"},
        {"trace": "doubling"},
        {"trace": "carry"},
        LOCAL,
    ),
}
SHAPE = {"layers": "2", "width": "128", "batch_size": "64", "muon_lr": "0.02", "lr": "0.003"}
SHAPE |= {"threads": "1", "level_position": "rotary,rotary,learned"}
SHAPE |= {"attention": "full", "label_smoothing": "0", "micro_batch": "0"}
WARM, TIMED = 3, 8


def named(options: dict) -> str:
    """What a design is called: `rows`, `carry,reads`."""
    return ",".join(options.values())


def step_seconds(config, folder: Path) -> float:
    """Median seconds of a training step, of processor time."""
    marks: list[float] = []
    train(Run.create(folder, config), lambda moment: marks.append(time.process_time()))
    return float(np.median(np.diff(marks[WARM:])))


def compare(name: str, options: dict, digits: int, seconds: float, seed: int) -> list[dict]:
    """Train one design and score its cells."""
    settings = SHAPE | options | {"digits": str(digits)}
    probe = settings | {"steps": str(WARM + TIMED), "eval_every": "1000", "eval_size": "1"}
    with tempfile.TemporaryDirectory() as folder:
        pace = step_seconds(configure(name, probe, seed), Path(folder) / "probe")
        steps = max(20, int(seconds / pace))
        final = settings | {"steps": str(steps), "eval_every": str(steps), "eval_size": "100"}
        run = Run.create(Path(folder) / "run", configure(name, final, seed))
        began = time.process_time()
        end = train(run)
        spent = time.process_time() - began
        task, model = run.task(), run.model()
        cells = [Cell(task.op, digits, m) for m in sorted({1, (digits + 1) // 2, digits})]
        facts = {"task": name, "design": named(options), "digits": digits, "seed": seed}
        facts |= {"steps": end.step}
        facts |= {"cpu_seconds": round(spent, 1), "tokens": end.tokens}
        facts |= {"longest": task.longest(), "date": time.strftime("%Y-%m-%d")}
        return [
            facts | {key: row[key] for key in ("len_a", "len_b", "n", "answer_correct")}
            for row in evaluate(model, task, cells, per_cell=500)
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=75.0, help="training time of each design")
    parser.add_argument("--digits", type=int, default=4, help="longest operand of * and /")
    parser.add_argument("--sum-digits", type=int, default=10, help="longest operand of + and -")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tasks", default="add,sub,mul,div")
    parser.add_argument("--designs", nargs="+", help="these alone, such as rows carry,reads")
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    parser.add_argument("--out", type=Path, help="csv to write")
    options = parser.parse_args()
    seconds = 1.0 if options.quick else options.seconds
    rows: list[dict] = []
    for name in options.tasks.split(","):
        digits = options.sum_digits if name in ("add", "sub") else options.digits
        for design in DESIGNS[name]:
            if options.designs and named(design) not in options.designs:
                continue
            for seed in range(options.seeds):
                rows += compare(name, design, digits, seconds, seed)
                if options.out:
                    write_atomically(options.out, csv_text(rows[0], rows))
                for row in rows[-3:]:
                    share = 100 * row["answer_correct"] / row["n"]
                    cell = f"{row['len_a']}x{row['len_b']}"
                    print(f"{name} {row['design']:<14} {cell:>6} {share:6.1f} %", row, flush=True)
    print(versions(), file=sys.stderr)


if __name__ == "__main__":
    main()
