"""The steps of a long division as on paper, from the rows that the model wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from addgpt.task import Row
from tasks.common import paper


def digits_alone(rows: list[Row]) -> Iterator[Row]:
    """The rows of steps without what is carried, the digit of the quotient after the rest."""
    digit = paper.MISSING
    for label, text in rows:
        if label == "digit":
            digit = paper.digits(text)[-1:] or paper.MISSING
        elif label == "try":
            yield Row(label, paper.digits(text)[::2] + text[-1])
        elif label == "rest":
            yield Row(label, paper.digits(text)[::2] + digit + text[-1])
            digit = paper.MISSING


def steps(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows of each step, which ends with its rest."""
    step: list[Row] = []
    for row in rows:
        if row.label in ("try", "rest"):
            step.append(row)
        if row.label == "rest":
            yield step
            step = []


def tries(step: list[Row], table: dict[int, str], width: int) -> tuple[list[str], str]:
    """8, 4, 2 and 1 times the divisor, taken away after a `+`, given back after a `-`."""
    lines, sign = [], "-"
    for multiple, row in zip((8, 4, 2, 1), step[:-1], strict=False):
        multiple = table.get(multiple, paper.MISSING)
        lines.append(f"{sign} {multiple:>{width}} = {paper.signed(row.text):>{width + 1}}")
        sign = "+" if row.text.endswith("-") else "-"
    last, rest = _rest(step[-1], sign == "+", table[1], width)
    return [*lines, last], rest


def _rest(row: Row, again: bool, divisor: str, width: int) -> tuple[str, str]:
    """The last line of a step, which may give the divisor back, and the rest in it."""
    rest, digit = paper.number(row.text[:-2]), paper.digits(row.text[-2:-1]) or paper.MISSING
    given_back = f"+ {divisor:>{width}}" if again else " " * (width + 2)
    return f"{given_back} = {rest:>{width + 1}}   digit {digit}", rest
