"""Operations on fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from addgpt.calculator.decimals import Decimals, check_power, one, whole_exponent
from addgpt.calculator.numbers import Number, Ratio, Rules, Value
from addgpt.calculator.questions import ZERO_DIVISION, Ask, Steps, Work, in_pairs, side_by_side
from addgpt.config.errors import UsageError


class Fractions:
    """Fractions in lowest terms. Python finds the common divisor, the model divides by it."""

    def __init__(self, rules: Rules, many: int = 2) -> None:
        pass

    def literal(self, typed: Number) -> Value:
        return ratio(typed)

    def kept(self, value: Value) -> Work | Value:
        return ratio(value)

    def percent(self, x: Value) -> Work | Value:
        return self.divide(x, Ratio(100))

    def total(self, terms: Sequence[tuple[int, Value]]) -> Work:
        items = [(sign, ratio(x)) for sign, x in terms]
        return (yield from in_pairs(self._sum, items))[1]

    def product(self, factors: Sequence[Value]) -> Work:
        return (yield from in_pairs(self._times, [ratio(x) for x in factors]))

    def divide(self, left: Value, right: Value) -> Work:
        x, y = ratio(left), ratio(right)
        if not y.top:
            raise UsageError(ZERO_DIVISION)
        if x.bottom == y.bottom == 1:
            return (yield from self._lowest(x.top, y.top))
        turned = Ratio(y.bottom, abs(y.top))
        return (yield from self._times(x, -turned if y.top < 0 else turned))

    def floored(self, op: str, left: Value, right: Value) -> Work:
        x, y = ratio(left), ratio(right)
        a, b, common = yield from self._over_one(x, y)
        whole = yield from Decimals(Rules()).floored(op, Number(a), Number(b))
        found = ratio(whole)
        return found if op == "//" else (yield from self._lowest(found.top, common))

    def power(self, left: Value, right: Value) -> Work:
        x, y = ratio(left), ratio(right)
        exponent = whole_exponent(y)
        check_power(x.value, exponent)
        whole, size = Decimals(Rules()), Number(abs(exponent))
        parts = [whole.power(Number(part), size) for part in (x if x.bottom != 1 else x[:1])]
        raised = yield from side_by_side(parts)
        top, bottom = ([one(part).units for part in raised] + [1])[:2]
        if exponent >= 0:
            return Ratio(top, bottom)
        return Ratio(-bottom, -top) if top < 0 else Ratio(bottom, top)

    def _sum(self, left: tuple[int, Ratio], right: tuple[int, Ratio]) -> Steps[tuple[int, Ratio]]:
        (sign, x), (other, y) = left, right
        a, b, common = yield from self._over_one(x, y)
        (answer,) = yield [Ask("+" if sign == other else "-", (a, b), (Number(a), Number(b)))]
        return sign, (yield from self._lowest(answer.whole, common))

    def _times(self, x: Ratio, y: Ratio) -> Steps[Ratio]:
        tops = _times(x.top, y.top)
        if x.bottom == y.bottom == 1:
            return Ratio((yield from tops))
        # A denominator of 1 takes no product.
        bottoms = _times(x.bottom, y.bottom) if 1 not in (x.bottom, y.bottom) else None
        if bottoms is None:
            top, bottom = (yield from tops), x.bottom * y.bottom
        else:
            top, bottom = yield from side_by_side([tops, bottoms])
        return (yield from self._lowest(top, bottom))

    def _over_one(self, x: Ratio, y: Ratio) -> Steps[tuple[int, int, int]]:
        """The numerators of two fractions over a common denominator, and that denominator."""
        if x.bottom == y.bottom:
            return x.top, y.top, x.bottom
        if y.bottom == 1:
            return x.top, (yield from _times(y.top, x.bottom)), x.bottom
        if x.bottom == 1:
            return (yield from _times(x.top, y.bottom)), y.top, y.bottom
        parts = [(x.top, y.bottom), (y.top, x.bottom), (x.bottom, y.bottom)]
        a, b, common = yield from side_by_side([_times(*part) for part in parts])
        return a, b, common

    def _lowest(self, top: int, bottom: int) -> Steps[Ratio]:
        common = math.gcd(top, bottom)
        if common > 1:
            parts = [top] if common == abs(bottom) else [top, bottom]
            shown = Number(common)
            answers = yield [Ask("/", (n, common), (Number(n), shown)) for n in parts]
            top, bottom = ([answer.whole for answer in answers] + [bottom // common])[:2]
        if not bottom:
            raise UsageError(ZERO_DIVISION)
        return Ratio(-top, -bottom) if bottom < 0 else Ratio(top, bottom)


def ratio(value: Value) -> Ratio:
    """A value to compute with in fractions. Raises UsageError where it has a remainder."""
    if isinstance(value, Ratio):
        return value
    exact = Fraction(one(value).value)
    return Ratio(exact.numerator, exact.denominator)


def _times(x: int, y: int) -> Steps[int]:
    (answer,) = yield [Ask("*", (x, y), (Number(x), Number(y)))]
    return answer.whole
