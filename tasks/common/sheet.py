"""A sheet of paper with B rows, on which problems are written column by column.

All arithmetic tasks share one alphabet and three levels of position ids, so that weights can move
between them:

    col    place of a digit within its row: 1 is the least significant
    step   which step of the work the row belongs to: 0 is the problem itself
    kind   what the row is (operand, partial product, remainder, ...): a `Kind`

The ids of what is written are settled by the lengths of the operands alone: a *slot* has its ids
whether or not a short answer reaches it, and whatever is written in it. So nothing about an answer
leaks through its positions, and decoding sees what training saw.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from addgpt.task import Batch

ALPHABET = "0123456789+-*/=#r,;"
END = "#"
LEVELS = 3


class Kind(IntEnum):
    """What a row of the sheet is. 0 is "no position"."""

    A = 1
    B = 2
    OPERATOR = 3
    EQUALS = 4
    TOTAL = 5  # a sum
    CARRY = 6
    SIGNED = 7  # a difference before its sign is known: ten's complement where negative
    MAGNITUDE = 8
    PRODUCT = 9  # one operand times a digit of the other
    RUNNING = 10  # running sum of those products
    LOW = 11  # the digits of a product that earlier running sums have settled
    TOP = 12  # the digits of a product that the last running sum holds
    TWICE = 13  # multiples of the divisor
    FOUR = 14
    EIGHT = 15
    TRY_8 = 16  # the remainder less 8, then less or plus 4, 2 and 1 times the divisor
    TRY_4 = 17
    TRY_2 = 18
    TRY_1 = 19
    REST = 20  # the remainder of one step
    DIGIT = 21  # a digit of the quotient, at the end of its step
    GUESS = 22  # an estimate of that digit
    QUOTIENT = 23
    REMAINDER = 24


KINDS = len(Kind) + 1


class Sheet:
    """Rows of problems under construction. See the module's text for what ids mean."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self._tokens: list[np.ndarray] = []
        self._used: list[np.ndarray] = []
        self._exists: list[np.ndarray] = []
        self._ids: list[list[np.ndarray]] = [[] for _ in range(LEVELS)]
        self._prompt_columns = 0

    def number(
        self,
        digits: np.ndarray,
        kind: int,
        *,
        exists: np.ndarray | bool = True,
        used: np.ndarray | None = None,
        col: np.ndarray | int | None = None,
        step: np.ndarray | int = 0,
        most_significant_first: bool = False,
    ) -> None:
        """Write digit matrices (B, n).

        Args:
            exists: (B, 1) or (B, n), which slots there are: a function of operand lengths alone.
            used: (B, n), which of them a digit fills (leading zeros may be left out).
            col, step, kind: ids, broadcast to (B, n); `col` counts 1, 2, … if not given.
        """
        col = np.arange(1, digits.shape[1] + 1) if col is None else col
        order = slice(None, None, -1) if most_significant_first else slice(None)
        shape = digits.shape
        exists = np.broadcast_to(exists, shape)
        used = exists if used is None else used & exists
        self._tokens.append(digits[:, order].astype(np.uint8))
        self._exists.append(exists[:, order])
        self._used.append(used[:, order])
        for level, value in enumerate((col, step, kind)):
            self._ids[level].append(np.broadcast_to(value, shape)[:, order])

    def symbol(
        self,
        char: str | np.ndarray,
        kind: int,
        *,
        exists: np.ndarray | bool = True,
        col: np.ndarray | int = 0,
        step: np.ndarray | int = 0,
    ) -> None:
        """Write one character in every row, or the (B, 1) token ids of one each."""
        token = np.full((1, 1), ALPHABET.index(char)) if isinstance(char, str) else char
        self.number(np.broadcast_to(token, (self.rows, 1)), kind, exists=exists, col=col, step=step)

    def equals(self) -> None:
        """Write `=`; from here on, the model is scored."""
        self.symbol("=", Kind.EQUALS)
        self._prompt_columns = sum(block.shape[1] for block in self._tokens)

    def batch(self, cell: np.ndarray) -> Batch:
        """The finished rows, gaps closed, padded with the end mark."""
        used = np.concatenate(self._used, 1)
        tokens = _packed(np.concatenate(self._tokens, 1), used, ALPHABET.index(END))
        size = tokens.shape[1]
        prompt = used[:, : self._prompt_columns].sum(1)[:, None]
        place = np.arange(size)
        scored = (place >= prompt) & (place < used.sum(1)[:, None])
        return Batch(tokens, scored, self.positions(size), cell)

    def positions(self, size: int | None = None) -> np.ndarray:
        """(B, size, 3) ids of the slots; 0 beyond a row's last slot."""
        exists = np.concatenate(self._exists, 1)
        slots = int(exists.sum(1).max()) if size is None else size
        out = np.zeros((self.rows, slots, LEVELS), np.int16)
        for level, blocks in enumerate(self._ids):
            out[:, :, level] = _packed(np.concatenate(blocks, 1), exists, 0, slots)
        return out


def _packed(values: np.ndarray, mask: np.ndarray, fill: int, size: int | None = None) -> np.ndarray:
    """Each row's masked values, moved to the left; `fill` after them."""
    count = mask.sum(1)
    longest = int(count.max())
    size = longest if size is None else size
    if mask.all():
        full = np.ascontiguousarray(values[:, :size])
        if full.shape[1] == size:
            return full
    out = np.full((len(values), max(size, longest)), fill, values.dtype)
    out[np.arange(out.shape[1]) < count[:, None]] = values[mask]
    return out[:, :size]
