"""Rules of local traces: what a column of digits makes of what it sees."""

from __future__ import annotations

import numpy as np

from addgpt.locality import Values
from tasks.common.ids import ALPHABET

PLUS, MINUS, EQUALS, END, R, COMMA, SEMICOLON = (ALPHABET.index(char) for char in "+-=#r,;")


def of(value: Values) -> np.ndarray | int:
    """A digit, where there is one; else nothing is added."""
    return 0 if value is None else value.astype(np.int16)


def carries(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, n) digits of totals of columns, lowest first, and what each carries into the next, or
    borrows from it: below 0."""
    digit, carry = np.empty_like(columns), np.empty_like(columns)
    received = np.zeros(len(columns), columns.dtype)
    for column in range(columns.shape[1]):
        total = columns[:, column] + received
        received = carry[:, column] = total // 10
        digit[:, column] = total - 10 * received
    return digit, carry


def either(condition: np.ndarray, one: int, other: int) -> np.ndarray:
    """A token where a condition holds, else another."""
    return np.where(condition, one, other)
