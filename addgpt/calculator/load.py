"""The calculator of a trained run."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

RESULTS = "results"


@contextlib.contextmanager
def _for_good() -> Iterator[None]:
    """Imports that stay: looking for garbage among torch's objects is a third of a cold start."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def load_calculator(path: Path | str | None = None):
    """The calculator of a run; by default of the shipped one, or else of the newest."""
    with _for_good():
        from addgpt.calculator.solver import Calculator
        from addgpt.device import prepare
        from addgpt.runs.run import SHIPPED, Run, newest_run

    prepare()
    if path is None:
        path = SHIPPED if (SHIPPED / "config.json").exists() else newest_run(RESULTS)
    run = Run(path)
    return Calculator(run.model(), run.task(), run.name)
