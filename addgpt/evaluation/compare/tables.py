"""Groups of runs as tables for a terminal: their spread, and the difference of two of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from addgpt.evaluation.compare.statistics import (
    Comparison,
    Difference,
    Scored,
    Spread,
    by_cell,
    by_kind,
    cell_of,
    compare,
    held_out,
    longer,
)
from addgpt.evaluation.intervals import percent
from addgpt.evaluation.schema import digits_of, operation
from addgpt.evaluation.tables import print_table, table_of
from addgpt.task import Cell

SHOWN = 10  # cells in a table of the worst or the most different
GROUPS = {"plain": "any problem", "special": "strata", "longer": "longer than trained on"}
COUNTED = "counted, not paired by problem: stored scores say how many were right, not which"
METHOD = (
    "paired by problem; variances of problems and of runs added, Welch's degrees of freedom, "
    "Bonett and Price's two added problems: see addgpt/evaluation/compare/statistics.py"
)


def headline(runs: Sequence[Scored]) -> str:
    """`median 99.98 %, worst 99.93 % of 8,972 held-out problems, 3 runs (seeds 0, 1, 2)`

    Then problems that are longer than trained on, if there are any.
    """
    spread, beyond = held_out(runs), longer(runs)
    seeds = ", ".join(str(run.seed) for run in runs)
    who = f"{len(runs)} runs (seeds {seeds})" if len(runs) > 1 else f"1 run (seed {seeds})"
    if spread is None:
        return f"no problem was held out of training, {who}"
    told = f"{_ends(spread)} of {spread.n:,} held-out problems, {who}"
    return told + (f"; {_ends(beyond)} of {beyond.n:,} longer than trained on" if beyond else "")


def _ends(spread: Spread) -> str:
    if len(spread.right) == 1:
        return f"{_share(spread.median)} %"
    return f"median {_share(spread.median)} %, worst {_share(spread.worst)} %"


def facts(a: Sequence[Scored], b: Sequence[Scored] = ()) -> dict[str, Any]:
    """One group of runs, or two and their difference, for JSON; shares in 0..1."""
    if not b:
        return {"a": group_facts(a)}
    difference = comparison_facts(compare(a, b))
    return {"a": group_facts(a), "b": group_facts(b), "difference": difference}


def print_groups(console: Console, a: Sequence[Scored], b: Sequence[Scored] = ()) -> None:
    """The spread of one group of runs, or the difference of two."""
    if b:
        print_comparison(console, a, b, compare(a, b))
    else:
        print_spread(console, a)


def print_spread(console: Console, runs: Sequence[Scored]) -> None:
    """Median, worst and best run by operation, then the cells in which some run did worst."""
    names = ("", "", "problems", "median", "worst", "best", "std. dev.")
    title = f"exact match in % of {len(runs)} runs on the same held-out problems"
    table = table_of(title, names, left=[""])
    operations = _operations(by_cell(runs))
    for (op, kind), spread in by_kind(runs).items():
        table.add_row(operations[op], GROUPS[kind], f"{spread.n:,}", *_spread_texts(spread))
    if table.row_count:
        print_table(console, table)
    _print_worst(console, runs)
    console.print(headline(runs))


def _print_worst(console: Console, runs: Sequence[Scored]) -> None:
    cells = [(cell, spread) for cell, spread in by_cell(runs).items() if spread.worst < 1]
    if not cells:
        console.print(f"every run has all problems of all {len(by_cell(runs))} cells right")
        return
    cells.sort(key=lambda entry: (entry[1].worst, entry[1].median))
    title = f"worst cells, {min(SHOWN, len(cells))} of {len(cells)} in which a run has an error"
    numbers = ("problems", "median", "worst", "best", "std. dev.", "worst run")
    table = table_of(title, ("digits", "stratum", *numbers), left=["stratum"])
    seen = {cell_of(row) for row in runs[0].rows if row["seen"]}
    for cell, spread in cells[:SHOWN]:
        worst = escape(Path(runs[spread.right.index(min(spread.right))].name).name)
        digits, stratum = _cell_texts(cell)
        texts = (f"{digits}{'*' if cell in seen else ' '}", stratum, f"{spread.n:,}")
        table.add_row(*texts, *_spread_texts(spread), worst)
    if seen.intersection(cell for cell, _ in cells[:SHOWN]):
        table.caption = "* cell too small to hold problems out"
    print_table(console, table)


def print_comparison(
    console: Console, a: Sequence[Scored], b: Sequence[Scored], comparison: Comparison
) -> None:
    """Both groups, their difference over all and by operation, then the most different cells."""
    for side, runs in (("A", a), ("B", b)):
        names = ", ".join(run.name for run in runs)
        console.print(
            f"{side}: {names}: {headline(runs)}", highlight=False, markup=False, soft_wrap=True
        )
    columns = ("", "cells", "problems", "A in %", "B in %", "A - B", "95 % interval")
    title = "A - B: held-out exact match in points; each cell weighs the same"
    table = table_of(title, columns, left=[""])
    parts = {GROUPS["plain"]: comparison.overall}
    if len(comparison.ops) > 1:
        operations = _operations(comparison.cells)
        parts |= {f"  {operations[op]}": part for op, part in comparison.ops.items()}
    if comparison.special:
        parts[GROUPS["special"]] = comparison.special
    if comparison.longer:
        parts[GROUPS["longer"]] = comparison.longer
    for name, part in parts.items():
        table.add_row(name, f"{part.cells:,}", f"{part.n:,}", *_difference_texts(part))
    sampled = "problems" if max(comparison.runs) == 1 else "problems and of seeds"
    table.caption = f"the interval allows for sampling of {sampled}; * significant: it leaves out 0"
    print_table(console, table)
    _print_most_different(console, comparison)
    if not comparison.paired:
        console.print(f"{COUNTED}; the intervals are wider for it", soft_wrap=True)
    if comparison.caveat():
        console.print(comparison.caveat(), soft_wrap=True)


def _print_most_different(console: Console, comparison: Comparison) -> None:
    cells = [(cell, part) for cell, part in comparison.cells.items() if part.difference]
    if not cells:
        console.print(f"no difference in any of {len(comparison.cells)} cells")
        return
    cells.sort(key=lambda entry: -abs(entry[1].difference))
    shown = f"{min(SHOWN, len(cells))} of {len(comparison.cells)}"
    names = ("digits", "stratum", "problems", "A in %", "B in %", "A - B", "95 % interval")
    table = table_of(f"most different cells, {shown}", names, left=["stratum"])
    for cell, part in cells[:SHOWN]:
        table.add_row(*_cell_texts(cell), f"{part.n:,}", *_difference_texts(part))
    table.caption = "each interval is of its cell alone: of many cells, some leave out 0 by chance"
    print_table(console, table)


def group_facts(runs: Sequence[Scored]) -> dict[str, Any]:
    """A group of runs for JSON: shares in 0..1, one count for each run in `right`."""
    spread, beyond = held_out(runs), longer(runs)
    kinds = [{"op": op, "kind": kind} | s.row() for (op, kind), s in by_kind(runs).items()]
    return {
        "runs": [{"run": run.name, "seed": run.seed} for run in runs],
        "held_out": spread.row() if spread else None,
        "longer": beyond.row() if beyond else None,
        "ops": kinds,
        "cells": [cell._asdict() | s.row() for cell, s in by_cell(runs).items()],
    }


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """A comparison for JSON: shares in 0..1."""
    return {
        "method": METHOD if comparison.paired else METHOD.replace("paired by problem", COUNTED),
        "note": comparison.caveat(),
        "overall": comparison.overall.row(),
        "ops": [{"op": op} | part.row() for op, part in comparison.ops.items()],
        "special": comparison.special.row() if comparison.special else None,
        "longer": comparison.longer.row() if comparison.longer else None,
        "cells": [cell._asdict() | part.row() for cell, part in comparison.cells.items()],
    }


def _share(share: float) -> str:
    return percent(share, 1)


def _spread_texts(spread: Spread) -> list[str]:
    spreads = "-" if spread.deviation is None else f"{100 * spread.deviation:.2f}"
    return [_share(spread.median), _share(spread.worst), _share(spread.best), spreads]


def _operations(cells: Iterable[Cell]) -> dict[str, str]:
    return {cell.op: escape(operation(*cell[:3])) for cell in cells}


def _cell_texts(cell: Cell) -> list[str]:
    return [escape(digits_of(*cell[:3])), escape(cell.stratum)]


def _difference_texts(part: Difference) -> list[str]:
    """In points, with enough decimals for about two digits of the interval."""
    width = 100 * (part.high - part.low) / 2
    decimals = min(4, max(1, 1 - math.floor(math.log10(width))))
    low, high = (f"{100 * end:+.{decimals}f}" for end in (part.low, part.high))
    difference = f"{100 * part.difference:+.{decimals}f}{'*' if part.significant else ' '}"
    return [_share(part.a), _share(part.b), difference, f"{low} to {high}"]
