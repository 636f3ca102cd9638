"""A model's work on one operation, laid out as a person would write it on paper.

Everything but the problem itself comes from what the model wrote, digit by digit and by its place
in the text; so a wrong trace shows, and one that makes no sense shows as it is. The formats are
those that the arithmetic tasks describe; numbers in a trace stand lowest digit first.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from addgpt.calculator.solver import Step

PROBLEM = re.compile(r"([0-9]+)([-+*/])([0-9]+)")
MISSING = "?"
MULTIPLES = (1, 2, 4, 8)
MOST_DIGITS = 4_000  # Python turns no longer text into a number


class Line(NamedTuple):
    """A number, how many places it is shifted to the left, its operator and a remark."""

    number: str
    shift: int = 0
    sign: str = ""
    remark: str = ""


class Rule(NamedTuple):
    """A line drawn under what is above."""

    char: str = "-"


def layout(step: Step) -> str:
    """The trace of a step as lines of text, without a newline at the end. Never raises."""
    match = PROBLEM.fullmatch(step.problem)
    body = step.completion.partition("#")[0]
    if match is None:
        return f"{step.problem} = {body}"
    a, op, b = match.groups()
    if op == "/":
        return "\n".join(_division(a, b, body, step.answer))
    draw = {"+": _sum, "-": _difference, "*": _product}[op]
    return _drawn(draw(a, b, body, step.answer))


def _sum(a: str, b: str, body: str, answer: str) -> list[Line | Rule]:
    lines: list[Line | Rule] = [Line(a), Line(b, sign="+"), Rule(), Line(_shown(answer))]
    digits, carries = body[0::2], body[1::2]
    plain = answer in (body, _number(body))
    if not plain and _number(digits) == answer:  # each digit is followed by its carry
        above = carries[::-1].replace("0", " ").rstrip()
        if above.strip():
            shift = len(carries[::-1]) - len(above) + 1
            lines.insert(0, Line(above.strip(), shift, remark="carried"))
    return lines


def _difference(a: str, b: str, body: str, answer: str) -> list[Line | Rule]:
    lines: list[Line | Rule] = [Line(a), Line(b, sign="-"), Rule()]
    match = re.fullmatch(r"([0-9]+)([-+])([0-9]+)", body)
    if match:
        signed, magnitude = match[1][::-1], match[3][::-1]
        if match[2] == "-":
            # Ten's complement: the last borrow was from a column that is not there.
            lines.append(Line(signed, remark=f"with 1{'0' * len(signed)} borrowed; without it:"))
        elif signed != magnitude:
            lines.append(Line(signed))
    return [*lines, Line(_shown(answer))]


def _product(a: str, b: str, body: str, answer: str) -> list[Line | Rule]:
    lines: list[Line | Rule] = [Line(a), Line(b, sign="*"), Rule()]
    trace, equals, _ = body.partition("=")
    if not equals and not re.search("[,;]", body):
        return [*lines, Line(_shown(answer))]
    rows = re.findall(r"([0-9]*)([,;])", trace)
    if any(mark == "," for _, mark in rows):
        lines += _partial_products(a, b, rows)
    else:
        lines += _carried_rows(a, b, [digits for digits, _ in rows])
    return [*lines, Rule("="), Line(_shown(answer))]


def _partial_products(a: str, b: str, rows: list[tuple[str, str]]) -> list[Line | Rule]:
    """Products (`,`) and running sums (`;`), each product one place further left."""
    lines: list[Line | Rule] = []
    settled = ""  # digits below the running sum, lowest first
    last = ""
    place = -1
    for digits, mark in rows:
        if mark == ",":
            place += 1
            remark = f"{a} * {b[-1 - place]}" if place < len(b) else MISSING
            lines.append(Line(_number(digits), place, "+" if place else "", remark))
            if not place:
                last = digits
        else:
            settled += last[:1]
            last = digits
            lines += [Rule(), Line(_number(settled + digits), remark="so far")]
    return lines


def _carried_rows(a: str, b: str, rows: list[str]) -> list[Line | Rule]:
    """Running sums whose digits are each followed by a carry; the last carry is the top digit."""
    lines: list[Line | Rule] = []
    settled = ""
    for place, row in enumerate(rows):
        digits = row[0::2] + (row[-1:] if len(row) % 2 == 0 else "")
        remark = f"with {a} * {b[-1 - place]}" if place < len(b) else MISSING
        lines.append(Line(_number(settled + digits), remark=f"{remark}, carries {row[1::2]}"))
        settled += digits[:1]
    return lines


def _division(a: str, b: str, body: str, answer: str) -> list[str]:
    trace, equals, _ = body.partition("=")
    segments = trace.split(";")[:-1] if equals or ";" in trace else []
    table: dict[int, str] = {1: b}
    head = ""
    first = (segments or [trace])[0]
    doubling = first.count(",") > 1
    if doubling:
        *multiples, rest = first.split(",")[:4]
        table |= dict(zip(MULTIPLES[1:], map(_number, multiples), strict=False))
        head = first[: len(first) - len(rest)]
    lines = [f"{a} / {b}", ""]
    width = max(len(number) for number in (*table.values(), b)) + 1
    if doubling:
        lines += [f"{n} * {b} = {number:>{width}}" for n, number in table.items() if n > 1] + [""]
    count = max(len(a) - len(b) + 1, 0)  # digits of the quotient
    down, rest = a[len(a) - count :], a[: len(a) - count]
    for place, segment in enumerate(segments):
        digit = down[place] if place < len(down) else MISSING
        current = (rest + digit).lstrip("0") or "0"
        lines.append(f"{current:>{width + 2}}   bring down {digit}")
        segment = segment[len(head) :] if not place else segment
        work = _tries if doubling else _estimate
        more, rest = work(segment, table, width)
        lines += [*more, ""]
    result = answer if re.search("[0-9]", answer) else MISSING
    return [*lines, f"= {_shown(result)}"]


def _tries(segment: str, table: dict[int, str], width: int) -> tuple[list[str], str]:
    """8, 4, 2 and 1 times the divisor, taken away after a `+`, given back after a `-`."""
    tries = re.findall(r"([0-9]*)([-+])", segment)
    lines = []
    sign = "-"
    for multiple, (digits, written) in zip((8, 4, 2, 1), tries, strict=False):
        value = _signed(digits, written)
        lines.append(f"{sign} {table.get(multiple, MISSING):>{width}} = {value:>{width + 1}}")
        sign = "+" if written == "-" else "-"
    tail = re.split("[-+]", segment)[-1]
    rest, digit = tail[:-1], tail[-1:] or MISSING
    again = f"+ {table[1]:>{width}}" if sign == "+" else " " * (width + 2)
    lines.append(f"{again} = {_number(rest):>{width + 1}}   digit {digit}")
    return lines, _number(rest)


def _estimate(segment: str, table: dict[int, str], width: int) -> tuple[list[str], str]:
    """A guess, its product with the divisor, the difference, and a correction if negative."""
    guess, product = segment[:1] or MISSING, segment[1:].partition(",")[0]
    match = re.match(r"([0-9]*)([-+])", segment.partition(",")[2])
    left, sign = match.groups() if match else ("", "+")
    tail = segment.partition(",")[2][len(left) + 1 :]
    rest, digit = tail[:-1], tail[-1:] or MISSING
    lines = [
        f"- {_number(product):>{width}} = {_signed(left, sign):>{width + 1}}"
        f"   guess {guess}: {guess} * {table[1]}"
    ]
    again = f"+ {table[1]:>{width}}" if sign == "-" else " " * (width + 2)
    lines.append(f"{again} = {_number(rest):>{width + 1}}   digit {digit}")
    return lines, _number(rest)


def _drawn(lines: list[Line | Rule]) -> str:
    """Numbers under one another, rules as wide as the widest, remarks in a column of their own."""
    numbers = [line.number + " " * line.shift for line in lines if isinstance(line, Line)]
    width = max(len(number) for number in numbers)
    out = []
    for line in lines:
        if isinstance(line, Rule):
            out.append(line.char * (width + 2))
        else:
            number = line.number + " " * line.shift
            out.append(f"{line.sign or ' '} {number:>{width}}   {line.remark}".rstrip())
    return "\n".join(out)


def _number(digits: str) -> str:
    """Digits, lowest first, as a number in normal order."""
    return digits[::-1].lstrip("0") or ("0" if digits else MISSING)


def _signed(digits: str, sign: str) -> str:
    """A row of a division: ten's complement where its sign is negative."""
    if sign != "-" or not digits or len(digits) > MOST_DIGITS:
        return _number(digits)
    return str(int(digits[::-1]) - 10 ** len(digits))


def _shown(answer: str) -> str:
    return answer or MISSING
