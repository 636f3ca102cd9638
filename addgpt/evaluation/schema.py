"""What the files of an evaluation hold: columns, typed reader, kinds of mistakes. No torch here."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from addgpt.runs.files import RunError, read_checked

SIGNS = ("+", "-", "*", "/")
COUNTS = ("n", "answer_correct", "trace_correct", "unterminated")
RULERS = ("blocks", "overlap", "random")  # for the loss on a text: see evaluation.perplexity
NUMBERS = ("seed", "params", "step", "examples", "seconds")  # facts of the run
EVAL_COLUMNS = tuple(
    "run task seed params step examples seconds split op len_a len_b stratum seen n "
    "answer_correct trace_correct unterminated".split()
)

# Each mistake is of exactly one kind: the first of these that applies. What each looks like in the
# formats of the tasks is shown in `addgpt.evaluation.mistakes`.
ERROR_KINDS = {
    "unterminated": "no end mark was written",
    "unreadable": "what was written is no answer",
    "sign": "the right size, the wrong sign",
    "carry": "every digit is right but for the carry into its column",
    "borrow": "every digit is right but for the borrow from its column",
    "copy": "a line of the work was not copied correctly",
    "trace": "a line of the work is wrong",
    "length": "the work is right, the answer has another number of digits",
    "answer": "the work, if there is any, is right, the answer is not",
    "digit": "a digit of the answer is wrong",
}


def read_eval(file: Path) -> list[dict[str, Any]]:
    """The rows of an eval.csv: counts and lengths as integers, `seen` as a bool, facts as numbers.

    A fact of the run that is not known is None. Raises RunError if the file cannot be read or is
    damaged.
    """
    rows = list(csv_rows(file, EVAL_COLUMNS, _typed))
    if not rows:
        raise RunError(f"{file} is damaged: it has no rows")
    return rows


def trained_length(options: Mapping[str, Any], op: str) -> float:
    """The longest operand, in digits, that a task's options train for; NaN if they do not say so
    by numbers of these names, as options of others' tasks may not."""
    names = ("sum_digits", "digits") if op in ("+", "-") else ("digits",)
    said = (options[name] for name in names if isinstance(options.get(name), int | float))
    return float(next(said, math.nan))


def is_longer(row: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether a row of eval.csv has longer operands than were trained on.

    Such cells are held out, too, but counted apart: they ask for something else.
    """
    trained = trained_length(options, row["op"])
    most = options["operands"] if is_counted(options) else trained
    return row["len_a"] > most or row["len_b"] > trained


def is_counted(options: Mapping[str, Any]) -> bool:
    """Whether `len_a` of a task's cells is how many operands there are, all as long as `len_b`.

    In a mixture, which has `sum_digits` besides, it is a length as in all other cells.
    """
    return isinstance(options.get("operands"), int) and "sum_digits" not in options


def operation(op: str, len_a: int, len_b: int, counted: bool = False) -> str:
    """The operation of a cell: `a + b`, `max of a and b`, `parity of a`, or by name alone; where
    operands are counted `a + b + …`."""
    if len_b and op in SIGNS:
        return f"a {op} b" + f" {op} …" * counted
    return op + (" of a and b" if len_b else " of a" if len_a else "")


def digits_of(op: str, len_a: int, len_b: int, counted: bool = False) -> str:
    """The operand lengths of a cell: `3+3`, `3, 3`, or `3` of one operand; `4 × 3` of four."""
    if counted:
        return f"{len_a} × {len_b}"
    if not len_b:
        return str(len_a or "")
    return f"{len_a}{op}{len_b}" if op in SIGNS else f"{len_a}, {len_b}"


def operation_of(row: Mapping[str, Any]) -> str:
    """`operation` of a row, which may say whether its operands are `counted`."""
    return operation(*_told(row))


def lengths_of(row: Mapping[str, Any]) -> str:
    """`digits_of` a row, likewise."""
    return digits_of(*_told(row))


def _told(row: Mapping[str, Any]) -> tuple[str, int, int, bool]:
    return row["op"], int(row["len_a"]), int(row["len_b"]), bool(row.get("counted"))


def csv_rows(
    file: Path, columns: Sequence[str], typed: Callable[[dict[str, str]], dict[str, Any]] = dict
) -> Iterator[dict[str, Any]]:
    """The rows of a file that has at least these columns, as `typed` makes them of texts.

    Raises RunError naming the file and the line; what `typed` raises is taken into it.
    """
    reader = csv.DictReader(io.StringIO(read_checked(file), newline=""))
    try:
        missing = [name for name in columns if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"no column {', '.join(missing)}")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError("wrong number of fields")
            yield typed(row)
    except (ValueError, csv.Error) as error:
        where = f"line {reader.line_num}: " if reader.line_num > 1 else ""
        raise RunError(f"{file} is damaged: {where}{error}") from None


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as csv, in the given columns."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _typed(row: dict[str, str]) -> dict[str, Any]:
    """A row of text with its types. Raises ValueError."""
    whole = {name: int(row[name]) for name in (*COUNTS, "len_a", "len_b")}
    if not all(0 <= whole[name] <= whole["n"] for name in COUNTS) or not whole["n"]:
        raise ValueError("counts must be in 0..n, and n above 0")
    if row["seen"] not in ("True", "False"):
        raise ValueError(f"seen must be True or False, not {row['seen']!r}")
    facts = {name: _number(row[name]) for name in NUMBERS}
    return row | whole | facts | {"seen": row["seen"] == "True"}


def _number(text: str) -> float | int | None:
    if not text:
        return None
    return int(text) if text.isdecimal() else float(text)
