"""How a batch changes a model: by gradients, or for counted bigrams by counting."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from addgpt.config.errors import UsageError
from addgpt.config.schema import TrainConfig
from addgpt.device import autocast
from addgpt.model.baselines import Counts
from addgpt.model.build import Model
from addgpt.model.forward import loss, next_token_loss, scored_logits
from addgpt.runs.files import RunError
from addgpt.task import Batch
from addgpt.training import optim
from addgpt.training.distributed import World


class Diverged(RunError):
    """The loss is no longer a number."""

    def __init__(self, what: str, step: int) -> None:
        super().__init__(f"{what} at step {step}; try a lower rate (--set lr=, --set muon_lr=)")


class GradientLearner:
    """Follows the gradient of the loss, averaged over the scored tokens of the whole batch."""

    def __init__(
        self,
        model: Model,
        settings: TrainConfig,
        dtype: torch.dtype,
        world: World,
        auxiliary: Sequence[nn.Module] = (),
    ) -> None:
        self.model, self.settings, self.dtype, self.world = model, settings, dtype, world
        self.auxiliary, self.parameters = auxiliary, list(model.parameters())
        self.names: dict[str, str] = {}  # of the state of auxiliary losses, by number: see `state`
        self.device = next(model.parameters()).device
        self.optimizers = optim.build(model, settings, dtype)
        if auxiliary:
            losses, first = nn.ModuleList(auxiliary), len(self.optimizers)
            self.optimizers += optim.build(losses, settings, dtype)
            self.parameters += losses.parameters()
            known = {id(p): name for loss in auxiliary for name, p in loss.named_parameters()}
            for number, optimizer in enumerate(self.optimizers[first:], first):
                for index, parameter in enumerate(_parameters(optimizer)):
                    self.names[f"optim.{number}.{index}"] = f"optim.aux.{known[id(parameter)]}"
        self.peaks = [[group["lr"] for group in o.param_groups] for o in self.optimizers]

    def learn(self, batch: Batch, step: int, share: float) -> float:
        """Take one optimizer step at a share of the peak rate; return the loss before it.

        Raises Diverged.
        """
        (value,) = self.world.sum([self.backward(batch)])
        self.world.all_reduce_gradients(self.parameters)
        if not math.isfinite(value):
            raise Diverged(f"the loss is {value}", step)
        optim.clip(self.optimizers, self.settings.clip)
        for optimizer, peaks in zip(self.optimizers, self.peaks, strict=True):
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["lr"] = peak * share
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return value

    def backward(self, batch: Batch) -> float:
        """Add up the gradients of this worker's rows, and return their share of the loss."""
        count, total = max(1, int(batch.scored[:, 1:].sum())), 0.0
        for part in batches_of_like_length(self.world.shard(batch), self.settings.micro_batch):
            with autocast(self.device, self.dtype):
                logits, targets = scored_logits(self.model, part)
            smoothing, z_loss = self.settings.label_smoothing, self.settings.z_loss
            value = next_token_loss(logits, targets, smoothing, z_loss) / count
            for auxiliary in self.auxiliary:
                value = value + auxiliary(part) / count
            value.backward()
            total += value.item()
        return total

    def state(self) -> dict[str, Tensor]:
        """What resuming needs besides the weights: `optim.OPTIMIZER.PARAMETER.KEY`, by number; of
        auxiliary losses, which may be others then, `optim.aux.NAME.KEY`."""
        found = {
            f"aux.{name}": x for loss in self.auxiliary for name, x in loss.state_dict().items()
        }
        for number, optimizer in enumerate(self.optimizers):
            for index, entry in optimizer.state_dict()["state"].items():
                place = f"optim.{number}.{index}"
                for key, value in entry.items():
                    found[f"{self.names.get(place, place)}.{key}"] = torch.as_tensor(value)
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` gave, also where all was by number. Raises ValueError or
        IndexError for another model's."""
        places = {name: place for place, name in self.names.items()}
        parts = {name: name.rpartition(".") for name in state}
        state = state | {
            f"{places[name]}.{key}": state[whole]
            for whole, (name, _, key) in parts.items()
            if name in places
        }
        for number, optimizer in enumerate(self.optimizers):
            entries = _entries(state, f"optim.{number}.", optimizer)
            optimizer.load_state_dict(optimizer.state_dict() | {"state": entries})
        with torch.no_grad():
            for loss in self.auxiliary:
                for name, own in loss.state_dict().items():
                    own.copy_(state.get(f"aux.{name}", own))  # if the training so far had none


class CountLearner:
    """Counts which token follows which: exact at any size, and nothing but the counts is kept."""

    def __init__(self, model: Counts, world: World) -> None:
        self.model, self.world = model, world

    def learn(self, batch: Batch, step: int, share: float) -> float:
        """Add a batch to the counts; return the loss before."""
        mine, count = self.world.shard(batch), max(1, int(batch.scored[:, 1:].sum()))
        own = loss(self.model, mine) * int(mine.scored[:, 1:].sum()) / count
        pairs = self.model.pairs(mine)
        value, *total = self.world.sum([own, *pairs.ravel().tolist()])
        self.model.add(np.array(total, np.int64).reshape(pairs.shape))
        return value

    def state(self) -> dict[str, Tensor]:
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Nothing: the counts are the model's weights."""


def learner(
    model: Model,
    settings: TrainConfig,
    dtype: torch.dtype,
    world: World,
    auxiliary: Sequence[nn.Module] = (),
) -> GradientLearner | CountLearner:
    """What trains a model."""
    if isinstance(model, Counts):
        return CountLearner(model, world)
    return GradientLearner(model, settings, dtype, world, auxiliary)


def batches_of_like_length(batch: Batch, rows: int) -> Iterator[Batch]:
    """A batch as it passes through the model: `rows` of similar length at a time (0: all)."""
    if not rows or rows >= len(batch):
        yield batch
        return
    order = np.argsort(batch.lengths, kind="stable")
    for start in range(0, len(batch), rows):
        yield batch.rows(order[start : start + rows])


def _entries(
    state: dict[str, Tensor], prefix: str, optimizer: torch.optim.Optimizer
) -> dict[int, dict[str, Tensor]]:
    """An optimizer's state of each parameter. Raises ValueError, IndexError if it cannot be."""
    parameters = _parameters(optimizer)
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if name.startswith(prefix):
            index, key = name.removeprefix(prefix).split(".")
            if tensor.shape not in (parameters[int(index)].shape, ()):
                raise UsageError(name)
            entries.setdefault(int(index), {})[key] = tensor
    return entries


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """In the order of its state."""
    return [p for group in optimizer.param_groups for p in group["params"]]
