"""How quick the calculator is: cold, in the prompt, in batches; and the command line's help.

python -m benchmarks.calculator --model RUN
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from addgpt.calculator import Calculator
from addgpt.device import prepare
from addgpt.runs import SHIPPED, Run


def product(rng: np.random.Generator, digits: int) -> str:
    a, b = rng.integers(10 ** (digits - 1), 10**digits, 2)
    return f"{a}*{b}"


def cold(*words: str, times: int = 5) -> float:
    """Median seconds from the start of a process to its end."""
    command = [sys.executable, "-m", "addgpt", *words]
    runs = [spent(lambda: subprocess.run(command, capture_output=True)) for _ in range(times)]
    return statistics.median(runs)


def spent(call) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def race(calculator: Calculator, name: str, problems: list[str], times: int) -> None:
    """Problems one at a time, and together: in turns, since the machine's speed changes."""
    alone, together = [], []
    for turn in range(times):
        for problem in problems[turn::times][:times]:
            alone.append(spent(lambda p=problem: calculator.solve(p)))
        together.append(spent(lambda: calculator.solve_many(problems)) / len(problems))
    one, each = statistics.median(alone), statistics.median(together)
    ratio = f"of {len(problems):,} {1000 * each:.3g} ms each, {one / each:.1f} times as fast"
    print(f"{name + ', alone':30} {one:7.3f} s; {ratio}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    options = parser.parse_args()
    times, many = (2, 20) if options.quick else (5, 500)
    prepare()
    run = Run(options.model)
    calculator = Calculator(run.model(), run.task(), run.name)
    rng = np.random.default_rng(0)
    print(f"addgpt --help                  {cold('--help', times=times):7.3f} s")
    model = ("--model", str(options.model))
    print(f"addgpt calc 12+34, cold        {cold('calc', *model, '12+34', times=times):7.3f} s")
    for name, problem, count in (
        ("8x8 product", lambda: product(rng, 8), many),
        ("12x12 product", lambda: product(rng, 12), many),
        ("8-digit sum", lambda: "{}+{}".format(*rng.integers(10**7, 10**8, 2)), 20 * many),
    ):
        race(calculator, name, [problem() for _ in range(count)], times)
    lines = [
        f"{a}{'+-*/'[o]}{b + 1}"
        for a, b, o in rng.integers(0, 10**6, (40 * many, 3)) % (10**6, 10**6, 4)
    ]
    seconds = spent(lambda: calculator.solve_many(lines))
    print(f"{len(lines):,} mixed problems of up to 6 digits {seconds:.1f} s")


if __name__ == "__main__":
    main()
