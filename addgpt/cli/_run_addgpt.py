"""What the process of a run in a sweep calls. Such processes are forked from one that has imported
this, so all that a run is likely to need is imported here, not when it is first used."""

from __future__ import annotations

import addgpt.cli._scoring
import addgpt.cli.eval
import addgpt.cli.train
import addgpt.runs.resolve
import addgpt.training.logs
import addgpt.training.loop
import addgpt.training.preflight  # noqa: F401
from addgpt.cli.main import main


def run_addgpt(words: list[str]) -> None:
    """Carry out the words after `addgpt`. Raises SystemExit if the command does."""
    main(words)
