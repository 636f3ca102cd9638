"""How quick the calculator is: cold, alone, in batches.

    python -m benchmarks.calculator
    python -m benchmarks.calculator --run results/calc
    python -m benchmarks.calculator --compare 10000 --seed 7

The reference of a batch is the same problems one at a time, decoded token by token as in the
prompt; rows without a reference say how long a person waits. With `--compare` nothing is timed: so
many random expressions, as people type them, are compared with Python's parser and fractions.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time

import numpy as np

from addgpt.calculator.numbers import Rules
from addgpt.calculator.solver import Calculator
from addgpt.runs.run import SHIPPED, Run
from benchmarks import evaluation, timing
from tests.helpers.desk import as_typed, evaluate, random_expression

PRODUCTS, SUMS, MIXED, ALONE, ROUNDS = 500, 10_000, 20_000, 5, 3
TARGET = "at least 50 x"


def cold(name: str, target: str, *words: str, times: int) -> timing.Row:
    """Seconds from the start of a process to its end."""
    command = [sys.executable, "-m", "addgpt", *words]
    took = [
        timing.seconds(lambda: subprocess.run(command, capture_output=True, check=True))
        for _ in range(times)
    ]
    return timing.Row(name, "seconds", took, target=target)


def race(
    calculator: Calculator, name: str, limit: str, problems: list[str], rounds: int
) -> list[timing.Row]:
    """Problems one at a time and together, in turns: seconds alone, and problems a second."""
    few = problems[:ALONE]
    contenders = {
        "alone": lambda: [calculator.solve(problem) for problem in few],
        "together": lambda: calculator.solve_many(problems),
    }
    took = timing.interleave(contenders, rounds)
    alone = [seconds / len(few) for seconds in took["alone"]]
    ours = [len(problems) / seconds for seconds in took["together"]]
    note = f"batch of {len(problems):,}; reference: one by one"
    return [
        timing.Row(f"{name} alone", "seconds", alone, target=limit),
        timing.Row(
            f"{name}s in a batch", "a second", ours, [1 / each for each in alone], TARGET, note
        ),
    ]


def compare(calculator: Calculator, count: int, seed: int) -> tuple[int, int, int]:
    """How many random expressions were answered, by how many operations, and how many refused.

    They have decimals, brackets, powers and remainders, and are typed as people type them. Raises
    SystemExit with the first that is wrong, or refused although it has one value.
    """
    rng, answered, operations, refused = random.Random(seed), 0, 0, 0
    while answered + refused < count:
        digits = rng.choice([12, 12, 12, 3, 1, 25])
        drawn = [random_expression(rng, 2) for _ in range(min(100, count - answered - refused))]
        typed = [as_typed(rng, python) for python in drawn]
        solutions = calculator.solve_many(typed, Rules(digits=digits))
        for python, text, found in zip(drawn, typed, solutions, strict=True):
            try:
                wanted = evaluate(python, digits)
            except ArithmeticError:
                wanted = None
            if found.error is not None:  # there is none, two readings are possible, or it is huge
                right = wanted is None or "may be" in found.error or "digits" in found.error
                refused += 1
            else:
                right = bool(found.correct) and (found.value, found.rounded) == wanted
                answered, operations = answered + 1, operations + len(found.steps)
            if not right:
                raise SystemExit(f"{text!r}, {digits} digits: {found}, not {wanted}")
        timing.say(f"{answered:,} answered, {refused:,} refused")
    return answered, operations, refused


def compared(options: argparse.Namespace) -> list[timing.Row]:
    """A row of `compare`."""
    run = Run(options.run or SHIPPED)
    calculator, began = Calculator(run.model(), run.task(), run.name), time.perf_counter()
    counts = compare(calculator, options.compare, options.seed)
    note = "{:,} answered by {:,} operations, 0 wrong; {:,} refused".format(*counts)
    name = f"{options.compare:,} expressions, seed {options.seed}"
    return [timing.Row(name, "seconds", [time.perf_counter() - began], note=note)]


def measure(options: argparse.Namespace) -> list[timing.Row]:
    path = options.run or SHIPPED
    if not (path / "model.safetensors").exists():
        timing.say(f"no calculator in {path}: left out")
        return []
    share, rounds = (25, 1) if options.quick else (1, ROUNDS)
    run = Run(path)
    calculator = Calculator(run.model(), run.task(), run.name)
    rng = np.random.default_rng(0)

    def drawn(op: str, digits: int, count: int) -> list[str]:
        pairs = rng.integers(10 ** (digits - 1), 10**digits, (count // share, 2))
        return [f"{a}{op}{b}" for a, b in pairs]

    rows = [
        cold("addgpt --help", "under 0.3 s", "--help", times=rounds),
        cold("addgpt calc 12+34", "under 2 s", "calc", "--model", str(path), "12+34", times=rounds),
        *race(calculator, "8x8 product", "under 0.7 s", drawn("*", 8, PRODUCTS), rounds),
        *race(calculator, "12x12 product", "under 1.5 s", drawn("*", 12, PRODUCTS), rounds),
        *race(calculator, "8-digit sum", "", drawn("+", 8, SUMS), rounds),
    ]
    numbers = rng.integers(0, 10**6, (MIXED // share, 3))
    mixed = [f"{a}{'+-*/'[op % 4]}{b + 1}" for a, b, op in numbers]
    took = [timing.seconds(lambda: calculator.solve_many(mixed))]
    name = f"{len(mixed):,} mixed problems of up to 6 digits"
    return [*rows, timing.Row(name, "seconds", took, target="under 120 s")]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--compare", type=int, default=0, metavar="N", help="expressions")
    parser.add_argument("--seed", type=int, default=0, help="of the expressions")


if __name__ == "__main__":
    timing.main(
        __doc__,
        lambda options: (compared if options.compare else measure)(options),
        evaluation.add_options,
        add_options,
    )
