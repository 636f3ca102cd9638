"""Anybody's problems: a csv or jsonl file with `problem` and optionally `answer`."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from addgpt.calculator.load import load_calculator
from addgpt.calculator.numbers import Rules, brief
from addgpt.config.errors import UsageError
from addgpt.runs.files import RunError, read_text

MAX_ANSWER = 4000  # digits; Python turns no longer text into a number
ANSWER = re.compile(r"([-+]?[0-9]+)(?:\.0+|\s*(?:r|remainder)\s*(-?[0-9]+))?", re.ASCII)


class Given(NamedTuple):
    """A problem as typed, the right answer if the file gives one, and its line."""

    text: str
    answer: str | None
    line: int


def read_problems(path: str | Path) -> list[Given]:
    """The problems of a file. Raises ValueError naming file and line."""
    path = Path(path)
    try:
        text = read_text(path).removeprefix("\ufeff")
        is_json = path.suffix in (".jsonl", ".json")
        return _problems(path, _from_jsonl(path, text) if is_json else _from_csv(path, text))
    except RunError as error:
        raise UsageError(error) from None
    except (csv.Error, RecursionError) as error:
        raise UsageError(f"{path}: {error}") from None


def score_file(folder: Path, path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """A row for each problem of a file, and what to tell of answers that are not Python's.

    Rows have `problem`, `answer` (of the file, or else Python's), `model` and `correct`. Raises
    ValueError naming file and line, also of a problem that the model of the run folder cannot be
    asked.
    """
    given, rows, notes = read_problems(path), [], []
    calculator = load_calculator(folder)
    jobs = calculator.pose((problem.text for problem in given), Rules("remainder"))
    for problem, job in zip(given, jobs, strict=True):  # before the work
        if job.error:
            raise UsageError(f"{path}, line {problem.line}: {job.error}")
    for problem, solution in zip(given, calculator.work_out(jobs), strict=True):
        where = f"{path}, line {problem.line}"
        if solution.error:
            raise UsageError(f"{where}: {solution.error}")
        if problem.answer not in (None, solution.truth):
            notes.append(
                f"{where} answers {problem.answer}, Python {solution.truth}; scored by the file"
            )
        truth = problem.answer or solution.truth
        row = {"problem": problem.text, "answer": truth, "model": solution.answer}
        rows.append(row | {"correct": solution.answer == truth})
    return rows, notes


def _problems(path: Path, rows: Iterable[tuple[int, dict]]) -> list[Given]:
    problems = []
    for line, row in rows:
        problem, answer = row.get("problem"), row.get("answer")
        if problem is None or not str(problem).strip():
            raise UsageError(f"{path}, line {line}: no problem")
        blank = answer is None or not str(answer).strip()
        try:
            problems.append(Given(str(problem), None if blank else _plain(str(answer)), line))
        except UsageError as error:
            raise UsageError(f"{path}, line {line}: {error}") from None
    if not problems:
        raise UsageError(f"{path} holds no problems")
    return problems


def _plain(answer: str) -> str:
    """An answer as the calculator writes it: `+03` as `3`, `3r2` as `3 remainder 2`."""
    match = ANSWER.fullmatch(answer.strip())
    if match is None or len(answer) > MAX_ANSWER:
        raise UsageError(
            f"{brief(answer, 'characters')!r} is not an answer like -3 or 3 remainder 2"
        )
    quotient = str(int(match[1]))
    return f"{quotient} remainder {int(match[2])}" if int(match[2] or 0) else quotient


def _from_csv(path: Path, text: str):
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if "problem" not in (reader.fieldnames or []):
        raise UsageError(f"{path} has no column `problem` in its first line")
    for row in reader:
        yield reader.line_num, row


def _from_jsonl(path: Path, text: str):
    for line, content in enumerate(io.StringIO(text), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except ValueError as error:
            raise UsageError(
                f"{path}, line {line}: not JSON ({getattr(error, 'msg', error)})"
            ) from None
        yield line, row if isinstance(row, dict) else {}
