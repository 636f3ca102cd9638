"""The contract of a local trace: each written token follows from few tokens near it.

A task whose traces are local says of each kind of row which rows it reads (`Read`), and which token
follows from what stands there (`Rule`). From the reads come the patterns of local attention, from
the rules the proof that a model is right: see addgpt/evaluation/certificate.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.gpt import NO_PLACE
from addgpt.task import Cell, Graded

Values = np.ndarray | None  # tokens, (N,), one of each context; None: nothing stands there


class Read(NamedTuple):
    """A token that a slot reads.

    kind  of its row
    col   the slot's column less the token's; None: the token has no column
    step  the same for the step of the work
    """

    kind: int
    col: int | None = 0
    step: int | None = None


LAST = Read(0)  # the token just written, whatever it is


@dataclass(frozen=True)
class Rule:
    """What a row of a kind reads, and which token follows.

    reads  by a slot of the row; it always sees the token just written (`LAST`) as well
    token  the right token, or an array of them, from the values of the reads in their order
    given  which of those can stand together in a right trace, where that does not follow from the
           rules of the tokens seen; None: it does
    """

    reads: tuple[Read, ...]
    token: Callable[..., np.ndarray | int]
    given: Callable[..., np.ndarray] | None = None


def not_local(attention: str) -> UsageError:
    """The error for local attention where no trace is local."""
    return UsageError(
        f"attention={attention} needs a local trace: trace=carry where the task has that (in calc "
        "add_trace, sub_trace, mul_trace and div_trace=carry), ids=coupled and spread=0, in add "
        "format=reverse, hints=false and trace=none or carry; else attention=full"
    )


class LocalTrace(Graded):
    """A task whose traces are local. The last level of its position ids is the kind of a row."""

    @abstractmethod
    def rules(self) -> dict[int, Rule]:
        """The rule of each kind of row that the model writes; empty: the trace is not local."""

    @abstractmethod
    def row_names(self) -> dict[int, str]:
        """A readable name for the rows of each kind."""

    def long_cells(self) -> list[Cell]:
        """Cells of long problems, on which a proof is tested."""
        return []

    @abstractmethod
    def cell_like(self, prompt: str) -> Cell:
        """The cell whose problems have the layout of `prompt`, one of `sheets`."""

    @abstractmethod
    def sheets(self, size: int) -> Iterator[tuple[np.ndarray, list[range], np.ndarray]]:
        """A problem of each layout whose longest operand has `size` digits.

        For each: the prompt (T,), what can stand in each of its places, and the ids (S, L) of all
        slots, those of the prompt first.
        """

    def windows(self) -> tuple[tuple[int, ...], ...]:
        """For each level of ids, the differences between a slot and what it reads; empty: any.

        `NO_PLACE` is among them where a token without an id on that level is read.
        """
        reads = [read for rule in self.rules().values() for read in rule.reads if read != LAST]
        levels = (
            {read.col for read in reads} | {0, None},
            {read.step for read in reads} | {0, None},
        )
        sorted_levels = (sorted(NO_PLACE if x is None else x for x in some) for some in levels)
        return (*map(tuple, sorted_levels), ())

    def visible(self, attention: str) -> tuple[tuple[int, ...], ...]:
        """What `attention` shows a slot, as `GPTConfig.visible` has it. Raises UsageError."""
        rules = self.rules()
        if not rules:
            raise not_local(attention)
        if attention == "window":
            return self.windows()
        return tuple(
            (kind, read.kind, *(NO_PLACE if x is None else x for x in read[1:]))
            for kind, rule in rules.items()
            for read in rule.reads
            if read != LAST
        )
