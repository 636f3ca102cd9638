"""Worked examples of the report: what a model should have written, and what it wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest

from analysis.report.data import Group

WRONG = 6  # wrong examples shown of a group
RIGHT = 2  # right examples shown of an operation
PIECE = 10  # tokens that stay together where a line is broken
LONGEST = 240  # tokens shown of a text
NOTHING = "·"  # stands where one text has ended and the other has not


@dataclass(frozen=True)
class Piece:
    """A few tokens, cut around the first wrong one, which is empty where it is not among them."""

    before: str
    first: str
    after: str


@dataclass(frozen=True)
class Example:
    """A problem with its work; `place` is the index of the first wrong token, None if right.

    `rows` are pairs of pieces, of what was wanted and of what was written.
    """

    run: str
    problem: str
    truth: str
    answer: str
    kind: str
    line: str
    place: int | None
    rows: tuple[tuple[Piece, Piece], ...]
    cut: bool

    @property
    def says(self) -> str:
        """What the marked token should have been, in words."""
        if self.place is None:
            return ""
        wanted, written = next((a.first, b.first) for a, b in self.rows if a.first or b.first)
        where = f"token {self.place + 1}"
        where += f", in line {self.line} of the work" if self.line else ""
        wanted = "the end" if wanted == NOTHING else wanted
        written = "nothing" if written == NOTHING else written
        return f"First wrong: {where}: {written} instead of {wanted}."


def wrong_examples(group: Group) -> list[Example]:
    """A mistake of every operation, of another kind each round; then second ones of the kinds."""
    kinds: dict[str, list[str]] = {}
    turns: Counter[tuple[str, str]] = Counter()
    ranked = []
    for run in group.runs:
        for row in run.errors:
            if first_difference(row["target"], row["written"]) is not None:
                op, kind = row["op"], row["kind"]
                known = kinds.setdefault(op, [])
                known += [kind] if kind not in known else []
                ranked.append((turns[op, kind], known.index(kind), run, row))
                turns[op, kind] += 1
    chosen = sorted(ranked, key=lambda entry: entry[:2])[:WRONG]
    return [_example(run.name, row) for _, _, run, row in chosen]


def right_examples(group: Group) -> list[Example]:
    """Problems whose work is right throughout, a few of every operation."""
    shown: dict[str, int] = {}
    found = []
    for run in group.runs:
        for row in run.examples:
            shown[row["op"]] = number = shown.get(row["op"], 0) + 1
            if number <= RIGHT:
                found.append(_example(run.name, row))
    return found


def first_difference(target: str, written: str) -> int | None:
    """Index of the first token in which two texts differ; None if they are the same."""
    pairs = enumerate(zip_longest(target, written))
    return next((place for place, (right, wrong) in pairs if right != wrong), None)


def _example(run: str, row: dict[str, str]) -> Example:
    target = row.get("target", row["written"])
    place = first_difference(target, row["written"])
    size = max(len(target), len(row["written"]))
    first = max(0, place - LONGEST // 2) // PIECE * PIECE if place is not None else 0
    return Example(
        run=run,
        problem=row["problem"],
        truth=row["truth"],
        answer=row.get("answer", row["truth"]),
        kind=row.get("kind", ""),
        line=row.get("line", ""),
        place=place,
        rows=tuple(_pieces(target, row["written"], place, first)),
        cut=size > LONGEST,
    )


def _pieces(
    target: str, written: str, place: int | None, first: int
) -> Iterator[tuple[Piece, Piece]]:
    """Both texts in pieces of a few tokens, from token `first` on."""
    size = min(max(len(target), len(written)), first + LONGEST)
    for start in range(first, size, PIECE):
        end = min(start + PIECE, size)
        yield tuple(_piece(text, start, end, place) for text in (target, written))


def _piece(text: str, start: int, end: int, place: int | None) -> Piece:
    if place is None or not start <= place < end:
        before = text[start:end] if place is None or end <= place else ""
        return Piece(before, "", "" if before else text[start:end])
    return Piece(text[start:place], text[place : place + 1] or NOTHING, text[place + 1 : end])
