"""`--log`: the curves and settings of a training, where people look at them.

    csv          metrics.csv in the run folder
    tensorboard  tensorboard/ in the run folder: tensorboard --logdir results
    wandb        the project addgpt of Weights & Biases (WANDB_MODE=offline: files of the run)
    trackio      the project addgpt of Trackio

metrics.jsonl is written in any case. A resumed training goes on with the same curve: what came
after its checkpoint is removed where the log allows that. Trackio knows runs only by name: the
latest run of that name goes on.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from addgpt.config.errors import UsageError
from addgpt.config.schema import ADDED
from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import csv_text
from addgpt.runs.files import RunError, check_writable, saved_step, write_atomically
from addgpt.runs.run import STATE, Run
from addgpt.training.progress import TrainingProgress, least_loss

if TYPE_CHECKING:
    from addgpt.training.loop import TrainState

KINDS = ("csv", "tensorboard", "wandb", "trackio")
PROJECT = "addgpt"

OnStep = Callable[["TrainState"], None]


class Log:
    """A callback of training that keeps a log of each validation: `train(run, Log("csv", run))`.

    A log that fails is reported and dropped; training goes on.

    Raises:
        UsageError: the package of a kind of log is not installed.
        RunError: its place cannot be written to.
    """

    def __init__(self, kind: str, run: Run) -> None:
        check(kind, run.path)
        self.kind, self.run = kind, run
        self.told = self.begun = saved_step(run.path / STATE) or 0  # where training goes on
        self.write: Callable[[dict[str, Any]], None] | None = None
        self.end: Callable[[], None] = lambda: None
        self.open: Callable[[], None] | None = getattr(self, f"_{kind}")

    def __call__(self, state: TrainState) -> None:
        if self.open is not None:  # not before: the run may be in another process's hands
            start, self.open = self.open, None
            self._guarded(start)
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
        how = "allow" if self.begun else "never"  # else a new run would continue an old one
        told = contextlib.redirect_stdout(sys.stderr)  # stdout is for what was asked
        with told:
            trackio.init(**name, config=self._settings(), resume=how)

        def write(row: dict[str, Any]) -> None:
            values = {name: value for name, value in row.items() if name != "step"}
            trackio.log(values, step=row["step"])

        def end() -> None:
            with told:
                trackio.finish()

        self.write, self.end = write, end


@contextlib.contextmanager
def followed(
    run: Run, kinds: Iterable[str] = (), quiet: bool = False, on_step: OnStep | None = None
) -> Iterator[OnStep]:
    """What `train` is to call after each step: it shows progress, keeps logs, calls `on_step`."""
    train = run.config.train
    smoothed = least_loss(train.label_smoothing, run.config.model.vocab)
    added = [name for name in ADDED if getattr(train, name)]
    with contextlib.ExitStack() as stack:
        called: list[OnStep] = [stack.enter_context(TrainingProgress(quiet, smoothed, added))]
        called += [stack.enter_context(Log(kind, run)) for kind in kinds]
        called += [on_step] if on_step else []

        def after_step(state: TrainState) -> None:
            for one in called:
                one(state)

        yield after_step


def checked(kinds: str | Iterable[str]) -> tuple[str, ...]:
    """One kind of log or several, each once. Raises as `check` does."""
    one = isinstance(kinds, str) or not isinstance(kinds, Iterable)
    found: list[Any] = [kinds] if one else [*kinds]
    for kind in found:
        check(kind)
    return tuple(dict.fromkeys(found))


def check(kind: str, folder: Path | None = None) -> None:
    """Whether a kind of log can be kept here, and in this run folder if there is one yet.

    Raises:
        UsageError: there is no such kind, or its package is not installed.
        RunError: its place cannot be written to.
    """
    if kind not in KINDS:
        raise UsageError(f"--log takes {', '.join(KINDS)}, not {kind!r}")
    needs = f"--log {kind} needs the package {kind}: pip install 'addgpt[{kind}]'"
    if kind != "csv" and importlib.util.find_spec(kind) is None:
        raise UsageError(needs)
    if kind == "trackio":
        try:
            from trackio.utils import TRACKIO_DIR as place
        except ImportError as error:  # of an old one, or of a package that it needs
            raise UsageError(f"{needs} ({error})") from None
    elif folder is None:
        return
    else:
        place = folder / "metrics.csv" if kind == "csv" else folder / kind
    try:
        check_writable(place.parent if kind == "csv" else place)
        if kind == "csv" and place.is_dir():
            raise RunError(f"{place} is a folder")
    except RunError as error:
        raise RunError(f"--log {kind} has no place to write to: {error}") from None
