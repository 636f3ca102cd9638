"""Generation with a key-value cache: of many rows at once, or of one row token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from addgpt.config.architectures import ModelConfig
from addgpt.model.build import Model, cache_of
from addgpt.task import Batch, Task

WORTH = 0.75  # share of unfinished rows below which the finished ones are dropped

Positions = Callable[[np.ndarray, int], np.ndarray]  # Task.positions


@dataclass(frozen=True)
class Generated:
    """What a model wrote after B prompts.

    tokens       (B, T) of the prompts' type; written tokens, the end mark included, then end marks
    length       (B,) int       how many of them count (up to and including the end mark)
    terminated   (B,) bool      whether the end mark came before the limit
    probability  (B, T) float32 the model's probability of each written token
    """

    tokens: np.ndarray
    length: np.ndarray
    terminated: np.ndarray
    probability: np.ndarray


@torch.inference_mode()
def generate(
    model: Model,
    positions: Positions,
    prompts: np.ndarray,
    limit: int,
    end: int,
    temperature: float = 0.0,
    top_k: int = 0,
    rng: torch.Generator | None = None,
) -> Generated:
    """Continue (B, T) prompts of equal length up to the end mark, or by `limit` tokens.

    Greedy at temperature 0, else sampled from the `top_k` likeliest tokens (0: from all). Finished
    rows leave the batch, several at a time, so that a long one does not make the others wait.
    """
    rows, start = prompts.shape
    limit = max(1, limit)
    tokens = np.full((rows, start + limit), end, prompts.dtype)
    tokens[:, :start] = prompts
    probability = np.ones((rows, limit), np.float32)
    length = np.full(rows, limit)
    terminated = np.zeros(rows, bool)
    inside = np.arange(rows)  # rows that are still read, finished or not
    reader = _Reader(model, positions, rows, start + limit)
    for now in range(start, start + limit):
        chosen, chance = _choose(reader.logits(tokens[inside, :now]), temperature, top_k, rng)
        open_ = ~terminated[inside]
        alive = inside[open_]
        tokens[alive, now] = chosen[open_]
        probability[alive, now - start] = chance[open_]
        done = alive[chosen[open_] == end]
        length[done] = now - start + 1
        terminated[done] = True
        left = np.flatnonzero(~terminated[inside])
        if not len(left):
            break
        if len(left) <= WORTH * len(inside):
            inside = inside[left]
            reader.keep(left)
    return Generated(tokens[:, start:], length, terminated, probability)


def stream(
    model: Model,
    positions: Positions,
    prompt: np.ndarray,
    limit: int,
    end: int | None = None,
    window: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    rng: torch.Generator | None = None,
) -> Iterator[int]:
    """Continue one (T,) prompt, giving out each token as it is written, the end mark included.

    Beyond `window` tokens the model reads the last `window` of them alone, as if nothing stood
    before them.
    """
    start = len(prompt)
    tokens = np.concatenate([prompt, np.zeros(limit, prompt.dtype)])[None]
    reader = _Reader(model, positions, 1, start + limit, window)
    for now in range(start, start + limit):
        chosen, _ = _choose(reader.logits(tokens[:, :now]), temperature, top_k, rng)
        tokens[:, now] = chosen
        yield int(chosen[0])
        if chosen[0] == end:
            return


def write(model: Model, task: Task, prompts: np.ndarray, limit: int) -> Generated:
    """Greedy completions of a task's (B, T) prompts of equal length."""
    positions = within_tables(task.positions, model.config)
    return generate(model, positions, prompts, limit, task.alphabet.index(task.end))


def within_tables(positions: Positions, config: ModelConfig) -> Positions:
    """Position ids that the model has a row for: beyond a learned table all are its last."""
    top = _largest_ids(config)
    return lambda tokens, slots: np.minimum(positions(tokens, slots), top)


def batch_within_tables(batch: Batch, config: ModelConfig) -> Batch:
    """A batch with such ids."""
    return replace(batch, positions=np.minimum(batch.positions, _largest_ids(config)))


def _largest_ids(config: ModelConfig) -> np.ndarray:
    """(L,) the largest position id of each level that the model has a row for."""
    scheme = config.scheme
    return np.array(
        [
            size - 1 if how == "learned" else np.iinfo(np.int16).max
            for size, how in zip(config.levels, scheme, strict=True)
        ],
        np.int16,
    )


class _Reader:
    """What a model has read of B rows that grow to at most `length` tokens."""

    def __init__(
        self, model: Model, positions: Positions, rows: int, length: int, window: int | None = None
    ) -> None:
        self.model, self.positions = model, positions
        self.length, self.window = length, window or length
        self.device = next(model.parameters()).device
        self.cache = cache_of(model.config, rows, min(length, self.window), self.device)
        self.ids = np.zeros((rows, 0, 0), np.int16)

    @torch.inference_mode()
    def logits(self, tokens: np.ndarray) -> Tensor:
        """(B, V) logits of the token after (B, T) tokens, the ones read before among them."""
        now = tokens.shape[1]
        if now > self.window:
            return self._last_window(tokens[:, now - self.window :])
        read = self.cache.used
        if not read:
            self.ids = self.positions(tokens, self.length - now)
        new, ids = self._tensors(tokens[:, read:], self.ids[:, read : now + 1])
        return self.model(new, ids, self.cache, self._last(new))[:, -1].float()

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these."""
        self.ids = self.ids[rows]
        self.cache.keep(torch.from_numpy(rows).to(self.device))

    def _last_window(self, tokens: np.ndarray) -> Tensor:
        """The cache is of no use once the first tokens fall away: all later ones looked at them."""
        new, ids = self._tensors(tokens, self.positions(tokens, 1))
        return self.model(new, ids, at=self._last(new))[:, -1].float()

    def _last(self, new: Tensor) -> Tensor | None:
        """(B, 1) where logits are wanted: of a prompt only at its end, which spares much work."""
        rows, length = new.shape
        return torch.full((rows, 1), length - 1, device=self.device) if length > 1 else None

    def _tensors(self, tokens: np.ndarray, ids: np.ndarray) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(tokens.astype(np.int64)).to(self.device),
            torch.from_numpy(ids.astype(np.int64)).to(self.device),
        )


def _choose(
    logits: Tensor, temperature: float, top_k: int, rng: torch.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Next tokens of (B, V) logits and the model's probability of each."""
    chances = logits.softmax(-1)
    if temperature <= 0:
        chosen = logits.argmax(-1)
    else:
        scaled = logits / temperature
        if 0 < top_k < scaled.shape[-1]:
            least = scaled.topk(top_k).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        chosen = torch.multinomial(scaled.softmax(-1), 1, generator=rng)[:, 0]
    chance = chances.gather(1, chosen[:, None])[:, 0]
    return chosen.cpu().numpy(), chance.cpu().numpy()
