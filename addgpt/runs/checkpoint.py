"""Files of tensors: safetensors with a checksum, checked before and after they are read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from addgpt.config.architectures import ModelConfig, TableConfig
from addgpt.device import memory
from addgpt.model.build import Model, build
from addgpt.model.layers import parameters_with_rows
from addgpt.runs.files import RunError, write_atomically

MOST_TENSORS = 100_000
Tensors = dict[str, Tensor]
Progress = dict[str, Any]


def write_tensors(
    path: Path, tensors: Tensors, progress: Progress, keep: Path | None = None
) -> None:
    """Write tensors as safetensors with a checksum over names, shapes, content and progress.

    With `keep`, what the file held before stays under that name. Raises RunError.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    note = json.dumps(progress)
    metadata = {"progress": note, "sha256": _checksum(tensors, note)}
    write_atomically(path, save(tensors, metadata), keep)


def read_tensors(path: Path) -> tuple[Tensors, Progress]:
    """Tensors and progress of a file that `write_tensors` wrote. Raises RunError if damaged.

    What the header declares is checked against the file's size by safetensors, and the size
    against this machine's memory, before anything is allocated.
    """
    if not path.exists():
        raise RunError(f"{path} is missing; the run has not saved a checkpoint yet")
    try:
        about = os.stat(path)
        if not stat.S_ISREG(about.st_mode):
            raise RunError(f"{path} is not a regular file")
        if about.st_size > memory() // 2:
            size = f"{about.st_size / 2**30:,.1f} GiB"
            raise RunError(f"{path} is too large for this machine: {size}")
        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            tensors = {name: file.get_tensor(name) for name in names[:MOST_TENSORS]}
        note = metadata["progress"]
        sound = len(names) <= MOST_TENSORS and metadata["sha256"] == _checksum(tensors, note)
        progress = json.loads(note)
        sound = sound and isinstance(progress, dict) and all(map(_number, progress.values()))
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError):
        sound = False
    except RuntimeError as error:
        if isinstance(error, RunError):
            raise
        sound = False
    if not sound:
        raise RunError(f"{path} is damaged: its content does not match its checksum")
    return tensors, progress


def check_fits(tensors: Tensors, config: ModelConfig, source: Path) -> None:
    """Raise RunError unless these are the weights of such a model: names and shapes.

    So a config that declares a model larger than its weights is refused before that is built.
    """
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes(config):
        raise RunError(f"{source} does not fit the model in config.json")


def load_weights(model: Model, tensors: Tensors, source: Path) -> None:
    """Put tensors into a model. Raises RunError where names or shapes do not fit."""
    check_fits(tensors, model.config, source)
    model.load_state_dict(tensors)


def transplant(
    tensors: Tensors, config: ModelConfig, alphabets: tuple[str, str], seed: int, source: Path
) -> Tensors:
    """The weights of one model for a new one of the same shape. Raises ValueError if it differs.

    The new task may have more position ids: their rows start at zero. It may have another alphabet
    (the second of `alphabets`): rows go by character, those of new ones are as `seed` draws them.
    """
    own, new = alphabets
    if isinstance(config, TableConfig) and own != new:
        raise ValueError(
            f"architecture={config.architecture} is a table of one alphabet, the new task has "
            "another"
        )
    shared = [char for char in new if char in own]
    rows, places = [own.index(char) for char in shared], [new.index(char) for char in shared]
    model = build(config, seed)
    fresh, per = model.state_dict(), parameters_with_rows(model)
    if set(tensors) != set(fresh):
        raise ValueError(f"the model of {source} has other parts than the new one")
    for name, tensor in tensors.items():
        have, want = tensor.shape, fresh[name].shape
        alike = have[1:] == want[1:]
        if per.get(name) == "token" and alike:
            fresh[name][places] = tensor[rows]
        elif have == want or (per.get(name) == "id" and alike and have[0] <= want[0]):
            fresh[name].zero_()[: have[0]] = tensor
        else:
            sizes = f"{tuple(have)} in {source}, {tuple(want)} in the new model"
            raise ValueError(f"{name} is {sizes}")
    return fresh


def outline(config: ModelConfig) -> Model:
    """A model without content: its tensors have shapes, but no memory."""
    with torch.device("meta"):
        return build(config, seed=None)


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shapes of a model's weights by name, worked out without allocating them."""
    return {name: tensor.shape for name, tensor in outline(config).state_dict().items()}


def weight_count(config: ModelConfig) -> int:
    """Number of weights, worked out without allocating them."""
    return sum(map(math.prod, shapes(config).values()))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 2**63


def _checksum(tensors: Tensors, note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
