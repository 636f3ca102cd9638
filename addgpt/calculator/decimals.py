"""Operations on decimals, and division with a remainder.

>>> from addgpt.calculator.questions import driven, exactly
>>> decimals = Decimals(Rules())
>>> for ask in next(decimals.divide(Number(10), Number(4))):
...     print(ask.reduction, "|", ask.question.problem)
10 / 4 | 100/4
>>> print(driven(decimals.divide(Number(10), Number(4)), exactly))
2.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from addgpt.calculator.numbers import Number, Quotient, Ratio, Rules, Value, brief, number
from addgpt.calculator.questions import ZERO_DIVISION, Ask, Steps, Work, in_pairs
from addgpt.config.errors import UsageError
from addgpt.task import MAX_DIGITS

MAX_EXPONENT = 9_999
MAX_PLACES = 100  # after the point, up to which decimals are kept as they are
ZERO_POWER = "0 to a negative power has no value"
GUARD = 5  # more digits than asked for, and than an exponent has, on the way to a rounded power

Signed = tuple[int, Number]  # a sign, and a number with a sign of its own


class Decimals:
    """Decimals, exact where they can be; `many` is the most operands of a sum that is asked."""

    def __init__(self, rules: Rules, many: int = 2) -> None:
        self.digits, self.many = rules.digits, many

    def literal(self, typed: Number) -> Value:
        return typed

    def kept(self, value: Value) -> Work | Value:
        """An earlier value, which may have been worked out by other rules."""
        if isinstance(value, Ratio):
            return self.divide(Number(value.top), Number(value.bottom))
        return value

    def percent(self, x: Value) -> Work | Value:
        x = one(x)
        return number(x.units, x.places + 2, x.rounded)

    def total(self, terms: Sequence[tuple[int, Value]]) -> Work:
        """The sum of numbers with a sign each, the first one's being 1."""
        numbers = [(sign, one(x)) for sign, x in terms]
        at_once = 2 < len(numbers) <= self.many
        if at_once and all(sign > 0 and x.units >= 0 for sign, x in numbers):
            shown = [x for _, x in numbers]
            places = max(x.places for x in shown)
            ask = Ask("+", tuple(x.at(places) for x in shown), shown, places)
            (answer,) = yield [ask]
            total = number(answer.whole, places, any(x.rounded for x in shown))
        else:
            _, total = yield from in_pairs(self._sum, numbers)
        return (yield from self._shortened(total))

    def product(self, factors: Sequence[Value]) -> Work:
        product = yield from in_pairs(self._times, [one(x) for x in factors])
        return (yield from self._shortened(product))

    def divide(self, left: Value, right: Value) -> Work:
        """Long division, which goes on after the point with zeros appended to the dividend."""
        x, y = one(left), one(right)
        places = self._places(x, y)
        shift = places - x.places + y.places
        a, b = x.units * 10 ** max(0, shift), y.units * 10 ** max(0, -shift)
        (answer,) = yield [Ask("/", (a, b), (x, y), places, x.places + max(0, shift))]
        rest, rounded = 2 * abs(answer.rest), x.rounded or y.rounded or answer.rest != 0
        found = Number(answer.whole, places, rounded)
        if rest > abs(b) or (rest == abs(b) and found.units % 2):
            found = yield from self._away(found, (a < 0) != (b < 0))
        return number(*found)

    def floored(self, op: str, left: Value, right: Value) -> Work:
        """`//` or `%`, both from one division, and floored: the rest has the divisor's sign."""
        x, y = one(left), one(right)
        places = max(x.places, y.places)
        a, b = x.at(places), y.at(places)
        (answer,) = yield [Ask("/", (a, b), (x, y), 0, places)]
        whole, rest = answer
        if rest and (rest < 0) != (b < 0):
            if op == "//":
                (answer,) = yield [Ask("-", (whole, 1), (Number(whole), Number(1)))]
                whole = answer.whole
            else:
                (answer,) = yield [Ask("+", (rest, b), (number(rest, places), y), places)]
                rest = answer.whole
        rounded = x.rounded or y.rounded
        return Number(whole, 0, rounded) if op == "//" else number(rest, places, rounded)

    def power(self, left: Value, right: Value) -> Work:
        """Repeated squaring."""
        x, y = one(left), one(right)
        exponent = whole_exponent(y)
        whole = check_power(x.value, exponent)
        guard: int | None = None
        if x.rounded or x.places * abs(exponent) > MAX_PLACES:
            guard = max(self.digits, whole) + len(str(exponent)) + GUARD
        found = Number(1) if not exponent else x
        for bit in bin(abs(exponent))[3:]:
            found = _cut((yield from self._times(found, found)), guard)
            if bit == "1":
                found = _cut((yield from self._times(found, x)), guard)
        if y.rounded:
            found = found._replace(rounded=True)
        if exponent < 0:
            return (yield from self.divide(Number(1), found))
        return (yield from self._shortened(found))

    def _sum(self, left: Signed, right: Signed) -> Steps[Signed]:
        (sign, x), (other, y) = left, right
        places = max(x.places, y.places)
        ask = Ask("+" if sign == other else "-", (x.at(places), y.at(places)), (x, y), places)
        (answer,) = yield [ask]
        return sign, number(answer.whole, places, x.rounded or y.rounded)

    def _times(self, x: Number, y: Number) -> Steps[Number]:
        places = x.places + y.places
        (answer,) = yield [Ask("*", (x.units, y.units), (x, y), places)]
        return number(answer.whole, places, x.rounded or y.rounded)

    def _shortened(self, x: Number) -> Steps[Number]:
        """Rounded half to even, if it is not exact or has many places."""
        if not x.rounded and x.places <= MAX_PLACES:
            return x
        short = _cut(x, self.digits)
        drop = x.places - short.places
        rest, unit = 2 * abs(x.units - short.units * 10**drop), 10**drop
        if rest > unit or (rest == unit and short.units % 2):
            short = yield from self._away(short, x.units < 0)
        return number(*short)

    def _away(self, x: Number, negative: bool) -> Steps[Number]:
        """One unit further from zero."""
        one_unit = Number(1, x.places)
        (answer,) = yield [Ask("-" if negative else "+", (x.units, 1), (x, one_unit), x.places)]
        return Number(answer.whole, x.places, True)

    def _places(self, x: Number, y: Number) -> int:
        """How many places of a quotient are computed."""
        top, bottom = abs(x.units) * 10**y.places, abs(y.units) * 10**x.places
        if not bottom:
            raise UsageError(ZERO_DIVISION)
        if not top % bottom:
            return 0
        rest = bottom // math.gcd(top, bottom)
        twos = (rest & -rest).bit_length() - 1
        rest, fives = rest >> twos, 0
        while not rest % 5:
            rest, fives = rest // 5, fives + 1
        ends = max(twos, fives)
        if rest == 1 and top * 10**ends // bottom < 10**self.digits:
            return ends
        size = len(str(top)) - len(str(bottom))  # of the quotient: its first digit's power of ten
        if top * 10 ** max(0, -size) < bottom * 10 ** max(0, size):
            size -= 1
        return max(0, self.digits - 1 - size)


class Remainders(Decimals):
    """`/` gives a whole number and a remainder, which no other operation takes."""

    def divide(self, left: Value, right: Value) -> Work:
        x, y = one(left), one(right)
        if not y.units:
            raise UsageError(ZERO_DIVISION)
        places = max(x.places, y.places)
        ask = Ask("/", (x.at(places), y.at(places)), (x, y), 0, places)
        (answer,) = yield [ask]
        return ask.result(answer)


def one(value: Value) -> Number:
    """A value to compute with in decimals. Raises UsageError where it has a remainder."""
    if isinstance(value, Quotient):
        whole, rest = (-x if x.units < 0 else x for x in value)
        raise UsageError(
            f"a division inside a longer expression must be exact, but one leaves {brief(whole)} "
            f"remainder {brief(rest)}; choose decimal or fraction division"
        )
    assert isinstance(value, Number), value
    return value


def whole_exponent(exponent: Number | Ratio) -> int:
    """Raises UsageError for one that is not whole, or too large."""
    value = exponent.value
    if isinstance(value, Fraction):
        raise UsageError(f"{brief(exponent)} is not whole: exponents must be, as in 2^10")
    if abs(value) > MAX_EXPONENT:
        raise UsageError(f"the exponent {brief(value)} is too large; the limit is {MAX_EXPONENT:,}")
    return value


def check_power(base: int | Fraction, exponent: int) -> int:
    """The digits before the point of base**abs(exponent), negative for zeros after it.

    Raises UsageError where there are too many, and for 0 to a negative power.
    """
    if not base and exponent < 0:
        raise UsageError(ZERO_POWER)
    if not base:
        return 0
    top, bottom = abs(base.numerator), base.denominator
    size = (math.log10(top) - math.log10(bottom)) * abs(exponent)
    if abs(size) > MAX_DIGITS:
        raise UsageError(f"the power has more than {MAX_DIGITS:,} digits, the limit")
    return math.floor(size) + 1


def _cut(x: Number, digits: int | None) -> Number:
    """A number without what comes after its first digits; its whole part is never cut."""
    drop = 0 if digits is None else min(x.places, len(str(abs(x.units))) - digits)
    if drop <= 0:
        return x
    units, rest = divmod(abs(x.units), 10**drop)
    return Number(-units if x.units < 0 else units, x.places - drop, x.rounded or rest != 0)
