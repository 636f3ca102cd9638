"""How the problem itself stands in the text: which way round, padded, marked, spaced."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from addgpt.config.catalogue import Feature
from addgpt.task import Batch, UsageError
from tasks.common.ids import ALPHABET, HINTS
from tasks.common.rules import EQUALS

OPERATORS = ALPHABET.index("+"), ALPHABET.index("/")
PADS = "none, equal or a number of digits"
BEGIN, BLANK = "$", " "

REVERSE_OPERANDS = {
    "true": Feature(
        "reversed operands",
        "McLeish et al. 2024, arXiv:2405.17399",
        "operands, too, are written lowest digit first",
    )
}
PAD = {
    "equal": Feature(
        "zero padding",
        "Cho et al. 2024, arXiv:2405.20671",
        "zeros above the shorter operand: both are written with as many digits",
    )
}
BLANKS = {
    "X": Feature(
        "random blanks",
        "Shen et al. 2023, arXiv:2311.14737",
        "blanks between the tokens of training problems, so that their places say nothing",
    )
}


@dataclass(frozen=True)
class Layout:
    """The prompt of a problem `a op b`.

    reverse  operands are written lowest digit first
    pad      both get zeros above them: to the length of the longer one, and to at least so many
             digits; None: they are written as they are
    hints    a letter before each digit says its column
    begin    a character before the problem; empty: none
    """

    reverse: bool = False
    pad: int | None = None
    hints: bool = False
    begin: str = ""

    def lengths(self, len_a, len_b) -> tuple:
        """How many digits are written of operands of so many digits: numbers, or (B,) of them."""
        if self.pad is None:
            return len_a, len_b
        if isinstance(len_a, int):
            most = max(len_a, len_b, self.pad)
        else:
            most = np.maximum(np.maximum(len_a, len_b), self.pad)
        return most, most

    def text(self, op: str, a: int, b: int) -> str:
        """The prompt, as people and the model read it."""
        lengths = self.lengths(len(str(a)), len(str(b)))
        first, second = map(self._number, (a, b), lengths)
        return f"{self.begin}{first}{op}{second}="

    def _number(self, number: int, length: int) -> str:
        digits = list(str(number).zfill(length)[::-1])
        if self.hints:
            digits = [hint + digit for hint, digit in zip(HINTS, digits, strict=False)]
        return "".join(digits if self.reverse else digits[::-1])

    def written(self, prompts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(B,) how many digits (B, T) prompts have of each operand."""
        each, start = 1 + self.hints, len(self.begin)
        operator, equals = _symbols(prompts)
        return (operator - start) // each, (equals - operator - 1) // each

    def operands(self, prompts: np.ndarray) -> tuple[np.ndarray, ...]:
        """The operands of (B, T) prompts as digit matrices (B, n), lowest first, and (B,) how many
        digits of each are written."""
        each, (operator, equals) = 1 + self.hints, _symbols(prompts)
        len_a, len_b = self.written(prompts)
        place = np.arange(int(max(len_a.max(), len_b.max())))
        first = np.full_like(operator, len(self.begin)), operator + 1
        last = operator - 1, equals - 1
        sides = []
        for side, lengths in enumerate((len_a, len_b)):
            upwards = first[side][:, None] + each * place + (each - 1)
            index = upwards if self.reverse else last[side][:, None] - each * place
            found = np.take_along_axis(prompts, index.clip(0, prompts.shape[1] - 1), 1)
            sides.append(np.where(place < lengths[:, None], found, 0).astype(np.int8))
        return *sides, len_a, len_b


def _symbols(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B,) where operator and equals sign of (B, T) prompts stand."""
    operator = ((tokens >= OPERATORS[0]) & (tokens <= OPERATORS[1])).argmax(1)
    return operator, (tokens == EQUALS).argmax(1)


def parse_pad(text: str) -> int | None:
    """`Layout.pad` from the text of an option. Raises UsageError."""
    if text in ("none", "equal"):
        return None if text == "none" else 0
    if text.isascii() and text.isdecimal() and 0 < int(text) <= 1000:
        return int(text)
    raise UsageError(f"pad must be {PADS} (1..1000), not {text!r}")


def spaced(batch: Batch, rng: np.random.Generator, share: float, blank: int, end: int) -> Batch:
    """A batch with blanks in its prompts: before each token one, with that probability.

    A blank has no position ids and is never scored. Rows are padded with the token `end`.
    """
    size = batch.tokens.shape[1]
    prompt = np.arange(size) < batch.scored.argmax(1)[:, None]
    before = (rng.random(prompt.shape) < share) & prompt
    moved = np.arange(size) + np.cumsum(before, 1)  # where each token goes
    width = int((batch.lengths + before.sum(1)).max())
    row, place = np.nonzero(np.arange(size) < batch.lengths[:, None])
    shape = (len(batch), width)
    tokens = np.full(shape, end, batch.tokens.dtype)
    scored = np.zeros(shape, bool)
    ids = np.zeros((*shape, batch.positions.shape[2]), batch.positions.dtype)
    at = row, moved[row, place]
    tokens[at], scored[at] = batch.tokens[row, place], batch.scored[row, place]
    ids[at] = batch.positions[row, place]
    row, place = np.nonzero(before)
    tokens[row, moved[row, place] - 1] = blank
    return replace(batch, tokens=tokens, scored=scored, positions=ids)
