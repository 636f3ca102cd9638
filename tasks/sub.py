"""Subtraction of two non-negative integers; the difference may be negative.

The sign is known only once the last borrow is, and the digits of a negative difference depend on
the sign. So the default trace first writes the difference as if the borrow could be paid (ten's
complement), lowest digit first, then the sign, then the magnitude:

>>> import numpy as np
>>> task = Sub(digits=3)
>>> a, b = np.array([[2, 1, 0]]), np.array([[5, 4, 3]])  # 12 - 345, lowest digit first
>>> batch = task.write(a, b, np.array([2]), np.array([3])).batch(np.array([0]))
>>> task.decode(batch.tokens[0])  # 12 - 345 + 1000 = 667, negative, 1000 - 667 = 333
'12-345=766-333#'
>>> task.answer("766-333#"), task.truth("12 - 345")
('-333', '-333')

With `trace=none` only the sign and the magnitude are written, in the order that `sign` says:
`12-345=-333#` (before) or `12-345=333-#` (after).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Cell, Recipe, setting
from tasks.common import digits
from tasks.common.arithmetic import Arithmetic
from tasks.common.sheet import SIGNS, Kind, Sheet, start


@dataclass(frozen=True)
class Sub(Arithmetic):
    op: ClassVar[str] = "-"
    borrows: ClassVar[bool] = True

    trace: str = setting(
        "borrow", "borrow: the signed difference first; or none", ("borrow", "none")
    )
    sign: str = setting(
        "before", "where the sign stands with trace=none: before, after", ("before", "after")
    )

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        sheet = start(a, b, len_a, len_b, self.op)
        longer = np.maximum(len_a, len_b)[:, None]
        width = int(longer.max())
        exists = np.arange(width) < longer
        difference = digits.wide(a, width) - digits.wide(b, width)
        signed, borrow = digits.carried(difference)
        negative = (borrow < 0)[:, None]
        magnitude, _ = digits.carried(np.where(negative, -difference, difference))
        sign = np.where(negative, SIGNS[1], SIGNS[0])
        if self.trace == "borrow":
            sheet.number(signed, Kind.SIGNED, exists=exists)
        if self.trace == "borrow" or self.sign == "before":
            sheet.symbol(sign, Kind.SIGNED, col=longer + 1)
        sheet.number(magnitude, Kind.MAGNITUDE, exists=exists)
        if self.trace == "none" and self.sign == "after":
            sheet.symbol(sign, Kind.SIGNED, col=longer + 1)
        sheet.symbol("#", Kind.MAGNITUDE, col=longer + 1)
        return sheet

    def compute(self, a: int, b: int) -> str:
        return str(a - b)

    def answer(self, completion: str) -> str:
        text = super().answer(completion)
        after = self.trace == "none" and self.sign == "after"
        pattern = r"()([0-9]+)([-+])" if after else r"[0-9]*([-+])([0-9]+)()"
        match = re.fullmatch(pattern, text)
        if match is None:
            raise ValueError(f"{completion!r} is not a finished subtraction")
        number = match[2][::-1].lstrip("0") or "0"
        return f"-{number}" if "-" in (match[1], match[3]) and number != "0" else number

    def lines(self, completion: str) -> list[str]:
        """The signed digits; then the sign and the magnitude, which are the answer."""
        traced = self.trace == "borrow"
        return re.split(r"(?=[-+])", completion, maxsplit=1) if traced else [completion]

    def strata(self) -> list[Cell]:
        return super().strata() + self.chains()

    def recipe(self) -> Recipe:
        return Recipe(
            model={
                "layers": 2,
                "width": 64,
                "norm": "plain",
                "level_position": ("relative", "none", "learned"),
            },
            train={"steps": 1200, "batch_size": 128, "muon_lr": 0.03, "lr": 0.01},
        )
