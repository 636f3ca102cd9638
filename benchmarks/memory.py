"""Long runs: does memory stay flat, how large do the logs grow, how much time does validation take?

python -m benchmarks.memory --steps 5000
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from addgpt.runs.resolve import configure
from addgpt.runs.run import METRICS, Run
from addgpt.training.loop import TrainState, train
from benchmarks.timing import machine

LINES = 10


def resident() -> float:
    """MiB of memory that this process has in use."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", default="calc")
    parser.add_argument("--digits", default="4")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--width", default="32")
    options = parser.parse_args()
    settings = {
        "digits": options.digits, "width": options.width, "layers": "1", "heads": "2",
        "steps": str(options.steps), "batch_size": "32", "micro_batch": "8", "eval_every": "50",
        "eval_size": "100", "save_every": "100",
    }  # fmt: skip
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        run = Run.create(Path(folder) / "run", configure(options.task, settings))
        seen: list[float] = []

        def on_step(state: TrainState) -> None:
            if state.step % max(1, options.steps // LINES) == 0:
                seen.append(resident())
                size = (run.path / METRICS).stat().st_size
                print(f"step {state.step:,}: {seen[-1]:.1f} MiB, metrics {size:,} bytes")

        began = time.perf_counter()
        end = train(run, on_step)
        took = time.perf_counter() - began
        files = sum(file.stat().st_size for file in run.path.iterdir())
    print(f"from the second line to the last: {seen[-1] - seen[1]:+.1f} MiB")
    print(f"the run folder: {files:,} bytes")
    print(f"validation and checkpoints: {100 * (1 - end.seconds / took):.1f} % of {took:.0f} s")


if __name__ == "__main__":
    main()
