"""Anybody's problems: a csv or jsonl file with `problem` and optionally `answer`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

MOST_BYTES = 256 << 20


class Problem(NamedTuple):
    """A problem as typed, the right answer if the file gives one, and its line."""

    text: str
    answer: str | None
    line: int


def read_problems(path: str | Path) -> list[Problem]:
    """The problems of a file. Raises ValueError naming file and line."""
    path = Path(path)
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{path} is larger than {MOST_BYTES >> 20} MiB")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8 text") from None
    rows = _from_jsonl(path, text) if path.suffix in (".jsonl", ".json") else _from_csv(path, text)
    problems = []
    for line, row in rows:
        problem, answer = row.get("problem"), row.get("answer")
        if problem is None or not str(problem).strip():
            raise ValueError(f"{path}, line {line}: no problem")
        answer = None if answer is None or not str(answer).strip() else str(answer).strip()
        problems.append(Problem(str(problem), answer, line))
    if not problems:
        raise ValueError(f"{path} holds no problems")
    return problems


def _from_csv(path: Path, text: str):
    reader = csv.DictReader(io.StringIO(text))
    if "problem" not in (reader.fieldnames or []):
        raise ValueError(f"{path} has no column `problem` in its first line")
    for row in reader:
        yield reader.line_num, row


def _from_jsonl(path: Path, text: str):
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {line}: not JSON ({error.msg})") from None
        yield line, row if isinstance(row, dict) else {}
