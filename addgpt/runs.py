"""A run folder: config.json, metrics.jsonl, eval.csv, model.safetensors, state.safetensors.

Every file is written under a temporary name, flushed and renamed, so that a reader never meets half
a file. Tensor files carry a checksum of their content; nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import csv
import fcntl
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import addgpt
from addgpt.config import ModelConfig, RunConfig, load_run_config, to_dict
from addgpt.files import RunError, write_atomically
from addgpt.model import GPT
from addgpt.task import Task, load_task

EVAL_COLUMNS = (
    "run task seed params step examples seconds split op len_a len_b stratum seen n "
    "answer_correct trace_correct unterminated"
).split()


# The calculator that comes with the package.
SHIPPED = Path(__file__).parent / "pretrained" / "calculator"


class Run:
    """The run in a folder. `Run.create` starts one, `Run(path)` opens one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self._read_config()

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> Run:
        """Start a run in a new or empty folder. Raises RunError if there is anything in it."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
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
        with open(self.path / ".lock", "w") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError(f"{self.path} is being written by another process") from None
            yield

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the config, if it is another one."""
        if config != self.config:
            with self.locked():
                self._write_config(self.path, config)
            self.config = config

    def task(self) -> Task:
        return load_task(self.config.task, self.config.options)

    def model(self) -> GPT:
        """The trained model, in evaluation mode, on the CPU. Raises RunError."""
        tensors, _ = read_tensors(self.path / "model.safetensors")
        model = GPT(self.config.model)
        load_weights(model, tensors, self.path / "model.safetensors")
        return model.eval()

    def weights_for(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        """This run's weights for a new model of the same shape. Raises ValueError if it differs.

        The new task may have more position ids: their rows start at zero.
        """
        tensors, _ = read_tensors(self.path / "model.safetensors")
        fresh = GPT(config).state_dict()
        if set(tensors) != set(fresh):
            raise ValueError(f"the model of {self.path} has other parts than the new one")
        for name, tensor in tensors.items():
            have, want = tensor.shape, fresh[name].shape
            grows = "level" in name and have[1:] == want[1:] and have[0] <= want[0]
            if have != want and not grows:
                sizes = f"{tuple(have)} in {self.path}, {tuple(want)} in the new model"
                raise ValueError(f"{name} is {sizes}")
            fresh[name].zero_()[: have[0]] = tensor
        return fresh

    def progress(self) -> dict[str, Any]:
        """step, examples and seconds of the saved model."""
        return read_tensors(self.path / "model.safetensors")[1]

    def save(self, model: GPT, state: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Write the weights, and a state that holds all that resuming needs, weights included."""
        weights = dict(model.state_dict())
        full = {f"model.{name}": tensor for name, tensor in weights.items()} | state
        write_tensors(self.path / "state.safetensors", full, progress)
        write_tensors(self.path / "model.safetensors", weights, progress)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What `save` was given: the tensors, weights under `model.`, and the progress."""
        return read_tensors(self.path / "state.safetensors")

    @property
    def started(self) -> bool:
        return (self.path / "state.safetensors").exists()

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Raises RunError."""
        path = self.path / "metrics.jsonl"
        try:
            with open(path, "a", encoding="utf-8") as handle:
                handle.write(json.dumps(row) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror}") from None

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl; a last line cut short by a crash is left out."""
        path = self.path / "metrics.jsonl"
        rows = []
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
            with contextlib.suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def forget_after(self, step: int) -> None:
        """Drop metrics later than a step, which resuming will write again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.path / "metrics.jsonl", text)

    def write_eval(self, rows: Iterable[dict[str, Any]], split: str = "test") -> Path:
        """Write eval.csv, or eval-SPLIT.csv for another split than test; returns its path."""
        file = self.path / ("eval.csv" if split == "test" else f"eval-{split}.csv")
        write_csv(file, EVAL_COLUMNS, rows)
        return file

    @staticmethod
    def _write_config(path: Path, config: RunConfig) -> None:
        write_atomically(path / "config.json", json.dumps(to_dict(config), indent=2) + "\n")

    def _read_config(self) -> RunConfig:
        file = self.path / "config.json"
        if not file.is_file():
            raise RunError(f"{self.path} is not a run: it has no config.json")
        try:
            return load_run_config(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, OSError) as error:
            raise RunError(f"{file}: {error}") from None


def newest_run(folder: str | Path) -> Path:
    """The run below a folder whose model was saved last. Raises RunError if there is none."""
    models = list(Path(folder).glob("*/model.safetensors"))
    if not models:
        raise RunError(f"no trained run in {folder}; train one: addgpt train --task add --digits 3")
    return max(models, key=lambda file: file.stat().st_mtime).parent


def versions() -> dict[str, str]:
    """What a result depends on besides its settings: versions, commit, machine."""
    return {
        "addgpt": addgpt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def command_line() -> str:
    """How this process was called, without the path of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])


def write_csv(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows atomically, in the given columns. Raises RunError."""
    lines: list[str] = []

    class Lines:
        write = staticmethod(lines.append)

    writer = csv.DictWriter(Lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, "".join(lines))


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
    """Write tensors as safetensors with a checksum over names, shapes, content and progress."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = json.dumps(progress)
    metadata = {"progress": note, "sha256": _checksum(tensors, note)}
    write_atomically(path, save(tensors, metadata))


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and progress of a file that `write_tensors` wrote. Raises RunError if damaged."""
    if not path.is_file():
        raise RunError(f"{path} is missing; the run has not saved a checkpoint yet")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        note = metadata["progress"]
        sound = metadata["sha256"] == _checksum(tensors, note)
        progress = json.loads(note)
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError):
        sound = False
    if not sound:
        raise RunError(f"{path} is damaged: its content does not match its checksum")
    return tensors, progress


def load_weights(model: GPT, tensors: dict[str, torch.Tensor], source: Path) -> None:
    """Put tensors into a model. Raises RunError where names or shapes do not fit."""
    try:
        model.load_state_dict(tensors)
    except RuntimeError:
        raise RunError(f"{source} does not fit the model in config.json") from None


def _checksum(tensors: dict[str, torch.Tensor], note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _commit() -> str:
    """The commit of the source tree, `+` where it has changes; empty outside a checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return ""

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    return ""
