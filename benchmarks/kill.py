"""Kill -9 a training at random moments, resume it, and see whether it ends as if never killed.

python -m benchmarks.kill --kills 30

The training is tiny, with dropout and Muon, and writes a checkpoint every few steps; flushing a
file to the disk is slowed down, so that many kills fall into the writing of one. After every kill
the folder must be sound and no older than it was; every run that ends must have the weights,
optimizer and metrics of one that was never killed, bit by bit (but for the seconds it took).
"""

from __future__ import annotations

import argparse
import contextlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from addgpt.runs.checkpoint import read_tensors
from addgpt.runs.run import STATE, Run

PROGRAM = """
import os, time
import addgpt.training.loop, addgpt.training.progress
from addgpt.cli.main import main
flush = os.fsync
os.fsync = lambda handle: (time.sleep(SLOW), flush(handle))[1]
print("ready", flush=True)
main()
"""
SETTINGS = (
    "steps=60 save_every=5 eval_every=5 layers=1 width=16 heads=2 batch_size=16 eval_size=32 "
    "dropout=0.1 optimizer=muon threads=1"
).split()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--slow", type=float, default=0.03, help="seconds that a flush takes more")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole"
        changes = attempt(whole, options.slow, None, 0)[1]
        wanted = content(whole)
        kills = writing = ended = 0
        path = Path(folder) / "killed"
        while kills < options.kills or path.exists():
            more = kills < options.kills
            step = saved_step(path)
            after = rng.randint(0, changes // 3) if more else None
            if attempt(path, options.slow, after, rng.uniform(0, 2 * options.slow))[0]:
                kills += 1
                writing += bool(list(path.glob(".*.tmp")))
                assert saved_step(path) >= step, "a checkpoint was lost"
                print(f"kill {kills}: at step {saved_step(path)}", file=sys.stderr)
                continue
            assert content(path) == wanted, "the run did not end as one that was never killed"
            ended += 1
            shutil.rmtree(path)
    print(f"{kills} kills, {writing} of them while a file was being written; {ended} runs ended,")
    print("each with the weights, optimizer and metrics of a run that was never killed")


def start(path: Path, slow: float) -> subprocess.Popen:
    """Begin or go on with a training; returns once it is about to."""
    words = ["train", "--task", "add", "--digits", "2", "--resume", "--out", str(path)]
    words += [word for pair in SETTINGS for word in ("--set", pair)]
    code = PROGRAM.replace("SLOW", str(slow))
    with open(path.with_name("errors"), "w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=errors, text=True
        )
    process.stdout.readline()
    return process


def attempt(path: Path, slow: float, after: int | None, seconds: float) -> tuple[bool, int]:
    """Train until the folder has changed so often, and so long after, or else to the end.

    Whether it was killed, and how often the folder changed. Counting changes rather than seconds
    spreads the kills over the whole run, however busy the machine is.
    """
    process, changes, before = start(path, slow), 0, seen(path)
    while process.poll() is None:
        now = seen(path)
        changes, before = changes + (now != before), now
        if after is not None and changes >= after:
            time.sleep(seconds)
            process.kill()
            if process.wait() == -signal.SIGKILL:
                return True, changes
        time.sleep(0.001)
    assert process.returncode == 0, path.with_name("errors").read_text()
    return False, changes


def seen(path: Path) -> list[tuple]:
    """What is in a folder: names, sizes and times."""
    found = []
    for file in path.iterdir() if path.exists() else ():
        with contextlib.suppress(OSError):
            found.append((file.name, file.stat().st_size, file.stat().st_mtime_ns))
    return sorted(found)


def saved_step(path: Path) -> int:
    """The step of the checkpoint that resuming would go on from; -1 if there is none yet.

    Raises RunError if anything in the folder is damaged.
    """
    if not (path / "config.json").exists():
        return -1
    run = Run(path)
    if not run.started:
        return -1
    progress = run.state()[1]
    run.metrics()
    return progress["step"]


def content(path: Path) -> tuple[dict, dict, list]:
    """Tensors, progress and metrics of a run that ended, but for the seconds it took."""
    run = Run(path)
    tensors, progress = read_tensors(path / STATE)
    same = {name: tensor for name, tensor in run.model().state_dict().items()}
    assert all((tensors[f"model.{name}"] == same[name]).all() for name in same)
    progress = {key: value for key, value in progress.items() if key not in ("seconds", "log")}
    metrics = [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics()]
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, progress, metrics


if __name__ == "__main__":
    main()
