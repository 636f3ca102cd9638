"""A sheet of paper with B rows, on which problems are written column by column.

All arithmetic tasks share three levels of position ids, and one alphabet (index hints add letters
to it), so that weights can move between them:

    col    place of a digit within its row: 1 is the least significant
    step   which step of the work the row belongs to: 0 is the problem itself
    kind   what the row is (operand, partial product, remainder, ...): a `Kind`

Position ids depend on the lengths of the operands alone: a *slot* has its ids whether or not a
short answer reaches it, and whatever is written in it. So nothing about an answer leaks through its
positions. Decoding works them out from zeros of the same lengths, and sees what training saw.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from addgpt.task import Batch
from tasks.common.digits import FEW, below, choose, order_of
from tasks.common.ids import ALPHABET

END = "#"
DIGITS = 10  # the first so many characters
LEVELS = 3
BYTES = 1 << 19  # worked on at once, so that they stay near the processor
LARGEST_TABLE = 1 << 20  # of combinations of lengths
SIGNS = np.array([ALPHABET.index("+"), ALPHABET.index("-")], np.uint8)  # not negative, negative


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
    UNUSED = 22  # models know the kinds by number
    QUOTIENT = 23
    REMAINDER = 24
    # Of local traces, in which each digit is followed by what it carries or borrows.
    DOWN = 25  # a digit of the dividend that a later step brings down
    BORROW = 26  # of a difference
    SIGN = 27
    TENS = 28  # what a column of a product carries
    CARRY_8 = 29  # what a column of a try carries or borrows
    CARRY_4 = 30
    CARRY_2 = 31
    CARRY_1 = 32
    CARRY_REST = 33
    SIGN_8 = 34
    SIGN_4 = 35
    SIGN_2 = 36
    SIGN_1 = 37
    SUM_CARRY = 38  # what a column of a running sum carries
    # Of sums of many numbers.
    SUBTOTAL = 39  # the first number, then running sums
    SUBTOTAL_CARRY = 40
    STOP = 41  # what ends a row


KINDS = Kind.REMAINDER + 1
ALL_KINDS = Kind.SUM_CARRY + 1  # of operations on two numbers


class _Block(NamedTuple):
    """What one call wrote: some columns of slots, all arrays broadcast to (B, width)."""

    width: int
    tokens: np.ndarray
    exists: np.ndarray | bool
    used: np.ndarray | bool
    ids: tuple  # col, step, kind
    backwards: bool


def _hinted(block: _Block) -> _Block:
    """A block of digits, a hint before each of them in the same column, row and so on."""

    def twice(values):
        wide = np.ndim(values) and np.shape(values)[-1] == block.width
        return np.repeat(values, 2, -1) if wide else values

    tokens = np.repeat(block.tokens.astype(np.uint8), 2, -1)
    col = np.broadcast_to(block.ids[0], block.tokens.shape)
    tokens[:, int(block.backwards) :: 2] = col + (len(ALPHABET) - 1)
    ids = tuple(map(twice, block.ids))
    exists, used = twice(block.exists), twice(block.used)
    return block._replace(width=2 * block.width, tokens=tokens, exists=exists, used=used, ids=ids)


class Sheet:
    """Rows of problems under construction. See the module's text for what ids mean.

    What is written is kept, not copied, until the batch is made.

    Args:
        lengths: of each operand, (B,) numbers of digits. Rows of equal lengths have the same slots
            and ids, which are computed once for all of them.
        ids: what the col id of a digit is: see `IDS`.
        hints: whether a letter before each digit says its column.
    """

    def __init__(self, *lengths: np.ndarray, ids: str = "coupled", hints: bool = False) -> None:
        self.rows, self.ids, self.hints = len(lengths[0]), ids, hints
        self._lengths = lengths
        self._blocks: list[_Block] = []
        self._prompt_columns = self._prompt_blocks = 0

    def number(
        self,
        digits: np.ndarray,
        kind: np.ndarray | int,
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
        width = digits.shape[1]
        col = np.arange(1, width + 1) if col is None else col
        used = exists if used is None else used & exists
        block = _Block(width, digits, exists, used, (col, step, kind), most_significant_first)
        hinted = self.hints and np.all(digits < DIGITS)
        self._blocks.append(_hinted(block) if hinted else block)

    def pairs(self, first, second, kinds: tuple[int, int], *, exists, step=0) -> None:
        """Write two digit matrices (B, n) in turns: a digit, then what its column carries."""
        width = first.shape[1]
        both = np.stack([first, second], 2).reshape(len(first), 2 * width)
        self.number(
            both,
            np.tile(kinds, width),
            exists=np.repeat(exists, 2, 1),
            col=np.repeat(np.arange(1, width + 1), 2),
            step=step,
        )

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
        token = np.array([[ALPHABET.index(char)]]) if isinstance(char, str) else char
        self.number(token, kind, exists=exists, col=col, step=step)

    def equals(self, kind: int = Kind.EQUALS, step: int = 0) -> None:
        """Write `=`; from here on, the model is scored."""
        self.symbol("=", kind, step=step)
        self._prompt_columns, self._prompt_blocks = self._columns, len(self._blocks)

    def drop(self, count: int) -> None:
        """Leave out the first `count` slots of the work, or all that has been written of it."""
        if not count:
            return
        before = np.zeros((self.rows, 1), int)
        for index in range(self._prompt_blocks, len(self._blocks)):
            block = self._blocks[index]
            way = slice(None, None, -1 if block.backwards else 1)
            exists = np.broadcast_to(block.exists, (self.rows, block.width))[:, way]
            place = before + np.cumsum(exists, 1)
            kept, before = (exists & (place > count))[:, way], place[:, -1:]
            self._blocks[index] = block._replace(exists=kept, used=block.used & kept)

    def batch(self) -> Batch:
        """The finished rows, gaps closed, padded with the end mark."""
        used = self._spread([block.used for block in self._blocks], bool)
        written = self._spread([block.tokens for block in self._blocks], np.uint8)
        count, prompt = map(_count, (used, used[:, : self._prompt_columns]))
        size = int(count.max())
        before_end = below(count, size)
        tokens = _without_gaps(written, used, before_end)
        scored = before_end ^ below(prompt, size)
        return Batch(*map(np.ascontiguousarray, (tokens, scored)), self.positions(size))

    def positions(self, size: int | None = None) -> np.ndarray:
        """(B, size, 3) ids of the slots; 0 beyond a row's last slot."""
        examples, like = _distinct(self._lengths)
        exists = self._spread([block.exists for block in self._blocks], bool, examples)
        count = exists.sum(1)[:, None]
        longest = int(count.max())
        ids = np.zeros((LEVELS, len(examples), max(longest, size or 0)), np.int16)
        before_end = np.arange(ids.shape[2]) < count
        for level in range(LEVELS):
            values = [block.ids[level] for block in self._blocks]
            ids[level][before_end] = self._spread(values, np.int16, examples)[exists]
        if self.ids == "abacus":
            digit = np.zeros(ids.shape[1:], bool)
            digits = [block.tokens < DIGITS for block in self._blocks]
            digit[before_end] = self._spread(digits, bool, examples)[exists]
            ids[0] = _place_in_run(digit)
        return ids.transpose(1, 2, 0)[:, :size].take(like, 0)

    @property
    def _columns(self) -> int:
        return sum(block.width for block in self._blocks)

    def _spread(self, values: list, dtype: type, rows: np.ndarray | None = None) -> np.ndarray:
        """(B, columns) one value of each block, side by side; of some rows if given."""
        shape = self.rows if rows is None else len(rows), self._columns
        out = np.empty(shape, dtype, order_of(self._columns))
        start = 0
        for block, value in zip(self._blocks, values, strict=True):
            part = out[:, start : start + block.width]
            start += block.width
            if rows is not None and np.ndim(value) == 2 and len(value) == self.rows:
                value = value[rows]
            part[:, :: -1 if block.backwards else 1] = value
        return out


def start(
    op: str,
    operands: tuple[np.ndarray, np.ndarray],
    lengths: tuple[np.ndarray, np.ndarray],
    cols: tuple = (None, None),
    steps: tuple = (0, 0),
    ids: str = "coupled",
    hints: bool = False,
    kinds: tuple = (Kind.A, Kind.B),
    reverse: bool = False,
    begin: int | None = None,
) -> Sheet:
    """A sheet with the prompt `a op b=` on it, most significant digit first unless `reverse`.

    `cols`, `steps` and `kinds` are ids of the digits of a and b, in place of their own places,
    step 0 and `Kind.A` and `Kind.B`; `begin` is a token that stands before the problem;
    `ids` and `hints` are those of `Sheet`.
    """
    sheet = Sheet(*lengths, ids=ids, hints=hints)
    if begin is not None:
        sheet.symbol(np.array([[begin]]), Kind.OPERATOR)
    width = operands[0].shape[1]
    for side in range(2):
        sheet.number(
            operands[side],
            kinds[side],
            exists=below(lengths[side], width),
            col=cols[side],
            step=steps[side],
            most_significant_first=not reverse,
        )
        if side == 0:
            sheet.symbol(op, Kind.OPERATOR)
    sheet.equals()
    return sheet


def _count(used: np.ndarray) -> np.ndarray:
    """(B,) how many of each row are true."""
    enough = np.uint8 if used.shape[1] < 256 else np.int32
    if used.shape[1] <= FEW:
        return used.sum(1, dtype=enough)
    return np.einsum("ij->i", used.view(np.uint8), dtype=enough)  # quicker, if it is row by row


def _without_gaps(values: np.ndarray, used: np.ndarray, before_end: np.ndarray) -> np.ndarray:
    """(B, n) the used values of each row, where (B, n) `before_end` says; then end marks.

    In few columns values move by the binary digits of how far they have to go (Steele, in Warren
    2002, Hacker's Delight, section 7-4): a few operations on all of them, not one for each.
    """
    out = np.full(before_end.shape, ALPHABET.index(END), np.uint8, order_of(used.shape[1]))
    many = max(1, BYTES // used.shape[1])  # rows at a time
    for start in range(0, len(values), many):
        part = slice(start, start + many)
        there, moved = used[part], values[part]
        if used.shape[1] > FEW:
            out[part][before_end[part]] = moved.ravel().compress(there.ravel())
            continue
        moved, left = moved * there, (~there).view(np.uint8)
        for column in range(1, left.shape[1]):  # 20 times as fast as a sum along rows
            left[:, column] += left[:, column - 1]
        left *= there
        for bit in range(int(left.max()).bit_length()):
            go = -(left >> bit & 1)
            for some in (moved, left):
                going = some & go
                some ^= going
                some[:, : -1 << bit] |= going[:, 1 << bit :]
        out[part] = choose(before_end[part], moved[:, : out.shape[1]], out[part])
    return out


def _place_in_run(digit: np.ndarray) -> np.ndarray:
    """(B, n) 1, 2, ... along each run of digits; 0 where there is none."""
    place = np.arange(1, digit.shape[1] + 1)
    before = np.maximum.accumulate(np.where(digit, 0, place), 1)
    return np.where(digit, place - before, 0)


def _distinct(lengths: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(K,) one row for each combination of lengths, and (B,) which of them each row is like.

    As `np.unique` does, which sorts and takes several times as long. It has to, where there are too
    many combinations for a table.
    """
    if math.prod(int(some.max()) + 1 for some in lengths) > LARGEST_TABLE:
        both = np.unique(np.stack(lengths, 1), axis=0, return_index=True, return_inverse=True)[1:]
        return both[0], both[1].reshape(-1)
    key = np.zeros(len(lengths[0]), np.int64)
    for some in lengths:
        key = key * (int(some.max()) + 1) + some
    row_of = np.full(int(key.max()) + 1, -1)
    row_of[key] = np.arange(len(key))
    there = np.flatnonzero(row_of >= 0)
    rows = row_of[there]
    row_of[there] = np.arange(len(there))
    return rows, row_of.take(key)
