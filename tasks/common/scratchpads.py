"""Scratchpads of a sum that say a whole state in each line: what is left of the operands, what has
been found. How they are written on a sheet, and the patterns that read them.

Shapes: B rows, n columns; operands, total and carries are digit matrices (B, n), lowest first.
"""

from __future__ import annotations

import numpy as np

from tasks.common import digits
from tasks.common.ids import ALPHABET
from tasks.common.operation import row_of
from tasks.common.sheet import Kind, Sheet

UNDER_HEAD = "abcdefghij"  # the digits 0 to 9 where the head of a Turing machine stands


def write_detailed(sheet: Sheet, operands, lengths, total, carry) -> None:
    """A line for each column, and a last one that has only the sum and the last carry (Lee et al.
    2023, arXiv:2307.03381)."""
    width = total.shape[1]
    longer = np.maximum(*lengths)[:, None]
    received = np.pad(carry[:, :-1], ((0, 0), (1, 0)))
    a, b = (digits.wide(number, width) for number in operands)
    for k in range(width):
        left, step = np.arange(k, width), k + 1
        line = {"exists": k <= longer, "step": step}
        for number, length, kind in ((a, lengths[0], Kind.A), (b, lengths[1], Kind.B)):
            exists = left < length[:, None]
            ids = {"col": left + 1, "step": step, "most_significant_first": True}
            sheet.number(number[:, k:], kind, exists=exists, **ids)
            sheet.symbol("+" if kind == Kind.A else ",", Kind.OPERATOR, **line)
        sheet.number(total[:, :k], Kind.TOTAL, most_significant_first=True, **line)
        sheet.symbol(",", Kind.OPERATOR, **line)
        one = slice(k, k + 1)
        sheet.symbol(received[:, one], Kind.CARRY, col=k + 1, **line)
        sheet.symbol("=", Kind.EQUALS, exists=k == longer, step=step)
        comma, plus = (",", Kind.OPERATOR, 0), ("+", Kind.OPERATOR, 0)
        digit, leaves = (total[:, one], Kind.TOTAL, k + 1), (carry[:, one], Kind.CARRY, k + 2)
        addends = [(a[:, one], Kind.A, k + 1), plus, (b[:, one], Kind.B, k + 1), plus]
        column = [*addends, (received[:, one], Kind.CARRY, k + 1), ("=", Kind.EQUALS, 0)]
        column += [leaves, digit, comma, digit, comma, leaves, (";", Kind.OPERATOR, 0)]
        for char, kind, col in [comma, *column]:
            sheet.symbol(char, kind, exists=k < longer, col=col, step=step)


def detailed_pattern(a: int, b: int) -> str:
    """Of the lines on numbers of `a` and `b` digits."""
    one = row_of(1)
    left = [
        rf"{row_of(max(a - k, 0))}\+{row_of(max(b - k, 0))},{row_of(k)},{one}"
        for k in range(max(a, b) + 1)
    ]
    return f",{one}\\+{one}\\+{one}={row_of(2)},{one},{one};".join(left) + "="


def write_turing(sheet: Sheet, operands, lengths, total, carry) -> None:
    """A line for each column: the tape as it is then, copied from the line before with small
    changes (Hou et al. 2024, arXiv:2407.03310). The digits under the head are letters, what the
    head has passed is gone; then the carry that it leaves, and the sum so far."""
    width = total.shape[1] - 1
    longer = np.maximum(*lengths)[:, None]
    a, b = (digits.wide(number, width) for number in operands)
    for k in range(width):
        step, one = k + 1, slice(k, k + 1)
        line = {"exists": k < longer, "step": step}
        for number, length, kind in ((a, lengths[0], Kind.A), (b, lengths[1], Kind.B)):
            left = np.arange(k + 1, width)
            ids = {"col": left + 1, "step": step, "most_significant_first": True}
            sheet.number(number[:, k + 1 :], kind, exists=left < length[:, None], **ids)
            sheet.symbol(number[:, one] + len(ALPHABET), kind, col=k + 1, **line)
            sheet.symbol("+" if kind == Kind.A else ",", Kind.OPERATOR, **line)
        sheet.symbol(carry[:, one], Kind.CARRY, col=k + 2, **line)
        sheet.symbol(",", Kind.OPERATOR, **line)
        sheet.number(total[:, : k + 1], Kind.TOTAL, most_significant_first=True, **line)
        sheet.symbol(";", Kind.OPERATOR, **line)
    sheet.symbol("=", Kind.EQUALS)


def turing_pattern(a: int, b: int) -> str:
    """Of the lines on numbers of `a` and `b` digits."""
    head = f"[{UNDER_HEAD}]"
    lines = [
        rf"{row_of(max(a - k, 0))}{head}\+{row_of(max(b - k, 0))}{head},{row_of(1)},{row_of(k)};"
        for k in range(1, max(a, b) + 1)
    ]
    return "".join(lines) + "="
