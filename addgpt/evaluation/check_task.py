"""Whether a task keeps its contract: for people who write their own.

Each check draws what training and evaluation draw, and yields a line for each fault it finds.
Nothing is trained: it takes seconds.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from addgpt.auxiliary import Auxiliary, Supervised
from addgpt.config.errors import place
from addgpt.evaluation.exact_match import answer_of
from addgpt.task import SPLITS, Batch, Cell, Explained, Graded, HeldOut, Problem, Task, TextTask

ROWS = 200  # of a batch
PER_CELL = 30
MAX_CELLS = 60
NAMED = 3  # examples of a fault
SEED = 7_919

Faults = Iterator[str]


class Drawn:
    """Evaluation sets of cells all over the grid, drawn once for all checks."""

    def __init__(self, task: Task):
        self.task: Any = task

    @cached_property
    def sets(self) -> list[tuple[Cell, str, Batch]]:
        """Cell, split, batch."""
        cells = self.task.cells()
        return [
            (cell, split, self.task.evaluation_set(_rng(), PER_CELL, split, cell))
            for cell in cells[:: max(1, len(cells) // MAX_CELLS)]
            for split in (("train",) if self.task.seen(cell) else SPLITS)
        ]

    @cached_property
    def texts(self) -> list[list[tuple[str, str]]]:
        """Prompts and completions of each set."""
        return [self.task.texts(batch) for *_, batch in self.sets]

    def work(self, most: int | None = None) -> Iterator[tuple[Problem, str, str]]:
        """Of each set `most` problems, or all: problem, prompt, completion."""
        for (*_, batch), texts in zip(self.sets, self.texts, strict=True):
            for problem, text in zip(batch.problems[:most], texts[:most], strict=True):
                yield problem, *text


def check_task(task: Task) -> list[tuple[str, list[str]]]:
    """Each check by its summary, and the faults it found; an exception is a fault, too."""
    found, checked, drawn = [], _summaries(), Drawn(task)
    for kind, check in CHECKS:
        if isinstance(task, kind):
            faults: list[str] = []
            try:
                faults += check(task, drawn)
            except Exception as error:
                faults.append(f"{type(error).__name__}: {error} ({place(error)[1]})")
            found.append((checked[check.__name__], faults))
    return found


def check_batches(task: Task, _: Drawn) -> Faults:
    """Batches have the shapes and types of the contract, and depend on the generator alone."""
    for split in task.splits:
        batch, again = (task.batch(_rng(), ROWS, split) for _ in "ab")
        rows, size = batch.tokens.shape
        wanted = {
            "tokens": ((rows, size), (np.uint8, np.uint16)),
            "scored": ((rows, size), (np.bool_,)),
            "positions": ((rows, size, len(task.levels)), (np.int16,)),
        }
        for name, (shape, types) in wanted.items():
            array = getattr(batch, name)
            if array.shape != shape or array.dtype not in types:
                yield f"{split}: {name} is {array.dtype} {array.shape}, not {types} {shape}"
            elif not np.array_equal(array, getattr(again, name)):
                yield f"{split}: the same generator gives other {name}"
        if not 0 < rows <= ROWS:
            yield f"{split}: {rows} rows, not the {ROWS} that were asked for"


def check_range(task: Task, _: Drawn) -> Faults:
    """Tokens are in the alphabet, position ids on their levels."""
    for split in task.splits:
        batch = task.batch(_rng(), ROWS, split)
        if batch.tokens.max() >= len(task.alphabet):
            yield f"{split}: token {batch.tokens.max()}, of {len(task.alphabet)} in the alphabet"
        for level, size in enumerate(task.levels):
            ids = batch.positions[:, :, level]
            if ids.min() < 0 or ids.max() >= size:
                yield f"{split}: ids {ids.min()}..{ids.max()} on level {level}, which has {size}"


def check_scored(task: Task, _: Drawn) -> Faults:
    """What is scored is one stretch of each row, up to its end mark."""
    for split in task.splits:
        batch = task.batch(_rng(), ROWS, split)
        if not batch.scored.any(1).all() or batch.scored[:, 0].any():
            yield f"{split}: a row without a scored token, or without a prompt"
        elif (np.diff(batch.scored.astype(np.int8), axis=1) == 1).sum(1).max() > 1:
            yield f"{split}: the scored tokens are not one stretch"
        elif task.end:
            end = task.alphabet.index(task.end)
            last = batch.tokens[np.arange(len(batch)), batch.lengths - 1]
            inside = batch.scored & (batch.tokens == end)
            if (last != end).any() or (inside.sum(1) != 1).any():
                yield f"{split}: a row does not end with {task.end!r}, or has another before it"


def check_longest(task: Task, _: Drawn) -> Faults:
    """No sequence of training is longer than `longest` says."""
    longest = task.longest()
    sizes = [int(task.batch(_rng(), ROWS, split).lengths.max()) for split in task.splits]
    if max(sizes) > longest:
        yield f"a sequence of {max(sizes)} tokens, and longest() is {longest}"


def check_positions(task: Task, _: Drawn) -> Faults:
    """Position ids do not leak: `positions` knows those of a batch from the prompt alone."""
    batch = task.batch(_rng(), ROWS, task.splits[-1])
    size = batch.tokens.shape[1]
    for start, rows in _by_prompt(batch):
        ids = task.positions(batch.tokens[rows, :start], size - start)
        if ids.shape != (len(rows), size, len(task.levels)):
            wanted = (len(rows), size, len(task.levels))
            yield f"positions of {start} tokens and {size - start} slots: {ids.shape}, not {wanted}"
            return
        used = np.arange(size) < batch.lengths[rows, None]  # a mixture's padding has no ids
        wrong = np.flatnonzero(((ids != batch.positions[rows]).any(2) & used).any(1))
        if len(wrong):
            text = task.decode(batch.tokens[rows[wrong[0]]])
            yield f"ids of {text!r} in a batch are not those of its prompt"
            return


def check_cells(task: Graded, drawn: Drawn) -> Faults:
    """Cells have problems, of the cell's operation and operand lengths."""
    for cell, split, batch in drawn.sets:
        if len(batch.problems) != len(batch):
            yield f"{cell}, {split}: {len(batch.problems)} problems for {len(batch)} rows"
        found = {task.cell_of(problem)[:3] for problem in batch.problems}
        found.discard(cell[:3])
        if found:
            yield f"{cell}, {split}: problems of {min(found)}"


def check_answers(task: Graded, drawn: Drawn) -> Faults:
    """The reference completion reads as the right answer, and only with its end mark."""
    bad = 0
    for problem, _, completion in drawn.work():
        written, right = task.read(problem, completion), task.truth(problem)
        text, cut = task.text(problem), completion.removesuffix(task.end)
        if written != right:
            bad += 1
            yield f"{text}: writes {completion!r}, read as {written}, but computes {right}"
        elif answer_of(task, problem, cut) is not None:
            bad += 1
            yield f"{text}: {cut!r} is read, and has no end mark"
        if bad == NAMED:
            return


def check_texts(task: Graded, drawn: Drawn) -> Faults:
    """Problems survive being written and read back: as text, as a prompt."""
    for problem, prompt, _ in drawn.work(NAMED):
        if task.prompt(problem) != prompt:
            yield f"prompt({problem}) is {task.prompt(problem)!r}, a batch has {prompt!r}"
            return
        if task.parse(task.text(problem)) != problem:
            yield f"parse(text({problem})) is {task.parse(task.text(problem))}"
            return


def check_references(task: Graded, _: Drawn) -> Faults:
    """Reference completions are those of a batch."""
    batch = task.batch(_rng(), ROWS, task.splits[-1])
    for start, rows in _by_prompt(batch):
        found = task.reference(batch.tokens[rows, :start])
        if found is None:
            return
        for work, row in zip(task.texts(found), rows, strict=True):
            if work != task.texts(batch.rows([row]))[0]:
                yield f"reference of {work[0]!r} is {work[1]!r}, a batch has another"
                return


def check_splits(task: HeldOut, drawn: Drawn) -> Faults:
    """A held-out problem and its equivalents are in one split, and `in_train` agrees."""
    assert isinstance(task, Graded), task
    batches = {split: task.batch(_rng(), 10 * ROWS, split) for split in task.splits}
    problems = {split: {*batch.problems} for split, batch in batches.items()}
    for cell, split, batch in drawn.sets:
        if not task.seen(cell):
            problems[split].update(batch.problems)
    for split, found in problems.items():
        others = [other for other in problems if other != split]
        for problem in sorted(found):
            same = task.equivalent(problem)
            known = {task.in_train(one) for one in same}
            fault = None
            if problem not in same:
                fault = "is not among its equivalent problems"
            elif len({task.truth(one) for one in same}) > 1:
                fault = f"has other answers than its equivalents {', '.join(map(str, same))}"
            elif len(known) > 1:
                fault = "is in train in one form and not in another"
            elif known == {split != "train"}:
                fault = f"is drawn in {split}, and in_train says {split != 'train'}"
            elif any(not problems[other].isdisjoint(same) for other in others):
                fault = f"is drawn in {split} and in another split"
            if fault:
                yield f"{task.text(problem)} {fault}"
                break


def check_rows(task: Explained, drawn: Drawn) -> Faults:
    """Rows make up the completion, digits are those of the answer, and drawing never raises."""
    assert isinstance(task, Graded), task
    for problem, _, completion in drawn.work(NAMED):
        for text in (completion, completion[: len(completion) // 2], task.end, ""):
            task.draw(problem, text)
            if "".join(row.text for row in task.rows(problem, text)) != text:
                yield f"{task.text(problem)}: the rows of {text!r} are not all of it"
                return
        digits = "".join(completion[i] for i in task.answer_digits(problem, completion))
        if digits != "".join(filter(str.isdigit, str(task.truth(problem)))):
            yield f"{task.text(problem)}: answer_digits finds {digits}"
            return


def check_auxiliary(task: Auxiliary, _: Drawn) -> Faults:
    """The auxiliary loss has a number, or NaN, for each token, which follows from its row alone."""
    yield from _check_told(task, "auxiliary", task.auxiliary, (), np.float32)


def check_supervised(task: Supervised, _: Drawn) -> Faults:
    """Labels for probes are classes that there are, or -1, and follow from their row alone."""
    for name, (count, classes) in task.supervised().items():

        def labels(batch: Batch, name: str = name) -> np.ndarray:
            return task.labels_of(batch, [name])[name]

        yield from _check_told(task, name, labels, (count,), np.int64)
        found = labels(_some(task))
        if found.min() < -1 or found.max() >= classes:
            yield f"{name}: labels {found.min()}..{found.max()}, not -1..{classes - 1}"


def _check_told(
    task: Any, name: str, tell: Callable[[Batch], np.ndarray], each: tuple, kind: type
) -> Faults:
    """What is told of each token of a batch: its shape and type, and the same of a row alone."""
    batch = _some(task)
    told, shape = tell(batch), (*batch.tokens.shape, *each)
    if told.shape != shape or told.dtype != kind:
        yield f"{name} is {told.dtype} {told.shape}, not {np.dtype(kind)} {shape}"
        return
    for row in range(PER_CELL):
        alone = batch.rows([row])
        if not np.array_equal(tell(alone)[0], told[row, : alone.tokens.shape[1]], equal_nan=True):
            yield f"{name} of {task.decode(alone.tokens[0])!r} depends on the batch that it is in"
            return


def check_whole(task: TextTask, _: Drawn) -> Faults:
    """All of a split is as many scored tokens as `num_tokens` says."""
    for split in task.splits:
        found = sum(int(batch.scored.sum()) for batch in task.whole(split))
        if found != task.num_tokens(split):
            yield f"{split}: {found} scored tokens, num_tokens is {task.num_tokens(split)}"


CHECKS: tuple[tuple[type, Callable[..., Faults]], ...] = (
    (Task, check_batches),
    (Task, check_range),
    (Task, check_scored),
    (Task, check_longest),
    (Task, check_positions),
    (Graded, check_cells),
    (Graded, check_answers),
    (Graded, check_texts),
    (Graded, check_references),
    (HeldOut, check_splits),
    (Explained, check_rows),
    (TextTask, check_whole),
    (Auxiliary, check_auxiliary),
    (Supervised, check_supervised),
)


def _summaries() -> dict[str, str]:
    """The summary of each check: its docstring, read from the file, for `python -OO` drops them."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {f.name: (ast.get_docstring(f) or "").partition("\n")[0].rstrip(".") for f in functions}


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)


def _some(task: Any) -> Batch:
    return task.batch(_rng(), ROWS, task.splits[0])


def _by_prompt(batch: Batch) -> Iterator[tuple[int, np.ndarray]]:
    """Lengths of prompts, and the rows of each."""
    starts = batch.scored.argmax(1)
    for start in np.unique(starts):
        yield int(start), np.flatnonzero(starts == start)
