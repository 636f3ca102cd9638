"""Synthetic run folders, with scores as they should be read."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from analysis import load


def write_run(
    path: Path,
    options: dict,
    task: str = "add",
    seed: int = 0,
    looks: int = 5,
    cells: list[dict] | None = None,
    judged: bool = True,
) -> Path:
    """A run folder with `looks` logged steps and the given evaluation cells."""
    path.mkdir(parents=True)
    config = {"task": task, "seed": seed, "options": options, "model": {"layers": 1}}
    config |= {"train": {"lr": 0.01, "eval_size": 500}, "command": f"train {task}", "format": 1}
    (path / "config.json").write_text(json.dumps(config))
    with open(path / "metrics.jsonl", "w") as file:
        for i in range(1, looks + 1):
            look = {"step": 10 * i, "examples": 1280 * i, "tokens": 9000 * i, "seconds": 1.5 * i}
            look |= {"loss": 2.0 / i**3, "val_loss": 2.1 / i**3}
            look |= {"val_exact": 1 - 0.9 ** (i + seed)} if judged else {}
            file.write(json.dumps(look) + "\n")
    if cells is not None:
        write_eval(path, cells, task, seed)
    return path


def write_eval(path: Path, cells: list[dict], task: str, seed: int) -> None:
    same = {"run": "old name", "task": task, "seed": seed, "params": 50000, "step": 50}
    same |= {"examples": 6400, "seconds": 7.5, "split": "test", "unterminated": 0}
    with open(path / "eval.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, load.EVAL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(same | cell for cell in cells)


def cell(op: str, a: int, b: int, right: int, n: int = 1000, stratum: str = "all") -> dict:
    seen = a + b <= 2
    values = {"op": op, "len_a": a, "len_b": b, "stratum": stratum, "seen": seen, "n": n}
    return values | {"answer_correct": right, "trace_correct": right}


def grid(op: str, size: int, trained: int, seed: int = 0) -> list[dict]:
    """All cells up to a size: right up to the trained length, worse and worse beyond it."""
    cells = []
    for a in range(1, size + 1):
        for b in range(1, size + 1):
            n = 100 if a == b == 1 else 1000
            beyond = max(0, max(a, b) - trained)
            right = int(n * 0.5**beyond) - (seed + 1 if a + b > 2 * trained - 1 else 0)
            cells.append(cell(op, a, b, right, n))
    return cells


def special(op: str, a: int, b: int) -> list[dict]:
    names = ["zeros", "equal", "nines", "power", *(f"carry:{k}" for k in range(a + 1))]
    return [cell(op, a, b, 1000 - 3 * i, stratum=name) for i, name in enumerate(names)]
