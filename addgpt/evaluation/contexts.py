"""All that a slot of a right local trace can see, listed: layouts, then the values in each.

A *layout* is what follows from the operand lengths: which tokens a slot sees, of which kinds, and
how far away. A *context* is a layout with a token in each of these places. Tokens are worked out
from the rules of the trace (`LocalTrace.rules`), not sampled: a token whose reads are all seen
follows from them; one with hidden reads may be what any of their values make of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from addgpt.config.errors import UsageError
from addgpt.locality import LAST, LocalTrace, Read, Rule
from addgpt.model.local import LocalAttention
from addgpt.model.position_ids import NEAR

MAX_CONTEXTS = 5_000_000  # of one layout
HIDDEN = -1  # where a read of a seen token is not seen itself


class Seen(NamedTuple):
    """A token that a slot sees.

    kind      of its row, and of the slot after it: `after`
    apart     on each level but the last, the slot's id less the token's, as far as the model tells;
              None: the token has no id there
    values    what can stand there, if it is part of the prompt; empty if it is written
    reads     of a written token: where each read stands among the seen ones, `HIDDEN` if it does
              not, None where nothing is read
    """

    kind: int
    after: int
    apart: tuple[int | None, ...]
    values: tuple[int, ...]
    reads: tuple[int | None, ...]


class Layout(NamedTuple):
    """What a slot of a kind sees, in the order of the text: the token just written is the last."""

    kind: int
    seen: tuple[Seen, ...]
    reads: tuple[int | None, ...]


@dataclass(frozen=True)
class Example:
    """Where a layout was met: the ids of what is seen and of the slot, and the prompt.

    ids  (R, L) of the tokens seen; after  (R, L) of the slots after them: the last is the slot's
    """

    ids: np.ndarray
    after: np.ndarray
    prompt: str


def layouts(task: LocalTrace, local: LocalAttention, size: int) -> Iterator[tuple[Layout, Example]]:
    """The layouts of all slots that are written in problems of one size. Raises UsageError where a
    slot does not see what its rule reads."""
    rules = task.rules()
    for prompt, values, given in task.sheets(size):
        ids = given.astype(np.int64)
        seen = local.places(torch.from_numpy(ids)[None])[0].numpy()
        index = {tuple(own): place for place, own in enumerate(ids.tolist())}
        text = "".join(task.alphabet[token] for token in prompt)

        def read_by(slot: int) -> list[int | None]:
            own, found = ids[slot], []
            for read in rules[own[-1]].reads:
                place = slot - 1 if read == LAST else index.get(_wanted(own, read), slot)
                found.append(place if place < slot else None)
            return found

        for slot in range(len(prompt), len(ids)):
            kind = int(ids[slot, -1])
            if kind not in rules:
                raise UsageError(f"the trace has no rule for rows of kind {kind}")
            places = sorted(place for place in seen[slot - 1].tolist() if place >= 0)
            number = {place: order for order, place in enumerate(places)}
            reads = read_by(slot)
            if any(place is not None and place not in number for place in reads):
                raise UsageError(f"slot {slot} of {text} does not see all that it has to read")

            def described(place: int) -> Seen:
                written = place >= len(prompt)
                inner = read_by(place) if written else []
                return Seen(
                    int(ids[place, -1]),
                    int(ids[place + 1, -1]),
                    tuple(_apart(own, there) for own, there in zip(ids[slot], ids[place, :-1])),
                    () if written else tuple(values[place]),
                    tuple(p if p is None else number.get(p, HIDDEN) for p in inner),
                )

            layout = Layout(
                kind,
                tuple(map(described, places)),
                tuple(place if place is None else number[place] for place in reads),
            )
            after = ids[[place + 1 for place in places]]
            yield layout, Example(ids[places], after, text)


def contexts(task: LocalTrace, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """(N, R) tokens that can be seen together in a right trace, and (N,) the right next token."""
    rules, vocab = task.rules(), len(task.alphabet)
    table = np.zeros((1, 0), np.uint8)
    for seen in layout.seen:
        if seen.values:
            possible = np.zeros((len(table), vocab), bool)
            possible[:, list(seen.values)] = True
        else:
            sources = [r for r in dict.fromkeys(seen.reads) if r is not None and r != HIDDEN]
            relation = _relation(task, seen, sources)
            possible = relation[tuple(table[:, source] for source in sources)]
            possible = np.broadcast_to(possible, (len(table), vocab))
        if np.count_nonzero(possible) > MAX_CONTEXTS:
            raise UsageError(f"slots of kind {layout.kind} see too much: more contexts than can be listed")
        row, token = possible.nonzero()
        table = np.column_stack([table[row], token.astype(np.uint8)])
    rule = rules[layout.kind]
    values = [None if place is None else table[:, place] for place in layout.reads]
    if rule.given is not None:
        keep = np.broadcast_to(rule.given(*values), len(table))
        table = table[keep]
        values = [value if value is None else value[keep] for value in values]
    right = np.broadcast_to(np.asarray(rule.token(*values)), len(table)).astype(np.uint8)
    return table, right


def _relation(task: LocalTrace, seen: Seen, sources: list[int]) -> np.ndarray:
    """Which tokens a rule can make, (V, ..., V) true: by each of the seen sources, the token last."""
    rule, vocab = task.rules()[seen.kind], len(task.alphabet)
    relation = np.zeros((vocab,) * (len(sources) + 1), bool)
    there = seen.reads
    values: list = _grid(
        [np.zeros(1, int) if place is None else _domain(task, read)
         for place, read in zip(there, rule.reads, strict=True)]
    )
    count = len(values[0]) if values else 1
    keep = np.ones(count, bool)
    chain = _chain(rule, seen.kind)
    if chain is not None and there[chain] is not None:
        keep &= _reachable(task, seen.kind)[tuple(values[i] for i in (*_constants(rule), chain))]
    axes = [values[there.index(source)] for source in sources]
    values = [None if place is None else value for place, value in zip(there, values, strict=True)]
    if rule.given is not None:
        keep &= rule.given(*values)
    token = np.broadcast_to(np.asarray(rule.token(*values)), count)
    relation[tuple(x[keep] for x in (*axes, token.astype(int)))] = True
    return relation


def _grid(axes: list[np.ndarray]) -> list[np.ndarray]:
    """All combinations of values, one array for each axis."""
    return [axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")]


def _domain(task: LocalTrace, read: Read) -> np.ndarray:
    return np.arange(len(task.alphabet)) if read == LAST else task.domain(read.kind)


def _chain(rule: Rule, kind: int) -> int | None:
    """Which read, if any, is the token of the same row one column below."""
    own = [i for i, read in enumerate(rule.reads) if (read.kind, read.col) == (kind, 1)]
    return own[0] if own and not rule.reads[own[0]].step else None


def _constants(rule: Rule) -> list[int]:
    """Which reads are the same tokens for all of a row."""
    return [i for i, read in enumerate(rule.reads) if read != LAST and read.col is None and not read.step]


def _reachable(task: LocalTrace, kind: int) -> np.ndarray:
    """Which tokens can stand in a row, (V, ..., V) true: by each constant of it, the token last.

    A carry of a product by 3 is at most 3: what a row can hold follows from its first column, where
    nothing was carried, and from what each column makes of what the one below can hold.
    """
    rule, vocab = task.rules()[kind], len(task.alphabet)
    constants, chain = _constants(rule), _chain(rule, kind)
    assert chain is not None
    reached = np.zeros((vocab,) * (len(constants) + 1), bool)
    grid = _grid([_domain(task, read) for read in rule.reads])
    for first in itertools.chain([True], itertools.repeat(False)):
        values: list = list(grid)
        keep = np.ones(len(grid[0]), bool)
        if first:
            values[chain] = None
        else:
            keep = reached[tuple(grid[i] for i in (*constants, chain))]
        token = np.broadcast_to(np.asarray(rule.token(*values)), len(keep)).astype(int)
        before = np.count_nonzero(reached)
        reached[tuple(x[keep] for x in (*(grid[i] for i in constants), token))] = True
        if np.count_nonzero(reached) == before:
            return reached
    raise AssertionError


def _wanted(own: np.ndarray, read: Read) -> tuple[int, ...]:
    """The ids that a read looks for; such as no token has where there is nothing to look for."""
    place = []
    for mine, apart in zip(own[:-1].tolist(), read[1:], strict=True):
        place.append(0 if apart is None else mine - apart if mine and mine - apart > 0 else -1)
    return (*place, read.kind)


def _apart(own: int, there: int) -> int | None:
    """How far apart two ids are, as far as relative ids tell."""
    return None if there == 0 else int(np.clip(own - there, -NEAR, NEAR))
