"""Scores as tables for a terminal; in a pipe a table is as wide as it needs to be."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from addgpt.evaluation.intervals import percent, share, wilson
from addgpt.evaluation.schema import is_counted, is_longer, lengths_of, operation_of

Row = Mapping[str, Any]

WIDEST_GRID = 8  # operand lengths that still fit side by side
MOST_WRONG = 50  # wrong answers of a file of problems that are shown
WIDEST_TABLE = 400  # characters, where no terminal sets a bound


def console() -> Console:
    """Where tables go: stdout, as wide as the terminal, or as a table needs if there is none."""
    return Console(width=None if sys.stdout.isatty() else WIDEST_TABLE, soft_wrap=False)


def print_table(console: Console, table: Table) -> None:
    """Print a table; on a terminal that it does not fit on, without the lines between cells."""
    room = console.options.update(max_width=WIDEST_TABLE)
    if Measurement.get(console, room, table).maximum > console.width:
        table.box, table.pad_edge, table.padding = None, False, (0, 1, 0, 0)
    console.print(table)


def table_of(
    title: str, names: Sequence[str], left: Sequence[str] = (), caption: str | None = None
) -> Table:
    """An empty table whose columns are right-aligned, but for some; too wide a number wraps."""
    table = Table(title=title, caption=caption)
    for name in names:
        table.add_column(name, justify="left" if name in left else "right", overflow="fold")
    return table


def print_eval(console: Console, rows: Sequence[Row], options: Row | None = None) -> None:
    """Exact match by operand length, then by stratum, then over all that was held out.

    With the task's `options`, what is longer than it is trained on is counted apart.
    """
    rows = [{**row, "counted": is_counted(options or {})} for row in rows]
    for op in dict.fromkeys(row["op"] for row in rows):
        if not any(row["op"] == op and row["len_a"] for row in rows):
            print_table(console, _keys_table(op, [row for row in rows if row["op"] == op]))
            continue
        grid = [row for row in rows if row["op"] == op and row["stratum"] == "all"]
        longest = max(max(row["len_a"], row["len_b"]) for row in grid) if grid else 0
        if 0 < longest <= WIDEST_GRID and any(row["len_b"] for row in grid):
            print_table(console, _grid_table(grid))
        elif grid:
            print_table(console, _length_table(grid))
        strata = [row for row in rows if row["op"] == op and row["stratum"] != "all"]
        if strata:
            print_table(console, _strata_table(strata))
    split = "trained on" if {row["split"] for row in rows} == {"train"} else "held out"
    groups: dict[str, list[Row]] = {f"{split}, all cells": [], "longer than trained on": []}
    for row in rows:
        if not row["seen"]:
            groups[list(groups)[is_longer(row, options or {})]].append(row)
    for name, some in groups.items():
        right, n = (sum(row[key] for row in some) for key in ("answer_correct", "n"))
        if n:
            console.print(f"{name}: {right:,} of {n:,} right, {share(right, n)}")


def _grid_table(rows: Sequence[Row]) -> Table:
    lengths = sorted({row["len_b"] for row in rows})
    down, across = ("operands", "digits") if rows[0]["counted"] else ("a", "b")
    names = ("", *(f"{across}: {length}" for length in lengths))
    title = f"{_operation(rows[0])}: exact match in % (95 % interval)"
    table = table_of(title, names, left=[""])
    for len_a in sorted({row["len_a"] for row in rows}):
        texts = []
        for len_b in lengths:
            cell = [r for r in rows if (r["len_a"], r["len_b"]) == (len_a, len_b)]
            texts.append("\n".join(_cell_text(r) for r in cell))
        table.add_row(f"{down}: {len_a}", *texts)
    if any(row["seen"] for row in rows):
        table.caption = "* cell too small to hold problems out"
    return table


def _cell_text(row: Row) -> str:
    low, high = (percent(float(b), 1) for b in wilson(row["answer_correct"], row["n"]))
    mark = "*" if row["seen"] else ""
    return f"{percent(row['answer_correct'], row['n'])}{mark}\n{low}-{high}\nn={row['n']}"


def _operation(row: Row) -> str:
    return escape(operation_of(row))


def _lengths(row: Row) -> str:
    return escape(lengths_of(row))


def _keys_table(op: str, rows: Sequence[Row]) -> Table:
    """Cells by another key than operand lengths."""
    names = ("group", "n", "right", "exact match")
    table = table_of(f"{escape(op)}: exact match by group", names, left=["group"])
    for row in rows:
        right, n, mark = row["answer_correct"], row["n"], "*" if row["seen"] else ""
        table.add_row(escape(row["stratum"]), f"{n:,}", f"{right:,}", f"{share(right, n)}{mark}")
    if any(row["seen"] for row in rows):
        table.caption = "* so small a group holds no problems out"
    return table


def _length_table(rows: Sequence[Row]) -> Table:
    counted = rows[0]["counted"]
    two = any(row["len_b"] for row in rows) and not counted
    by = "the longer operand" if two else "operand length"
    names = ("digits", "cells", "n", "right", "exact match", "worst cell")
    table = table_of(f"{_operation(rows[0])}: exact match by {by}", names)
    groups: dict[int, list[Row]] = {}
    for row in rows:
        length = row["len_b"] if counted else max(row["len_a"], row["len_b"])
        groups.setdefault(length, []).append(row)
    for length, part in sorted(groups.items()):
        right, n = (sum(row[key] for row in part) for key in ("answer_correct", "n"))
        worst = min(part, key=lambda row: row["answer_correct"] / row["n"])
        where = f"{_lengths(worst)}: {worst['answer_correct']}/{worst['n']}"
        table.add_row(str(length), str(len(part)), f"{n:,}", f"{right:,}", share(right, n), where)
    return table


def _strata_table(rows: Sequence[Row]) -> Table:
    names = ("stratum", "digits", "n", "right", "exact match")
    title = f"{_operation(rows[0])}: exact match by stratum"
    table = table_of(title, names, left=["stratum"])
    for row in rows:
        right, n = row["answer_correct"], row["n"]
        table.add_row(
            escape(row["stratum"]), _lengths(row), f"{n:,}", f"{right:,}", share(right, n)
        )
    return table


def print_mistakes(console: Console, counts: Sequence[Row], facts: Row) -> None:
    """Why answers are wrong: rows of error_counts.csv by kind; `facts` are those of eval.json.

    Then whether the model could have been trained on a problem it was scored on.
    """
    _print_kinds(console, counts, facts)
    console.print(facts["contamination"]["summary"], soft_wrap=True, markup=False)


def _print_kinds(console: Console, counts: Sequence[Row], facts: Row) -> None:
    lucky = facts["answer_correct"] - facts["trace_correct"]
    other = "right answer is" if lucky == 1 else "right answers are"
    note = f"{lucky:,} {other} written otherwise" if lucky else ""
    if not counts:
        console.print("no answer is wrong" + (f"; {note}" if note else ""))
        return
    wrong = sum(row["n"] for row in counts)
    title = f"why {wrong:,} of {facts['n']:,} answers are wrong"
    left = ("", "mistake", "most at")
    table = table_of(title, ("", "mistake", "wrong", "share", "most at"), left, note or None)
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in counts:
        groups.setdefault((row["op"], row["kind"]), []).append(row)
    sizes = {group: sum(row["n"] for row in rows) for group, rows in groups.items()}
    for (op, kind), n in sorted(sizes.items(), key=lambda item: (item[0][0], -item[1])):
        where = _most_frequent(groups[op, kind])
        name = _operation(groups[op, kind][0])
        table.add_row(name, kind, f"{n:,}", f"{percent(n, wrong)} %", where)
    print_table(console, table)


def _most_frequent(counts: Sequence[Row]) -> str:
    """The line of the trace or, without one, the digit where most of some mistakes are."""
    places: dict[str, int] = {}
    for row in counts:
        line = f"line {row['line']}" if row["line"] else ""
        digit = f"digit {row['digit']}" if row["digit"] else ""
        places[line or digit] = places.get(line or digit, 0) + row["n"]
    place, n = max(places.items(), key=lambda item: item[1])
    return f"{place} ({n:,})" if place else ""


def loss_table(rows: Sequence[Row]) -> Table:
    """Loss on texts, a line for each run and ruler."""
    left = ("run", "split", "ruler", "characters")
    names = (*left, "nats", "bits", "perplexity")
    table = table_of("loss a character of held-out text", names, left)
    for row in rows:
        ruler = row["ruler"] + (f" by {row['context']:,}" if row["context"] else "")
        nats = f"{row['nats']:.4f}" + (f" ± {row['half']:.4f}" if row["half"] else "")
        values = (f"{row[name]:.4f}" for name in ("bits", "perplexity"))
        table.add_row(escape(row["run"]), row["split"], ruler, f"{row['n']:,}", nats, *values)
    return table


def problems_text(what: str, rows: Sequence[Row]) -> str:
    """The problems of a file that were answered wrong, many of them, and how many were right."""
    wrong = [
        f"wrong: {_asked(row['problem'])} = {row['answer']}, "
        f"the model says {row['model'] or 'nothing'}"
        for row in rows
        if not row["correct"]
    ]
    right, n = len(rows) - len(wrong), len(rows)
    if len(wrong) > MOST_WRONG:
        wrong[MOST_WRONG:] = [f"and {len(wrong) - MOST_WRONG:,} more; --json has all"]
    return "\n".join([*wrong, f"{what}: {right:,} of {n:,} right, {share(right, n)}"])


def _asked(problem: str) -> str:
    """A problem without the answer that its line gives: `9+9` of `9+9=18`."""
    return problem.partition("=")[0].rstrip() or problem


def groups_table(groups: Mapping[str, tuple[int, int]]) -> Table:
    """Groups of problems: right, and of how many."""
    table = table_of("", ("group", "n", "right", "exact match"), ["group"])
    for group, (right, n) in groups.items():
        table.add_row(escape(group or "-"), f"{n:,}", f"{right:,}", share(right, n))
    return table


def suite_table(title: str, rows: Sequence[Row]) -> Table:
    """Parts of a suite beside what was published for them; held-out problems apart from others."""
    caption = "held out: training can draw none of the problem's operations"
    names = ("n", "right", "exact match", "held out", "may have been seen", "published")
    table = table_of(escape(title), ("part", *names), ["part"], caption)
    for row in rows:
        right, n = row["answer_correct"], row["n"]
        other = "" if row["published"] is None else f"{row['published']:.1f} %"
        groups = [
            _group_text(row[f"{group}_answer_correct"], row[f"{group}_n"])
            for group in ("held_out", "seen")
        ]
        table.add_row(escape(row["part"]), f"{n:,}", f"{right:,}", share(right, n), *groups, other)
    return table


def _group_text(right: int, n: int) -> str:
    """`1,999 of 2,000, 99.95 %`, or a dash where there are none."""
    return f"{right:,} of {n:,}, {percent(right, n)} %" if n else "-"
