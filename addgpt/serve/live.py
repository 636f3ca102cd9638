"""The runs of a results folder as they are now: curves, and exact match by operand length."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

from addgpt.evaluation.schema import read_eval
from addgpt.runs.files import RunError
from addgpt.runs.run import CONFIG, METRICS, Run
from addgpt.task_lookup import short

SHOWN = 20  # runs, those that changed last
POINTS = 150  # of a curve, at most


def runs(results: Path) -> list[dict[str, Any]]:
    """What the page shows of each run, those that changed last first. Damaged ones say so."""
    found = []
    for file in results.rglob(CONFIG):
        parts = file.parent.relative_to(results).parts
        if not any(part.startswith(".") or part == "reference" for part in parts):
            found.append((_changed(file.parent), file.parent))
    return [_shown(*run, results) for run in sorted(found, reverse=True)[:SHOWN]]


def _changed(path: Path) -> float:
    times = [0.0]
    for name in (METRICS, CONFIG, "eval.csv"):
        with contextlib.suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return max(times)


def _shown(changed: float, path: Path, results: Path) -> dict[str, Any]:
    name = path.relative_to(results).as_posix() if path != results else path.name
    about = {"name": name, "wrong": False, "loss": [], "exact": [], "cells": []}
    try:
        run = Run(path)
        rows = run.metrics()
        rows = rows[::-1][:: -(-len(rows) // POINTS) or 1][::-1]  # the last among them
        step = f"step {rows[-1]['step'] if rows else 0:,} of {run.config.train.steps:,}"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(changed))
        return about | {
            "text": f"{short(run.config.task)}, {step}, last written {when}",
            "loss": _curve(rows, "val_loss"),
            "exact": _curve(rows, "val_exact"),
            "cells": _cells(path / "eval.csv"),
        }
    except (RunError, ValueError, KeyError, TypeError, OSError) as error:
        return about | {"text": str(error), "wrong": True}


def _curve(rows: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    return [(row["step"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan))]


def _cells(path: Path) -> list[tuple[str, int, int, int, int]]:
    """Of each pair of lengths: op, digits of either operand, right answers, n."""
    right, n = Counter[tuple[str, int, int]](), Counter[tuple[str, int, int]]()
    for row in read_eval(path) if path.is_file() else ():
        where = row["op"], row["len_a"], row["len_b"]
        right[where] += row["answer_correct"]
        n[where] += row["n"]
    return [(*where, right[where], count) for where, count in n.items() if count]
