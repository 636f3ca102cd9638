"""Seconds of training to 99 % exact match on held-out 3-digit sums: our recipe, minGPT's adder.

Both train from scratch, in turns, seed by seed, and are scored every few steps until they first get
99 % of the same 2,000 held-out sums of two numbers of three digits right. Only training counts
(drawing and writing problems, forward, backward, optimizer), not the scoring. Ours is the default
of `addgpt train --task add --digits 3`; the reference is described in `benchmarks/mingpt.py`. How
many of 2,000 held-out sums of one to three digits each gets right is given as well.

    python -m benchmarks.time_to_99
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import dataclass

import numpy as np

from addgpt.evaluation.exact_match import score
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Batch, Cell, Task
from addgpt.task_lookup import load_task
from addgpt.training.loop import TrainState
from benchmarks import mingpt, timing

GOAL = 0.99
FULL = Cell("+", mingpt.DIGITS, mingpt.DIGITS)
EXAM, EXAM_SEED = 2000, 99
OUR_LOOKS, REFERENCE_LOOKS = 20, 100  # steps between scores: about equal shares of each one's time
CAP = 6000  # iterations of the reference
TARGET = "at least 10 x"


@dataclass(frozen=True)
class Result:
    """Where a training was when it first reached the goal, or when it was over."""

    steps: int
    seconds: float
    full: float  # share right of the sums of full length
    mixed: float  # share right of the sums of all lengths
    reached: bool

    def __str__(self) -> str:
        never = "" if self.reached else " (goal not reached)"
        return (
            f"{self.seconds:7.2f} s, {self.steps:5d} steps, {1000 * self.seconds / self.steps:.1f} "
            f"ms each: {100 * self.full:.2f} % of full length, {100 * self.mixed:.2f} % of all "
            f"lengths{never}"
        )


def ours(task: Task, seed: int, exams: tuple[Batch, Batch], steps: int) -> Result:
    """Train by the default recipe; `steps` (0: the recipe's) is where to give up."""
    config = configure(task.name, {"digits": str(mingpt.DIGITS)}, seed)
    steps = min(steps or config.train.steps, config.train.steps)
    found: list[Result] = []

    def look(run: Run, state: TrainState) -> bool:
        if state.step % OUR_LOOKS and state.step < steps:
            return False
        full, mixed = (float(score(run.model(), task, e).answer_correct.mean()) for e in exams)
        found.append(Result(state.step, state.seconds, full, mixed, full >= GOAL))
        return found[-1].reached or state.step >= steps

    timing.train_until(config, OUR_LOOKS, look)
    return found[-1]


def reference(task: Task, seed: int, exams: tuple[Batch, Batch], cap: int) -> Result:
    """Train minGPT's adder, for at most `cap` iterations."""
    operands = [_operands(task, exam) for exam in exams]
    found: list[Result] = []

    def look(training: mingpt.Training) -> bool:
        if training.iterations % REFERENCE_LOOKS and training.iterations < cap:
            return False
        full, mixed = (float(mingpt.right(training.model, *pair).mean()) for pair in operands)
        found.append(Result(training.iterations, training.seconds, full, mixed, full >= GOAL))
        return found[-1].reached

    mingpt.train(seed, cap, look)
    return found[-1]


def measure(options: argparse.Namespace) -> list[timing.Row]:
    counts, cap, steps = (options.seeds, options.references), options.cap, 0
    if options.quick:
        counts, cap, steps = (1, 1), 100, 40
    task = load_task("add", {"digits": mingpt.DIGITS})
    rng = np.random.default_rng(EXAM_SEED)
    exams = task.evaluation_set(rng, EXAM, "test", FULL), task.batch(rng, EXAM, "test")
    mine, other = timing.by_seed(
        lambda seed: ours(task, seed, exams, steps), counts[0],
        lambda seed: reference(task, seed, exams, cap), counts[1],
    )  # fmt: skip
    note = f"{_reached('ours', mine)}, {_reached('reference', other)}; worst of ours " + (
        f"{max(r.seconds for r in mine):.3g} s; all lengths then "
        f"{100 * statistics.median(r.mixed for r in mine):.1f} %, "
        f"{100 * statistics.median(r.mixed for r in other):.1f} %"
    )
    times = [[result.seconds for result in some] for some in (mine, other)]
    return [timing.Row("3-digit addition to 99 %", "seconds", *times, TARGET, note)]


def add_options(parser: argparse.ArgumentParser) -> None:
    timing.seeds(parser)
    parser.add_argument("--cap", type=int, default=CAP, help="iterations of the reference")


def _reached(name: str, results: list[Result]) -> str:
    return f"{name} {sum(r.reached for r in results)} of {len(results)} seeds"


def _operands(task: Task, exam: Batch) -> tuple[np.ndarray, np.ndarray]:
    """The operands of a batch of sums as integers."""
    pairs = [task.decode(row).partition("=")[0].split("+") for row in exam.tokens]
    a, b = np.array(pairs, dtype=np.int64).T
    return a, b


if __name__ == "__main__":
    timing.main(__doc__, measure, add_options)
