"""What a file of problems holds, item by item: tables, JSON and lines of text.

What a file is follows from its content; the ending of its name matters little. A file that cannot
be read at all raises UsageError; an unusable item says why in `Record.fault`.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError

# What public files call these columns; of several, the first counts.
NAMES = {
    "problem": "problem question query input inputs expression ctx context prompt task".split(),
    "answer": "answer response completion target targets output ground_truth label labels".split(),
    "group": "group category subset type task level".split(),
}
ORDERS = ("normal", "reversed")  # of the digits of answers
SEPARATORS = ",;\t|"
COMMENT = "#"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
QUOTES = "what follows it cannot be told apart"
EXCEL = re.compile(r"sep=(.)")
ASKED = re.compile(r"[0-9)]\s*[-+*/xX×÷·−–]\s*[-(0-9]")  # an operation: a row without a header
GIVEN = re.compile(r"[-+−]?(?:0|[1-9][0-9_,]*)(?:\.[0-9]+)?(?:\s*(?:r|rem).*)?", re.I)


@dataclass(frozen=True)
class Record:
    """An item of a file: where it stands, and what it holds, or why it cannot be read.

    fields  by name, stripped and in lower case; the problem of a line of text is `problem`
    path    the keys of a nested JSON file that lead to it
    """

    where: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Columns:
    """Which fields hold problem, answer and group, where a person says so."""

    problem: str = ""
    answer: str = ""
    group: str = ""

    @classmethod
    def parse(cls, text: str) -> Columns:
        """From `problem=Q,answer=A`; empty: by the names that are known. Raises UsageError."""
        found = {}
        for pair in filter(None, text.split(",")):
            key, sign, name = (part.strip() for part in pair.partition("="))
            if key not in NAMES or not sign or not name:
                valid = "problem=NAME,answer=NAME,group=NAME"
                raise UsageError(f"--columns takes {valid}, not {text!r}")
            found[key] = folded(name)
        return cls(**found)

    def name(self, role: str, fields: Iterable[str]) -> str | None:
        """The field of a role among those that there are."""
        fields = list(fields)
        wanted = getattr(self, role)
        names = [wanted] if wanted else [n for n in NAMES[role] if n not in self._others(role)]
        return next((name for name in names if name in fields), None)

    def _others(self, role: str) -> set[str]:
        return {getattr(self, other) for other in NAMES if other != role}


def folded(name: object) -> str:
    return str(name).strip().casefold()


def records(path: Path, columns: Columns) -> list[Record]:
    """The items of a file. Raises UsageError if it cannot be read or holds none."""
    try:
        text = _text(path)
        found = list(_records(path, text, columns))
    except (csv.Error, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None
    if not found:
        raise UsageError(f"{path} holds no problems")
    return found


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        text = path.read_text("utf-16" if start in UTF16 else "utf-8")
    except UnicodeError:
        raise UsageError(f"{path} is not UTF-8 text; Excel: save as CSV UTF-8") from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")


def _records(path: Path, text: str, columns: Columns) -> Iterator[Record]:
    start = text.lstrip()[:1]
    if path.suffix.lower() in (".json", ".jsonl", ".ndjson") or start == "{":
        yield from _json(path, text, columns)
    elif start == "[" and _is_json(text):
        yield from _json(path, text, columns)
    elif (table := _table(path, text, columns)) is not None:
        yield from table
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.startswith(COMMENT):
                yield Record(f"line {number}", {"problem": line})


# Tables.


def _table(path: Path, text: str, columns: Columns) -> list[Record] | None:
    """The rows of a table; None for lines of text. Raises UsageError for unknown columns."""
    lines = list(enumerate(text.split("\n"), 1))
    lines = [(n, line) for n, line in lines if line.strip() and not line.startswith(COMMENT)]
    separators = SEPARATORS
    if lines and (match := EXCEL.fullmatch(lines[0][1].strip())):
        separators, lines = match[1], lines[1:]
    if not lines:
        return []
    number, line = lines[0]
    for separator in separators:
        names = [folded(cell) for cell in next(_reader(line, separator))]
        if columns.name("problem", names):
            _check_once(path, names, columns)
            return list(_rows(text, number, separator, names))
    for separator in separators:
        cells = next(_reader(line, separator))
        if len(cells) == 2 and ASKED.search(cells[0]) and GIVEN.fullmatch(cells[1].strip()):
            return list(_rows(text, 0, separator, ["problem", "answer"]))  # without a header
    if path.suffix.lower() in (".csv", ".tsv") and not any(map(str.isdigit, line)):
        raise unknown_columns(path, next(_reader(line, _likeliest(line))))
    return None


def _rows(text: str, header: int, separator: str, names: list[str]) -> Iterator[Record]:
    text, unclosed = _without_comments(text)
    reader = _reader(text, separator)
    last = 0
    for row in reader:
        first, last = last + 1, reader.line_num
        if first <= unclosed <= last:
            yield Record(f"line {unclosed}", fault=f"a quote opens here and never closes: {QUOTES}")
            continue
        blank = not any(cell.strip() for cell in row)
        if last <= header or blank or EXCEL.fullmatch(row[0]):
            continue
        where = f"line {first}"
        if len(row) > len(names):
            found = f"{len(row)} fields in {len(names)} columns"
            yield Record(where, fault=f"{found}: quote what holds {separator!r}")
        else:
            yield Record(where, dict(zip(names, row, strict=False)))


def _without_comments(text: str) -> tuple[str, int]:
    """A table with its comment lines blank, and the line of a quote that never closes, or 0.

    What begins with # inside quotes is no comment: `#### 46` may end an answer of several lines.
    """
    lines, opened = [], 0
    for number, line in enumerate(text.split("\n"), 1):
        comment = not opened and line.startswith(COMMENT)
        lines.append("" if comment else line)
        if not comment and line.count('"') % 2:
            opened = 0 if opened else number
    return "\n".join(lines), opened


def _check_once(path: Path, names: list[str], columns: Columns) -> None:
    """Raise UsageError if two columns have the name of the one that counts."""
    for role in NAMES:
        name = columns.name(role, names)
        if name is not None and names.count(name) > 1:
            raise UsageError(f"{path} has {names.count(name)} columns named {name}")


def _reader(text: str, separator: str) -> Any:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # a long field ends no file
    return csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)


def _likeliest(line: str) -> str:
    return max(SEPARATORS, key=line.count)


def unknown_columns(path: Path, names: Iterable[object]) -> UsageError:
    shown = ", ".join(map(str, names)) or "none"
    hint = "say which with --columns problem=NAME,answer=NAME"
    return UsageError(f"{path} has no column or key of problems; found: {shown[:200]}; {hint}")


# JSON.


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _json(path: Path, text: str, columns: Columns) -> Iterator[Record]:
    if path.suffix.lower() != ".json" and _is_json(text.lstrip().partition("\n")[0]):
        yield from _json_lines(path, text, columns)
        return
    try:
        whole = json.loads(text)
    except ValueError as error:
        if path.suffix.lower() == ".json" and text.lstrip()[:1] == "[":
            raise UsageError(f"{path}: not JSON ({getattr(error, 'msg', error)})") from None
        yield from _json_lines(path, text, columns)
        return
    if isinstance(whole, dict) and columns.name("problem", map(folded, whole)):
        lists = {folded(k): v for k, v in whole.items() if isinstance(v, list)}
        size = len(lists.get(str(columns.name("problem", lists)), []))
        if size:  # a table, column by column
            for row in range(size):
                fields = {k: v[row] for k, v in lists.items() if len(v) == size}
                yield Record(f"item {row + 1}", fields)
        else:
            yield _item("item 1", (), whole)
        return
    found = list(_nested((), whole, columns))
    yield from _named(path, found, columns)


def _json_lines(path: Path, text: str, columns: Columns) -> Iterator[Record]:
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(_item(f"line {number}", (), json.loads(line)))
        except ValueError as error:
            fault = f"not JSON ({getattr(error, 'msg', error)})"
            found.append(Record(f"line {number}", fault=fault))
    yield from _named(path, found, columns)


def _named(path: Path, found: list[Record], columns: Columns) -> list[Record]:
    """Items of which at least one has a problem. Raises UsageError."""
    keys = dict.fromkeys(key for record in found for key in record.fields)
    if keys and not (columns.name("problem", keys) or "problem" in keys):
        raise unknown_columns(path, keys)
    return found


def _nested(keys: tuple[str, ...], value: Any, columns: Columns) -> Iterator[Record]:
    """The items below some keys: of lists, of tables of lists, of tables of tables."""
    if isinstance(value, list):
        for number, item in enumerate(value, 1):
            yield _item(" ".join([*keys, f"item {number}"]), keys, item)
    elif isinstance(value, dict) and any(isinstance(one, dict | list) for one in value.values()):
        for key, below in value.items():
            yield from _nested((*keys, str(key)), below, columns)
    else:
        yield _item(" ".join(keys) or "item 1", keys, value)


def _item(where: str, keys: tuple[str, ...], value: Any) -> Record:
    if isinstance(value, str):
        return Record(where, {"problem": value}, keys)
    if isinstance(value, dict):
        return Record(where, {folded(key): content for key, content in value.items()}, keys)
    if isinstance(value, list) and 1 <= len(value) <= 2 and isinstance(value[0], str):
        return Record(where, dict(zip(("problem", "answer"), value, strict=False)), keys)
    return Record(where, path=keys, fault="no problem")
