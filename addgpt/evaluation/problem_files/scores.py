"""Scoring problems of your own; those that cannot be asked are found before any work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from addgpt.calculator.expression import exact
from addgpt.calculator.job import Job
from addgpt.calculator.load import load_calculator
from addgpt.calculator.numbers import Rules, brief
from addgpt.calculator.solver import Calculator, Solution
from addgpt.config.errors import UsageError
from addgpt.evaluation.problem_files.records import (
    ORDERS,
    Columns,
    Record,
    records,
    unknown_columns,
)
from addgpt.evaluation.problem_files.wording import (
    Value,
    Wording,
    is_apart,
    may_be_apart,
    number,
    spoken,
    together,
)

GROUPS = 50  # more values of a column that is not asked for make no groups
KNOWN = Columns()
REMAINDER = Rules("remainder")
NAMED = 50  # lines that are named one by one


@dataclass(frozen=True)
class Given:
    """A problem of a file.

    file, where  where it stands: `mixed.csv`, `line 3`
    problem      as the file has it
    asked        as the calculator reads it, and which part of the answer is asked for
    written      the answer of the file as text, if there is one
    answer       the same as a number; `turned`, read lowest digit first
    groups       those that it is scored in
    fault        why it cannot be scored; empty where it can
    """

    file: Path
    where: str
    problem: str = ""
    asked: Wording = Wording("", "all", None)
    written: str | None = None
    answer: Value | None = None
    turned: Value | None = None
    groups: tuple[str, ...] = ()
    fault: str = ""

    @property
    def place(self) -> str:
        return f"{self.file}, {self.where}"


@dataclass(frozen=True)
class Posed:
    """The problems of some files, ready to be solved.

    problems  those that can be asked, and the expression of each as a job of the calculator
    faults    the others, each with its reason
    notes     what to tell: answers that are not Python's, and so on
    """

    calculator: Calculator
    problems: tuple[tuple[Given, Job], ...]
    faults: tuple[Given, ...]
    notes: tuple[str, ...]

    def score(self) -> list[dict[str, Any]]:
        """A row for each problem: where it stands, `problem`, `answer` (of the file, or else
        Python's), `model`, `correct`, and what the model wrote, with its confidence."""
        solved = self.calculator.work_out([job for _, job in self.problems])
        rows = []
        for (given, job), solution in zip(self.problems, solved, strict=True):
            answer = solution.error or _part(solution.answer, given.asked.part)
            wanted = reference(given, job)
            rows.append(
                {
                    "file": str(given.file),
                    "where": given.where,
                    "group": " ".join(given.groups),
                    "problem": given.problem.strip(),
                    "answer": wanted,
                    "model": answer,
                    "correct": answer == wanted,
                    **_written(solution),
                }
            )
        return rows


def read_problems(
    path: str | Path, columns: Columns = KNOWN, lowest_first: bool = False
) -> list[Given]:
    """The problems of a file, those that cannot be used with a fault. Raises UsageError."""
    path = Path(path)
    found = records(path, columns)
    given = [_given(path, record, columns) for record in found]
    if not any(one.problem for one in given) and not any(one.fault for one in given):
        raise unknown_columns(path, found[0].fields)
    given = [_answered(one, lowest_first) for one in _together(given)]
    values = {one.groups for one in given}
    if len(values) > GROUPS and not columns.group:
        given = [replace(one, groups=()) for one in given]
    return given


def pose(
    run: Path, paths: Sequence[Path], columns: Columns = KNOWN, order: str = ORDERS[0]
) -> Posed:
    """The problems of some files for the model of a run folder.

    Args:
        order: of the digits in the answers of the files, one of ORDERS.

    Raises:
        UsageError: a file cannot be read, nothing in it can be asked, or its answers are right only
            when reversed.
    """
    given = [one for path in paths for one in read_problems(path, columns, order == ORDERS[1])]
    if len(paths) > 1:
        given = [replace(one, groups=(one.file.name, *one.groups)) for one in given]
    calculator = load_calculator(run)
    sound = [one for one in given if not one.fault]
    jobs = calculator.pose((one.asked.text for one in sound), REMAINDER)
    refused = {id(one): job.error for one, job in zip(sound, jobs, strict=True) if job.error}
    pairs = [(one, job) for one, job in zip(sound, jobs, strict=True) if not job.error]
    faults = [
        one if one.fault else replace(one, fault=refused[id(one)] or "")
        for one in given
        if one.fault or id(one) in refused
    ]
    if not pairs:
        what = "; ".join(f"{one.place}: {one.fault}" for one in faults[:3])
        more = f" (and {len(faults) - 3:,} more)" if len(faults) > 3 else ""
        raise UsageError(f"no problem can be asked: {what}{more}")
    notes = [note for path in paths for note in _compared(path, pairs, order)]
    return Posed(calculator, tuple(pairs), tuple(faults), tuple(notes))


def reference(given: Given, job: Job) -> str:
    """The answer that counts, as the calculator writes it: the file's, or else Python's."""
    truth = _part(str(job.truth), given.asked.part)
    if given.answer is None or _agrees(given.answer, given, job):
        return truth
    return str(given.answer)


def told(faults: Sequence[Given]) -> list[str]:
    """A line for each unusable problem, up to `NAMED`, and how many more there are."""
    lines = [f"{one.place}: {one.fault}" for one in faults[:NAMED]]
    if len(faults) > NAMED:
        lines.append(f"and {len(faults) - NAMED:,} more")
    return lines


def by_group(rows: Iterable[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """How many are right, and of how many, in each group; nothing where all are in one."""
    found: dict[str, tuple[int, int]] = {}
    for row in rows:
        right, n = found.get(row["group"], (0, 0))
        found[row["group"]] = right + bool(row["correct"]), n + 1
    return found if len(found) > 1 else {}


# Reading.


def _given(path: Path, record: Record, columns: Columns) -> Given:
    fields = record.fields
    name = columns.name("problem", fields) or ("problem" if [*fields] == ["problem"] else None)
    problem = "" if name is None or fields[name] is None else str(fields[name])
    if record.fault or not problem.strip():
        return Given(path, record.where, fault=record.fault or "no problem")
    asked = spoken(problem)
    beside = columns.name("answer", fields)
    written = asked.answer if beside is None or _blank(fields[beside]) else str(fields[beside])
    group = columns.name("group", [key for key in fields if key != name])
    groups = record.path if group is None else (*record.path, str(fields[group]).strip())
    return Given(path, record.where, problem, asked, written, groups=groups)


def _blank(value: Any) -> bool:
    return value is None or not str(value).strip()


def _together(given: list[Given]) -> list[Given]:
    """Digits that stand apart moved together, lowest first where that makes more answers right."""
    apart = [one for one in given if is_apart(one.asked.text)]
    if not apart:
        return given
    right = [sum(_right_apart(one, way) for one in apart) for way in (False, True)]
    traces = any("||" in one.problem for one in apart)
    lowest_first = right[1] > right[0] or (right[0] == right[1] and traces)

    def moved(one: Given) -> Given:
        text = together(one.asked.text, lowest_first)
        one = replace(one, asked=one.asked._replace(text=text))
        if lowest_first and one.written is not None:
            one = replace(one, written=one.written.replace(" ", "")[::-1])
        return one

    return [moved(one) if may_be_apart(one.asked.text) else one for one in given]


def _right_apart(one: Given, lowest_first: bool) -> bool:
    job = Job(together(one.asked.text, lowest_first), lambda problem: None, REMAINDER)
    try:
        answer = number(one.written or "", lowest_first)
    except UsageError:
        return False
    return job.error is None and answer is not None and str(answer) == str(job.truth)


def _answered(one: Given, lowest_first: bool) -> Given:
    """With its answer read; one that cannot be read is a fault."""
    if one.fault or one.written is None:
        return one
    try:
        answer, turned = (number(one.written, way) for way in (lowest_first, not lowest_first))
    except UsageError as error:
        return replace(one, fault=str(error))
    return replace(one, answer=answer, turned=turned)


# Answers.


def _compared(path: Path, pairs: Sequence[tuple[Given, Job]], order: str) -> list[str]:
    """What to tell of a file's answers. Raises UsageError if they are right only when reversed."""
    mine = [pair for pair in pairs if pair[0].file == path and pair[0].answer is not None]
    wrong = [pair for pair in mine if not _agrees(pair[0].answer, *pair)]
    turned = [pair for pair in wrong if _agrees(pair[0].turned, *pair)]
    telling = [pair for pair in mine if pair[0].answer != pair[0].turned]
    other = ORDERS[1 - ORDERS.index(order)]
    if turned and 2 * len(turned) > len(telling):
        how = "only when reversed" if other == "reversed" else "only as they stand"
        raise UsageError(
            f"{path}: {len(turned):,} of {len(mine):,} answers are right {how}: --answers {other}"
        )
    notes = [
        f"{one.place} answers {brief(str(one.written).strip(), 'characters')}, Python "
        f"{brief(_part(str(job.truth), one.asked.part), 'characters')}; scored by the file"
        for one, job in wrong[:NAMED]
    ]
    if len(wrong) > NAMED:
        notes.append(f"{path}: and {len(wrong) - NAMED:,} more answers that are not Python's")
    if turned:
        notes.append(f"{path}: {len(turned):,} of these would be right with --answers {other}")
    return notes


def _agrees(answer: Value | None, given: Given, job: Job) -> bool:
    """Whether an answer is Python's, so far as its decimals go: 0.33 is that of 1/3."""
    if answer is None:
        return False
    if answer.decimals and given.asked.part == "all":
        right = exact(job.expression, {})
        return abs(Fraction(answer.whole) - right) <= Fraction(1, 2 * 10**answer.decimals)
    return str(answer) == _part(str(job.truth), given.asked.part)


def _part(answer: str, part: str) -> str:
    """The quotient (`floor`) or the remainder of `3 remainder 2`, or all of it."""
    whole, _, rest = answer.partition(" remainder ")
    return {"floor": whole, "rest": rest or ("0" if whole else "")}.get(part, answer)


def _written(solution: Solution) -> dict[str, Any]:
    """What the model wrote for a problem, all its steps, and how likely it held that to be."""
    confidence = 1.0
    for step in solution.steps:
        for probability in step.probabilities:
            confidence *= probability
    completion = " ".join(step.completion for step in solution.steps)
    return {"completion": completion, "confidence": round(confidence, 6)}
