"""How wrong answers of arithmetic differ from right ones, on Python integers.

A *carry slip* (or *borrow slip*) is an answer each digit of which is that of its column either with
or without a carry coming in: the columns were added rightly, only the carries were not. For 95 + 7
= 102 these are 192 (the first carry is lost), 2 (the second) and 92 (both); 146 for 12 + 34 = 46
has one too many. Nothing is carried into the ones. A single digit above them that is wrong for
another reason passes for a carry slip one time in nine.
"""

from __future__ import annotations

from itertools import zip_longest

from addgpt.task import ErrorType, Problem


def of_number(problem: Problem, truth: int, answer: int) -> ErrorType:
    """How a wrong answer differs from the right one."""
    if abs(truth) == abs(answer):
        return ErrorType("sign")
    op, right, wrong = problem.op, str(abs(truth)), str(abs(answer))
    digit = lowest_wrong(right, wrong)
    same_sign, two = (truth < 0) == (answer < 0), len(problem.operands) == 2
    if digit and op in "+-" and same_sign and two and only_carries(*problem.operands, op, wrong):
        return ErrorType("carry" if op == "+" else "borrow", digit)
    return ErrorType("digit" if len(right) == len(wrong) else "length", digit)


def lowest_wrong(right: str, wrong: str) -> str:
    """Place value of the lowest digit in which two numbers differ, 0 for the ones.

    Empty if they differ in leading zeros alone.
    """
    pairs = zip_longest(reversed(right), reversed(wrong), fillvalue="0")
    return next((str(place) for place, (one, other) in enumerate(pairs) if one != other), "")


def only_carries(a: int, b: int, op: str, answer: str) -> bool:
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
