"""Why answers are wrong: each is of exactly one kind, the first of this list that applies.

    unterminated  no end mark was written: there is no answer to judge
    unreadable    there is an end mark, but what stands before it is no finished trace
    sign          the right size, the wrong sign
    carry         of a sum: each digit is that of its column with or without a carry coming in
    borrow        the same of a difference
    copy          the first wrong character is in a line of the trace, where the right one only
                  repeats an operand or an earlier line
    trace         the first wrong character is in a line of the trace
    length        the trace, if there is one, is right; the answer has another number of digits
    answer        the trace is right, the answer that is read off it is not; also any wrong answer
                  of a task that knows neither lines nor digits, such as one about words
    digit         there is no trace, and digits are wrong

So a kind that explains the whole answer comes before the place where it went wrong, and a wrong
trace before its consequences. In the formats of the tasks that come with addgpt:

    unterminated  128+367=  59459459459…       unreadable  12-345=  716161#      no sign
    sign          12-345=   716161+333#        carry       128+367= 584#         485: lost the 1
    borrow        52-17=    5140+54#           copy        12*41=   10100,…      12 is 20100
    trace         12*34=    90400,…            length      12*34=   …014000;=80#
    answer        12*34=    …014000;=8140#     digit       128+367= 794#

Which sums are carry slips, which characters of a trace repeat earlier ones and what is a line, the
task says (`error_type`, `is_copy` and `rows` of `addgpt.task.Explained`). Besides its kind, a
mistake has

    digit   place value of the lowest wrong digit of the answer, 0 for the ones; of a quotient with
            remainder q0, q1, … if the quotient is wrong and r0, r1, … if only the remainder is;
            empty where there is no answer or only its sign is wrong
    line    number of the first wrong line of the trace, from 1; empty if the trace is right
    place   index of the first wrong character after the prompt, from 0
"""

from __future__ import annotations

import heapq
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import accumulate, zip_longest

import numpy as np

from addgpt.evaluation.exact_match import CellResult, answer_of
from addgpt.evaluation.schema import ERROR_KINDS
from addgpt.task import Cell, Explained, Graded, Problem, Row

KINDS = tuple(ERROR_KINDS)
EXPLAINED = ("sign", "carry", "borrow")  # by the answer alone
EACH, MOST = 20, 2000  # mistakes kept of an operation, stratum and kind; in all
SHOWN = 2  # right problems kept of an operation

ERROR_COLUMNS = (
    "op len_a len_b stratum problem truth answer kind digit line place target written".split()
)
COUNT_COLUMNS = "op len_a len_b stratum kind digit line n".split()
EXAMPLE_COLUMNS = "op len_a len_b stratum problem truth written".split()


@dataclass(frozen=True)
class Mistake:
    """A wrong answer. `target` and `written` are what follows the prompt, the end mark included."""

    problem: str
    truth: str
    answer: str
    kind: str
    digit: str
    line: int | None
    place: int
    target: str
    written: str


def diagnose(
    task: Graded, problem: Problem, target: str, written: str, terminated: bool = True
) -> Mistake:
    """What is wrong with a completion that does not answer a problem as `target` does."""
    pairs = zip_longest(target, written)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), len(target))
    rows = task.rows(problem, target) if isinstance(task, Explained) else [Row("answer", target)]
    ends = list(accumulate(len(row.text) for row in rows))
    row = sum(end <= place for end in ends)  # the first wrong one, from 0
    in_trace = row < len(rows) - 1
    answer = answer_of(task, problem, written) if terminated else None
    kind, digit = "answer", ""
    if answer is not None and isinstance(task, Explained):
        kind, digit = task.error_type(problem, answer)
    if answer is None:
        kind = "unreadable" if terminated else "unterminated"
    elif kind in EXPLAINED:
        pass
    elif in_trace and isinstance(task, Explained):
        inside = place - ends[row] + len(rows[row].text)
        kind = "copy" if task.is_copy(problem, rows, row, inside) else "trace"
    elif len(rows) > 1 and kind != "length":
        kind = "answer"
    return Mistake(
        problem=task.text(problem),
        truth=str(task.truth(problem)),
        answer="" if answer is None else str(answer),
        kind=kind,
        digit=digit,
        line=row + 1 if in_trace else None,
        place=place,
        target=target,
        written=written,
    )


def mistakes(task: Graded, result: CellResult) -> Iterator[Mistake]:
    """The wrong answers of a cell, in the order of its rows."""
    batch, outcome = result.batch, result.outcome
    wrong = sorted(outcome.wrong.items())
    texts = task.texts(batch.rows([row for row, _ in wrong]))
    for (row, written), (_, target) in zip(wrong, texts, strict=True):
        terminated = not outcome.unterminated[row]
        yield diagnose(task, batch.problems[row], target, written, terminated)


class Tally:
    """Counts the mistakes of cells that are shown to it, and keeps some of them.

    What is kept does not depend on the order of the cells: for each operation, stratum and kind,
    the `EACH` mistakes whose problems have the smallest checksums.
    """

    def __init__(self, task: Graded) -> None:
        self.task = task
        self._counts: Counter[tuple] = Counter()
        self._kept: dict[tuple, list] = defaultdict(list)
        self._right: dict[str, tuple] = {}

    def add(self, result: CellResult) -> None:
        cell = result.cell
        fresh = defaultdict(list)
        for mistake in self.found(result):
            self._counts[(cell, mistake.kind, mistake.digit, mistake.line)] += 1
            rank = zlib.crc32(mistake.problem.encode())
            fresh[cell.op, cell.stratum, mistake.kind].append((rank, cell, mistake))
        for group, found in fresh.items():
            kept = self._kept[group] + found
            self._kept[group] = heapq.nsmallest(EACH, kept, key=lambda entry: entry[:2])
        if cell.stratum == "all":
            self._show(result)

    def found(self, result: CellResult) -> Iterator[Mistake]:
        """The wrong answers of a cell."""
        return mistakes(self.task, result)

    def written(self, result: CellResult, row: int) -> str:
        """What the model wrote in a row that is right throughout."""
        return self.task.texts(result.batch.rows([row]))[0][1]

    def kinds(self) -> dict[str, int]:
        """How many mistakes are of each kind there is, the most frequent first."""
        total: Counter[str] = Counter()
        for (_, kind, _, _), n in self._counts.items():
            total[kind] += n
        return dict(total.most_common())

    def sample(self) -> list[dict]:
        """Rows of errors.csv: at most `MOST`, spread over the groups as evenly as possible."""
        ranked = [
            (turn, group, cell, mistake)
            for group, found in sorted(self._kept.items())
            for turn, (_, cell, mistake) in enumerate(found)
        ]
        chosen = sorted(ranked, key=lambda entry: entry[:2])[:MOST]
        chosen.sort(key=lambda entry: (entry[2].op, entry[2].stratum, entry[2], entry[3].problem))
        return [cell._asdict() | asdict(mistake) for _, _, cell, mistake in chosen]

    def counts(self) -> list[dict]:
        """Rows of error_counts.csv: every mistake is counted in exactly one."""
        names = COUNT_COLUMNS[len(Cell._fields) : -1]
        return [
            cell._asdict() | dict(zip(names, what, strict=True)) | {"n": n}
            for (cell, *what), n in self._counts.items()
        ]

    def examples(self) -> list[dict]:
        """Rows of examples.csv: some problems of each operation whose work is right throughout."""
        return [row for _, rows in self._right.values() for row in rows]

    def _show(self, result: CellResult) -> None:
        """Keep right problems of the cell whose work is longest, of several the larger cell."""
        cell, batch = result.cell, result.batch
        rows = np.flatnonzero(result.outcome.trace_correct)[:SHOWN]
        rank = (int(batch.lengths.max()), cell.len_a * cell.len_b)
        if not len(rows) or rank <= self._right.get(cell.op, ((0, 0),))[0]:
            return
        shown = []
        for row in rows:
            written, problem = self.written(result, row), batch.problems[row]
            what = {"problem": self.task.text(problem), "truth": str(self.task.truth(problem))}
            shown.append(cell._asdict() | what | {"written": written})
        self._right[cell.op] = rank, shown
