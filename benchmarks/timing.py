"""What the benchmarks share: taking turns, medians, one table, the line about the machine."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from addgpt.device import prepare


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


def parser(text: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    out = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    out.add_argument("--quick", action="store_true", help="a smoke run of a few seconds")
    out.add_argument("--threads", type=int, default=0, help="CPU threads (0: all cores)")
    return out


def start(options: argparse.Namespace) -> None:
    """Give all contenders the same threads and the same allocator settings."""
    prepare(options.threads or torch.get_num_threads())
    say(machine())


def main(options: argparse.Namespace, measure: Measure) -> None:
    """Run one benchmark and print its table."""
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
