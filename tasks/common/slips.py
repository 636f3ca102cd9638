"""How wrong answers of arithmetic differ from right ones, on Python integers.

A *carry slip* (or *borrow slip*) is an answer each digit of which is that of its column either with
or without a carry coming in: the columns were added rightly, only the carries were not. For 95 + 7
= 102 these are 192 (the first carry is lost), 2 (the second) and 92 (both); 146 for 12 + 34 = 46
has one too many. Nothing is carried into the ones. A single digit above them that is wrong for
another reason passes for a carry slip one time in nine.
"""

from __future__ import annotations

import re
from itertools import zip_longest

from addgpt.task import Slip

NUMBER = re.compile(r"-?[0-9]+", re.ASCII)


def of_number(a: int, op: str, b: int, truth: str, answer: str) -> Slip:
    """How a wrong answer to `a op b` differs. Raises ValueError if it is not an integer."""
    if NUMBER.fullmatch(answer) is None:
        raise ValueError(f"{answer!r} is not an integer")
    right, wrong = truth.lstrip("-"), answer.lstrip("-")
    if right == wrong:
        return Slip("sign")
    digit = lowest_wrong(right, wrong)
    same_sign = ("-" in truth) == ("-" in answer)
    if digit and op in "+-" and same_sign and only_carries(a, op, b, wrong):
        return Slip("carry" if op == "+" else "borrow", digit)
    return Slip("digit" if len(right) == len(wrong) else "length", digit)


def lowest_wrong(right: str, wrong: str) -> str:
    """Place value of the lowest digit in which two numbers differ, 0 for the ones.

    Empty if they differ in leading zeros alone.
    """
    pairs = zip_longest(reversed(right), reversed(wrong), fillvalue="0")
    return next((str(place) for place, (one, other) in enumerate(pairs) if one != other), "")


def only_carries(a: int, op: str, b: int, answer: str) -> bool:
    """Whether each digit of an answer is that of its column with or without a carry or borrow.

    The answer is the size of the sum or difference, without its sign.
    """
    more = 1 if op == "+" else -1
    high, low = (str(number)[::-1] for number in (max(a, b), min(a, b)))
    width = len(high) + (op == "+")
    if len(answer) > width:
        return False
    for place in range(width):
        column = int(high[place : place + 1] or 0) + more * int(low[place : place + 1] or 0)
        digit = int(answer[::-1][place : place + 1] or 0)
        if digit not in (column % 10, (column + more * (place > 0)) % 10):
            return False
    return True


def pieces(text: str, ends: str) -> list[str]:
    """The text cut after each of the characters `ends`; nothing is dropped."""
    inside = re.escape(ends)
    return re.findall(f"[^{inside}]*[{inside}]|[^{inside}]+", text) if ends else [text]
