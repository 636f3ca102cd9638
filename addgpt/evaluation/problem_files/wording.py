"""Problems and answers as people write them, turned into what the calculator reads.

>>> spoken("\\n\\nQ: What is 41 plus 27?\\n\\nA:")
Wording(text='41 + 27', part='all', answer=None)
>>> spoken("$052+159=0211$")
Wording(text='052+159', part='all', answer='0211')
>>> spoken("Divide two numbers and round down: 95 // 7 = 13")
Wording(text='95 / 7', part='floor', answer='13')
>>> [str(number(text)) for text in ("1,001", "22 R 2", "-2.50", "9.00", "3+4 = 7")]
['1001', '22 remainder 2', '-2.5', '9', '7']
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from addgpt.calculator.numbers import brief
from addgpt.config.errors import UsageError

MAX_ANSWER = 4000  # digits; Python converts no longer text to a number
MAX_TEXT = 20_000  # characters of a problem: no pattern is tried on more

SIGNS = str.maketrans({"−": "-", "–": "-", "×": "*", "✕": "*", "·": "*", "⋅": "*", "÷": "/",
                       "\u00a0": " ", "\u202f": " ", "\u2009": " "})  # fmt: skip
WORDS = [
    (r"plus", "+"), (r"minus", "-"), (r"times|multiplied\s+by", "*"),
    (r"(?:integer\s+)?divided\s+by", "/"), (r"modulo|mod", "%"),
]  # fmt: skip
IN_WORDS = [(re.compile(rf"\s+(?:{word})\s+", re.I), f" {sign} ") for word, sign in WORDS]
TIMES = re.compile(r"(?<=[0-9)])(\s*)[xX](\s*)(?=[-+(]?\s*[0-9(])")
TURNS = re.compile(r"\b(?:Q|Question|Problem)\s*:", re.I)
LAST_TURN = re.compile(r"\b(?:A|Answer)\s*:\s*$", re.I)
LEAD = re.compile(r"[A-Za-z][A-Za-z ,'()-]*:\s*")
ASKED = re.compile(
    r"(?:what\s+is|what's|calculate|compute|evaluate|solve|how\s+much\s+is|find|simplify)\s+"
    r"(?:the\s+value\s+of\s+)?(?=[-+(0-9])", re.I,
)  # fmt: skip
TOLD = [
    (re.compile(rf"{verb} ([0-9]+) {word} ([0-9]+)", re.I), form)
    for verb, word, form in (
        ("(?:add|what is the sum of|the sum of)", "(?:and|to)", r"\1 + \2"),
        ("subtract", "from", r"\2 - \1"),
        ("(?:multiply|what is the product of|the product of)", "(?:and|by)", r"\1 * \2"),
        ("divide", "by", r"\1 / \2"),
    )
]
GROUPED = re.compile(r"(?<![0-9.,_])[0-9]{1,3}(?:([,_])[0-9]{3})(?:\1[0-9]{3})*(?![0-9.,_])")
APART = re.compile(r"[-+]?[0-9](?: [0-9])*(?:\s*[-+*/]\s*[0-9](?: [0-9])*)+")
DIVISION = re.compile(r"\s*([0-9]+)\s*(//|%)\s*([0-9]+)\s*", re.ASCII)
PARTS = {"//": "floor", "%": "rest"}

REST = re.compile(
    r"([-+]?[0-9]+)(?:\.0+)?\s*,?\s*(?:r|rem\.?|remainder)\s*:?\s*([-+]?[0-9]+)", re.I
)
WHOLE = re.compile(r"[-+]?[0-9]+(?:\.0*)?", re.ASCII)
DECIMAL = re.compile(r"[-+]?[0-9]*\.[0-9]+", re.ASCII)
LOST = re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", re.ASCII)
NONE = ("", "nan", "none", "null", "n/a", "na", "-")


class Wording(NamedTuple):
    """A problem that the calculator reads, which part of its answer is asked for (`all`, `floor`
    or `rest` of a division), and the answer that stands beside it, as text."""

    text: str
    part: str
    answer: str | None


class Value(NamedTuple):
    """An answer: a number, the remainder if one is given, and how many decimals were written."""

    whole: int | Fraction
    rest: int = 0
    decimals: int = 0

    def __str__(self) -> str:
        if isinstance(self.whole, Fraction):
            return f"{float(self.whole):.12g}"
        return f"{self.whole} remainder {self.rest}" if self.rest else str(self.whole)


def spoken(text: str) -> Wording:
    """The problem of a text: an expression, an equation, a question in words.

    Of several questions (few-shot examples) the last one counts. What cannot be made out is left as
    it is, for the calculator to refuse.
    """
    if len(text) > MAX_TEXT:
        return Wording(text, "all", None)
    text = text.translate(SIGNS).strip().strip("$").strip().removeprefix("=")
    text = LAST_TURN.sub("", TURNS.split(text)[-1]).strip()
    lead = LEAD.match(text)
    text = text[lead.end() :] if lead else text
    text, answer = _split(text)
    text = ASKED.sub("", text, count=1).strip().rstrip("?.=").strip()
    for pattern, sign in IN_WORDS:
        text = pattern.sub(sign, text)
    for pattern, form in TOLD:
        text = pattern.sub(form, text) if pattern.fullmatch(text) else text
    text = GROUPED.sub(lambda match: re.sub("[,_]", "", match[0]), TIMES.sub(r"\1*\2", text))
    if match := DIVISION.fullmatch(text):
        return Wording(f"{match[1]} / {match[3]}", PARTS[match[2]], answer)
    return Wording(text, "all", answer)


def _split(text: str) -> tuple[str, str | None]:
    """Problem and answer of an equation or of a worked example: `a+b=c`, `a+b||... #### c`."""
    if "####" in text:
        text, _, answer = text.partition("####")
        return text.partition("||")[0].strip(), answer.strip()
    if text.count("=") == 1 and not text.endswith("="):
        text, _, answer = text.partition("=")
        return text.strip(), answer.strip().strip("$").strip() or None
    return text, None


def may_be_apart(text: str) -> bool:
    """Whether the digits of a problem may stand apart: `2 1 * 4 3`, or `5 * 7`."""
    return APART.fullmatch(text.strip()) is not None


def is_apart(text: str) -> bool:
    """Whether they do."""
    return may_be_apart(text) and re.search("[0-9] [0-9]", text) is not None


def together(text: str, lowest_first: bool) -> str:
    """Digits that stand apart, moved together: `2 1 * 4 3` is `21*43`, or `12*34`."""
    text = text.replace(" ", "")
    return backwards(text) if lowest_first else text


def backwards(text: str) -> str:
    """Each number with its digits in reverse."""
    return re.sub("[0-9]+", lambda match: match[0][::-1], text)


def number(text: str, lowest_first: bool = False) -> Value | None:
    """The answer that a text gives; None where it gives none. Raises UsageError.

    Of an equation, `3+4 = 7`, it is the right side; of a worked answer what follows `####`.
    """
    if len(text) > MAX_ANSWER:
        raise UsageError(f"{brief(text, 'characters')!r} is not an answer like -3 or 3 remainder 2")
    plain = text.translate(SIGNS).rpartition("####")[2].rpartition("=")[2].strip().strip("$")
    plain = LAST_TURN.sub("", plain).strip()
    if plain.casefold() in NONE:
        return None
    plain = GROUPED.sub(lambda match: re.sub("[,_]", "", match[0]), plain)
    plain = re.sub(r"(?<=[0-9]) (?=[0-9]{3}(?![0-9]))", "", plain)
    if re.fullmatch("[-+]?[0-9](?: [0-9])+", plain):  # digits apart
        plain = plain.replace(" ", "")
    plain = backwards(plain) if lowest_first else plain
    if match := REST.fullmatch(plain):
        return Value(int(match[1]), int(match[2]))
    if WHOLE.fullmatch(plain):
        return Value(int(plain.partition(".")[0]))
    if DECIMAL.fullmatch(plain):
        return Value(Fraction(plain), decimals=len(plain.partition(".")[2]))
    if LOST.fullmatch(plain):
        raise UsageError(f"the answer {plain} has lost digits: a spreadsheet wrote it; format the "
                         "column as a number or text")  # fmt: skip
    raise UsageError(f"{brief(text.strip(), 'characters')!r} is not an answer like -3 or "
                     "3 remainder 2")  # fmt: skip
