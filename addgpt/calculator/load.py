"""The calculator of a trained run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from addgpt.calculator.solver import Calculator


@contextlib.contextmanager
def _for_good() -> Iterator[None]:
    """Import without garbage collection: it would take a third of a cold start, and find
    nothing."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_calculator(name: Path | str | None = None) -> Calculator:
    """The calculator of a run; by default of the shipped one, or else of the newest.

    Raises RunError if there is no such run, ValueError if it is no calculator.
    """
    with _for_good():
        from addgpt.calculator.solver import Calculator
        from addgpt.device import prepare
        from addgpt.runs.run import RESULTS, SHIPPED, Run, newest_run, run_path

    prepare()
    if name is None:
        name = SHIPPED if (SHIPPED / "config.json").exists() else newest_run(RESULTS)
    run = Run(run_path(name))
    task = run.task()
    smoothing = run.config.train.label_smoothing
    proved = run.proved()
    return Calculator(run.model(), task, run.name, smoothing=smoothing, proved=proved)
