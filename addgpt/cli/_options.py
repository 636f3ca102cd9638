"""Options that several commands have."""

import math
from typing import Any

import click

DIGITS = click.option("--digits", type=int, help="Longest operand; short for --set digits=N.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, nothing else.")


class Finite(click.FloatRange):
    """A number in a range; click takes nan for one in any."""

    def convert(self, value: Any, *context: Any) -> float:
        number = super().convert(value, *context)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", *context)
        return number
