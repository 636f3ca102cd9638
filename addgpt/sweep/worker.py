"""A worker of a sweep: trains and scores one run after another, and tells how far it is.

`main` pins the process to the cores that its argument names (`0,1`), reads jobs as JSON lines and
answers with events as JSON lines. An event is a dict with the run's `state` (training, scoring, and
at the end done, failed or interrupted) and what else has changed: step, seconds, val_exact, error,
pid.

Nothing heavy is imported before the cores are chosen, so that threads are born on them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from addgpt.sweep.cores import pin

TELL_SECONDS = 1.0  # between events, unless there was a look at val
ENDS = ("done", "failed", "interrupted")

Tell = Callable[[dict[str, Any]], None]


def carry_out(folder: str, score: bool, per_cell: int | None, tell: Tell) -> dict[str, Any]:
    """Train the run in a folder, if it is not finished, and score it; returns the last event.

    An error that is nobody's mistake but ours is raised: it ends the process, whose state may be
    spoilt, and the run.
    """
    from addgpt.device import prepare
    from addgpt.runs.run import Run, RunError
    from addgpt.sweep.plan import finished
    from addgpt.training.loop import Interrupted, train

    try:
        run = Run(folder)
        prepare(run.config.train.threads)
        tell({"state": "training", "pid": os.getpid()})
        if not finished(run):
            train(run, _Watch(tell))
        if score:
            tell({"state": "scoring"})
            _score(run, per_cell)
        return {"state": "done"}
    except Interrupted:
        return {"state": "interrupted"}
    except (RunError, ValueError) as error:
        return failure(str(error))


def _score(run: Any, per_cell: int | None) -> None:
    """Score a run as `addgpt eval` does. Raises RunError if the scores would not count."""
    from addgpt.evaluation import perplexity
    from addgpt.evaluation.scorecard import score_run

    if not run.task().cells():
        perplexity.score_run(run)
        return
    card = score_run(run, per_cell)
    card.facts["command"] = run.config.command  # this process has none of its own
    card.write()
    card.check()


def failure(reason: str) -> dict[str, Any]:
    return {"state": "failed", "error": " ".join(reason.split())}


class _Watch:
    """Tells of training at each look at val, and about once a second."""

    def __init__(self, tell: Tell) -> None:
        self.tell, self.told, self.looked = tell, 0.0, None

    def __call__(self, moment: Any) -> None:
        looked, now = moment.validation.get("step"), time.monotonic()
        if looked == self.looked and now - self.told < TELL_SECONDS:
            return
        self.told, self.looked = now, looked
        event = {"state": "training", "step": moment.step, "seconds": round(moment.seconds, 3)}
        if "val_exact" in moment.validation:
            event["val_exact"] = moment.validation["val_exact"]
        self.tell(event)


def main() -> None:
    pin({int(core) for core in sys.argv[1].split(",")})
    events = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not come between the events

    def tell(event: dict[str, Any]) -> None:
        try:
            events.write(json.dumps(event) + "\n")
        except BrokenPipeError:  # the sweep is gone: save what there is, and end
            signal.raise_signal(signal.SIGTERM)

    for line in sys.stdin:
        tell(carry_out(**json.loads(line), tell=tell))
