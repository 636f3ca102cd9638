"""Exact match by cell, with free-running greedy decoding.

Greedy decoding reproduces the target if and only if every argmax, given the true prefix, is right.
So one forward pass settles each row that is fully right; only the others are decoded, to see
whether the answer is right all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.generation.decode import EXTRA_TOKENS, batch_within_tables, write
from addgpt.model.build import Model
from addgpt.model.forward import TOKENS_AT_ONCE, exact_chances, exact_rows, groups
from addgpt.task import SPLITS, Answer, Batch, Cell, Graded, Problem

LONGEST = 1 << 20  # tokens of a sequence, where the model sets no bound


@dataclass(frozen=True)
class Outcome:
    """How a model did on B rows: (B,) bool each, and its text for the rows it got wrong.

    `detours` is its text for rows with the right answer after a wrong trace; `chances` (B,) the
    log of the model's probability of all that it wrote, if asked for.
    """

    answer_correct: np.ndarray
    trace_correct: np.ndarray
    unterminated: np.ndarray
    wrong: dict[int, str]
    detours: dict[int, str] = field(default_factory=dict)
    chances: np.ndarray | None = None


def score(
    model: Model, task: Graded, batch: Batch, fast: bool = True, chances: bool = False
) -> Outcome:
    """Judge every row of a batch. With `fast` off, every row is decoded.

    Raises UsageError if the model cannot read as many tokens.
    """
    rows, longest = len(batch), model.config.longest or LONGEST
    read = int(batch.lengths.max(initial=1)) - 1  # the last one is only written
    if read > longest:
        raise UsageError(f"problems of {read} tokens: the model reads at most {longest}")
    batch = batch_within_tables(batch, model.config)
    lengths = batch.lengths
    exact, sure = np.zeros(rows, bool), np.zeros(rows)
    if fast and chances:
        exact, sure = exact_chances(model, batch)
    elif fast:
        exact = exact_rows(model, batch)
    answer, trace, unterminated = exact.copy(), exact.copy(), np.zeros(rows, bool)
    wrong: dict[int, str] = {}
    detours: dict[int, str] = {}
    for index in groups(
        model.config, batch, np.flatnonzero(~exact), TOKENS_AT_ONCE, equal_prompts=True
    ):
        start = int(batch.scored[index[0]].argmax())
        limits = np.minimum(lengths[index] + EXTRA_TOKENS, longest + 1) - start
        out = write(model, task, batch.tokens[index, :start], int(limits.max()))
        # Each row has its own limit: what it may write does not depend on the rows beside it.
        finished = out.terminated & (out.length <= limits)
        for place, row in enumerate(index):
            target = task.decode(batch.tokens[row, start : lengths[row]])
            text = task.decode(out.tokens[place, : min(out.length[place], limits[place])])
            unterminated[row] = not finished[place]
            trace[row] = text == target
            answer[row] = finished[place] and answers(task, batch.problems[row], text)
            sure[row] = np.log(out.probability[place, : len(text)]).sum(dtype=float)
            if not answer[row]:
                wrong[int(row)] = text
            elif not trace[row]:
                detours[int(row)] = text
    return Outcome(answer, trace, unterminated, wrong, detours, sure if chances else None)


def answers(task: Graded, problem: Problem, completion: str) -> bool:
    """Whether a completion gives the right answer."""
    answer = answer_of(task, problem, completion)
    return answer is not None and answer == task.truth(problem)


def answer_of(task: Graded, problem: Problem, completion: str) -> Answer | None:
    """The answer that a completion gives; None where there is none to read."""
    try:
        return task.read(problem, completion)
    except UsageError:
        return None


@dataclass(frozen=True)
class CellResult:
    """A model's outcome on the N problems of one cell."""

    cell: Cell
    split: str
    seen: bool
    batch: Batch
    outcome: Outcome

    def row(self) -> dict:
        """The cell's part of a row of eval.csv: counts."""
        return {
            **self.cell._asdict(),
            "split": self.split,
            "seen": self.seen,
            "n": len(self.batch),
            "answer_correct": int(self.outcome.answer_correct.sum()),
            "trace_correct": int(self.outcome.trace_correct.sum()),
            "unterminated": int(self.outcome.unterminated.sum()),
        }


def evaluate_cells(
    model: Model,
    task: Graded,
    cells: Sequence[Cell],
    per_cell: int = 1000,
    split: str = "test",
    seed: int = 0,
    chances: bool = False,
) -> Iterator[CellResult]:
    """Score cells one after the other; a cell without problems is passed over.

    Small cells, whose problems are all in train, are scored on all of them and marked `seen`. A
    cell's problems depend on `seed` and the cell alone, not on which other cells are scored.
    """
    model.eval()
    for cell in cells:
        batch, source = evaluation_problems(task, cell, per_cell, split, seed)
        if len(batch):
            seen = bool(task.seen(cell))
            outcome = score(model, task, batch, chances=chances)
            yield CellResult(cell, source, seen, batch, outcome)


def evaluation_problems(
    task: Graded, cell: Cell, per_cell: int = 1000, split: str = "test", seed: int = 0
) -> tuple[Batch, str]:
    """The problems that `evaluate_cells` scores in a cell, and the split they are from.

    Raises UsageError if the task writes an answer that is not the right one.
    """
    key = [seed, SPLITS.index(split), cell.len_a, cell.len_b, *cell.op.encode()]
    rng = np.random.default_rng([*key, *cell.stratum.encode()])
    source = "train" if task.seen(cell) else split
    batch = task.evaluation_set(rng, per_cell, source, cell)
    check_reference(task, batch)
    return batch, source


def check_reference(task: Graded, batch: Batch) -> None:
    """Raise UsageError unless what a task writes, read as a model's work is, is the right answer.

    What a task writes, what it says that it asks and what it says is right are pieces of code of
    their own; a model is trained on the first and scored by all.
    """
    if len(batch.problems) != len(batch):
        count = f"{len(batch.problems)} problems for {len(batch)} rows"
        raise UsageError(f"task {task.name}: a batch holds {count}; give Batch its problems")
    for problem, (prompt, completion) in zip(batch.problems, task.texts(batch), strict=True):
        try:
            asked, right = task.prompt(problem), task.truth(problem)
            written = task.read(problem, completion)
        except UsageError as error:
            raise UsageError(f"task {task.name}: {task.text(problem)}: {error}") from error
        if prompt != asked:
            raise UsageError(
                f"task {task.name} contradicts itself: it asks {prompt!r} where the prompt of "
                f"{task.text(problem)} is {asked!r}"
            )
        if written != right:
            raise UsageError(
                f"task {task.name} contradicts itself: of {task.text(problem)} it writes "
                f"{completion!r}, which reads {written}, but computes {right}"
            )


def evaluate(model: Model, task: Graded, cells: Sequence[Cell], **how) -> Iterator[dict]:
    """The rows of `evaluate_cells`, whose arguments it takes."""
    return (result.row() for result in evaluate_cells(model, task, cells, **how))
