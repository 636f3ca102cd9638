"""The calculator's mixture: sums, differences, products, quotients, sums of many for one model.

Each problem is written as its own task writes it; the shares say how often each is drawn in
training. Sums and differences may be longer than products and quotients.

>>> task = Calc(digits=3, sum_digits=4)
>>> str(task.truth(task.parse("1 / 3"))), task.prompt(task.parse("5 - 7"))
('0 remainder 1', '5-7=')
>>> str(task.read(task.parse("12*34"), "80400,804000;60300,014000;=8040#"))
'408'
>>> str(task.read(task.parse("12+345+6"), "70503000;31603000#"))
'363'

With four shares in place of five there are no sums of more than two numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from addgpt.task import Recipe, UsageError, setting
from tasks import div, mul
from tasks.add import Add
from tasks.common.arithmetic import check_far, length_setting, share_setting
from tasks.common.many import SUM
from tasks.common.mixture import Mixture, Part
from tasks.common.recipes import local_recipe, traced_recipe
from tasks.div import Div
from tasks.mul import Mul
from tasks.sub import Sub
from tasks.sum import MAX_OPERANDS, Sum


@dataclass(frozen=True)
class Calc(Mixture):
    digits: int = length_setting(4, "longest operand of * and /")
    sum_digits: int = length_setting(5, "longest operand of + and -")
    shares: tuple[float, ...] = setting(
        (0.1, 0.15, 0.3, 0.35, 0.1),
        "how often +, -, *, / and sums of many are drawn; four: no sums of many",
        low=0,
        below=math.inf,
    )
    operands: int = setting(4, "most operands of a sum of many", low=3, high=MAX_OPERANDS)
    far: tuple[int, ...] = length_setting((), "longer operand lengths to score, such as 20,50")
    full: float = share_setting(0.25, "operands of the longest lengths")
    add_trace: str = setting("carry", "trace of +: as in the task add", ("carry", "none"))
    sub_trace: str = setting("carry", "trace of -: as in the task sub", ("carry", "borrow", "none"))
    mul_trace: str = setting("carry", "trace of *: as in the task mul", mul.TRACES)
    div_trace: str = setting("carry", "trace of /: as in the task div", div.TRACES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.shares) not in (4, 5) or not any(self.shares):
            valid = "four shares of + - * /, or five: sums of many, too"
            raise UsageError(f"shares must be {valid}; not {self.shares}")
        check_far(self.far, min(self.digits, self.sum_digits))

    @cached_property
    def parts(self) -> dict[str, Part]:
        """Each part scores the lengths of `far` that are beyond its training."""
        sums, others = (
            {"digits": digits, "far": tuple(length for length in self.far if length > digits)}
            for digits in (self.sum_digits, self.digits)
        )
        parts: dict[str, Part] = {
            "+": Add(**sums, trace=self.add_trace),
            "-": Sub(**sums, trace=self.sub_trace),
            "*": Mul(**others, trace=self.mul_trace),
            "/": Div(**others, trace=self.div_trace),
        }
        if len(self.shares) == 5:
            sums["far"] = tuple(size for size in sums["far"] if size > self.operands)
            parts[SUM] = Sum(**sums, operands=self.operands, part=True)
        return parts

    def recipe(self) -> Recipe:
        if self.rules():
            return local_recipe(1300)
        return traced_recipe(1000 + 700 * self.digits, True)
