"""The numbers of the calculator: whole numbers of units, and where the point stands.

The model knows digits only. 1.5 is 15 units, with 1 place after the point: it adds, subtracts,
multiplies and divides the units, and Python places the point, as it does the sign.

>>> print(Number(15, 1), Number(-5, 3), Number(2 * 10**12), Ratio(17, 5))
1.5 -0.005 2000000000000 17/5
>>> print(Quotient(Number(3), Number(2)))
3 remainder 2
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from addgpt.config.errors import UsageError
from addgpt.task import MAX_DIGITS

DIVISIONS = ("decimal", "remainder", "fraction")
MOST_DIGITS = 300  # that may be asked for
MAX_ZEROS = 20  # after the point, from which on 1e-30 is shorter


@dataclass(frozen=True)
class Rules:
    """How expressions are evaluated.

    division  what `/` gives: `decimal`, 3.4; `remainder`, 3 remainder 2; or `fraction`, 17/5
    digits    significant ones of what has to be rounded; the whole part is never cut
    """

    division: str = "decimal"
    digits: int = 12

    def __post_init__(self) -> None:
        if self.division not in DIVISIONS:
            valid = ", ".join(DIVISIONS)
            raise UsageError(f"unknown division {self.division!r}; valid: {valid}")
        if not 1 <= self.digits <= MOST_DIGITS:
            raise UsageError(f"digits must be in 1..{MOST_DIGITS}, not {self.digits}")


class Number(NamedTuple):
    """units / 10**places, with `places` >= 0; `rounded` where that is not the exact result."""

    units: int
    places: int = 0
    rounded: bool = False

    @property
    def value(self) -> int | Fraction:
        return Fraction(self.units, 10**self.places) if self.places else self.units

    def at(self, places: int) -> int:
        """Its units with that many places after the point, at least its own."""
        return self.units * 10 ** (places - self.places)

    def __neg__(self) -> Number:
        return self._replace(units=-self.units)

    def __str__(self) -> str:
        sign, digits = "-" if self.units < 0 else "", str(abs(self.units))
        if not self.places:
            return sign + digits
        if self.places - len(digits) > MAX_ZEROS:
            power = len(digits) - 1 - self.places
            return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e{power}"
        digits = digits.zfill(self.places + 1)
        return f"{sign}{digits[: -self.places]}.{digits[-self.places :]}"


class Ratio(NamedTuple):
    """The fraction top / bottom in lowest terms, with `bottom` > 0."""

    top: int
    bottom: int = 1

    @property
    def rounded(self) -> bool:
        return False

    @property
    def value(self) -> int | Fraction:
        return Fraction(self.top, self.bottom) if self.bottom != 1 else self.top

    def __neg__(self) -> Ratio:
        return Ratio(-self.top, self.bottom)

    def __str__(self) -> str:
        return str(self.top) if self.bottom == 1 else f"{self.top}/{self.bottom}"


class Quotient(NamedTuple):
    """A whole number and a remainder."""

    whole: Number
    rest: Number

    @property
    def rounded(self) -> bool:
        return False

    @property
    def value(self) -> None:
        """None: a quotient with a remainder is not one number."""
        return None

    def __neg__(self) -> Quotient:
        return Quotient(-self.whole, -self.rest)

    def __str__(self) -> str:
        return f"{self.whole} remainder {self.rest}"


Value = Number | Ratio | Quotient


def number(units: int, places: int = 0, rounded: bool = False) -> Number:
    """A number without trailing zeros after the point.

    Raises UsageError for one with more than MAX_DIGITS places.

    >>> print(number(250, 2), number(300, 2))
    2.5 3
    """
    if places:
        if not units:
            return Number(0, 0, rounded)
        while places and not units % 10:
            units, places = units // 10, places - 1
        if places > MAX_DIGITS:
            raise UsageError(
                f"an intermediate result has more than {MAX_DIGITS:,} decimal places, the limit"
            )
    return Number(units, places, rounded)


def brief(what: object, of: str = "digits", most: int = 24) -> str:
    """A number or other text, its middle left out where it is long; `of` is what it consists of."""
    text = str(what)
    return text if len(text) <= most else f"{text[:8]}...{text[-8:]} ({len(text):,} {of})"
