"""Work drawn as a person would write it on paper.

Everything but the problem itself comes from what the model wrote, digit by digit and by its place
in the text; so a wrong trace shows, and one that makes no sense shows as it is.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from addgpt.task import MAX_CHARACTERS, Row

MISSING = "?"


class Line(NamedTuple):
    """A number, how many places it is shifted to the left, its operator and a remark."""

    number: str
    shift: int = 0
    sign: str = ""
    remark: str = ""


class Underline(NamedTuple):
    """A line drawn under what is above."""

    char: str = "-"


def cut(completion: str, labels: dict[str, str]) -> list[Row]:
    """A completion cut after each character that ends a row; what is left is the answer."""
    ends = re.escape("".join(labels))
    pieces = re.findall(f"[^{ends}]*[{ends}]|[^{ends}]+", completion) if labels else [completion]
    return [Row(labels.get(piece[-1:], "answer"), piece) for piece in pieces]


def drawn(lines: list[Line | Underline]) -> str:
    """Numbers one below the other, lines as wide as the widest, remarks in a column apart."""
    numbers = [line.number + " " * line.shift for line in lines if isinstance(line, Line)]
    width = max(map(len, numbers))
    out = []
    for line in lines:
        if isinstance(line, Underline):
            out.append(line.char * (width + 2))
        else:
            number = line.number + " " * line.shift
            out.append(f"{line.sign or ' '} {number:>{width}}   {line.remark}".rstrip())
    return "\n".join(out)


def carried(marks: str, remark: str) -> list[Line]:
    """A line with what the columns pass on, given lowest first, each over the column it is for."""
    shown = marks[::-1].replace("0", " ").rstrip()
    return [Line(shown.lstrip(), len(marks) - len(shown) + 1, remark=remark)] if shown else []


def digits(text: str) -> str:
    """The digits of a text, in its order."""
    return "".join(char for char in text if char in "0123456789")


def number(text: str) -> str:
    """The digits of a text, lowest first, as a number in normal order."""
    low_first = digits(text)
    return low_first[::-1].lstrip("0") or ("0" if low_first else MISSING)


def signed(text: str) -> str:
    """A row of digits and a sign: ten's complement where that is negative."""
    low_first = digits(text)
    if not text.endswith("-") or not low_first:
        return number(text)
    if len(low_first) > MAX_CHARACTERS:
        return MISSING
    return str(int(low_first[::-1]) - 10 ** len(low_first))
