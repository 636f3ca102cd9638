"""What a task hands to training and evaluation: problems, written out as tokens."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class _Problems:
    """The field `problems`. If a function is given, it makes them when they are first asked for: to
    make 64,000 takes longer than to write them, and training asks for none."""

    def __get__(self, batch: Batch | None, owner: type[Batch]) -> np.ndarray:
        if batch is None:  # dataclasses ask for what the field is where it is not given
            return _no_problems  # type: ignore[return-value]
        found = vars(batch)["problems"]
        if callable(found):
            found = vars(batch)["problems"] = found()
        return found

    def __set__(self, batch: Batch, given: np.ndarray | Callable[[], np.ndarray]) -> None:
        # cached: rows taken from a batch ask the same function, and need not keep the whole batch
        vars(batch)["problems"] = functools.cache(given) if callable(given) else given


def _no_problems() -> np.ndarray:
    return np.empty(0, object)


@dataclass(frozen=True)
class Batch:
    """B problems, written out.

    tokens     (B, T) uint8   prompt, then scratchpad and answer, then the end mark, then padding;
               uint16 where the alphabet has more than 256 characters
    scored     (B, T) bool    the model must predict this token: never in the prompt or padding
    positions  (B, T, L) int16  L >= 0 position-id levels; 0 means "no position"
    problems   (B,) object    the `Problem` of each row of a graded task, or a function that makes
               them; (0,) of any other task
    """

    tokens: np.ndarray
    scored: np.ndarray
    positions: np.ndarray
    problems: _Problems = _Problems()

    @classmethod
    def stacked(cls, batches: Sequence[Batch], pad: int) -> Batch:
        """Several batches as one, their tokens padded to the longest with the id `pad`."""
        size = max(batch.tokens.shape[1] for batch in batches)

        def joined(name: str, fill: int) -> np.ndarray:
            arrays = [getattr(batch, name) for batch in batches]
            shape = (sum(map(len, arrays)), size, *arrays[0].shape[2:])
            out = np.full(shape, fill, np.result_type(*{a.dtype for a in arrays}))
            for array, end in zip(arrays, np.cumsum([*map(len, arrays)]), strict=True):
                out[end - len(array) : end, : array.shape[1]] = array
            return out

        parts = joined("tokens", pad), joined("scored", 0), joined("positions", 0)
        batches = tuple(batches)  # as they are now
        return cls(*parts, lambda: np.concatenate([batch.problems for batch in batches]))

    def __len__(self) -> int:
        return len(self.tokens)

    def __reduce__(self) -> tuple:
        return type(self), (self.tokens, self.scored, self.positions, self.problems)

    def rows(self, index: Any) -> Batch:
        """Some of the rows, cut to the longest of them."""
        scored = self.scored[index]
        used = np.flatnonzero(scored.any(0))
        end = int(used[-1]) + 1 if len(used) else scored.shape[1]
        ids, given = self.positions[index, :end], vars(self)["problems"]

        def problems() -> np.ndarray:
            every = given() if callable(given) else given
            return every[index] if len(every) else every

        return Batch(self.tokens[index, :end], scored[:, :end], ids, problems)

    def with_prompt_scored(self) -> Batch:
        """The same batch, with the tokens of the prompt to predict, too; never the padding."""
        before = np.arange(self.scored.shape[1]) < self.scored.argmax(1)[:, None]
        return dataclasses.replace(self, scored=self.scored | before)

    @property
    def lengths(self) -> np.ndarray:
        """(B,) number of tokens up to and including the last scored one."""
        size = self.scored.shape[1]
        return np.where(self.scored.any(1), size - self.scored[:, ::-1].argmax(1), size)
