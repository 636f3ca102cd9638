"""`--log`: the curves and settings of a training, where people look at them.

    csv          metrics.csv in the run folder
    tensorboard  tensorboard/ in the run folder: tensorboard --logdir results
    wandb        the project addgpt of Weights & Biases (WANDB_MODE=offline: files of the run)
    trackio      the project addgpt of Trackio

metrics.jsonl is written in any case. A training that is resumed goes on with the same curve: what
came after its checkpoint is taken back where the log allows that.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from addgpt.config.errors import UsageError
from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import csv_text
from addgpt.runs.files import write_atomically
from addgpt.runs.run import Run

if TYPE_CHECKING:
    from addgpt.training.loop import TrainState

KINDS = ("csv", "tensorboard", "wandb", "trackio")
PROJECT = "addgpt"


class Log:
    """A callback of training that keeps a log of each validation: `train(run, Log("csv", run))`.

    A log that fails is reported and dropped; training goes on.

    Raises UsageError if the package of a kind of log is not installed.
    """

    def __init__(self, kind: str, run: Run) -> None:
        check(kind)
        self.kind, self.run = kind, run
        self.told = self.begun = int(run.progress()["step"]) if run.started else 0
        self.write: Callable[[dict[str, Any]], None] | None = None
        self.end: Callable[[], None] = lambda: None
        self._guarded(lambda: getattr(self, f"_{kind}")())

    def __call__(self, state: TrainState) -> None:
        row = state.validation
        if row.get("step", 0) > self.told:
            self.told = row["step"]
            self._guarded(lambda: self.write and self.write(row))

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._guarded(self.end)

    def _guarded(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # of another package, which may fail in any way
            self.write, self.end = None, lambda: None
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"--log {self.kind} has stopped: {reason}", file=sys.stderr)

    def _settings(self) -> dict[str, Any]:
        return to_dict(self.run.config)

    def _csv(self) -> None:
        rows = [row for row in self.run.metrics() if row["step"] <= self.begun]

        def write(row: dict[str, Any]) -> None:
            rows.append(row)
            write_atomically(self.run.path / "metrics.csv", csv_text(rows[0], rows))

        self.write = write

    def _tensorboard(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = self.begun + 1 if self.begun else None
        writer = SummaryWriter(str(self.run.path / "tensorboard"), purge_step=purge)
        settings = json.dumps(self._settings(), indent=2)
        writer.add_text("settings", f"```\n{settings}\n```", self.begun)

        def write(row: dict[str, Any]) -> None:
            for name, value in row.items():
                if name != "step":
                    writer.add_scalar(name, value, row["step"])
            writer.flush()

        self.write, self.end = write, writer.close

    def _wandb(self) -> None:
        import wandb

        key = hashlib.sha256(str(self.run.path.resolve()).encode()).hexdigest()[:12]
        how: dict[str, Any] = {"id": key, "resume": "allow", "dir": str(self.run.path)}
        log = wandb.init(project=PROJECT, name=self.run.name, config=self._settings(), **how)
        self.write = lambda row: log.log(row, step=row["step"])
        self.end = log.finish

    def _trackio(self) -> None:
        import trackio

        name = {"project": PROJECT, "name": self.run.name}
        trackio.init(**name, config=self._settings(), resume="allow")
        self.write = lambda row: trackio.log(row, step=row["step"])
        self.end = trackio.finish


def check(kind: str) -> None:
    """Raise UsageError unless a kind of log can be kept here."""
    if kind not in KINDS:
        raise UsageError(f"--log takes {', '.join(KINDS)}, not {kind!r}")
    if kind != "csv" and importlib.util.find_spec(kind) is None:
        raise UsageError(f"--log {kind} needs the package {kind}: pip install 'addgpt[{kind}]'")
