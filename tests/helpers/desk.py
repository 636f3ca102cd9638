"""A desk calculator of its own: Python's parser, Python's fractions, and rounding as documented.

It shares nothing with `addgpt.calculator`: what is typed is turned into Python by `translated`.
"""

from __future__ import annotations

import ast
import random
import re
import unicodedata
from fractions import Fraction
from typing import NamedTuple


class Found(NamedTuple):
    """A value, and whether it is rounded."""

    value: Fraction
    rounded: bool = False


def rounded(value: Fraction, digits: int) -> Fraction:
    """Half to even, to `digits` significant digits; the whole part is never cut."""
    if not value:
        return value
    places = digits
    while abs(value) * 10**places < 10 ** (digits - 1):
        places += 1
    while places > 0 and abs(value) * 10 ** (places - 1) >= 10 ** (digits - 1):
        places -= 1
    return round(value, places)


def evaluate(python: str, digits: int | None = 12) -> Found:
    """The value of an expression in Python, exact without `digits`.

    Raises ArithmeticError or SyntaxError.
    """
    # Decimals stay what was typed, which floats do not.
    texts = re.sub(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?", r"F('\g<0>')", python)
    return _value(ast.parse(texts.strip(), mode="eval").body, digits)


def _value(node: ast.expr, digits: int | None) -> Found:
    if isinstance(node, ast.Call):
        return Found(Fraction(node.args[0].value))
    if isinstance(node, ast.UnaryOp):
        value, near = _value(node.operand, digits)
        return Found(-value if isinstance(node.op, ast.USub) else value, near)
    if isinstance(node.op, ast.Add | ast.Sub | ast.Mult):
        return _chain(node, digits)
    (a, near_a), (b, near_b) = _value(node.left, digits), _value(node.right, digits)
    near = near_a or near_b
    if isinstance(node.op, ast.Div):
        return _quotient(a / b, near, digits)
    if isinstance(node.op, ast.FloorDiv):
        return Found(Fraction(a // b), near)
    if isinstance(node.op, ast.Mod):
        return Found(a % b, near)
    if b.denominator != 1:
        raise ArithmeticError("no whole power")
    if b < 0:
        inner = a ** -int(b)
        return _quotient(1 / inner, near, digits)
    return _kept(a ** int(b), near, digits)


def _chain(node: ast.BinOp, digits: int | None) -> Found:
    """A sum or product of any number of terms, which is rounded at its end only."""
    kinds = (ast.Mult,) if isinstance(node.op, ast.Mult) else (ast.Add, ast.Sub)
    terms: list[tuple[type, Found]] = []
    place: ast.expr = node
    while isinstance(place, ast.BinOp) and isinstance(place.op, kinds):
        terms.append((type(place.op), _value(place.right, digits)))
        place = place.left
    total, near = _value(place, digits)
    for kind, (value, rough) in reversed(terms):
        total = (
            total * value if kind is ast.Mult else total + (-value if kind is ast.Sub else value)
        )
        near |= rough
    return _kept(total, near, digits)


def _kept(value: Fraction, near: bool, digits: int | None) -> Found:
    """Results with more than 100 places are rounded like those that do not end."""
    many = (value * 10**100).denominator != 1
    return _quotient(value, near, digits) if near or many else Found(value, near)


def _quotient(value: Fraction, near: bool, digits: int | None) -> Found:
    short = value if digits is None else rounded(value, digits)
    return Found(short, near or short != value)


def translated(text: str) -> str:
    """What was typed, as Python; meant for lines that were accepted."""
    text = unicodedata.normalize("NFKC", re.sub("[⁰¹²³⁴⁵⁶⁷⁸⁹]+", r"^\g<0>", text.partition("#")[0]))
    for old, new in {"×": "*", "·": "*", "⋅": "*", "∗": "*", "÷": "/", "⁄": "/", ":": "/"}.items():
        text = text.replace(old, new)
    text = re.sub("[−–—]", "-", text)
    text = re.sub(r"(?i)what\s+is|\?", " ", text)
    for old, new in {"plus": "+", "minus": "-", "times": "*", "divided by": "/"}.items():
        text = text.replace(old, new)
    text = re.sub(r"(?<=[0-9])[,_' \u202f\u00a0](?=[0-9])", "", text)
    text = text.strip().strip("=").strip()
    text = text.translate(str.maketrans("[]{}", "()()"))
    text = re.sub(r"(?<=[0-9.)])\s*[xX]\s*(?=[0-9.(+-])", "*", text)
    text = re.sub(r"\bmod\b", " % ", text)
    number = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?"
    percent = rf"({number})(?:\s*%(?=\s*(?:[+*/)^]|$))|%(?=\s+-))"
    text = re.sub(percent, r"(\1*0.01)", text)
    text = re.sub(r"\)\s*(?=[(0-9.])", ")*", text)
    text = re.sub(r"(?<=[0-9.])\s*\(", "*(", text)
    return text.replace("^", "**")


NUMBERS = ("7", "12", "0", "1", "345", "0.5", "1.25", "99", "1000", "0.003", "20.40", "1e3", "2e-2")


def random_expression(rng: random.Random, depth: int = 3) -> str:
    """A random expression in Python, decimals included; most have a value."""
    if depth == 0 or rng.random() < 0.15:
        number = rng.choice(NUMBERS) if rng.random() < 0.5 else str(rng.randrange(10**5))
        return number if rng.random() < 0.8 else f"-{number}"
    if rng.random() < 0.15:
        base = random_expression(rng, 0)
        base = base if base.isdigit() and rng.random() < 0.5 else f"({base})"
        return f"{base}**{rng.randint(-2, 4)}"
    op = rng.choice(["+", "-", "*", "/", "+", "-", "*", "//", " % "])
    parts = [random_expression(rng, depth - 1) for _ in range(rng.choice([2, 2, 2, 3, 5]))]
    parts = [f"({part})" if rng.random() < 0.4 else part for part in parts]
    return op.join(parts)


def as_typed(rng: random.Random, python: str) -> str:
    """The same as a person may type it."""
    text = python
    if rng.random() < 0.7:
        text = text.replace("**", "^")
        text = re.sub(r"\*\(", lambda m: rng.choice(["*(", "(", " × (", " x ("]), text)
        text = re.sub(
            r"\*(?=[0-9])", lambda m: rng.choice(["*", " × ", "·", " x ", " times "]), text
        )
        text = re.sub(
            r"(?<!/)/(?!/)", lambda m: rng.choice(["/", "÷", " : ", " divided by "]), text
        )
        text = re.sub("-", lambda m: rng.choice(["-", "−", "–"]), text)
        text = text.replace("e−", "e-").replace("e–", "e-")
    mark = rng.choice([",", "_", " ", "'", "\u202f", ""])
    text = re.sub(r"(?<![0-9.])([1-9][0-9]{0,2})([0-9]{3})(?![0-9])", rf"\g<1>{mark}\g<2>", text)
    if rng.random() < 0.2:
        text = text.translate({ord(str(d)): 0xFF10 + d for d in range(10)})
    if rng.random() < 0.2:
        text = rng.choice(["{} =", "= {}", "what is {}?", "{} # so", "({})", "[{}]"]).format(text)
    return text


STARTS = ["0", "1", "2", "3", "12", "345", "007", "1,234", "1 000", "1.5", ".5", "5.", "1e3", "３"]
STARTS += ["(2", "[7", "-4", "−4", "(", "{3", "2²", "15%", "1_000", "what is 8", "=6", "1'000"]
BETWEEN = ["+", "-", "−", "–", "*", "×", " x ", "/", "÷", ":", "//", "%", " % ", "^", "**", ")*"]
BETWEEN += [")", "]", "}", "(", ")(", " plus ", " minus ", " times ", " divided by ", " mod ", " "]
JUNK = [",", ".", "_", "'", "=", "?", "#", "e", "ans", "sqrt", "six", "!", "½", "√", "$", "\ufeff"]
JUNK += ["\x00", "\ud800", "é", "٣", "1,23", "1.2.3", "\u00a0", "\u202f", "x", "²", "(((", "--"]


def random_line(rng: random.Random) -> str:
    """A line as bad typists may type it: some are expressions, most are nearly so."""
    pieces = []
    for _ in range(rng.randint(1, 4)):
        pieces += [rng.choice(STARTS), rng.choice(BETWEEN)]
    pieces = pieces[: len(pieces) - (rng.random() < 0.8)]
    if rng.random() < 0.2:
        pieces.insert(rng.randrange(len(pieces) + 1), rng.choice(JUNK))
    return "".join(pieces) + rng.choice(["", "", "", ")", "=", " # so"])
