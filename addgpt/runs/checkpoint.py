"""Files of tensors: safetensors, whose checksums stand in SHA256SUMS."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from addgpt.config.architectures import ModelConfig, TableConfig
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.model.build import Model, build
from addgpt.model.layers import parameters_with_rows
from addgpt.runs.files import Damaged, RunError, check

Tensors = dict[str, Tensor]
Progress = dict[str, Any]


def packed(tensors: Tensors, progress: Progress) -> bytes:
    """Tensors as safetensors, with how far the training was (numbers by name)."""
    kept: Tensors = {}
    places: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.data_ptr() in places:  # weights that two names share
            tensor = tensor.clone()
        places.add(tensor.data_ptr())
        kept[name] = tensor
    return save(kept, {"progress": json.dumps(progress)})


def read_tensors(path: Path) -> tuple[Tensors, Progress]:
    """Tensors and progress of a file of `packed` content. Raises RunError if it is damaged.

    What the header declares is checked against the file's size by safetensors, before anything is
    allocated.
    """
    if not path.exists():
        raise Damaged(path, "missing")
    check(path)
    try:
        with safe_open(path, framework="pt") as file:
            progress = json.loads(file.metadata()["progress"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not (isinstance(progress, dict) and all(map(_number, progress.values()))):
            raise ValueError(progress)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RuntimeError):
        raise Damaged(path, "damaged: it is no checkpoint of addgpt") from None
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
    """The weights of one model for a new one of like shape. Raises ValueError if it differs more.

    The new task may have more position ids: their rows start at zero. It may have another alphabet
    (the second of `alphabets`): rows go by character, those of new ones are as `seed` draws them.
    """
    own, new = alphabets
    if isinstance(config, TableConfig) and own != new:
        raise UsageError(
            f"architecture={config.architecture} is a table of one alphabet, the new task has "
            "another"
        )
    shared = [char for char in new if char in own]
    rows, places = [own.index(char) for char in shared], [new.index(char) for char in shared]
    model = build(config, seed)
    fresh, per = model.state_dict(), parameters_with_rows(model)
    if set(tensors) != set(fresh):
        raise UsageError(f"the model of {source} has other parts than the new one")
    for name, tensor in tensors.items():
        have, want = tensor.shape, fresh[name].shape
        alike = have[1:] == want[1:]
        if per.get(name) == "token" and alike:
            fresh[name][places] = tensor[rows]
        elif have == want:
            fresh[name] = tensor
        elif per.get(name) == "id" and alike and have[0] <= want[0]:
            fresh[name].zero_()[: have[0]] = tensor
        else:
            sizes = f"{tuple(have)} in {source}, {tuple(want)} in the new model"
            raise UsageError(f"{name} is {sizes}")
    return fresh


def outline(config: ModelConfig) -> Model:
    """A model without content: its tensors have shapes, but no memory."""
    with torch.device("meta"):
        return build(config, seed=None)


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """The shapes of a model's weights by name, without allocating them."""
    return {name: tensor.shape for name, tensor in outline(config).state_dict().items()}


def weight_count(config: ModelConfig) -> int:
    """Number of weights, without allocating them; of an external model, as far as it is known."""
    if isinstance(config, ExternalConfig):
        return config.params or 0
    return sum(map(math.prod, shapes(config).values()))


def _number(value: object) -> bool:
    return isinstance(value, int | float) and 0 <= value < 2**63
