"""All that a slot of a right local trace can see, listed: layouts, then the values in each.

A *layout* is what follows from the operand lengths: which tokens a slot sees, of which kinds, and
how far away. A *context* is a layout with a token in each of these places. Tokens are computed
from the rules of the trace (`LocalTrace.rules`), not sampled: a token whose reads are all seen
follows from them; one with hidden reads may be what any of their values make of it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from addgpt.config.architectures import GPTConfig
from addgpt.config.errors import UsageError
from addgpt.locality import LAST, LocalTrace, Read, Rule
from addgpt.model.local import LocalAttention
from addgpt.model.position_ids import NEAR
from addgpt.task import Batch

MAX_CONTEXTS = 5_000_000  # of one layout


Possible = tuple[tuple[int, ...], ...]
"""What can stand in a slot: tokens, each after those that are the same for all of its row: a carry
of a product by 3 is at most 3."""


class Seen(NamedTuple):
    """A token that a slot sees.

    kind      of its row, and of the slot after it: `after`
    apart     on each level but the last, the slot's id less the token's, as the model can tell it;
              None: the token has no id there
    values    what can stand there, if it is part of the prompt; empty if it is written
    reads     of a written token: which of the seen ones each read is; what can stand there, if it
              is not seen; None where nothing is read
    """

    kind: int
    after: int
    apart: tuple[int | None, ...]
    values: tuple[int, ...]
    reads: tuple[int | Possible | None, ...]


Look = tuple[int, tuple[tuple, ...]]


class Layout(NamedTuple):
    """What a slot of a kind sees, in the order of the text: the token just written is the last."""

    kind: int
    seen: tuple[Seen, ...]
    reads: tuple[int | None, ...]

    @property
    def look(self) -> Look:
        """What the model can tell of it."""
        return self.kind, tuple((seen.kind, seen.after, seen.apart) for seen in self.seen)


@dataclass(frozen=True)
class Example:
    """Where a layout was met.

    places  (R,) of the tokens seen, in the text
    ids     (R, L) theirs; after  (R, L) of the slots after them: the last is the slot's
    prompt  such as `11+111=`
    """

    places: np.ndarray
    ids: np.ndarray
    after: np.ndarray
    prompt: str


class Lister:
    """Lists layouts and contexts of a task; what follows from the rules is worked out once."""

    def __init__(self, task: LocalTrace, config: GPTConfig) -> None:
        self.task, self.rules, self.names = task, task.rules(), task.row_names()
        self.local, self.vocab = LocalAttention(config), len(task.alphabet)
        self._possible = functools.cache(self._all_possible)
        self._relation = functools.cache(self._all_related)

    def layouts(self, size: int) -> Iterator[tuple[Layout, Example]]:
        """The layouts of all slots that are written in problems of one size. Raises UsageError
        where a slot does not see what its rule reads."""
        for sheet in self.task.sheets(size):
            yield from self._of_sheet(*sheet)

    def _of_sheet(
        self, prompt: np.ndarray, values: list[range], given: np.ndarray
    ) -> Iterator[tuple[Layout, Example]]:
        ids, first = given.astype(np.int64), len(prompt)
        own = list(map(tuple, ids.tolist()))
        seen = self.local.seen_keys(torch.from_numpy(ids)[None])[0].tolist()
        text = "".join(self.task.alphabet[token] for token in prompt)
        reads, possible = self.followed(own, values, text)
        for slot in range(first, len(own)):
            places = sorted(place for place in seen[slot - 1] if place >= 0)
            number = {place: order for order, place in enumerate(places)}
            if any(place is not None and place not in number for place in reads[slot]):
                what = self.names[own[slot][-1]]
                raise UsageError(f"{text}: a slot of {what} does not see all that it has to read")
            described = [
                Seen(
                    own[place][-1],
                    own[place + 1][-1],
                    tuple(map(apart, own[slot][:-1], own[place])),
                    () if place >= first else tuple(values[place]),
                    tuple(p if p is None else number.get(p, possible[p]) for p in reads[place]),
                )
                for place in places
            ]
            read = tuple(place if place is None else number[place] for place in reads[slot])
            where = np.array(places)
            example = Example(where, ids[where], ids[where + 1], text)
            yield Layout(own[slot][-1], tuple(described), read), example

    def followed(
        self, own: list[tuple[int, ...]], values: list[range], text: str = ""
    ) -> tuple[list[list[int | None]], list[Possible]]:
        """Where the reads of each slot of a sheet stand, and what can stand in it, by the ids of
        all slots and what can stand in those of the prompt."""
        index: dict[tuple[int, ...], int] = {}
        for place, some in enumerate(own):
            index[some] = -1 if some in index else place
        reads: list[list[int | None]] = [[] for _ in values]
        possible: list[Possible] = [tuple((value,) for value in some) for some in values]
        for slot in range(len(values), len(own)):
            reads.append(self._read_by(own, index, slot, text))
            there = tuple(None if place is None else possible[place] for place in reads[slot])
            possible.append(self._possible(own[slot][-1], there))
        return reads, possible

    def _read_by(self, own: list[tuple], index: dict, slot: int, text: str) -> list[int | None]:
        """Where each read of a slot's rule stands; None: nothing is there, or not yet."""
        kind, found = own[slot][-1], []
        if kind not in self.rules:
            raise UsageError(f"the trace has no rule for rows of {self.names[kind]}")
        for read in self.rules[kind].reads:
            place = slot - 1 if read == LAST else index.get(_wanted(own[slot], read), slot)
            if place < 0:
                what = self.names[kind]
                raise UsageError(f"{text}: two tokens have the ids that a slot of {what} reads")
            found.append(place if place < slot else None)
        return found

    def contexts(self, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
        """(N, R) tokens that can be seen together in a right trace, and (N,) the right next token.

        Raises UsageError where there are too many.
        """
        table = np.zeros((1, 0), np.uint8)
        for seen in layout.seen:
            if seen.values:
                possible = np.zeros((len(table), self.vocab), bool)
                possible[:, list(seen.values)] = True
            else:
                sources = [read for read in dict.fromkeys(seen.reads) if isinstance(read, int)]
                relation = self._relation(seen.kind, seen.reads, tuple(sources))
                possible = relation[tuple(table[:, source] for source in sources)]
                possible = np.broadcast_to(possible, (len(table), self.vocab))
            if np.count_nonzero(possible) > MAX_CONTEXTS:
                what = self.names[layout.kind]
                raise UsageError(f"{what}: slots see too many tokens to list all contexts")
            row, token = possible.nonzero()
            table = np.column_stack([table[row], token.astype(np.uint8)])
        rule = self.rules[layout.kind]
        values = [None if place is None else table[:, place] for place in layout.reads]
        if rule.given is not None:
            keep = np.broadcast_to(rule.given(*values), len(table))
            table = table[keep]
            values = [value if value is None else value[keep] for value in values]
        right = np.broadcast_to(np.asarray(rule.token(*values)), len(table)).astype(np.uint8)
        return table, right

    def _all_related(self, kind: int, there: tuple, sources: tuple[int, ...]) -> np.ndarray:
        """Which tokens a rule can make, (V, ..., V) true: by each of the seen sources, the token
        last. `there` are the `reads` of a seen token."""
        anything = tuple((token,) for token in range(self.vocab))
        values, token = self._made(
            kind, tuple(anything if isinstance(x, int) else x for x in there)
        )
        if token.max(initial=0) >= self.vocab:  # of what cannot stand side by side
            what = self.names[kind]
            raise UsageError(f"{what}: slots see too little of what it is made of to list contexts")
        relation = np.zeros((self.vocab,) * (len(sources) + 1), bool)
        relation[(*(values[there.index(source)] for source in sources), token)] = True
        return relation

    def _all_possible(self, kind: int, there: tuple[Possible | None, ...]) -> Possible:
        """What can stand in a slot, by what can stand where each of its reads is."""
        values, token = self._made(kind, there)
        constants = [values[i] for i in _constants(self.rules[kind])]
        nothing = np.zeros(len(token), int)
        rows = np.column_stack([*(nothing if x is None else x for x in constants), token])
        return tuple(sorted(set(map(tuple, rows.tolist()))))

    def _made(self, kind: int, there: tuple) -> tuple[list, np.ndarray]:
        """All combinations of what the reads of a rule can be, and the token that each makes."""
        rule = self.rules[kind]
        chain, constants = _chain(rule, kind), _constants(rule)
        grid = _grid([[0] if some is None else sorted({x[-1] for x in some}) for some in there])
        count = len(grid[0]) if grid else 1
        keep = np.ones(count, bool)
        below = () if chain is None else there[chain]
        if (
            chain is not None and below and len(below[0]) > 1
        ):  # of the same row, so with the same constants
            known = np.zeros((self.vocab,) * len(below[0]), bool)
            known[tuple(np.array(below).T)] = True
            keep &= known[tuple(grid[i] for i in (*constants, chain))]
        values = [None if some is None else value for some, value in zip(there, grid, strict=True)]
        if rule.given is not None:
            keep &= rule.given(*values)
        token = np.broadcast_to(np.asarray(rule.token(*values)), count).astype(int)
        return [value if value is None else value[keep] for value in values], token[keep]


def met(batch: Batch, row: int, seen: np.ndarray) -> tuple[Look, Example, np.ndarray]:
    """The context in which a row of a batch writes a token, where (R,) `seen` are the places that
    it sees, -1 for none: as far as the model tells, where, and the tokens."""
    places, ids = np.sort(seen[seen >= 0]), batch.positions[row]
    own, after = ids[places].astype(np.int64), ids[places + 1].astype(np.int64)
    slot = after[-1].tolist()
    look = tuple(
        (one[-1], next_one[-1], tuple(map(apart, slot[:-1], one)))
        for one, next_one in zip(own.tolist(), after.tolist(), strict=True)
    )
    example = Example(places, own, after, "")
    return (slot[-1], look), example, batch.tokens[row, places].astype(np.uint8)


def _grid(axes: list[list[int]]) -> list[np.ndarray]:
    """All combinations of values, one array for each axis."""
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def _chain(rule: Rule, kind: int) -> int | None:
    """Which read, if any, is the token of the same row one column below."""
    own = [i for i, read in enumerate(rule.reads) if (read.kind, read.col) == (kind, 1)]
    return own[0] if own and not rule.reads[own[0]].step else None


def _constants(rule: Rule) -> list[int]:
    """Which reads are the same tokens for all of a row."""
    return [
        i
        for i, read in enumerate(rule.reads)
        if read != LAST and read.col is None and not read.step
    ]


def _wanted(own: tuple[int, ...], read: Read) -> tuple[int, ...]:
    """The ids that a read looks for; ids that no token has where there is nothing to look for."""
    place = []
    for mine, off in zip(own[:-1], read[1:], strict=True):
        place.append(0 if off is None else mine - off if mine and mine - off > 0 else -1)
    return (*place, read.kind)


def apart(own: int, there: int) -> int | None:
    """How far apart two ids are, as far as relative ids tell."""
    return None if there == 0 else max(-NEAR, min(NEAR, own - there))
