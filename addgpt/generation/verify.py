"""Verifying a draft: one forward pass over the reference completions settles most rows.

A draft is checked rather than followed, as in speculative decoding (Leviathan et al. 2023,
arXiv:2211.17192): a row whose every token is the model's own first choice, given the tokens before
it, is what decoding would have written; all other rows are decoded.
"""

from __future__ import annotations

import numpy as np

from addgpt.generation.decode import Generated, batch_within_tables, write
from addgpt.model.build import Model
from addgpt.model.forward import all_hit, pairs_at_once, passes
from addgpt.task import Batch, Graded


def verify_or_write(model: Model, task: Graded, prompts: np.ndarray, limit: int) -> Generated:
    """What `write` writes, but for rounding. Drafts are a graded task's reference completions."""
    draft, start = task.reference(prompts), prompts.shape[1]
    if draft is None or draft.tokens[:, :start].shape != prompts.shape:
        return write(model, task, prompts, limit)
    rows, length = len(prompts), draft.lengths - start
    tokens = np.full((rows, limit), task.alphabet.index(task.end), prompts.dtype)
    probability = np.ones((rows, limit), np.float32)
    settled = np.zeros(rows, bool)
    fits = np.flatnonzero(_usable(model, draft, prompts, limit))
    size = int(length[fits].max(initial=0))
    tokens[fits, :size] = draft.tokens[fits, start : start + size]
    settled[fits], probability[fits, :size] = _verified(model, draft.rows(fits), size)
    terminated = settled.copy()
    open_ = np.flatnonzero(~settled)
    if len(open_):
        out = write(model, task, prompts[open_], limit)
        written = out.tokens.shape[1]
        tokens[open_, :written], probability[open_, :written] = out.tokens, out.probability
        length[open_], terminated[open_] = out.length, out.terminated
    return Generated(tokens, length, terminated, probability)


def _usable(model: Model, draft: Batch, prompts: np.ndarray, limit: int) -> np.ndarray:
    """(B,) which drafts start with what was asked, and can be read by the model in one pass."""
    start, length = prompts.shape[1], draft.lengths
    fits = (length - start <= limit) & (length > start)
    fits &= length**2 <= pairs_at_once(model.config)  # which decoding never holds at once
    # A sum's hints may be one more than were trained.
    fits &= (draft.tokens < model.config.vocab).all(1)
    return fits & (draft.tokens[:, :start] == prompts).all(1)


def _verified(model: Model, draft: Batch, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(B,) which rows the model would have written, and (B, size) its probability of each token."""
    settled = np.zeros(len(draft), bool)
    probability = np.ones((len(draft), size), np.float32)
    for index, logits, targets in passes(model, batch_within_tables(draft, model.config)):
        settled[index] = all_hit(logits, targets)
        chances = logits.float().softmax(-1).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
        scored = (targets >= 0).cpu().numpy()
        # The scored tokens of a row follow one another, so they only move to its beginning.
        place = np.arange(size) < scored.sum(1)[:, None]
        part = np.ones((len(index), size), np.float32)
        part[place] = chances.cpu().numpy()[scored]
        probability[index] = part
    return settled, probability
