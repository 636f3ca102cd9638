"""Which parts transfer a carry: activations of a problem with one are put into one without.

Activation patching (Wang et al. 2022, arXiv:2211.00593) on pairs of problems that differ in one
digit, and so in one carry or borrow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.interpret.ablation import parts
from addgpt.interpret.edits import Edit
from addgpt.interpret.sample import Sample, logits, of_batch
from addgpt.interpret.subject import Subject
from addgpt.task import Batch, Problem


def patch_pairs(of: Subject, size: int = 200, seed: int = 0, op: str = "") -> list[dict[str, Any]]:
    """For each part, in how many pairs it alone changes the digit of the column that is carried to.

    Both problems are read with their right work; the part's activation at that one slot is taken
    from the problem with the carry. Rows have `part`, `n`, and counts: `carried` (what is written
    is then right for the other problem), `kept` (still right for its own), `other`. The last row,
    `all heads`, patches all heads at once. Raises UsageError for a task without such pairs.
    """
    draw = getattr(of.task, "pairs", None)
    if draw is None:
        raise UsageError(f"{of.task.name} draws no pairs that differ in one carry; try add, sub")
    rng = np.random.default_rng(seed)
    drawn = draw(rng, size, op) if op else draw(rng, size)
    batches = [_written(of, [pair[side] for pair in drawn]) for side in (0, 1)]
    both = Batch.stacked(batches, of.task.alphabet.index(of.task.end))
    (without, with_carry) = (
        of_batch(of, both.rows(slice(start, start + size))) for start in (0, size)
    )
    slots = _slots(without, [pair[2] for pair in drawn])
    use = (slots >= 0) & (slots == _slots(with_carry, [pair[2] for pair in drawn]))
    row = np.flatnonzero(use)
    place = slots[row]
    given: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        given[name] = x.clone()

    logits(of, with_carry, (), keep)
    mine, others = (some.targets.cpu().numpy()[row, place] for some in (without, with_carry))
    found = []
    every = [(part.name, [part]) for part in parts(of.config)]
    heads = [part for part in parts(of.config) if part.head is not None]
    for name, some in [*every, ("all heads", heads)]:
        tokens = np.zeros(without.tokens.shape, bool)
        tokens[row, place] = True
        edits = tuple(
            Edit(p.point, _fitting(given[p.point], without), p.head, tokens) for p in some
        )
        best = logits(of, without, edits).argmax(-1).cpu().numpy()[row, place]
        carried, kept = int((best == others).sum()), int((best == mine).sum())
        line = {"part": name, "n": len(row), "carried": carried, "kept": kept}
        found.append(line | {"other": len(row) - carried - kept})
    return found


def _written(of: Subject, problems: list[Problem]) -> Batch:
    task: Any = of.task
    prompts = np.stack([task.encode(task.prompt(problem)) for problem in problems])
    batch = task.reference(prompts)
    assert batch is not None, "a task with pairs knows the work"
    return batch


def _slots(some: Sample, columns: list[int]) -> np.ndarray:
    """(B,) the first written slot of each column that holds a digit; -1 where there is none."""
    found = np.full(len(columns), -1)
    scored, targets = some.scored, some.targets.cpu().numpy()
    for row, column in enumerate(columns):
        there = np.flatnonzero(scored[row] & (some.columns[row] == column) & (targets[row] < 10))
        if len(there):
            found[row] = there[0]
    return found


def _fitting(x: Tensor, some: Sample) -> Tensor:
    """(B, ..., T, N) cut or padded to the T of a sample."""
    size = some.tokens.shape[1]
    if x.shape[-2] < size:
        x = torch.nn.functional.pad(x, (0, 0, 0, size - x.shape[-2]))
    return x[..., :size, :]
