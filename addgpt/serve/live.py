"""The runs of a results folder as they are now: curves, and exact match by operand length."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

from addgpt.evaluation.schema import read_eval
from addgpt.runs.files import RunError, locked
from addgpt.runs.run import CONFIG, METRICS, Run
from addgpt.task_lookup import short

SHOWN = 20  # runs, those that changed last
POINTS = 150  # of a curve
CURVES = ("step", "loss", "val_loss", "val_exact")


def runs(results: Path) -> list[dict[str, Any]]:
    """What the page shows of each run, those that changed last first. Damaged ones say so."""
    found = [file.parent for file in results.rglob(CONFIG) if _visible(file, results)]
    found.sort(key=_changed, reverse=True)
    return [_shown(path, results) for path in found[:SHOWN]]


def _visible(file: Path, results: Path) -> bool:
    parts = file.parent.relative_to(results).parts
    return not any(part.startswith(".") or part == "reference" for part in parts)


def _changed(path: Path) -> float:
    times = [0.0]
    for name in (METRICS, CONFIG, "eval.csv"):
        with contextlib.suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return max(times)


def _shown(path: Path, results: Path) -> dict[str, Any]:
    name = path.relative_to(results).as_posix() if path != results else path.name
    about: dict[str, Any] = {"name": name, "age": time.time() - _changed(path)}
    try:
        run = Run(path)
        rows = run.metrics()
        about |= {
            "task": short(run.config.task),
            "steps": run.config.train.steps,
            "training": _is_locked(path),
            "curves": {key: [row.get(key) for row in _thinned(rows)] for key in CURVES},
            "maps": _maps(path) if (path / "eval.csv").is_file() else {},
        }
    except (RunError, ValueError, OSError) as error:
        about["error"] = str(error)
    return about


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """At most POINTS of the rows, evenly spaced, the last among them."""
    step = -(-len(rows) // POINTS) or 1
    return rows[::-1][::step][::-1]


def _maps(path: Path) -> dict[str, list[list[int]]]:
    """By operation, [digits of the first operand, of the second, right answers, n] of each cell."""
    cells: dict[str, dict[tuple[int, int], list[int]]] = {}
    for row in read_eval(path / "eval.csv"):
        cell = cells.setdefault(row["op"], {}).setdefault((row["len_a"], row["len_b"]), [0, 0])
        cell[0] += row["answer_correct"]
        cell[1] += row["n"]
    return {op: [[*cell, *counts] for cell, counts in map_.items()] for op, map_ in cells.items()}


def _is_locked(path: Path) -> bool:
    """Whether a process is training it."""
    if not (path / ".lock").exists():
        return False
    try:
        with locked(path / ".lock", "training"):
            return False
    except RunError:
        return True
