"""Exact match by cell, with free-running greedy decoding.

Greedy decoding reproduces the target if and only if every argmax, given the true prefix, is right.
So one forward pass settles each row that is fully right; only the others are decoded, to see
whether the answer came out right all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from addgpt.baselines import Model
from addgpt.decode import batch_within_tables, write
from addgpt.model import next_token_loss
from addgpt.task import SPLITS, Batch, Cell, Task

# Bound memory: rows are settled in groups of about so many tokens, or pairs of query and key.
TOKENS_AT_ONCE = 1 << 15
PAIRS_AT_ONCE = 1 << 24
IN_CACHE = 1 << 12  # tokens of one pass on a CPU, whose caches then hold what a block works on
FEW = 0.7  # share of scored tokens below which only their logits are worked out
LONGEST = 1 << 20  # tokens of a sequence, where the model sets no bound
SLACK = 8  # tokens that decoding may write beyond the target's length


@dataclass(frozen=True)
class Outcome:
    """How a model did on B rows: (B,) bool each, and its text for the rows it got wrong."""

    answer_correct: np.ndarray
    trace_correct: np.ndarray
    unterminated: np.ndarray
    wrong: dict[int, str]


def score(model: Model, task: Task, batch: Batch, fast: bool = True) -> Outcome:
    """Judge every row of a batch. With `fast` off, every row is decoded.

    Raises ValueError if the model cannot read as many tokens.
    """
    rows, longest = len(batch), model.config.longest or LONGEST
    read = int(batch.lengths.max(initial=1)) - 1  # the last one is only written
    if read > longest:
        raise ValueError(f"problems of {read} tokens: the model reads at most {longest}")
    batch = batch_within_tables(batch, model.config)
    exact = exact_rows(model, batch) if fast else np.zeros(rows, bool)
    answer, trace, unterminated = exact.copy(), exact.copy(), np.zeros(rows, bool)
    wrong: dict[int, str] = {}
    for index in _groups(batch, np.flatnonzero(~exact), TOKENS_AT_ONCE, equal_prompts=True):
        start = int(batch.scored[index[0]].argmax())
        limits = np.minimum(batch.lengths[index] + SLACK, longest) - start
        out = write(model, task, batch.tokens[index, :start], int(limits.max()))
        # Each row has its own limit: what it may write does not depend on the rows beside it.
        finished = out.terminated & (out.length <= limits)
        for place, row in enumerate(index):
            target = task.decode(batch.tokens[row, start : batch.lengths[row]])
            text = task.decode(out.tokens[place, : min(out.length[place], limits[place])])
            unterminated[row] = not finished[place]
            trace[row] = text == target
            answer[row] = finished[place] and _same_answer(task, text, target)
            if not answer[row]:
                wrong[int(row)] = text
    return Outcome(answer, trace, unterminated, wrong)


@dataclass(frozen=True)
class Examined:
    """A model's outcome on the N problems of one cell."""

    cell: Cell
    split: str
    seen: bool
    batch: Batch
    outcome: Outcome

    def row(self) -> dict:
        """The cell's part of a row of eval.csv: counts."""
        return {
            **self.cell._asdict(),
            "split": self.split,
            "seen": self.seen,
            "n": len(self.batch),
            "answer_correct": int(self.outcome.answer_correct.sum()),
            "trace_correct": int(self.outcome.trace_correct.sum()),
            "unterminated": int(self.outcome.unterminated.sum()),
        }


def examine(
    model: Model,
    task: Task,
    cells: Sequence[Cell],
    per_cell: int = 1000,
    split: str = "test",
    seed: int = 0,
) -> Iterator[Examined]:
    """Score cells one after the other; a cell without problems is passed over.

    Small cells, whose problems are all in train, are scored on all of them and marked `seen`. A
    cell's problems depend on `seed` and the cell alone, not on which other cells are scored.
    """
    model.eval()
    for cell in cells:
        batch, source = problems_of(task, cell, per_cell, split, seed)
        if len(batch):
            seen = bool(task.seen(cell))
            yield Examined(cell, source, seen, batch, score(model, task, batch))


def problems_of(
    task: Task, cell: Cell, per_cell: int = 1000, split: str = "test", seed: int = 0
) -> tuple[Batch, str]:
    """The problems that `examine` scores in a cell, and the split they are from."""
    key = [seed, SPLITS.index(split), cell.len_a, cell.len_b, *cell.op.encode()]
    rng = np.random.default_rng([*key, *cell.stratum.encode()])
    source = "train" if task.seen(cell) else split
    return task.exam(rng, per_cell, source, cell), source


def evaluate(model: Model, task: Task, cells: Sequence[Cell], **how) -> Iterator[dict]:
    """The rows of `examine`, whose arguments it takes."""
    return (examined.row() for examined in examine(model, task, cells, **how))


def loss(model: Model, batch: Batch) -> float:
    """Mean cross-entropy of the scored tokens, in nats."""
    parts = (next_token_loss(logits, targets) for _, logits, targets in passes(model, batch))
    total = sum(map(float, parts))
    return total / max(1, int(batch.scored[:, 1:].sum()))


def exact_rows(model: Model, batch: Batch) -> np.ndarray:
    """(B,) whether every scored token is the argmax, given the true tokens before it."""
    right = np.zeros(len(batch), bool)
    for index, logits, targets in passes(model, batch):
        right[index] = all_hit(logits, targets)
    return right


def all_hit(logits: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """(B,) whether each target (B, S) that is scored is the argmax of its logits (B, S, V)."""
    return ((logits.argmax(-1) == targets) | (targets < 0)).all(1).cpu().numpy()


@torch.inference_mode()
def passes(model: Model, batch: Batch) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor]]:
    """The rows of a batch in groups of bounded size: which they are, and `forward` of them."""
    tokens = IN_CACHE if next(model.parameters()).device.type == "cpu" else TOKENS_AT_ONCE
    for index in _groups(batch, np.arange(len(batch)), tokens):
        yield index, *forward(model, batch.rows(index))


def forward(model: Model, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (B, S, V) and targets (B, S), -1 where not scored.

    S is T - 1, or where the scored tokens are few, just enough places to hold those of each row.
    """
    tokens, ids, targets = tensors(batch, next(model.parameters()).device)
    length, most = targets.shape[1], int((batch.scored[:, 1:].sum(1)).max(initial=1))
    prompt = None
    if model.config.prefix:
        prompt = torch.from_numpy(batch.scored.argmax(1)).to(tokens.device)
    if most > FEW * length:
        return model(tokens, ids, prompt=prompt), targets
    first = np.minimum(batch.scored[:, 1:].argmax(1), length - most)
    at = torch.from_numpy(first[:, None] + np.arange(most)).to(tokens.device)
    return model(tokens, ids, at=at, prompt=prompt), targets.gather(1, at)


def tensors(batch: Batch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What the model is given and what it should say: (B, T-1), (B, T, L), (B, T-1)."""
    targets = np.where(batch.scored, batch.tokens.astype(np.int64), -1)
    return (
        torch.from_numpy(batch.tokens[:, :-1].astype(np.int64)).to(device),
        torch.from_numpy(batch.positions.astype(np.int64)).to(device),
        torch.from_numpy(targets[:, 1:]).to(device),
    )


def _groups(
    batch: Batch, rows: np.ndarray, tokens: int, equal_prompts: bool = False
) -> Iterator[np.ndarray]:
    """Rows in groups of so many tokens, of similar (and if asked for, equal prompt) length."""
    lengths, prompt = batch.lengths, batch.scored.argmax(1)
    order = rows[np.lexsort((lengths[rows], prompt[rows] if equal_prompts else lengths[rows]))]
    start = 0
    while start < len(order):
        longest = int(lengths[order[start:]].max())
        size = max(1, min(tokens // longest, PAIRS_AT_ONCE // longest**2))
        group = order[start : start + size]
        if equal_prompts:
            group = group[prompt[group] == prompt[group[0]]]
        yield group
        start += len(group)


def _same_answer(task: Task, text: str, target: str) -> bool:
    try:
        return task.answer(text) == task.answer(target)
    except ValueError:
        return False
