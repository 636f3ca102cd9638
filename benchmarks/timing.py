"""What the benchmarks share: options, taking turns, medians, a table, the line on the machine."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from addgpt.config.schema import RunConfig
from addgpt.device import prepare
from addgpt.runs.run import Run
from addgpt.training.loop import TrainState, train

T = TypeVar("T")


@dataclass(frozen=True)
class Row:
    """One line of a table. `ratio` says how many times better ours is than the reference.

    Args:
        ours, reference: one value per repetition; the median is shown. No reference: no ratio.
        unit: of the values; `seconds` are better when lower, anything else when higher.
        target: what is asked for, as text.
        note: what a reader has to know besides.
    """

    name: str
    unit: str
    ours: Sequence[float]
    reference: Sequence[float] = ()
    target: str = ""
    note: str = field(default="", compare=False)

    @property
    def ratio(self) -> float | None:
        if not self.reference:
            return None
        ours, reference = statistics.median(self.ours), statistics.median(self.reference)
        return reference / ours if self.unit == "seconds" else ours / reference


Measure = Callable[[argparse.Namespace], list[Row]]


def seconds(work: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def interleave(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender, called in turns; one round before the first is not counted."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            took = seconds(work)
            if turn:
                times[name].append(took)
    return times


def by_seed(
    ours: Callable[[int], T], seeds: int, reference: Callable[[int], T], references: int
) -> tuple[list[T], list[T]]:
    """What both find with seeds 0, 1, ..., in turns; each is told of."""
    found: tuple[list[T], list[T]] = [], []
    for seed in range(max(seeds, references)):
        sides = ("ours", ours, seeds), ("reference", reference, references)
        for (name, work, count), results in zip(sides, found, strict=True):
            if seed < count:
                results.append(work(seed))
                say(f"seed {seed}  {name:9}  {results[-1]}")
    return found


def train_until(config: RunConfig, every: int, enough: Callable[[Run, TrainState], bool]) -> None:
    """Train a run in a folder of its own, saved every few steps, until `enough` is true."""
    here = {"threads": torch.get_num_threads(), "eval_every": config.train.steps}
    settings = replace(config.train, save_every=every, **here)
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", replace(config, train=settings))

        def on_step(state: TrainState) -> None:
            if enough(run, state):
                raise _Enough

        with contextlib.suppress(_Enough):
            train(run, on_step)


class _Enough(Exception):
    """Ends a training from its callback."""


def machine() -> str:
    """What the figures depend on besides the code: processor, threads, versions, date."""
    return (
        f"{_processor()}, {os.cpu_count()} CPUs, torch on {torch.get_num_threads()} threads; "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}; "
        f"{time.strftime('%Y-%m-%d')}"
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table, padded so that it reads well as plain text too."""
    lines = [["benchmark", "unit", "ours", "reference", "ratio", "target", "note"]]
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3g} x"
        ours, reference = _median(row.ours), _median(row.reference)
        lines.append([row.name, row.unit, ours, reference, ratio, row.target, row.note])
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        f"| {' | '.join(cell.ljust(w) for cell, w in zip(line, widths, strict=True))} |"
        for line in lines
    )


Options = Callable[[argparse.ArgumentParser], object]


def parser(text: str | None, *more: Options) -> argparse.ArgumentParser:
    """The options that every benchmark has, and those that `more` add."""
    out = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    out.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    for add in more:
        add(out)
    return out


def seeds(parser: argparse.ArgumentParser) -> None:
    """How often each side trains: ours takes seconds, a reference a minute."""
    parser.add_argument("--seeds", type=int, default=3, help="trainings of ours")
    parser.add_argument("--references", type=int, default=1, help="trainings of the reference")


def start(options: argparse.Namespace) -> None:
    """Give all contenders the same threads and the same allocator settings."""
    prepare(options.threads or torch.get_num_threads())
    say(machine())


def main(text: str | None, measure: Measure, *more: Options) -> None:
    """Run one benchmark by itself and print its table; `more` add options of its own."""
    options = parser(text, *more).parse_args()
    start(options)
    print(table(measure(options)))


def say(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)


def _median(values: Sequence[float]) -> str:
    if not values:
        return ""
    value = statistics.median(values)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()
