"""How the work of a sum of many numbers is written: a row for each operand.

Shapes: B rows, K operands, n digits; operands are (B, K, n), lowest digit first, their lengths
(B, K), 0 where there is none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from addgpt.locality import LAST, Read, Rule, Values
from tasks.common import digits
from tasks.common.operation import row_of
from tasks.common.rules import END, EQUALS, PLUS, SEMICOLON, carries, of
from tasks.common.sheet import Kind, Sheet


def _digit(operand: Values, above: Values, carry: Values) -> np.ndarray:
    """A column's digit of a running sum."""
    return (of(operand) + of(above) + of(carry)) % 10


def _carry(operand: Values, above: Values, carry: Values) -> np.ndarray:
    """What a column carries, at most 1."""
    return (of(operand) + of(above) + of(carry)) // 10


def _end(plus: Values, last: Values) -> int:
    """What ends a row."""
    return END if plus is None else SEMICOLON


def _carries_nothing(plus: Values, last: Values) -> np.ndarray:
    """The top column, for a row is as wide as the largest sum that its operands can have."""
    return np.asarray(last) == 0


# What each row of `write_carries` reads.
_COLUMN = (Read(Kind.B, 0, 0), Read(Kind.SUBTOTAL, 0, 1), Read(Kind.SUBTOTAL_CARRY, 1, 0))
RULES: dict[int, Rule] = {
    Kind.SUBTOTAL: Rule(_COLUMN, _digit),
    Kind.SUBTOTAL_CARRY: Rule(_COLUMN, _carry),
    Kind.STOP: Rule((Read(Kind.OPERATOR, None, -1), LAST), _end, _carries_nothing),
}


@lru_cache(1 << 12)
def widest(count: int, length: int) -> int:
    """How many digits the largest sum of so many numbers of so many digits has."""
    return len(str(count * (10**length - 1)))


def padded(lengths: np.ndarray) -> np.ndarray:
    """(B, K) lengths of operands that are written with as many digits as their sum can have."""
    here = lengths > 0
    sizes = zip(here.sum(1).tolist(), lengths.max(1).tolist(), strict=True)
    return np.array([widest(*size) for size in sizes])[:, None] * here


def write_carries(sheet: Sheet, operands: np.ndarray, lengths: np.ndarray) -> None:
    """The running sum with each operand but the first, each digit followed by its carry."""
    here, most = lengths > 0, operands.shape[1]
    nines = np.where(np.arange(operands.shape[2]) < lengths[:, :, None], 9, 0)
    total, largest = operands[:, 0], nines[:, 0]
    for index in range(1, most):
        step = index + 1
        total, carry = _added(total, operands[:, index])
        largest, _ = _added(largest, nines[:, index])
        size = digits.length(largest)
        total, carry, largest = (x[:, : size.max()] for x in (total, carry, largest))
        exists = here[:, index, None] & (np.arange(total.shape[1]) < size[:, None])
        if index > 1:
            sheet.symbol(";", Kind.STOP, exists=here[:, index, None], step=step - 1)
        kinds = (Kind.SUBTOTAL, Kind.SUBTOTAL_CARRY)
        sheet.pairs(total, carry, kinds, exists=exists, step=step)
    sheet.symbol("#", Kind.STOP, step=here.sum(1)[:, None])


def write_sums(sheet: Sheet, operands: np.ndarray, lengths: np.ndarray) -> None:
    """Zero, then the running sum with each operand, all as long as the operands are written.

    The row that an operand has been added to has the step of the next one.
    """
    here, width = lengths > 0, operands.shape[2]
    place = np.arange(width)
    exists = place < lengths[:, :1]
    total = np.zeros_like(operands[:, 0])
    sheet.number(total, Kind.SUBTOTAL, exists=exists, step=1)
    for index in range(operands.shape[1]):
        row = here[:, index, None]
        total = digits.wide(_added(total, operands[:, index])[0], width)
        sheet.symbol(";", Kind.STOP, exists=row, step=index + 2)
        sheet.number(total, Kind.SUBTOTAL, exists=exists & row, step=index + 2)
    sheet.symbol("#", Kind.STOP, step=here.sum(1)[:, None] + 1)


def carries_pattern(widths: list[int]) -> str:
    """Of rows whose sums have so many digits, up to the last one, a group."""
    *rows, last = (row_of(2 * width) for width in widths)
    return "".join(f"{row};" for row in rows) + f"({last})"


def sums_pattern(count: int, width: int) -> str:
    """Of zero and so many running sums of so many digits, the last one a group."""
    return f"0{{{width}}};" + f"{row_of(width)};" * (count - 1) + f"({row_of(width)})"


def written_lengths(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, K) where the operands of prompts end, and their lengths, 0 where there is none."""
    place = np.arange(tokens.shape[1])
    before = place <= (tokens == EQUALS).argmax(1)[:, None]
    after = before & ((tokens == PLUS) | (tokens == EQUALS))  # the token after an operand
    counts = after.sum(1)[:, None]
    most = int(counts.max())
    ends = np.argsort(~after, axis=1, kind="stable")[:, :most]
    starts = np.concatenate([np.zeros_like(ends[:, :1]), ends[:, :-1] + 1], 1)
    return ends, np.where(np.arange(most) < counts, ends - starts, 0)


def _added(total: np.ndarray, operand: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, n + 1) digits of sums of (B, n) and (B, m) ones, and what each column carries."""
    width = max(total.shape[1], operand.shape[1]) + 1
    return carries(digits.wide(total, width) + digits.wide(operand, width))
