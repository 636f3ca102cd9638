"""What heads attend to, in words: how the token attended to stands to the slot that is filled."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from addgpt.interpret.activations import Activations
from addgpt.interpret.subject import Token

NAMED = 0.7  # share of a head's attention from which on a relation names the head
MIXED = "several things"
COUNTS = {1: "", 2: "two ", 3: "three ", 4: "four "}


class Look(NamedTuple):
    """What a head attends to, and the share of its attention that it gets."""

    what: str
    share: float


def relation(slot: Token, key: Token, just_read: bool) -> str:
    """Where a token is as seen from a slot: `same column`, `column before`, `two columns before`,
    with the step of the work if that is the one before or after, `same column a step before`; where
    it has no column, `same step`, `the token just read` or `no column`."""
    steps = slot.step - key.step if slot.step and key.step else 0
    if slot.column and key.column:
        across = _apart("column", slot.column - key.column) or "same column"
        return f"{across} a {_apart('step', steps)}" if abs(steps) == 1 else across
    if slot.step and slot.step == key.step:
        return "same step"
    if just_read:
        return "the token just read"
    return "no column" if key.kind else "an earlier token"


def _apart(what: str, difference: int) -> str:
    """`column before`, `two columns after`; nothing where they are the same."""
    if not difference:
        return ""
    count = COUNTS.get(abs(difference), f"{abs(difference)} ")
    plural = "s" * (abs(difference) > 1)
    return f"{count}{what}{plural} {'before' if difference > 0 else 'after'}"


def looks(found: Activations, block: int, head: int, kind: str | None = None) -> list[Look]:
    """What a head attends to when it fills the slots that were written, or those of one `kind` of
    row: relations with their share of attention, `a, same column` and so on, largest first."""
    weights, tokens = found[f"weights.{block}"][head], found.tokens
    totals: dict[str, float] = defaultdict(float)
    slots = [
        place
        for place in range(len(weights))
        if tokens[place + 1].written and kind in (None, tokens[place + 1].kind)
    ]
    for place in slots:
        for key in np.flatnonzero(weights[place] > 0).tolist():
            where = relation(tokens[place + 1], tokens[key], key == place)
            what = f"{tokens[key].kind}, {where}" if tokens[key].kind else where
            totals[what] += float(weights[place, key]) / len(slots)
    return [Look(*pair) for pair in sorted(totals.items(), key=lambda pair: -pair[1])]


def head_name(found: Activations, block: int, head: int, kind: str | None = None) -> str:
    """What gets most of a head's attention: a row and a relation, else a relation, else two of
    them; `several things` where that does not say most."""
    each = looks(found, block, head, kind)
    if each and each[0].share >= NAMED:
        return each[0].what
    together: dict[str, float] = defaultdict(float)
    for look in each:
        together[look.what.rpartition(", ")[2]] += look.share
    best = sorted(together, key=lambda what: -together[what])[:2]
    if best and together[best[0]] >= NAMED:
        return best[0]
    return " and ".join(best) if sum(together[what] for what in best) >= NAMED else MIXED
