"""Many problems of a task at once, with the right work: what measures of a whole model read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.generation.decode import batch_within_tables
from addgpt.interpret.activations import run
from addgpt.interpret.edits import Edit
from addgpt.interpret.subject import Subject
from addgpt.locality import LocalTrace
from addgpt.model.forward import tensors
from addgpt.task import Batch, Graded

TOKENS_AT_ONCE = 1 << 13


@dataclass(frozen=True)
class Sample:
    """B problems with the right work, as held-out problems are drawn.

    batch    of the task
    tokens   (B, T) what is read;  ids (B, T + 1, L);  targets (B, T), -1 where not scored
    prompt   (B,) lengths of prompts, if the model asks for them
    kinds    (B, T) the kind of row of the slot that is filled, a number; 0 where there is none
    columns  (B, T) its column
    names    of kinds
    """

    batch: Batch
    tokens: Tensor
    ids: Tensor
    targets: Tensor
    prompt: Tensor | None
    kinds: np.ndarray
    columns: np.ndarray
    names: dict[int, str]

    @property
    def scored(self) -> np.ndarray:
        """(B, T) bool."""
        return self.targets.cpu().numpy() >= 0

    @property
    def in_rows(self) -> np.ndarray:
        """(B, T) bool: slots that are scored, and those of prompts that stand in a row."""
        return self.scored | (self.kinds > 0)

    def rows(self) -> dict[int, str]:
        """The kinds of rows that are written here, and what they are called."""
        there = np.unique(self.kinds[self.scored]).tolist()
        return {kind: self.names.get(kind, str(kind)) for kind in there}

    def part(self, index: slice) -> Sample:
        """Some of the problems."""
        prompt = None if self.prompt is None else self.prompt[index]
        return Sample(
            self.batch, self.tokens[index], self.ids[index], self.targets[index], prompt,
            self.kinds[index], self.columns[index], self.names,
        )  # fmt: skip

    def parts(self) -> list[Sample]:
        """All problems, in groups of bounded size."""
        size = max(1, TOKENS_AT_ONCE // self.tokens.shape[1])
        return [self.part(slice(at, at + size)) for at in range(0, len(self.tokens), size)]


def sample(of: Subject, size: int, seed: int = 0, split: str = "test") -> Sample:
    """`size` problems of a split. Raises UsageError for a task without right answers."""
    if not isinstance(of.task, Graded):
        raise UsageError(f"{of.task.name} has no right answers; inspect one text instead")
    batch = of.task.batch(np.random.default_rng(seed), size, split)
    return of_batch(of, batch)


def of_batch(of: Subject, batch: Batch) -> Sample:
    """The problems of a batch of the task."""
    batch = batch_within_tables(batch, of.config)
    device = next(of.model.parameters()).device
    tokens, ids, targets = tensors(batch, device)
    prompt = torch.from_numpy(batch.scored.argmax(1)).to(device) if of.config.prefix else None
    slots = batch.positions[:, 1 : tokens.shape[1] + 1].astype(int)
    levels = slots.shape[-1]
    nothing = np.zeros(slots.shape[:2], int)
    kinds, columns = (slots[:, :, -1], slots[:, :, 0]) if levels else (nothing, nothing)
    names = of.task.row_names() if isinstance(of.task, LocalTrace) else {}
    return Sample(batch, tokens, ids, targets, prompt, kinds, columns, names)


def logits(of: Subject, some: Sample, edits: tuple[Edit, ...] = (), keep=None) -> Tensor:
    """(B, T, V) of a sample; `keep` as of `activations.run`."""
    return run(of.model, some.tokens, some.ids, some.prompt, edits, keep)


def hits(of: Subject, some: Sample, edits: tuple[Edit, ...] = ()) -> np.ndarray:
    """(B, T) whether the right token wins, true where nothing is scored."""
    best = logits(of, some, edits).argmax(-1)
    return ((best == some.targets) | (some.targets < 0)).cpu().numpy()


def collected(
    of: Subject, some: Sample, names: list[str], prompts: bool = False
) -> dict[str, np.ndarray]:
    """(N, ...) activations at all N scored slots, problem by problem; heads first: (N, H, ...).

    With `prompts` at those of prompts, too: at all slots `in_rows`.
    """
    kept: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for part in some.parts():
        there = torch.from_numpy(part.in_rows if prompts else part.scored)

        def keep(name: str, x: Tensor, there: Tensor = there) -> None:
            if name in kept:
                x = x.transpose(1, 2) if x.ndim == 4 else x
                kept[name].append(x[there.to(x.device)].float().cpu().numpy())

        logits(of, part, (), keep)
    return {name: np.concatenate(arrays) for name, arrays in kept.items()}
