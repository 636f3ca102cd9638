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
from torch.overrides import TorchFunctionMode

from addgpt.config.schema import ModelConfig
from addgpt.device import memory
from addgpt.model.build import Model, build
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


def outline(config: ModelConfig) -> Model:
    """A model without content: its tensors have shapes, but no memory."""
    with torch.device("meta"), _NothingDrawn():
        return build(config)


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shapes of a model's weights by name, worked out without allocating them."""
    return {name: tensor.shape for name, tensor in outline(config).state_dict().items()}


def weight_count(config: ModelConfig) -> int:
    """Number of weights, worked out without allocating them."""
    return sum(map(math.prod, shapes(config).values()))


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors as they are: filling one that has no memory loads half of torch."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 2**63


def _checksum(tensors: Tensors, note: str) -> str:
    digest = hashlib.sha256(note.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
