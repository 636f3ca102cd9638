"""A task's evaluation set as questions to an external model, solved examples before them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.exact_match import evaluation_problems
from addgpt.evaluation.external.replies import Replies, Reply
from addgpt.generation.decode import EXTRA_TOKENS
from addgpt.task import Batch, Cell, Graded, HeldOut, Problem

SHOTS_SEED = 4_243  # shots follow from the cell, not from the evaluation seed
SPARE = 3  # draws for each shot that is wanted: some repeat, one may be the problem itself
MARGIN = 24  # tokens beyond the digits of both operands, twice
CHAT_TOKENS = 512  # where a model may explain itself first


class Question(NamedTuple):
    """A problem, the prompt it is asked with, and how many tokens the reply may have."""

    problem: str
    prompt: str
    limit: int


class Client(Protocol):
    """Where replies come from."""

    def ask(self, questions: list[Question]) -> Iterator[list[tuple[Question, Reply]]]:
        """Replies to all questions, in batches as they come. Raises RunError if that fails."""
        ...


@dataclass(frozen=True)
class Asked:
    """A cell as it is asked: its problems, the split they are from, a question for each."""

    cell: Cell
    source: str
    batch: Batch
    questions: list[Question]


def asked_cells(
    task: Graded,
    how: ExternalConfig,
    cells: Iterable[Cell],
    per_cell: int,
    split: str,
    seed: int,
) -> Iterator[Asked]:
    """The problems of `evaluation_problems` as questions; a cell without any is passed over."""
    for cell in cells:
        batch, source = evaluation_problems(task, cell, per_cell, split, seed)
        if len(batch):
            yield Asked(cell, source, batch, list(_questions(task, how, cell, batch)))


def ask_missing(
    client: Client,
    questions: Iterable[Question],
    replies: Replies,
    show: Callable = lambda rows, total, what: rows,
) -> int:
    """Ask what has no reply yet, and keep replies as they come; returns how many were asked."""
    missing = {q.prompt: q for q in questions if q.prompt not in replies.known}
    todo = list(missing.values())
    batches = client.ask(todo) if todo else iter(())

    def one_by_one() -> Iterator[None]:
        for batch in batches:
            replies.add((q.problem, q.prompt, reply) for q, reply in batch)
            yield from (None for _ in batch)

    for _ in show(one_by_one(), len(todo), "asking"):
        pass
    return len(todo)


def check_template(template: str) -> None:
    """Raise UsageError unless a template says where the problem goes."""
    if "{problem}" not in template and "{prompt}" not in template:
        raise UsageError(
            f"--template must hold {{problem}} (12+34) or {{prompt}} (as our models get it), "
            f"not {template!r}"
        )


def prompt_of(task: Graded, template: str, problem: Problem) -> str:
    """A template with the problem in it; nothing else is changed, no space added or dropped."""
    text = template.replace("{prompt}", task.prompt(problem))
    return text.replace("{problem}", task.text(problem))


def _questions(task: Graded, how: ExternalConfig, cell: Cell, batch: Batch) -> Iterator[Question]:
    shots = _shots(task, how, cell)
    between = "\n\n" if "\n" in how.template.strip("\n") else "\n"
    for problem, length, start in zip(
        batch.problems, batch.lengths, batch.scored.argmax(1), strict=True
    ):
        same = set(task.equivalent(problem)) if isinstance(task, HeldOut) else {problem}
        before = [text for shot, text in shots if shot not in same][: how.shots]
        prompt = between.join([*before, prompt_of(task, how.template, problem)])
        if how.max_tokens:
            limit = how.max_tokens
        elif how.answer == "trace":
            limit = int(length - start) + EXTRA_TOKENS
        else:
            chat = how.source.startswith("api:") and how.endpoint == "chat"
            limit = CHAT_TOKENS if chat else 2 * (cell.len_a + cell.len_b) + MARGIN
        yield Question(task.text(problem), prompt, limit)


def _shots(task: Graded, how: ExternalConfig, cell: Cell) -> list[tuple[Problem, str]]:
    """Solved training problems of a cell's operation and lengths, more than are wanted."""
    if not how.shots:
        return []
    rng = np.random.default_rng([SHOTS_SEED, zlib.crc32(repr(cell[:3]).encode())])
    batch = task.batch(rng, SPARE * how.shots + SPARE, "train", cell._replace(stratum="all"))
    solved: dict[Problem, str] = {}
    for problem, (_, work) in zip(batch.problems, task.texts(batch), strict=True):
        answer = work if how.answer == "trace" else str(task.truth(problem))
        solved[problem] = prompt_of(task, how.template, problem) + answer
    return list(solved.items())
