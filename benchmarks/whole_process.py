"""Seconds of whole processes, from start to exit, to 99 % of held-out 3-digit sums.

Ours is `addgpt train --task add --digits 3 --stop-at 0.99`: start, imports, training, a validation
pass each 25 steps on 1,000 problems, the saved run. The reference is minGPT's adder
(`benchmarks/mingpt.py`), scored every 250 iterations on about 2,000 problems; it saves nothing.
In turns, seed by seed, one thread each.

    python -m benchmarks.whole_process
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import timing

TARGET = "at least 13 x"
ROOT = Path(__file__).parents[1]


def run(*words: str) -> float:
    """Seconds of a Python process on one thread. Raises CalledProcessError if it fails."""
    places = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": places}

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", *words]
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            subprocess.run(command, cwd=folder, env=environment, check=True, **quiet)

    return timing.seconds(work)


def measure(options: argparse.Namespace) -> list[timing.Row]:
    ours = "addgpt train --task add --digits 3 --stop-at 0.99 --set threads=1 --out run".split()
    reference = "benchmarks.mingpt --threads 1 --stop-at 0.99 --iterations 6000".split()
    counts = options.seeds, options.references
    if options.quick:
        ours, reference, counts = [*ours, "--set", "steps=20"], [*reference, "--quick"], (1, 1)
    times = timing.by_seed(
        lambda seed: run(*ours, "--seed", str(seed)), counts[0],
        lambda seed: run(*reference, "--seed", str(seed)), counts[1],
    )  # fmt: skip
    note = "whole processes, one thread; {} seeds of ours, {} of the reference; "
    note = note.format(*map(len, times)) + f"ours at worst {max(times[0]):.3g} s"
    name = "3-digit addition to 99 %, start to exit"
    return [timing.Row(name, "seconds", *times, TARGET, note)]


if __name__ == "__main__":
    timing.main(__doc__, measure, timing.seeds)
