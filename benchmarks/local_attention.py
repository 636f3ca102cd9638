"""How fast a model writes and reads, by length, where each token sees all before it, or only a few.

    python -m benchmarks.local_attention
    python -m benchmarks.local_attention --quick

One block of the calculator's width, untrained, and the work of products. `written` is decoding of
one row token by token (local attention in numpy: addgpt/generation/one_row.py), `read` one pass
over the same work, as a draft is checked; memory is the most that the process had in use. The
reference is full attention.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from addgpt.config.architectures import GPTConfig
from addgpt.generation.decode import generate
from addgpt.model.build import Model, build
from addgpt.model.forward import loss
from addgpt.runs.resolve import configure
from addgpt.task import Problem
from addgpt.task_lookup import load_task
from benchmarks import timing

LONGEST, SIZES, QUICK = 100, (5, 20, 50), (5, 10)
ROUNDS, FEW = 3, 1  # of products; of those of 50 digits and more, which take seconds each
NO_TOKEN = 255  # as the end mark: untrained models write to the limit
LOCAL = ("reads", "window")
CARRY = {f"{op}_trace": "carry" for op in ("add", "sub", "mul", "div")}


def peak_memory() -> float:
    """MiB that this process had in use at most, as Linux counts."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "no VmHWM in /proc/self/status"
    return int(found[1]) / 1024


def measure(options: argparse.Namespace) -> list[timing.Row]:
    rows, sizes = [], QUICK if options.quick else SIZES
    if not options.quick:
        rows += rates(LONGEST, LOCAL, FEW)  # full attention would take gigabytes
        most = peak_memory()
        timing.say(f"memory of local attention: at most {most:,.0f} MiB")
    for size in sizes:
        rows += rates(size, (*LOCAL, "full"), FEW if options.quick or size >= 50 else ROUNDS)
    return rows


def rates(size: int, patterns: tuple[str, ...], rounds: int) -> list[timing.Row]:
    """Tokens a second of products of `size` digits."""
    work: dict[str, Callable[[], object]] = {}
    for name in patterns:
        task, model = _model(name)
        rng = np.random.default_rng(size)
        a, b = (int("".join(map(str, rng.integers(1, 10, size)))) for _ in range(2))
        prompt = task.encode(task.prompt(Problem("*", (a, b))))[None]
        batch = task.reference(prompt)
        count = int(batch.lengths[0]) - prompt.shape[1]
        work[f"{name} written"] = _writing(model, task, prompt, count)
        work[f"{name} read"] = _reading(model, batch)
    times = timing.interleave(work, rounds)
    found = {key: [count / t for t in took] for key, took in times.items()}
    for key, values in found.items():
        timing.say(f"{size}x{size} {key}: {np.median(values):,.0f} tokens a second")
    return [
        timing.Row(
            f"{size}x{size} product, {name}",
            f"tokens {way} a second",
            found[f"{name} {way}"],
            found.get(f"full {way}", ()),
            note=f"{count:,} tokens",
        )
        for name in LOCAL
        for way in ("written", "read")
    ]


def _writing(model: Model, task, prompt: np.ndarray, count: int) -> Callable[[], object]:
    return lambda: generate(model, task.positions, prompt, count, NO_TOKEN)


def _reading(model: Model, batch) -> Callable[[], object]:
    return lambda: loss(model, batch)


def _model(attention: str):
    """The calculator's task and an untrained model of it."""
    settings = CARRY | {"digits": 4, "sum_digits": 5, "layers": 1, "attention": attention}
    config = configure("calc", settings)
    assert isinstance(config.model, GPTConfig)
    return load_task(config.task, config.options), build(config.model).eval()


if __name__ == "__main__":
    timing.main(__doc__, measure)
