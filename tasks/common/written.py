"""Where the tokens of a problem and its work stand on paper: by their rows and columns.

Each operand has a line of its own, an operator before it, and so has each row of the work. A digit
stands in its column, what a column carries or borrows as a small mark beside it, and what has no
column to the right of the ones:

>>> import numpy as np
>>> from tasks.add import Add
>>> task = Add(digits=2, trace="carry")
>>> ids = task.positions(task.encode("12+34=")[None], 5)[0]
>>> for place in placed("12+34=60400"[:9], ids[:9]):
...     print(tuple(place))
(0, -2, False)
(0, -1, False)
(1, -3, False)
(1, -2, False)
(1, -1, False)
(1, 0, False)
(2, -1, False)
(2, -1, True)
(2, -2, False)
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from addgpt.task import Place
from tasks.common.ids import HINTS
from tasks.common.sheet import Kind

OPERATORS = "+-*/"
NO_COLUMN = 0
# Rows that are written as one: marks beside the digits of another row, a sign at its end, and the
# two parts of a product.
ROW_OF = {
    Kind.CARRY: Kind.TOTAL,
    Kind.BORROW: Kind.SIGNED,
    Kind.SIGN: Kind.SIGNED,
    Kind.TENS: Kind.PRODUCT,
    Kind.SUM_CARRY: Kind.RUNNING,
    Kind.SUBTOTAL_CARRY: Kind.SUBTOTAL,
    Kind.TOP: Kind.LOW,
    Kind.CARRY_REST: Kind.REST,
    Kind.EQUALS: Kind.QUOTIENT,
    Kind.OPERATOR: Kind.QUOTIENT,  # the r between quotient and remainder
    **{Kind[f"{mark}_{n}"]: Kind[f"TRY_{n}"] for mark in ("CARRY", "SIGN") for n in (8, 4, 2, 1)},
}
SHIFTED = (  # a step to the left for each step of the work: the rows of a product
    Kind.PRODUCT, Kind.TENS, Kind.RUNNING, Kind.SUM_CARRY, Kind.LOW, Kind.TOP,
)  # fmt: skip
WHOLE = (Kind.LOW, Kind.TOP, Kind.QUOTIENT, Kind.EQUALS)  # rows that hold digits of several steps
SMALL = {kind for kind in ROW_OF if "CARRY" in kind.name} | {Kind.TENS, Kind.BORROW}


def placed(text: str, ids: np.ndarray) -> list[Place]:
    """The place of each token of a text, from (T, 3) ids; columns count down from the ones, -1."""
    asked = text.index("=") + 1 if "=" in text else len(text)
    rows = _rows(text, ids, asked)
    most = 1 + max((len(_digits(text, row)) for row in rows if row[0] < asked), default=0)
    out: list[Place] = []
    for number, row in enumerate(rows):
        columns = _of_prompt(text, row, most) if row[0] < asked else _of_work(ids, row, text)
        marks = [_small(text[place], ids[place]) for place in row]
        out += [Place(number, x, mark) for x, mark in zip(columns, marks, strict=True)]
    return out


def _rows(text: str, ids: np.ndarray, asked: int) -> list[list[int]]:
    """The tokens of each line. Where operators are written, too, a step of the work is a line."""
    spelled = any(
        text[place] == ";" and ids[place, 2] == Kind.OPERATOR for place in range(asked, len(text))
    )

    def line(place: int) -> tuple:
        if place < asked:
            return (sum(char in OPERATORS for char in text[: place + 1]),)
        _, step, kind = ids[place].tolist()
        if spelled:
            return "step", step
        return 0 if kind in WHOLE else step, ROW_OF.get(kind, kind)

    return [list(group) for _, group in groupby(range(len(text)), line)]


def _small(char: str, ids: np.ndarray) -> bool:
    return char in HINTS or (int(ids[2]) in SMALL and char.isdecimal())


def _digits(text: str, row: list[int]) -> list[int]:
    return [place for place in row if text[place] not in OPERATORS + "="]


def _of_prompt(text: str, row: list[int], most: int) -> list[int]:
    """Right under one another, the operator before the longest."""
    ends = {place: x for x, place in enumerate(reversed(_digits(text, row)), 1)}
    return [
        -ends[place] if place in ends else NO_COLUMN if text[place] == "=" else -most
        for place in row
    ]


def _of_work(ids: np.ndarray, row: list[int], text: str) -> list[int]:
    """By their columns, or where two would collide, in the order of the text."""
    columns = []
    for col, step, kind in ids[row].tolist():
        columns.append(-col - (step - 1 if col and step and kind in SHIFTED else 0))
    there = {
        (x, _small(text[place], ids[place])) for x, place in zip(columns, row, strict=True) if x
    }
    with_column = sum(x != NO_COLUMN for x in columns)
    without = [place for place, x in zip(row, columns, strict=True) if x == NO_COLUMN]
    if len(there) < with_column or len(without) > 2 or (without and not with_column):
        return [place - row[-1] - 1 for place in row]
    beside = iter(range(len(row)))
    return [next(beside) if x == NO_COLUMN else x for x in columns]
