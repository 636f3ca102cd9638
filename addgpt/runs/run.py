"""A run folder: config.json, metrics.jsonl, eval.csv, model.safetensors, state.safetensors.

Every file is written under a temporary name, flushed and renamed, so that a reader never meets half
a file; metrics.jsonl grows by whole lines. Their checksums stand in SHA256SUMS (see
`addgpt.runs.files`), and the checkpoint before the last is kept. Nothing is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from addgpt.config.architectures import ModelConfig
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.config.schema import RunConfig, load_run_config
from addgpt.config.settings import to_dict
from addgpt.model.build import Model, build
from addgpt.runs import RESULTS, files
from addgpt.runs.checkpoint import check_fits, packed, read_tensors, transplant
from addgpt.runs.files import RunError
from addgpt.task import Task
from addgpt.task_lookup import load_task, short

CONFIG, METRICS, MODEL = "config.json", "metrics.jsonl", "model.safetensors"
CERTIFICATE = "certificate.json"
KEPT = "kept"  # the folder of weights along the training (`keep=log`)
STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"

# The calculator that comes with the package.
SHIPPED = Path(__file__).parents[1] / "pretrained" / "calculator"


class Run:
    """The run in a folder. `Run.create` starts one, `Run(path)` opens one."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self._read_config()
        self._task: Task | None = None

    @classmethod
    def create(cls, path: str | Path, config: RunConfig) -> Run:
        """Start a run in a new or empty folder.

        Raises RunError if there is anything in it, or it is a file.
        """
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise RunError(files.no_folder(path))
        if not is_empty(path):
            raise RunError(f"{path} is not empty; choose another --out, or add --resume")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {path}: {error.strerror}") from None
        cls._write_config(path, config)
        return cls(path)

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def scores(self) -> Path:
        """The folder of its scores: its own; of a shipped run, such as calculator, in results."""
        return Path(RESULTS) / self.name if self.path.parent == SHIPPED.parent else self.path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for training. Raises RunError if another process does."""
        message = f"{self.path} is being written by another process"
        with files.locked(self.path / ".lock", message):
            files.remove_leftovers(self.path, CONFIG, METRICS, MODEL, STATE)
            yield

    def reconfigure(self, config: RunConfig) -> None:
        """Replace the config, if it is another one."""
        if config != self.config:
            with self.locked():
                self._write_config(self.path, config)
            self.config = config

    def proved(self) -> bool:
        """Whether there is a certificate of these weights, and it holds (`addgpt certify`)."""
        try:
            found = json.loads(files.read_checked(self.path / CERTIFICATE))
            same = found["model"] == self.model_digest()
            same &= found["task"] == self.config.task
            same &= digest_of(found["options"]) == digest_of(self.config.options)
            same &= found["weights"] == files.digest(self.path / MODEL)
            return same and found["proved"] is True
        except (RunError, OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    def model_digest(self) -> str:
        """A checksum of the model's settings as config.json has them: one that a later version adds
        does not change it."""
        return digest_of(json.loads(files.read_checked(self.path / CONFIG))["model"])

    def task(self) -> Task:
        """The task, with its options. Raises UsageError if this version does not have it."""
        if self._task is None:
            try:
                self._task = load_task(self.config.task, self.config.options)
            except UsageError as error:
                raise UsageError(f"{self.path}: {error}") from error
        return self._task

    def scored_on(self, **options: Any) -> Run:
        """The same run, to be scored on its task with other options. Raises ValueError."""
        unknown = [name for name in options if name not in type(self.task()).options()]
        if unknown:
            raise UsageError(f"task {self.task().name} has no option {unknown[0]}")
        other = Run(self.path)
        other._task = load_task(self.config.task, self.config.options | options)
        other.config = replace(self.config, options=to_dict(other._task))
        return other

    def model(self) -> Model:
        """The trained model, in evaluation mode, on the CPU. Raises RunError."""
        return self.load()[0]

    def load(self) -> tuple[Model, dict[str, Any]]:
        """The trained model, and its step, examples and seconds; the file is read once."""
        tensors, progress = self._saved()
        check_fits(tensors, self.config.model, self.path / MODEL)  # before a model is made
        model = build(self.config.model)
        model.load_state_dict(tensors)
        return model.eval(), progress

    def weights_for(
        self, config: ModelConfig, alphabet: str | None = None, seed: int = 0
    ) -> dict[str, torch.Tensor]:
        """This run's weights for a new model of the same parts.

        Each has the same shape in both, but for two. The new task may have more position ids: their
        rows start at zero. It may have another alphabet: rows go by character, and those of new
        characters are as `seed` draws them. Raises ValueError for any other difference.
        """
        tensors, _ = self._saved()
        own = self.task().alphabet
        return transplant(tensors, config, (own, alphabet or own), seed, self.path)

    def progress(self) -> dict[str, Any]:
        """step, examples and seconds of the saved model."""
        return self._saved()[1]

    def _saved(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        if isinstance(self.config.model, ExternalConfig):
            build(self.config.model)  # which says that there is none
        return read_tensors(self.path / MODEL)

    def save(self, model: Model, state: dict[str, torch.Tensor], progress: dict[str, Any]) -> None:
        """Write the weights, and a state that holds all that resuming needs, weights included.

        The state before is kept.
        """
        weights = dict(model.state_dict())
        full = {f"model.{name}": tensor for name, tensor in weights.items()} | state
        contents = {STATE: packed(full, progress), MODEL: packed(weights, progress)}
        files.write_checked(self.path, contents, keep={STATE: PREVIOUS}, grown=[METRICS])

    def keep(self, model: Model, progress: dict[str, Any]) -> None:
        """Write the weights of a step to stay: kept/step-00000100.safetensors."""
        folder = self.path / KEPT
        folder.mkdir(exist_ok=True)
        name = f"step-{int(progress['step']):08d}.safetensors"
        files.write_checked(folder, {name: packed(dict(model.state_dict()), progress)})

    def kept(self) -> Iterator[tuple[int, Model]]:
        """The models along the training that were kept, with their steps. Raises RunError."""
        for file in sorted((self.path / KEPT).glob("step-*.safetensors")):
            tensors, progress = read_tensors(file)
            check_fits(tensors, self.config.model, file)
            model = build(self.config.model)
            model.load_state_dict(tensors)
            yield int(progress["step"]), model.eval()

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What `save` was given: the tensors, weights under `model.`, and the progress."""
        tensors, progress = read_tensors(self.path / STATE)
        weights = {n.removeprefix("model."): t for n, t in tensors.items() if n[:6] == "model."}
        check_fits(weights, self.config.model, self.path / STATE)
        return tensors, progress

    def restore_previous(self) -> None:
        """Have the checkpoint before the last be the one to resume from. Raises RunError."""
        with self.locked():
            if _sound(self.path / STATE):
                raise UsageError(f"{self.path / STATE} is sound; drop --previous")
            read_tensors(self.path / PREVIOUS)
            known = files.checksums(self.path).get(PREVIOUS)
            files.record(self.path, {STATE: None, PREVIOUS: None})
            os.replace(self.path / PREVIOUS, self.path / STATE)
            files.record(self.path, {STATE: known})

    @property
    def started(self) -> bool:
        """Whether there is a checkpoint, sound or not, that starting afresh would overwrite."""
        return any((self.path / name).exists() for name in (STATE, PREVIOUS, MODEL))

    def log(self, row: dict[str, Any]) -> None:
        """Append one line to metrics.jsonl. Raises RunError."""
        files.append_line(self.path / METRICS, json.dumps(row) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl; a last line cut short by a crash is left out.

        Raises RunError if lines up to the last checkpoint were changed or are missing.
        """
        return files.read_log(self.path / METRICS)

    def truncate_log(self, step: int) -> None:
        """Drop metrics later than a step, which resuming will write again."""
        rows = [row for row in self.metrics() if row.get("step", 0) <= step] if step else []
        text = "".join(json.dumps(row) + "\n" for row in rows)
        files.write_checked(self.path, {METRICS: text})

    @staticmethod
    def _write_config(path: Path, config: RunConfig) -> None:
        settings = to_dict(config)
        if isinstance(config.model, ExternalConfig):
            del settings["train"]
        files.write_checked(path, {CONFIG: json.dumps(settings, indent=2) + "\n"})

    def _read_config(self) -> RunConfig:
        file = self.path / CONFIG
        if not self.path.is_dir():
            raise RunError(files.no_folder(self.path))
        if not file.exists():
            raise RunError(f"{self.path} is not a run: it has no config.json")
        try:
            table = json.loads(files.read_checked(file))
        except (ValueError, RecursionError) as error:
            raise files.Damaged(file, f"damaged: not JSON ({error})") from None
        if files.of_transformers(table):
            advice = f"addgpt eval hf:{self.path} scores it"
            raise RunError(f"{self.path} is not a run, but a model of transformers: {advice}")
        try:
            return load_run_config(table)
        except ValueError as error:
            raise files.Unsupported(f"{file}: {error}") from None


def digest_of(settings: Mapping[str, Any]) -> str:
    """A checksum of settings, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def initial_weights(path: Path, config: RunConfig) -> dict[str, torch.Tensor]:
    """The weights of another run for the model of a config.

    Raises RunError if there is no such run, ValueError if its model does not fit.
    """
    alphabet = load_task(config.task, config.options).alphabet
    return Run(path).weights_for(config.model, alphabet, config.seed)


def _sound(file: Path) -> bool:
    """Whether a file of tensors can be read."""
    try:
        read_tensors(file)
    except RunError:
        return False
    return True


def is_empty(path: Path) -> bool:
    """Whether a run can start in a folder: it is not there, or holds nothing.

    A config.json that a process was killed in writing is nothing.
    """
    if path.is_dir():
        files.remove_leftovers(path, CONFIG)
        return not any(path.iterdir())
    return not path.exists()


def run_path(name: str | Path) -> Path:
    """The folder of a run that a person names: a path, or a shipped run, such as `calculator`.

    A folder of your own called calculator is `./calculator`; one with the name of another shipped
    run comes before that. A folder with nothing but the scores of a shipped run stands for it.
    """
    path = Path(name)
    shipped = SHIPPED.parent / path.name
    if not (shipped / CONFIG).exists():
        return path
    if isinstance(name, str) and name == shipped.name and (shipped == SHIPPED or not path.exists()):
        return shipped
    names = {file.name for file in path.glob("*")}
    scores = "eval.csv" in names and not names & {MODEL, STATE, METRICS}
    there = path.resolve() == Path(RESULTS, path.name).resolve()
    return shipped if scores and there else path


def free_folder(task: str, options: Mapping[str, Any], seed: int) -> Path:
    """results/TASK-DIGITS-sSEED, or the first with -2, -3, ... that is free; no -s0 for seed 0."""
    name = short(task)
    name += f"-{options['digits']}" if "digits" in options else ""
    name += f"-s{seed}" if seed else ""
    path, number = Path(RESULTS) / name, 1
    while path.exists():
        number += 1
        path = Path(RESULTS) / f"{name}-{number}"
    return path


def newest_run(folder: str | Path) -> Path:
    """The run below a folder whose model was saved last. Raises RunError if there is none."""
    models = list(Path(folder).glob(f"*/{MODEL}"))
    if not models:
        raise RunError(f"no trained run in {folder}; train one: {files.FIRST}")
    return max(models, key=lambda file: file.stat().st_mtime).parent
