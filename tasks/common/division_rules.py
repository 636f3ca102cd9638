"""The rules of long division without guessing, each digit followed by its carry."""

from __future__ import annotations

import functools

import numpy as np

from addgpt.locality import LAST, Read, Rule
from tasks.common.rules import COMMA, END, EQUALS, MINUS, PLUS, SEMICOLON, R, either, of
from tasks.common.sheet import Kind

TRIES = ((3, 8, Kind.TRY_8), (2, 4, Kind.TRY_4), (1, 2, Kind.TRY_2), (0, 1, Kind.TRY_1))
MULTIPLES = (Kind.TWICE, Kind.FOUR, Kind.EIGHT)
CARRY_OF = {
    Kind.TRY_8: Kind.CARRY_8,
    Kind.TRY_4: Kind.CARRY_4,
    Kind.TRY_2: Kind.CARRY_2,
    Kind.TRY_1: Kind.CARRY_1,
}
SIGN_OF = {
    Kind.TRY_8: Kind.SIGN_8,
    Kind.TRY_4: Kind.SIGN_4,
    Kind.TRY_2: Kind.SIGN_2,
    Kind.TRY_1: Kind.SIGN_1,
}


def division_rules() -> dict[int, Rule]:
    """Of `trace=carry`. A try subtracts after a `+` and adds after a `-`; the first subtracts."""
    rules = {}
    for source, kind in zip((Kind.B, *MULTIPLES), MULTIPLES, strict=False):
        reads = (Read(source, 0), Read(source, 1))
        rules[kind] = Rule(reads, _double)
    brought_down = (Read(Kind.REST, 1, 1), Read(Kind.A, 1, 1), Read(Kind.DOWN, 0, 0))
    before: tuple[Kind, ...] = ()
    for _, weight, kind in TRIES:
        multiple = dict(zip((1, 2, 4, 8), (Kind.B, *MULTIPLES), strict=True))[weight]
        carry, sign = Read(CARRY_OF[kind], 1, 0), [Read(SIGN_OF[k], None, 0) for k in before[-1:]]
        number = [Read(k, 0, 0) for k in before[-1:]] or brought_down
        reads = (*number, Read(multiple, 0), *sign, carry)
        column = functools.partial(_column, signed=bool(sign))
        small = _less_than_divisor if weight == 1 else None
        rules[kind] = Rule(reads, lambda *seen, f=column: f(seen) % 10, small)
        rules[CARRY_OF[kind]] = Rule(reads, lambda *seen, f=column: abs(f(seen) // 10), small)
        given = _eight_fits if weight == 4 else None
        rules[SIGN_OF[kind]] = Rule((*sign, LAST), _sign, given)
        before = (*before, kind)
    reads = (Read(Kind.TRY_1, 0, 0), Read(Kind.B, 0), Read(Kind.SIGN_1, None, 0))
    reads = (*reads, Read(Kind.CARRY_REST, 1, 0))
    rest = functools.partial(_rest, SEMICOLON, part=lambda x: x % 10)
    rules[Kind.REST] = Rule((*reads, LAST), lambda *seen: rest(seen[:-1]), _not_negative)
    rules[Kind.CARRY_REST] = Rule(reads, lambda *seen: _rest(COMMA, seen, lambda x: x // 10))
    signs = tuple(Read(SIGN_OF[kind], None, 0) for _, _, kind in TRIES)
    rules[Kind.DIGIT] = Rule(signs, _digit, _at_most_nine)
    rules[Kind.QUOTIENT] = Rule((Read(Kind.DIGIT, None, 0),), of)
    copied = (Read(Kind.REST, 0, 0), Read(Kind.A, 0, 0))
    rules[Kind.EQUALS], rules[Kind.OPERATOR] = Rule((), lambda: EQUALS), Rule((), lambda: R)
    rules[Kind.REMAINDER] = Rule(copied, _remainder)
    return rules


def _double(digit, below):
    if digit is None and below is None:
        return COMMA
    return (2 * of(digit) + (of(below) > 4)) % 10


def _column(seen: tuple, signed: bool):
    """The total of a column of a try: of what stands there, a multiple and what was carried."""
    *front, carry = seen
    sign = front.pop() if signed else None
    *number, multiple = front
    change = np.where(sign == MINUS, 1, -1) if signed else -1
    return sum(of(digit) for digit in number) + change * (of(multiple) + of(carry))


def _less_than_divisor(digit, divisor, sign, carry):
    """Where the divisor has no digit: the last try brings a row that is less than twice the
    divisor, in size, to less than the divisor. So its top digit, 0 or 1, or 8 or 9 where it stands
    as ten's complement, becomes 0 or 9: a 1 is borrowed from, an 8 receives a carry."""
    if divisor is not None:
        return np.full(len(digit), True)
    minus = (digit == 9) | ((digit == 8) & (carry == 1))
    return np.where(sign == MINUS, minus, (digit == 0) | ((digit == 1) & (carry == 1)))


def _sign(*seen):
    """After a `+` a borrow makes a row negative; after a `-` a carry makes it positive."""
    *sign, carry = seen
    after_minus = sign[0] == MINUS if sign else False
    return either((carry == 1) != after_minus, MINUS, PLUS)


def _eight_fits(sign, carry):
    """A digit of the quotient is at most 9: where 8 times the divisor fits, 12 times does not."""
    return (sign == MINUS) | (carry == 1)


def _not_negative(digit, divisor, sign, carry, last):
    """A negative row, as ten's complement, becomes one of 0 and more: its top column, whose carry
    stands last, carries 1. To any other row nothing is added."""
    if digit is not None:
        return np.full(len(digit), True)
    return (last == 1) == (sign == MINUS)


def _rest(mark: int, seen: tuple, part):
    digit, divisor, sign, carry = seen
    if digit is None:
        return mark
    return part(of(digit) + np.where(sign == MINUS, of(divisor), 0) + of(carry))


def _digit(eight, four, two, one):
    """The digit that the signs of the four tries stand for."""
    signs = [np.where(sign == MINUS, -1, 1) for sign in (eight, four, two)]
    return 8 + 4 * signs[0] + 2 * signs[1] + signs[2] - (one == MINUS)


def _at_most_nine(*signs):
    """What is left of a step is less than the divisor, so ten times that and a digit holds it at
    most nine times."""
    digit = _digit(*signs)
    return (digit >= 0) & (digit < 10)


def _remainder(rest, dividend):
    if rest is None and dividend is None:
        return END
    return rest if dividend is None else dividend
