"""Addition of two non-negative integers.

The default writes the answer least significant digit first, as carries travel (Lee et al. 2023,
arXiv:2307.03381), leading zeros left out:

>>> import numpy as np
>>> task = Add(digits=3)
>>> a, b = np.array([[8, 2, 1]]), np.array([[7, 6, 3]])  # 128 + 367, lowest digit first
>>> batch = task.write(a, b, np.array([3]), np.array([3])).batch(np.array([0]))
>>> task.decode(batch.tokens[0])
'128+367=594#'
>>> "".join("x" if scored else "." for scored in batch.scored[0])
'........xxxx'
>>> batch.positions[0, :, 0].tolist()  # digits of the same place value share an id
[3, 2, 1, 0, 3, 2, 1, 0, 1, 2, 3, 4]
>>> task.answer("594#"), task.truth("128 + 367")
('495', '495')

With `format=plain` the same sum reads `128+367=495#`, with `format=padded` `128+367=5940#`; with
`trace=carry` each digit of the sum is followed by the carry it leaves: `128+367=519040#`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Cell, Recipe, setting
from tasks.common import digits
from tasks.common.arithmetic import Arithmetic, start
from tasks.common.sheet import Kind, Sheet


@dataclass(frozen=True)
class Add(Arithmetic):
    op: ClassVar[str] = "+"
    commutes: ClassVar[bool] = True

    format: str = setting(
        "reverse", "how the sum is written: plain, reverse, padded", ("plain", "reverse", "padded")
    )
    trace: str = setting(
        "none", "none, or carry: each digit followed by its carry", ("none", "carry")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trace == "carry" and self.format == "plain":
            raise ValueError("trace=carry goes with format=reverse or padded, not plain")

    def write(self, a: np.ndarray, b: np.ndarray, len_a: np.ndarray, len_b: np.ndarray) -> Sheet:
        sheet = start(a, b, len_a, len_b, self.op)
        longer = np.maximum(len_a, len_b)[:, None]
        width = int(longer.max()) + 1
        total, _ = digits.carried(digits.wide(a, width) + digits.wide(b, width))
        place = np.arange(width)
        exists = place <= longer
        used = exists if self.format == "padded" else place < digits.length(total)[:, None]
        if self.trace == "carry":
            self._with_carries(sheet, a, b, total, exists, used)
        else:
            backwards = self.format == "plain"
            sheet.number(
                total, Kind.TOTAL, exists=exists, used=used, most_significant_first=backwards
            )
        sheet.symbol("#", Kind.TOTAL, col=longer + 2)
        return sheet

    def _with_carries(self, sheet: Sheet, a, b, total, exists, used) -> None:
        width = total.shape[1]
        # a column's sum less its digit is 10 times the carry it leaves, less the one it receives
        carry = (digits.wide(a, width) + digits.wide(b, width) - total) > 0
        for column in range(width):
            here = exists[:, column : column + 1], used[:, column : column + 1]
            for number, kind in ((total, Kind.TOTAL), (carry, Kind.CARRY)):
                sheet.number(
                    number[:, column : column + 1],
                    kind,
                    exists=here[0],
                    used=here[1],
                    col=column + 1,
                )

    def compute(self, a: int, b: int) -> str:
        return str(a + b)

    def answer(self, completion: str) -> str:
        text = super().answer(completion)
        if self.trace == "carry":
            text = text[0::2]
        return text if self.format == "plain" else (text[::-1].lstrip("0") or text[:1])

    def strata(self) -> list[Cell]:
        return super().strata() + self.chains()

    def recipe(self) -> Recipe:
        return Recipe(
            model={
                "layers": 1,
                "width": 64,
                "heads": 4,
                "norm": "plain",
                "level_position": ("rotary", "none", "learned"),
            },
            train={
                "steps": 900 + 100 * self.digits,
                "batch_size": 128,
                "muon_lr": 0.03,
                "lr": 0.01,
                "eval_every": 50,
            },
        )
