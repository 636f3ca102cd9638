"""Generation with a key-value cache: of many rows at once, or of one row token by token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from addgpt.config.architectures import ModelConfig
from addgpt.generation import one_row
from addgpt.model.build import Model, cache_of
from addgpt.model.gpt import GPT
from addgpt.model.kv_cache import LocalCache
from addgpt.task import Batch, Task

MIN_UNFINISHED = 0.75  # share of the rows that are read, at which the finished ones are dropped
COLDEST = 1e-9  # temperature; what is divided by less is beyond float32
EXTRA_TOKENS = 8  # that may be written beyond those that a task expects

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
    written = tokens[:, start:]
    probability = np.ones((rows, limit), np.float32)
    reader = _Reader(model, positions, rows, start + limit)
    if rows == 1 and temperature <= 0 and one_row.can_step(model):
        pairs = reader.greedily(prompts)
        for now in range(limit):
            written[0, now], probability[0, now] = next(pairs)
            if written[0, now] == end:
                break
    else:
        choose = partial(_choose, temperature=temperature, top_k=top_k, rng=rng)
        _write_rows(reader, choose, tokens, probability, end)
    ended = written == end
    terminated = ended.any(1)
    length = np.where(terminated, ended.argmax(1) + 1, limit)
    # A finished row goes on being written until it is dropped: that does not count.
    after = np.arange(limit) >= length[:, None]
    written[after], probability[after] = end, 1
    return Generated(written, length, terminated, probability)


def _write_rows(
    reader: _Reader, choose: Callable, tokens: np.ndarray, probability: np.ndarray, end: int
) -> None:
    """Fill in all (B, T) tokens after the prompts, and the (B, limit) probabilities of these."""
    rows, limit = probability.shape
    start = tokens.shape[1] - limit
    inside, unfinished = np.arange(rows), np.ones(rows, bool)  # rows that are read, finished or not
    for now in range(limit):
        chosen, chance = choose(reader.logits(tokens[inside, reader.read : start + now]))
        tokens[inside, start + now], probability[inside, now] = chosen, chance
        unfinished &= chosen != end
        count = np.count_nonzero(unfinished)
        if not count:
            break
        if count <= MIN_UNFINISHED * len(inside):
            left = np.flatnonzero(unfinished)
            inside, unfinished = inside[left], unfinished[left]
            reader.keep(left)


@torch.inference_mode()
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
) -> Iterator[tuple[int, float]]:
    """Continue one (T,) prompt, giving out each token as it is written, the end mark included, and
    the model's probability of it.

    Beyond `window` tokens the model reads the last `window` of them alone, as if nothing stood
    before them.
    """
    start = len(prompt)
    tokens = np.concatenate([prompt, np.zeros(limit, prompt.dtype)])[None]
    reader = _Reader(model, positions, 1, start + limit, window)
    for now in range(start, start + limit):
        if window is None or now <= window:
            logits = reader.logits(tokens[:, reader.read : now])
        else:
            logits = reader.logits_afresh(tokens[:, now - window : now])
        chosen, chance = _choose(logits, temperature, top_k, rng)
        tokens[:, now] = chosen
        yield int(chosen[0]), float(chance[0])
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
    any_id = np.iinfo(np.int16).max
    pairs = zip(config.levels, config.scheme, strict=True)
    return np.array([size - 1 if how == "learned" else any_id for size, how in pairs], np.int16)


class _Reader:
    """Reads B rows, which grow to at most `length` tokens."""

    def __init__(
        self, model: Model, positions: Positions, rows: int, length: int, window: int | None = None
    ) -> None:
        self.model, self.positions = model, positions
        self.length = length
        self.device = next(model.parameters()).device
        self.cache = cache_of(model.config, rows, min(length, window or length), self.device)
        self.ids = torch.zeros((rows, 0, 0), dtype=torch.long)

    @property
    def read(self) -> int:
        """How many tokens of each row were read."""
        return self.cache.used

    def logits(self, tokens: np.ndarray) -> Tensor:
        """(B, V) logits of the token after (B, T) tokens, which follow those read before."""
        read, now = self.read, self.read + tokens.shape[1]
        if not read:
            self.ids = self._tensor(self.positions(tokens, self.length - now))
            if isinstance(self.cache, LocalCache):
                self.cache.plan(self.ids)
        new, ids = self._tensor(tokens), self.ids[:, read : now + 1]
        return self.model(new, ids, self.cache, self._last(new))[:, -1].float()

    def greedily(self, prompt: np.ndarray) -> Iterator[tuple[int, float]]:
        """The likeliest tokens after one prompt (1, T), and their probabilities, endlessly; for a
        model that `one_row` can step through."""
        first = self.logits(prompt)[0].numpy()
        assert isinstance(self.cache, LocalCache) and isinstance(self.model, GPT)
        return one_row.greedy(one_row.stepper(self.model, self.cache, self.ids), first)

    def keep(self, rows: np.ndarray) -> None:
        """Drop all rows but these."""
        index = self._tensor(rows)
        self.ids = self.ids[index]
        self.cache.keep(index)

    def logits_afresh(self, tokens: np.ndarray) -> Tensor:
        """(B, V) logits of the token after (B, T) tokens, as if nothing stood before them: without
        the cache, which holds tokens that have attended to those that fall away."""
        new, ids = self._tensor(tokens), self._tensor(self.positions(tokens, 1))
        return self.model(new, ids, at=self._last(new))[:, -1].float()

    def _last(self, new: Tensor) -> Tensor | None:
        """(B, 1) where logits are wanted: of a prompt only at its end, which saves much work."""
        rows, length = new.shape
        return torch.full((rows, 1), length - 1, device=self.device) if length > 1 else None

    def _tensor(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.astype(np.int64)).to(self.device)


def _choose(
    logits: Tensor, temperature: float, top_k: int, rng: torch.Generator | None
) -> tuple[np.ndarray, np.ndarray]:
    """Next tokens of (B, V) logits and the model's probability of each."""
    chances = logits.softmax(-1)
    if temperature <= 0:
        chosen = logits.argmax(-1)
    else:
        scaled = logits / max(temperature, COLDEST)
        if 0 < top_k < scaled.shape[-1]:
            least = scaled.topk(top_k).values[:, -1:]
            scaled = scaled.masked_fill(scaled < least, -torch.inf)
        chosen = torch.multinomial(scaled.softmax(-1), 1, generator=rng)[:, 0]
    chance = chances.gather(1, chosen[:, None])[:, 0]
    return chosen.cpu().numpy(), chance.cpu().numpy()
