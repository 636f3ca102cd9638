"""What a model says in each distinct context of a batch, worked out once.

With one block of local attention, the logits of a slot depend only on the tokens that it sees and
on what positions do to these (certificates rest on the same). Many slots see the same: 10,000 sums
of three digits have 46,000 written slots, but 14,000 contexts. So all rows are read as one text
that holds each token, with what its place adds to it, once; a context is one query of that text.

Shapes: B rows, T tokens, C channels, H heads; U layouts: the different rows of ids; E entries of
the text, N slots, M contexts, R keys that are seen at most, V tokens of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple, TypeGuard, cast

import numpy as np
import torch
from torch import Tensor

from addgpt.model.attention import AttentionContext
from addgpt.model.gpt import GPT, Block
from addgpt.model.hooks import has_hooks
from addgpt.model.local import LocalAttention
from addgpt.model.schemes import distinct_rows, first_and_which
from addgpt.model.variants import BLOCKS, attention_of

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def sees_contexts(model: torch.nn.Module) -> TypeGuard[GPT]:
    """Whether a slot's logits depend on its context alone, and nobody watches the modules."""
    if type(model) is not GPT or not model.config.local or model.config.depth > 1:
        return False
    c, block = model.config, cast(Block, model.blocks[0])
    known = type(block) is BLOCKS[c.norm_place] and type(block.attention) is attention_of(c)
    known = known and isinstance(model.positions.local, LocalAttention)
    rotated = {"rotary", "rotary2"} & {c.position, *c.scheme}  # by places that seldom come again
    on_cpu = model.token.rows().device.type == "cpu"  # elsewhere sorting takes longer than products
    return bool(known and on_cpu and not rotated and not model.training and not has_hooks(model))


class _Layouts(NamedTuple):
    """What positions do to the tokens of a batch, as numbers of what is distinct.

    which     (B,) layout of each row
    seen      (U, T, R) keys that each token sees, its own first; negative: fewer
    added     (A, C) what is added to embeddings;           added_of  (U, T) which of them
    bias      (Q, 1 or H, R) what is added to the products;  bias_of   (U, T)
    """

    which: np.ndarray
    seen: np.ndarray
    added: Tensor
    added_of: np.ndarray
    bias: Tensor
    bias_of: np.ndarray


def context_logits(
    model: GPT, tokens: np.ndarray, ids: Tensor, slots: tuple[np.ndarray, ...], size: int
) -> tuple[Tensor, np.ndarray]:
    """Logits after the distinct contexts of some slots.

    Args:
        tokens: (B, T).
        ids: (B, T + 1, L) position ids of the tokens and of the slot after the last.
        slots: rows (N,), and places (N,) of the tokens that were read last.
        size: how many contexts are worked on together.

    Returns:
        (M, V) logits, and (N,) which of these are whose.
    """
    layouts, vocab = _layouts(model, ids), model.config.vocab
    entry = layouts.added_of[layouts.which] * vocab + tokens  # (B, T)
    count = np.bincount(entry.ravel(), minlength=len(layouts.added) * vocab)
    there = np.flatnonzero(count)  # (E,)
    number = (count > 0).cumsum() - 1
    row, place = slots
    layout = layouts.which[row]
    keys = layouts.seen[layout, place]  # (N, R)
    read = number[entry[row[:, None], keys.clip(0)]]
    read = np.where(keys < 0, read[:, :1], read)  # any that is seen: the bias hides it
    contexts = np.column_stack((read, layouts.bias_of[layout, place]))
    first, which = first_and_which(contexts)

    added = layouts.added[torch.from_numpy(there // vocab)]
    x = (model.token(torch.from_numpy(there % vocab)) + added)[None]  # (1, E, C)
    parts = []
    for part in torch.from_numpy(contexts[first]).split(size):
        seen = part[None, :, :-1]  # (1, M, R)
        bias = layouts.bias[part[:, -1]].transpose(0, 1)[None]  # (1, 1 or H, M, R)
        context = AttentionContext(
            start=0, key_count=len(there), places=seen[:, :, 0], bias=bias, seen=seen
        )
        parts.append(model.logits(model.blocks[0](x, context))[0])
    return torch.cat(parts), which


def _layouts(model: GPT, ids: Tensor) -> _Layouts:
    every = torch.arange(len(ids))
    first, which = distinct_rows(ids) or (every, every)
    known = model.positions.effects(ids[first])
    assert known.seen is not None
    shape = known.seen.shape[:2]  # U, T
    added = known.added.expand(shape[0], -1, -1).flatten(0, 1)
    bias = known.bias.expand(shape[0], -1, -1, -1).transpose(1, 2).flatten(0, 1)
    of: list[np.ndarray] = []
    few: list[Tensor] = []
    for table in (added, bias):
        rows = table.flatten(1).contiguous().view(BITS[table.dtype.itemsize]).long().numpy()
        places, numbers = first_and_which(rows)
        few.append(table[torch.from_numpy(places)])
        of.append(numbers.reshape(shape))
    return _Layouts(which.numpy(), known.seen.numpy(), few[0], of[0], few[1], of[1])
