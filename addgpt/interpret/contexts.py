"""Interventions in every context that a slot can be in: what a certificate is about.

Where a model can be certified, the contexts of its slots can all be listed
(`addgpt.evaluation.certificate`). So the effect of an intervention is known for all of them, not
for a sample: for every sum of any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from addgpt.evaluation.certificate import AT_ONCE, Group, check_certifiable, list_contexts, spaced
from addgpt.interpret.activations import run
from addgpt.interpret.edits import Edit
from addgpt.interpret.subject import Subject


@dataclass(frozen=True)
class Contexts:
    """All contexts that are alike but for their tokens.

    seen    of each of the R tokens that are seen: the kind of its row, and how many columns it is
            before the slot (None: it has no column)
    tokens  (N, R) what is seen; right  (N,) the right next tokens
    """

    seen: list[tuple[str, int | None]]
    tokens: np.ndarray
    right: np.ndarray
    group: Group

    def values(self, kind: str, before: int | None) -> np.ndarray | None:
        """(N,) the tokens of one row and column; None: nothing stands there."""
        there = (kind, before)
        return self.tokens[:, self.seen.index(there)].astype(int) if there in self.seen else None

    def at(self, before: int | None) -> list[int]:
        """The numbers, for edits, of the tokens that are `before` columns before the slot."""
        return [2 * place for place, (_, apart) in enumerate(self.seen) if apart == before]

    def some(self, rows: np.ndarray) -> Contexts:
        """Some of them."""
        return Contexts(self.seen, self.tokens[rows], self.right[rows], self.group)


def contexts(of: Subject) -> list[Contexts]:
    """All contexts, largest group first. Raises UsageError if there are infinitely many."""
    task: Any = of.task
    check_certifiable(task, of.config)
    names, found = task.row_names(), []
    for group in list_contexts(task, of.config).groups:
        example = group.examples[0]
        column = int(example.after[-1, 0])
        seen = [
            (names[kind], column - own if column and own else None)
            for own, _, kind in example.ids.tolist()
        ]
        found.append(Contexts(seen, group.tokens, group.right, group))
    return sorted(found, key=lambda some: -len(some.tokens))


def logits_in(some: Contexts, of: Subject, edits: Sequence[Edit] = (), keep: Any = None):
    """(N, V) logits in contexts, with edits. The slot is that of the last token, -1; `keep(name,
    activation)` is shown (N, ..., T, ...) of AT_ONCE contexts at a time."""
    ids, out = torch.from_numpy(spaced(some.group.examples[0])), []
    for start in range(0, len(some.tokens), AT_ONCE):
        tokens = some.tokens[start : start + AT_ONCE]
        text = np.zeros((len(tokens), 2 * tokens.shape[1] - 1), np.int64)
        text[:, ::2] = tokens
        part = [edit.rows(start, start + AT_ONCE) for edit in edits]
        every = ids.expand(len(tokens), -1, -1)
        out.append(run(of.model, torch.from_numpy(text), every, None, part, keep)[:, -1])
    return torch.cat(out).float().numpy()


def activation_in(some: Contexts, of: Subject, name: str) -> np.ndarray:
    """(N, ..., 1, C) an activation at the slot, in each context."""
    found: list[np.ndarray] = []

    def keep(point: str, x: torch.Tensor) -> None:
        if point == name:
            found.append(x[..., -1:, :].float().numpy().copy())

    logits_in(some, of, (), keep)
    return np.concatenate(found)
