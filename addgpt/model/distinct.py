"""All rows of a batch as one text that holds each token, with what its place adds to it, once.

With one block of local attention, the logits of a slot depend only on the tokens that it sees and
on what positions do to these (certificates rest on the same). So a slot is one query of that text.
In training keys and values are made of its entries alone: of 54 for the 1,536 tokens of 128 sums of
three digits. Where there is nothing to learn, slots that see the same are worked on once, too:
10,000 such sums have 46,000 written slots, but 14,000 contexts.

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
from addgpt.model.layers import rows_at
from addgpt.model.local import LocalAttention
from addgpt.model.positions import Slots
from addgpt.model.schemes import distinct_rows, first_and_which
from addgpt.model.variants import BLOCKS, attention_of

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def sees_contexts(model: torch.nn.Module) -> TypeGuard[GPT]:
    """Whether a slot's logits depend on its context alone, and nobody watches the modules."""
    if type(model) is not GPT or not model.config.local or model.config.depth > 1:
        return False
    c, block, positions = model.config, cast(Block, model.blocks[0]), model.positions
    known = type(block) is BLOCKS[c.norm_place] and type(block.attention) is attention_of(c)
    known = known and isinstance(positions.local, LocalAttention)
    by_place = positions.reads_index or "rotary" in positions  # places seldom come again
    on_cpu = model.token.rows().device.type == "cpu"  # elsewhere sorting takes longer than products
    return known and on_cpu and not by_place and not has_hooks(model)


class _Text(NamedTuple):
    """The text of a batch, and some slots as its queries.

    x     (1, E, C) embeddings
    read  (N, R) entries that each slot sees, its own first
    bias  (U T, 1 or H, R) what is added to the products of queries and keys;  at  (N,) whose is
          which
    """

    x: Tensor
    read: np.ndarray
    bias: Tensor
    at: np.ndarray

    def logits(self, model: GPT, read: Tensor, bias: Tensor) -> Tensor:
        """(M, V) of queries that see entries (M, R), their biases (M, 1 or H, R)."""
        seen, entries = read[None], self.x.shape[1]
        bias = bias.transpose(0, 1)[None]
        context = AttentionContext(
            start=0, key_count=entries, places=seen[:, :, 0], bias=bias, seen=seen
        )
        return model.logits(model.blocks[0](self.x, context))[0]


def slot_logits(
    model: GPT, tokens: np.ndarray, ids: Tensor, slots: tuple[np.ndarray, ...]
) -> Tensor:
    """(N, V) logits of slots, with gradients. Arguments as of `context_logits`."""
    text = _text(model, tokens, ids, slots)
    bias = rows_at(text.bias, torch.from_numpy(text.at))
    return text.logits(model, torch.from_numpy(text.read), bias)


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
    text = _text(model, tokens, ids, slots)
    numbers = text.bias.flatten(1).contiguous()
    rows, same = first_and_which(numbers.view(BITS[numbers.dtype.itemsize]).long().numpy())
    contexts = np.column_stack((text.read, rows[same[text.at]]))
    first, which = first_and_which(contexts)
    parts = torch.from_numpy(contexts[first]).split(size)
    logits = [text.logits(model, part[:, :-1], text.bias[part[:, -1]]) for part in parts]
    return torch.cat(logits), which


def _text(model: GPT, tokens: np.ndarray, ids: Tensor, slots: tuple[np.ndarray, ...]) -> _Text:
    every = torch.arange(len(ids))
    first, of_row = distinct_rows(ids) or (every, every)
    positions, layouts, (row, place) = model.positions, ids[first], slots
    assert positions.local is not None
    seen = positions.local.seen_by_layouts(layouts)  # (U, T, R)
    layout = of_row.numpy()[row]
    most = int((seen.numpy()[layout, place] >= 0).sum(1).max(initial=1))  # that these slots see
    seen = seen[:, :, :most]
    bias = positions.bias(Slots(layouts, None, 0, None, seen))
    assert bias is not None
    bias = bias.transpose(1, 2).flatten(0, 1)

    # What a place adds to a token follows from ids of its own, and maybe of the next place.
    pairs = torch.stack((layouts[:, :-1], layouts[:, 1:]), 2).flatten(0, 1)  # (U T, 2, L)
    adding = pairs[:, : 1 + model.config.next_ids, positions.added_levels]
    kinds, kind = first_and_which(adding.flatten(1).numpy())
    kind = kind.reshape(seen.shape[:2])

    vocab = model.config.vocab
    entry = kind[of_row.numpy()] * vocab + tokens  # (B, T)
    count = np.bincount(entry.ravel(), minlength=len(kinds) * vocab)
    there = np.flatnonzero(count)  # (E,)
    number = (count > 0).cumsum() - 1
    keys = seen.numpy()[layout, place]  # (N, R)
    read = number[entry[row[:, None], keys.clip(0)]]
    read = np.where(keys < 0, read[:, :1], read)  # any that is seen: the bias hides it
    x = model.token(torch.from_numpy(there % vocab)[:, None])  # (E, 1, C)
    x = positions.embed(x, Slots(pairs[kinds[there // vocab]], None, 0))
    return _Text(x.transpose(0, 1), read, bias, layout * seen.shape[1] + place)
