"""How quick the calculator is: cold, in the prompt, in batches; and the command line's help.

python -m benchmarks.calculator --model RUN
"""

from __future__ import annotations

import argparse
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
    return median(
        lambda: subprocess.run([sys.executable, "-m", "addgpt", *words], capture_output=True), times
    )


def median(call, times: int) -> float:
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        spent.append(time.perf_counter() - began)
    return float(np.median(spent))


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
    for digits in (8, 12):
        alone = median(lambda d=digits: calculator.solve(product(rng, d)), times)
        problems = [product(rng, digits) for _ in range(many)]
        began = time.perf_counter()
        calculator.solve_many(problems)
        each = (time.perf_counter() - began) / many
        ratio = f"batched {each:.4f} s each, {alone / each:.1f} times as fast"
        print(f"{digits:2}x{digits:<2} product, alone          {alone:7.3f} s; {ratio}")
    sums = [f"{a}+{b}" for a, b in rng.integers(0, 10**8, (20 * many, 2))]
    alone = median(lambda: calculator.solve(f"{rng.integers(10**8)}+{rng.integers(10**8)}"), times)
    began = time.perf_counter()
    calculator.solve_many(sums)
    each = (time.perf_counter() - began) / len(sums)
    print(
        f"8-digit sum, alone             {alone:7.3f} s; batched {alone / each:.1f} times as fast"
    )
    lines = [
        f"{a}{'+-*/'[o]}{b + 1}"
        for a, b, o in rng.integers(0, 10**6, (40 * many, 3)) % (10**6, 10**6, 4)
    ]
    began = time.perf_counter()
    calculator.solve_many(lines)
    print(f"{len(lines):,} mixed problems of up to 6 digits {time.perf_counter() - began:.1f} s")


if __name__ == "__main__":
    main()
