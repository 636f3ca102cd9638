"""What people type, cut into the tokens of an expression.

>>> [str(token.value or token.text) for token in tokens("what is 1,000 × ２?")]
['1000', '*', '2']

Typography is normalised character by character, so that places in the text stay the same. A number
may have separators if they group it by three; it is never read in part.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from addgpt.calculator.numbers import Number, brief, number
from addgpt.config.errors import UsageError
from addgpt.task import MAX_DIGITS

VALID = "0-9 . + - * / // % ^ and brackets"
SAME = {
    "*": "×·∗⋅✕✖⨯•∙",
    "/": "÷∕⁄➗:∶",
    "-": "−–—‒―‐‑﹣➖",
    "+": "﹢➕",
    "'": "’ʼ‘",
    "(": "⟨❨",
    ")": "⟩❩",
}
INVISIBLE = "\u200b\u200c\u200d\u200e\u200f\u2060\ufeff\ufe0e\ufe0f\u202a\u202c"
RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
LEVEL = {
    **{ord(char): plain for plain, chars in SAME.items() for char in chars},
    **{ord(char): " " for char in INVISIBLE},
    **{0xFF01 + place: chr(0x21 + place) for place in range(94)},  # full-width forms
    0xFF1A: "/",
}
ASCII = re.compile(r"[\x20-\x39\x3b-\x7e]*")  # but the colon: nothing to normalise
GROUPS = r"[1-9][0-9]{0,2}(?P<mark>[,_' ])[0-9]{3}(?:(?P=mark)[0-9]{3})*(?!(?P=mark)?[0-9])"
TOKEN = re.compile(
    rf"""(?P<number>(?:{GROUPS}|[0-9]+)(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?
                   |\.[0-9]+(?:[eE][-+]?[0-9]+)?)
    |(?P<op>\*\*|//|[-+*/%^=(){{}}\[\]])
    |(?P<times>[xX](?=\s*[0-9.(\[{{]))
    |(?P<word>divided\s+by|multiplied\s+by|(?:raised\s+)?to\s+the\s+power\s+of
             |[A-Za-z][A-Za-z0-9_]*)
    |(?P<raised>⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)""",
    re.VERBOSE | re.IGNORECASE,
)
BLOB = re.compile(r"[0-9][0-9.,_']*")
LEAD = re.compile(
    r"\s*(?:(?:what(?:'s|\s+is|\s+are)|how\s+much\s+(?:is|are)|calculate|compute|evaluate)\b)?\s*=?",
    re.IGNORECASE,
)
WORDS = {
    "plus": "+", "minus": "-", "times": "*", "of": "*", "over": "/", "mod": "mod",
    "modulo": "mod", "dividedby": "/", "multipliedby": "*", "tothepowerof": "^",
    "raisedtothepowerof": "^", "squared": "^2", "cubed": "^3", "percent": "percent",
}  # fmt: skip
NUMERALS = {
    "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90,
    "hundred": 100, "thousand": 1_000, "million": 1_000_000,
} | {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen twenty".split()
    )
}  # fmt: skip


class Token(NamedTuple):
    """A piece of an expression.

    kind   `number`, `op` (brackets, too) or `name`
    text   as the grammar has it: `*` for ×
    start  where it begins in the text
    end    where it ends
    value  of a number
    """

    kind: str
    text: str
    start: int
    end: int
    value: Number | None = None


def level(text: str) -> str:
    """A line in plain characters, one for each, without its comment."""
    text, _, _ = text.replace("＃", "#").partition("#")
    if ASCII.fullmatch(text):
        return text
    text = text.translate(LEVEL)
    return "".join(map(_plain, text)) if not text.isascii() else _spaced(text)


def body(text: str) -> tuple[int, int]:
    """Where the expression in a normalised line begins and ends, without `what is` and `= ?`."""
    lead = LEAD.match(text)
    start, rest = lead.end() if lead else 0, text.rstrip()
    for mark in "?=":
        rest = rest.removesuffix(mark).rstrip()
    return start, max(start, len(rest))


def tokens(text: str) -> Iterator[Token]:
    """The tokens of a line. Raises UsageError, in one line, for whatever else there is."""
    text = level(text)
    place, end = body(text)
    while place < end:
        if text[place] == " ":
            place += 1
            continue
        match = TOKEN.match(text, place, end)
        if match is None:
            raise UsageError(_complaint(text, place))
        kind, word, start = match.lastgroup, match[0], place
        place = match.end()
        if kind in ("number", "mark"):  # `mark`: a number with separators, its last group
            if place < end and text[place] in ".,_'0123456789":
                raise UsageError(_complaint(text, place))
            yield Token("number", word, start, place, _number(word))
        elif kind == "op":
            yield Token("op", "^" if word == "**" else word, start, place)
        elif kind == "times":
            yield Token("name", word, start, place)
        elif kind == "raised":
            power = word.translate(RAISED)
            yield from (Token("op", op, start, place) for op in "^-"[: 1 + (power[0] == "-")])
            yield Token("number", power, start, place, _number(power.lstrip("-")))
        else:
            yield from _word(word, start, place)


def _word(word: str, start: int, end: int) -> Iterator[Token]:
    meaning = WORDS.get(re.sub(r"\s+", "", word).lower())
    if meaning is None:
        yield Token("name", word, start, end)
    else:
        yield Token("op", meaning if len(meaning) != 2 else "^", start, end)
        if len(meaning) == 2:
            yield Token("number", meaning[1], start, end, Number(int(meaning[1])))


def _number(text: str) -> Number:
    """The number that was typed, `1,000.5e3`."""
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return Number(int(text))
    plain, _, power = re.sub("[,_' ]", "", text).lower().partition("e")
    whole, _, behind = plain.partition(".")
    digits = (whole + behind).lstrip("0") or "0"
    places = len(behind) - (int(power) if len(power) < 6 and power else 0)
    size = max(len(digits) - min(0, places), places)
    if size > MAX_DIGITS or len(power) >= 6:
        digits_of = f"has {size:,} digits" if len(power) < 6 else "is too long or too small"
        raise UsageError(f"the number {brief(text)} {digits_of}; the limit is {MAX_DIGITS:,}")
    return number(int(digits) * 10 ** max(0, -places), max(0, places))


def _plain(char: str) -> str:
    """One character as the grammar knows it: any digit as 0-9, any space as a space."""
    if char.isascii():
        return _spaced(char)
    digit = unicodedata.decimal(char, None)
    return str(digit) if digit is not None else " " if char.isspace() else char


def _spaced(text: str) -> str:
    return re.sub(r"[\t\n\r\f\v\x1c-\x1f]", " ", text)


def _complaint(text: str, place: int) -> str:
    """What is wrong where no token begins, and what to type instead."""
    char = text[place]
    start = place
    while start and text[start - 1] in "0123456789.,_'":
        start -= 1
    blob = BLOB.match(text, start)
    if blob and char in ".,_'0123456789":
        shown = brief(blob[0], "characters")
        if "." in char and blob[0].count(".") > 1:
            return f"{shown!r} has more than one point; a number has one: 1.5"
        if char == "," and re.fullmatch("[0-9]+,[0-9]+", blob[0]):
            dotted = brief(blob[0].replace(",", "."))
            return f"{shown!r} is not a number: for a decimal type {dotted}, for thousands 1,234"
        return f"{shown!r} is not a number: separators group by three, 1,234,567.8"
    if char == "!":
        return "factorials (!) are not supported; type the product: 5*4*3*2*1"
    if char == "?":
        return "'?' may only stand at the end: what is 2+2?"
    if char in "√∛":
        return "roots are not supported; only whole powers are: 4^2"
    if char == ".":
        return "a point needs digits beside it: 0.5"
    name = unicodedata.normalize("NFKC", char).replace("⁄", "/")
    if re.fullmatch("[0-9]+/[0-9]+", name):
        return f"unknown character {char!r}; type ({name})"
    return f"unknown character {char!r}; valid: {VALID}"
