"""An auxiliary loss: some heads of the last block must predict the task's number for each slot.

A linear regression on the output of each of these heads, at the slot that writes a token, must give
a number that determines the token, such as the running sum whose last digit is a digit of a product
(Bai et al. 2025, arXiv:2510.00184). The model itself is unchanged: the regressions are saved with
the optimizers, and dropped when training is over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from addgpt.auxiliary import Auxiliary
from addgpt.config.errors import UsageError
from addgpt.config.schema import TrainConfig
from addgpt.model.attention import AttentionContext
from addgpt.model.build import Model
from addgpt.model.forward import wanted_places
from addgpt.model.gpt import GPT
from addgpt.task import Batch, Task

HEADS = 2  # of the last block that tell it, as in the paper


class Reading(nn.Module):
    """A loss on what blocks compute: their hooks `keep` it while the model is in training."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share
        self.found: dict[int, Tensor] = {}  # block, counted on through loops: (B, S, ...)

    def keep(self, module: nn.Module, block: int, x: Tensor) -> None:
        if module.training:
            self.found[block] = x

    def of_slots(self, block: int, batch: Batch, told: np.ndarray) -> tuple[Tensor, np.ndarray]:
        """What was kept of a block, (B, S, ...), and (B, S, ...) of what belongs to each token
        (B, T, ...) that which belongs to the token that a slot writes.

        `batch` is what the model has just been given, by `addgpt.model.forward.forward`.
        """
        x, told = self.found[block], told[:, 1:]
        if x.shape[1] < told.shape[1]:  # of the last block, which leaves out other slots
            told = told[np.arange(len(told))[:, None], wanted_places(batch)]
        return x, told


class AuxiliaryLoss(Reading):
    """The regressions, and their loss on a batch that has just passed through the model."""

    def __init__(self, task: Auxiliary, model: GPT, share: float) -> None:
        super().__init__(share)
        c, device = model.config, next(model.parameters()).device
        self.task, self.last, self.heads = task, c.depth, min(HEADS, c.heads)
        self.weight = nn.Parameter(torch.zeros(self.heads, c.width // c.heads, device=device))
        self.bias = nn.Parameter(torch.zeros(self.heads, device=device))
        model.blocks[-1].register_forward_pre_hook(self._enter)

    def _enter(self, block: nn.Module, given: tuple) -> tuple:
        """Have what attention computes in the block kept."""
        x, context, depth = given
        parts = {item.name: getattr(context, item.name) for item in fields(AttentionContext)}
        return x, _Kept(**parts, keep=partial(self.keep, block, depth + 1)), depth

    def forward(self, batch: Batch) -> Tensor:
        """The mean squared error of the heads, summed over the slots that have a number."""
        x, wanted = self.of_slots(self.last, batch, self.task.auxiliary(batch))
        heads = x[:, :, : self.heads].float()  # (B, S, heads, D)
        told = (heads * self.weight).sum(-1) + self.bias  # (B, S, heads)
        target = torch.from_numpy(wanted).to(told.device)[:, :, None]
        error = (told - target.nan_to_num()).square().mean(-1)
        self.found.clear()
        return self.share * error[~target.isnan()[:, :, 0]].sum()


@dataclass(frozen=True, kw_only=True)
class _Kept(AttentionContext):
    """An `AttentionContext` that passes on what attention computes, (B, S, H, D)."""

    keep: Callable[[Tensor], None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        found = super().attend(query, key, value, scale)
        self.keep(found.transpose(1, 2))
        return found

    def weigh(self, value: Tensor) -> Tensor:
        found = super().weigh(value)
        self.keep(found.transpose(1, 2))
        return found


def auxiliary_loss(task: Task, model: Model, settings: TrainConfig) -> AuxiliaryLoss | None:
    """The auxiliary loss that a run asks for, if any. Raises UsageError where there can be none."""
    if not settings.aux:
        return None
    check_auxiliary(task, isinstance(model, GPT))
    assert isinstance(task, Auxiliary) and isinstance(model, GPT)
    return AuxiliaryLoss(task, model, settings.aux)


def check_auxiliary(task: Task, attends: bool) -> None:
    """Raise UsageError unless a task has an auxiliary loss, and the model attention."""
    if not isinstance(task, Auxiliary):
        raise UsageError(f"task {task.name} has no auxiliary loss: aux must be 0; try mul")
    if not attends:
        raise UsageError("aux needs attention: architecture=gpt")
