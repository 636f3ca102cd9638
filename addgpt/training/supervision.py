"""Deep supervision (Lee et al. 2015, arXiv:1409.5185): linear probes read intermediate results,
which the task names, from the residual stream after a block.

Their loss trains the blocks below to work these results out, and those above build on them. The
model itself is unchanged, and so is the text: nothing more is read or written. The probes are saved
with the optimizers, and dropped when training is over.
"""

from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.auxiliary import Supervised
from addgpt.config.architectures import GPTConfig, ModelConfig
from addgpt.config.errors import UsageError
from addgpt.config.schema import TrainConfig
from addgpt.model.build import Model
from addgpt.model.gpt import GPT
from addgpt.runs.curriculum import curriculum
from addgpt.task import Batch, Graded, Task
from addgpt.training.auxiliary import Reading, auxiliary_loss

SAMPLE = 100  # problems of each stage of a curriculum
FORM = "NAME@BLOCK,NAME@BLOCK,..., blocks counted from 1"


class DeepSupervision(Reading):
    """The probes, and their loss on a batch that has just passed through the model."""

    def __init__(self, task: Supervised, model: GPT, where: dict[str, int], share: float) -> None:
        super().__init__(share)
        self.task, self.where = task, where
        device, width = next(model.parameters()).device, model.config.width
        sizes = task.supervised()
        self.weights = nn.ParameterDict(  # (labels, classes, C) each
            {name: torch.zeros(*sizes[name], width, device=device) for name in where}
        )
        for block in model.blocks:  # a looped one passes several times, `given` says which
            block.register_forward_hook(lambda block, given, x: self.keep(block, given[2] + 1, x))

    def forward(self, batch: Batch) -> Tensor:
        """The cross-entropy of the labels, summed."""
        losses, told = [], self.task.labels_of(batch, list(self.where))
        for name, block in self.where.items():
            x, labels = self.of_slots(block, batch, told[name])
            slots = (labels >= 0).any(2)
            x = x[torch.from_numpy(slots).to(x.device)].float()  # (N, C)
            x = F.rms_norm(x, x.shape[-1:])
            logits = torch.einsum("nc,lkc->nlk", x, self.weights[name]).flatten(0, 1)
            wanted = torch.from_numpy(labels[slots]).to(x.device).flatten()
            losses.append(F.cross_entropy(logits, wanted, ignore_index=-1, reduction="sum"))
        self.found.clear()
        return self.share * torch.stack(losses).sum()


def supervised_blocks(text: str, task: Task, config: ModelConfig) -> dict[str, int]:
    """Which results are read after which block, 1 the first. Raises UsageError unless the task
    names such results, and a model of this config has such blocks."""
    if not isinstance(task, Supervised):
        raise UsageError(f"task {task.name} names no results: supervise must be empty; try mul")
    if not isinstance(config, GPTConfig):
        raise UsageError("supervise needs blocks: architecture=gpt")
    names, found = task.supervised(), dict[str, int]()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\w+)@([0-9]{1,9})\s*", part, re.ASCII)
        if match is None:
            raise UsageError(f"supervise must be {FORM}, not {text!r}")
        name, block = match[1], int(match[2])
        if name not in names:
            raise UsageError(f"unknown name {name!r} in supervise; valid: {', '.join(names)}")
        if name in found:
            raise UsageError(f"supervise names {name} twice")
        if not 1 <= block <= config.depth:
            raise UsageError(f"supervise: {name}@{block} is none of the blocks 1 to {config.depth}")
        found[name] = block
    return found


def check_stages(task: Task, settings: TrainConfig) -> None:
    """Raise UsageError if the auxiliary losses of a run would read problems of its curriculum
    wrongly: the task of the run tells what belongs to each token, whatever stage it is of."""
    if not (settings.aux or settings.supervise) or not isinstance(task, Graded):
        return
    for stage in curriculum(task, settings.curriculum).tasks:
        some = stage.batch(np.random.default_rng(0), SAMPLE, "train").problems
        assert isinstance(stage, Graded)
        same = all(stage.prompt(one) == task.prompt(one) for one in some)
        if isinstance(task, Supervised) and isinstance(stage, Supervised):
            own = task.supervised()
            same = same and all(n <= own[name][0] for name, (n, _) in stage.supervised().items())
        if not same:
            raise UsageError(
                "aux and supervise need a curriculum whose operands are not longer than those of "
                f"the task that is learned, nor written otherwise, not {settings.curriculum!r}"
            )


def auxiliary_losses(task: Task, model: Model, settings: TrainConfig) -> list[nn.Module]:
    """The auxiliary losses that a run asks for. Raises UsageError where there can be none."""
    first = auxiliary_loss(task, model, settings)
    losses: list[nn.Module] = [] if first is None else [first]
    if settings.supervise:
        where = supervised_blocks(settings.supervise, task, model.config)
        assert isinstance(task, Supervised) and isinstance(model, GPT)
        losses.append(DeepSupervision(task, model, where, settings.supervise_weight))
    check_stages(task, settings)
    return losses
