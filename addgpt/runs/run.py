"""A run folder: config.json, metrics.jsonl, eval.csv, model.safetensors, state.safetensors.

Every file is written under a temporary name, flushed and renamed, so that a reader never meets half
a file; metrics.jsonl grows by whole lines. These carry a checksum of their content (see
`addgpt.runs.files`), and the checkpoint before the last is kept. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from addgpt.config.architectures import ModelConfig
from addgpt.config.schema import RunConfig, load_run_config, to_dict
from addgpt.model.build import Model, build
from addgpt.runs import files
from addgpt.runs.checkpoint import (
    check_fits,
    load_weights,
    read_tensors,
    transplant,
    write_tensors,
)
from addgpt.runs.files import RunError, write_atomically
from addgpt.task import Task, load_task

MOST_CONFIG = 1 << 20  # bytes of config.json
CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.safetensors"
STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"

# The calculator that comes with the package.
SHIPPED = Path(__file__).parents[1] / "pretrained" / "calculator"


class Run:
    """The run in a folder. `Run.create` starts one, `Run(path)` opens one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self._read_config()
        self._crc: int | None = None  # of the lines of metrics.jsonl; None: not yet read

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> Run:
        """Start a run in a new or empty folder. Raises RunError if there is anything in it."""
        path = Path(path)
        if not is_empty(path):
            raise RunError(f"{path} is not empty; choose another --out, or add --resume")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {path}: {error.strerror}") from None
        cls._write_config(path, config)
        return cls(path)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for writing. Raises RunError if another process does."""
        try:
            handle = os.fdopen(files.open_own(self.path / ".lock"), "w")
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}") from None
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    raise RunError(f"cannot lock {self.path}: {error.strerror}") from None
                raise RunError(f"{self.path} is being written by another process") from None
            files.remove_leftovers(self.path, (CONFIG, METRICS, MODEL, STATE))
            yield

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the config, if it is another one."""
        if config != self.config:
            with self.locked():
                self._write_config(self.path, config)
            self.config = config

    def task(self) -> Task:
        return load_task(self.config.task, self.config.options)

    def model(self) -> Model:
        """The trained model, in evaluation mode, on the CPU. Raises RunError."""
        tensors, _ = self._weights()
        check_fits(tensors, self.config.model, self.path / MODEL)
        model = build(self.config.model)
        load_weights(model, tensors, self.path / MODEL)
        return model.eval()

    def weights_for(
        self, config: ModelConfig, alphabet: str | None = None, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """This run's weights for a new model of the same shape. Raises ValueError if it differs.

        The new task may have more position ids: their rows start at zero. It may have another
        alphabet: rows go by character, and those of new characters are as `seed` draws them.
        """
        tensors, _ = self._weights()
        own = self.task().alphabet
        return transplant(tensors, config, (own, alphabet or own), seed, self.path)

    def progress(self) -> dict[str, Any]:
        """step, examples and seconds of the saved model."""
        return self._weights()[1]

    def save(self, model: Model, state: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Write the weights, and a state that holds all that resuming needs, weights included.

        The state before is kept. `log` is added to the progress: the CRC of the metrics so far.
        """
        weights = dict(model.state_dict())
        full = {f"model.{name}": tensor for name, tensor in weights.items()} | state
        progress = progress | {"log": self._log_crc()}
        write_tensors(self.path / STATE, full, progress, keep=self.path / PREVIOUS)
        write_tensors(self.path / MODEL, weights, progress)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What `save` was given: the tensors, weights under `model.`, and the progress.

        Raises RunError, which says how to go on, if the file is damaged.
        """
        try:
            tensors, progress = read_tensors(self.path / STATE)
        except RunError as error:
            raise RunError(f"{error}{self._way_on()}") from None
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."}
        check_fits(weights, self.config.model, self.path / STATE)
        return tensors, progress

    def fall_back(self) -> None:
        """Have the checkpoint before the last be the one to go on from. Raises RunError."""
        with self.locked():
            with contextlib.suppress(RunError):
                read_tensors(self.path / STATE)
                raise ValueError(f"{self.path / STATE} is sound; drop --previous")
            read_tensors(self.path / PREVIOUS)
            os.replace(self.path / PREVIOUS, self.path / STATE)

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint, sound or not, that starting afresh would overwrite."""
        return any((self.path / name).exists() for name in (STATE, PREVIOUS, MODEL))

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Raises RunError."""
        line, crc = files.seal(row, self._log_crc())
        files.append_line(self.path / METRICS, line)
        self._crc = crc

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line cut short by a crash is left out.

        Raises RunError if a line was changed or lines are missing in between.
        """
        path = self.path / METRICS
        return [row for row, _ in files.read_log(path)] if path.exists() else []

    def check_log(self, step: int, crc: int | None) -> None:
        """Raise RunError unless metrics.jsonl has all the lines that a checkpoint knew of."""
        path = self.path / METRICS
        if crc is None or not path.exists():  # removed by who wants to go on without it
            return
        last = [0] + [found for row, found in files.read_log(path) if row.get("step", 0) <= step]
        if last[-1] != crc:
            raise RunError(f"{path} is damaged: lines are missing; to do without it, remove it")

    def forget_after(self, step: int) -> None:
        """Drop metrics later than a step, which resuming will write again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step] if step else []
        text, self._crc = "", 0
        for row in rows:
            line, self._crc = files.seal(row, self._crc)
            text += line
        write_atomically(self.path / METRICS, text)

    def _weights(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        try:
            return read_tensors(self.path / MODEL)
        except RunError as error:
            again = f"addgpt train --resume --out {self.path}"
            hint = f"; if its checkpoint is sound, this writes it anew: {again}"
            known = (self.path / MODEL).exists() and (self.path / STATE).exists()
            raise RunError(f"{error}{hint if known else ''}") from None

    def _way_on(self) -> str:
        """What can be done if the state is damaged or missing."""
        with contextlib.suppress(RunError):
            step = read_tensors(self.path / PREVIOUS)[1].get("step")
            command = f"addgpt train --resume --previous --out {self.path}"
            return f"; the checkpoint before it (step {step}) is sound, go on from there: {command}"
        with contextlib.suppress(RunError):
            read_tensors(self.path / MODEL)
            return f"; {MODEL} is sound: start a new run from it with --init-from {self.path}"
        return ""

    def _log_crc(self) -> int:
        if self._crc is None:
            path = self.path / METRICS
            self._crc = ([0] + [crc for _, crc in files.read_log(path)])[-1] if path.exists() else 0
        return self._crc

    @staticmethod
    def _write_config(path: Path, config: RunConfig) -> None:
        write_atomically(path / CONFIG, files.sealed_table(to_dict(config)))

    def _read_config(self) -> RunConfig:
        file = self.path / CONFIG
        if not file.exists():
            what = "it has no config.json" if self.path.is_dir() else "there is no such folder"
            raise RunError(f"{self.path} is not a run: {what}")
        try:
            data, sound = files.open_table(files.read_text(file, MOST_CONFIG))
            config = load_run_config(data)
        except ValueError as error:
            raise RunError(f"{file}: {error}") from None
        if not sound:
            raise RunError(
                f"{file} is damaged or was edited: its content does not match its checksum; "
                "if it was edited on purpose, remove its sha256"
            )
        return config


def initial_weights(path: Path, config: RunConfig) -> dict[str, torch.Tensor]:
    """The weights of another run for the model of a config.

    Raises RunError if there is no such run, ValueError if its model does not fit.
    """
    alphabet = load_task(config.task, config.options).alphabet
    return Run(path).weights_for(config.model, alphabet, config.seed)


def is_empty(path: Path) -> bool:
    """Whether a run can start in a folder: it is not there, or holds nothing.

    A config.json that a process was killed in writing is nothing.
    """
    if path.is_dir():
        files.remove_leftovers(path, (CONFIG,))
        return not any(path.iterdir())
    return not path.exists()


def newest_run(folder: str | Path) -> Path:
    """The run below a folder whose model was saved last. Raises RunError if there is none."""
    models = list(Path(folder).glob(f"*/{MODEL}"))
    if not models:
        raise RunError(f"no trained run in {folder}; train one: addgpt train --task add --digits 3")
    return max(models, key=lambda file: file.stat().st_mtime).parent
