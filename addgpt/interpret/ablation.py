"""What breaks when a part of a model is removed: heads and MLPs, everywhere or in one row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.interpret.edits import Edit
from addgpt.interpret.sample import Sample, collected, hits, of_batch
from addgpt.interpret.subject import Subject
from addgpt.task import Batch, Cell

ALL = "all"  # rows, or the whole trace
FIELDS = ("part", "how", "at", "row", "column", "n", "right")


class Part(NamedTuple):
    """A head or an MLP: what it is called, the point of the model, and which head."""

    name: str
    point: str
    head: int | None = None


def parts(config: GPTConfig) -> list[Part]:
    """All heads and MLPs of a model."""
    found = []
    for depth in range(config.depth):
        found += [Part(f"head {depth}.{h}", f"found.{depth}", h) for h in range(config.heads)]
        found += [Part(f"mlp {depth}", f"mlp.{depth}")] if config.hidden else []
    return found


def ablate(of: Subject, some: Sample) -> list[dict[str, Any]]:
    """What zero and mean ablation of each part do: rows of `FIELDS`.

    The right work is read, and a slot is right if its token wins: so a whole trace counts as right
    if and only if the ablated model, writing on its own, would write all of it (`row` is `all`).
    `row` and `column` say which digits break. `at` says in which row the part was removed, or
    `all`. A part's mean is that over the slots of the same row. The first rows, of part `none`, are
    the model as it is.
    """
    kinds = some.rows()
    whole = hits_of(of, some)
    found = list(_table(some, whole, "none", "none", ALL, kinds))
    means = _means(of, some)
    for part in parts(of.config):
        for how in ("zero", "mean"):
            table = None if how == "zero" else means[part.point]
            right = hits_of(of, some, part, table)
            found += _table(some, right, part.name, how, ALL, kinds)
            for kind, name in kinds.items():
                there = some.kinds == kind
                if of.config.depth == 1:  # a slot then depends on what is done at itself alone
                    here = np.where(there, right, whole)
                else:
                    here = hits_of(of, some, part, table, kind)
                found.append(next(_table(some, here, part.name, how, name, kinds)))
    return found


def ablate_cascades(of: Subject, size: int, seed: int = 0) -> list[dict[str, Any]]:
    """Exact match without each part, by how far a carry travels and how far it might have.

    Rows have `part`, `how`, `cell` (such as `+ carry:2`: a carry runs through two columns, one that
    makes it and one of nine that passes it on; `+ idle:2`: two such columns get none), `n`,
    `right`. Up to `size` held-out problems of each cell, and a part's mean is that over all of
    them. Raises UsageError for a task whose problems are not told apart like this.
    """
    cells: list[Cell] = getattr(of.task, "cascades", list)()
    if not cells:
        raise UsageError(f"{of.task.name} has no cells of carry chains; try add, sub, calc")
    rng, names, batches = np.random.default_rng(seed), list[str](), list[Batch]()
    for cell in cells:
        batch = of.task.batch(rng, size, "test", cell)
        if len(batch):
            names += [f"{cell.op} {cell.stratum}"] * len(batch)
            batches.append(batch)
    if not batches:
        raise UsageError(f"{of.task.name} has no held-out problem of {len(cells)} carry chains")
    some = of_batch(of, Batch.stacked(batches, of.task.alphabet.index(of.task.end)))
    means, there = _means(of, some), np.array(names)
    asked: list[tuple[str, str, Part | None]] = [("none", "none", None)]
    asked += [(part.name, how, part) for part in parts(of.config) for how in ("zero", "mean")]
    found = []
    for name, how, part in asked:
        table = means[part.point] if part is not None and how == "mean" else None
        right = np.asarray(hits_of(of, some, part, table).all(1))
        for where in dict.fromkeys(names):
            here = np.flatnonzero(there == where)
            count = {"n": len(here), "right": int(right[here].sum())}
            found.append({"part": name, "how": how, "cell": where} | count)
    return found


def hits_of(
    of: Subject,
    some: Sample,
    part: Part | None = None,
    means: np.ndarray | None = None,
    kind: int | None = None,
) -> np.ndarray:
    """(B, T) whether slots are right without a part: zeros, or of each kind of row its mean."""
    out = []
    for group in some.parts():
        edits: tuple[Edit, ...] = ()
        if part is not None:
            value: Any = 0.0
            if means is not None:
                value = means[group.kinds]  # (B, T, ...) or (B, T, H, ...)
                value = value.swapaxes(1, 2) if part.head is not None else value
            tokens = None if kind is None else group.kinds == kind
            edits = (Edit(part.point, value, part.head, tokens),)
        out.append(hits(of, group, edits))
    return np.concatenate(out)


def _means(of: Subject, some: Sample) -> dict[str, np.ndarray]:
    """(K, ...) for each point the mean at the slots of each kind of row, those of prompts, too."""
    points = list(dict.fromkeys(part.point for part in parts(of.config)))
    at = some.kinds[some.in_rows]
    found = {}
    for point, values in collected(of, some, points, prompts=True).items():
        table = np.zeros((int(some.kinds.max(initial=0)) + 1, *values.shape[1:]), np.float32)
        for kind in np.unique(at):
            table[kind] = values[at == kind].mean(0)
        found[point] = table
    return found


def _table(
    some: Sample, right: np.ndarray, part: str, how: str, at: str, kinds: dict[int, str]
) -> Iterator[dict[str, Any]]:
    """Counts of whole traces, then of each column of each row."""

    def line(row: str, column: int | str, n: int, count: int) -> dict[str, Any]:
        return dict(zip(FIELDS, (part, how, at, row, column, n, count), strict=True))

    yield line(ALL, "", len(right), int(right.all(1).sum()))
    for kind, name in kinds.items():
        there = some.scored & (some.kinds == kind)
        for column in np.unique(some.columns[there]).tolist():
            here = there & (some.columns == column)
            yield line(name, column, int(here.sum()), int(right[here].sum()))
