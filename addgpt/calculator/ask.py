"""Asking a model single problems: what it writes about each, in batches of bounded size."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from addgpt.config.architectures import ModelConfig
from addgpt.config.errors import UsageError
from addgpt.generation import decode
from addgpt.generation.decode import EXTRA_TOKENS, Generated
from addgpt.generation.verify import verify_or_write
from addgpt.model.build import Model
from addgpt.task import Answer, Graded, Problem

# An operation may take about a minute of one core where torch writes it (docs/log.md, "decoding one
# row"). Numpy (generation/one_row.py) takes a tenth of that, but may write no more: reading a draft
# takes memory (docs/local_attention.md).
SECONDS = 60
A_TOKEN = 5e-4  # assumed: seconds that a token takes torch, whatever stands before it
A_PAIR = 3.5e-7  # assumed, where attention is full: seconds for each token that it attends to
TOKENS_AT_ONCE = 1 << 16  # of all rows that are decoded together: bounds memory
FIRST_SLOTS = 64  # that are laid out after a prompt to see how many a problem needs
LONG = 24  # characters of a prompt, from which on a draft is quicker for a single problem, too
MIN_BATCH = 16  # rows that are worth a batch of their own

Write = Callable[[np.ndarray, int], Generated]
"""(B, T) prompts of equal length and the most tokens to write -> what the model wrote."""


@dataclass(frozen=True)
class Written:
    """What the model wrote about a problem.

    problem        what the model was asked, without signs: 5-3
    completion     all that the model wrote, end mark included
    answer         its answer to `problem`; None where none can be read
    truth          the right answer to `problem`
    probabilities  the model's probability of each token of the completion, over the highest that
                   label smoothing in training allows
    covered        whether the operands are of lengths that the model was trained or is scored on,
                   or it is proved right for any
    finished       whether the model wrote its end mark in time
    """

    problem: Problem
    completion: str
    answer: Answer | None
    truth: Answer
    probabilities: tuple[float, ...]
    covered: bool
    finished: bool

    @property
    def correct(self) -> bool:
        return self.answer == self.truth


class Asker:
    """Has a model, or `write` in its place, continue the prompts of a task's problems."""

    def __init__(
        self,
        model: Model | None,
        task: Graded,
        write: Write | None = None,
        smoothing: float = 0.0,
        proved: bool = False,
    ) -> None:
        self.task, self.proved = task, proved
        self._surest = 1 - smoothing + smoothing / len(task.alphabet)
        self._context = model.config.longest if model is not None else None
        self._most = most_tokens(model.config if model is not None else None)
        self._model = model if write is None else None
        if write is not None:
            self._alone = self._together = write
        elif model is not None:
            model.eval()
            self._alone = partial(decode.write, model, task)
            self._together = partial(verify_or_write, model, task)
        else:
            raise UsageError("a calculator needs a model")

    def check(self, problem: Problem) -> str:
        """The prompt of a problem. Raises UsageError for one that cannot be asked."""
        work = digits_of_work(problem)
        if work > self._most:  # before any of it is laid out
            raise UsageError(_too_much(problem, self._most))
        prompt = self.task.prompt(problem)
        if work > self._most // 8:
            limit = self._limit(problem, self.task.encode(prompt)[None])
            if not 1 <= limit <= self._most:
                raise UsageError(self._refusal(problem, limit))
        return prompt

    def ask(self, problems: Iterable[Problem], together: bool) -> dict[Problem, Written | str]:
        """What the model writes about each problem, or why it cannot be asked.

        A short problem is decoded token by token; for several `together`, or for a long one, the
        right work is a draft that the model confirms, so that only what it would write otherwise
        takes as many passes.
        """
        found: dict[Problem, Written | str] = {}
        groups: dict[tuple[int, int], list[tuple[Problem, np.ndarray]]] = {}
        for problem in dict.fromkeys(problems):
            try:
                prompt = self.task.encode(self.check(problem))
            except UsageError as error:
                found[problem] = str(error)
                continue
            slots = self._slots(problem, len(prompt))
            groups.setdefault((len(prompt), slots), []).append((problem, prompt))
        for (start, slots), group in groups.items():
            write = self._together if together or start > LONG else self._alone
            asked, prompts = zip(*group, strict=True)
            self._write(asked, np.stack(prompts), slots, found, write)
        return found

    def _write(
        self,
        problems: Sequence[Problem],
        prompts: np.ndarray,
        slots: int,
        found: dict[Problem, Written | str],
        write: Write,
    ) -> None:
        """Have (B, T) prompts continued, in batches of bounded size and similar length."""
        task, limits = self.task, self._limits(prompts, slots)
        fits = (limits >= 1) & (limits <= self._most)
        for row in np.flatnonzero(~fits).tolist():
            found[problems[row]] = self._refusal(problems[row], limits[row])
        rows = np.flatnonzero(fits)
        rows = rows[np.argsort(limits[rows], kind="stable")]
        for index in _batches(rows, limits + prompts.shape[1]):
            out = write(prompts[index], int(limits[index[-1]]))
            # What is kept of a row must not depend on the longer rows it was decoded with.
            length = np.minimum(out.length, limits[index])
            finished = out.terminated & (out.length <= limits[index])
            for place, row in enumerate(index.tolist()):
                text = task.decode(out.tokens[place, : length[place]])
                chances, ended = out.probability[place, : length[place]], bool(finished[place])
                found[problems[row]] = self._written(problems[row], text, chances, ended)

    def _written(self, problem: Problem, text: str, chances: np.ndarray, finished: bool) -> Written:
        """What was written, with (T,) the model's probability of each of its T tokens."""
        task, answer = self.task, None
        if finished:
            with contextlib.suppress(UsageError):
                answer = task.read(problem, text)
        if task.hidden and not {*task.hidden}.isdisjoint(text):
            shown = [i for i, char in enumerate(text) if char not in task.hidden]
            text, chances = "".join(text[i] for i in shown), chances[shown]
        return Written(
            problem=problem,
            completion=text,
            answer=answer,
            truth=task.truth(problem),
            probabilities=tuple(np.minimum(chances / self._surest, 1).tolist()),
            covered=self.proved or task.in_eval_range(problem),
            finished=finished,
        )

    def stream(self, problem: Problem) -> Generator[tuple[int, str, float], None, Written | str]:
        """What the model writes about one problem, token by token: place, character, probability.

        Returns all of it, or why the problem cannot be asked. Hidden tokens are left out.
        """
        try:
            prompts = self.task.encode(self.check(problem))[None]
        except UsageError as error:
            return str(error)
        limit = self._limit(problem, prompts)
        if not 1 <= limit <= self._most:
            return self._refusal(problem, limit)
        text = ""
        chances: list[float] = []
        for token, chance in self._tokens(prompts, limit):
            char = self.task.decode(np.array([token]))
            text += char
            chances.append(chance)
            if char not in self.task.hidden:
                yield len(text) - 1, char, min(chance / self._surest, 1.0)
        return self._written(problem, text, np.array(chances), text.endswith(self.task.end))

    def reference(self, problem: Problem) -> str:
        """The reference completion of a problem; empty where the task does not know it."""
        prompt = self.task.encode(self.task.prompt(problem))
        work = self.task.reference(prompt[None])
        if work is None:
            return ""
        return self.task.decode(work.tokens[0, len(prompt) : work.lengths[0]])

    def _tokens(self, prompts: np.ndarray, limit: int) -> Iterator[tuple[int, float]]:
        """The tokens that follow a (1, T) prompt, as they are written."""
        if self._model is not None:
            positions = decode.within_tables(self.task.positions, self._model.config)
            end = self.task.alphabet.index(self.task.end)
            yield from decode.stream(self._model, positions, prompts[0], limit, end)
            return
        out = self._alone(prompts, limit)
        size = int(out.length[0])
        yield from zip(
            out.tokens[0, :size].tolist(), out.probability[0, :size].tolist(), strict=True
        )

    def _slots(self, problem: Problem, start: int) -> int:
        """How many tokens are laid out after a prompt of `start` tokens, at first."""
        trained = self.task.in_train_range(problem)
        return max(1, self._longest - start) if trained else self._most

    def _limit(self, problem: Problem, prompt: np.ndarray) -> int:
        """How many tokens may be written after the (1, T) prompt of a problem."""
        return int(self._limits(prompt, self._slots(problem, prompt.shape[1]))[0])

    def _refusal(self, problem: Problem, limit: int) -> str:
        """Why a problem with that limit on what may be written cannot be asked."""
        fault = f"too long for this model: {sizes(problem)}"
        return fault if limit < 1 else _too_much(problem, self._most)

    def _limits(self, prompts: np.ndarray, slots: int) -> np.ndarray:
        """(B,) how many tokens may be written after each prompt: its slots, and some more.

        Few of the `slots` are laid out at first, and more for those rows that need them: a short
        problem has a thousandth of what a long one may have.
        """
        start = prompts.shape[1]
        limits = np.full(len(prompts), slots)  # where ids do not tell the length
        rows, laid = np.arange(len(prompts)), 0
        while len(rows):
            laid = min(slots, max(FIRST_SLOTS, 4 * laid))
            size = max(1, 50 * TOKENS_AT_ONCE // (start + laid))  # rows whose ids fit into memory
            parts = np.split(rows, range(size, len(rows), size))
            end = np.concatenate([self._ends(prompts[part], laid) for part in parts])
            limits[rows[end > 0]] = end[end > 0] - start + EXTRA_TOKENS
            rows = rows[2 * end > start + laid] if laid < slots else rows[:0]
        return limits if self._context is None else np.minimum(limits, self._context + 1 - start)

    def _ends(self, prompts: np.ndarray, slots: int) -> np.ndarray:
        """(B,) where the last token stands that has ids, counted from 1; 0 where none has."""
        used = (self.task.positions(prompts, slots) != 0).any(2)  # (B, T + slots)
        return np.where(used.any(1), used.shape[1] - used[:, ::-1].argmax(1), 0)

    @cached_property
    def _longest(self) -> int:
        return self.task.longest()  # a task writes its longest problem to find out


def most_tokens(config: ModelConfig | None) -> int:
    """How many tokens a model writes in `SECONDS` with torch: the work grows with their number
    where attention is local, else with its square."""
    if config is not None and config.local:
        return round(SECONDS / A_TOKEN)
    return round((math.sqrt(A_TOKEN**2 + 2 * A_PAIR * SECONDS) - A_TOKEN) / A_PAIR)


def sizes(problem: Problem) -> str:
    """A problem by the lengths of its operands.

    >>> sizes(Problem("*", (12345, 678)))
    '5 digits * 3 digits'
    """
    digits = [len(str(operand)) for operand in problem.operands]
    if len(digits) > 2:
        return f"a sum of {len(digits):,} numbers of up to {max(digits):,} digits"
    return f" {problem.op} ".join(f"{n:,} digit{'s'[: n > 1]}" for n in digits)


def _too_much(problem: Problem, most: int) -> str:
    return (
        f"too much work: {sizes(problem)} takes more than {most:,} tokens, "
        "the most that this model may write"
    )


def digits_of_work(problem: Problem) -> int:
    """Roughly the least that there is to write: * and / work on each pair of digits.

    >>> digits_of_work(Problem("*", (12345, 678))), digits_of_work(Problem("parity", (12345,)))
    (15, 5)
    """
    digits = [len(str(operand)) for operand in problem.operands]
    if problem.op not in ("*", "/"):
        return sum(digits)
    a, b = digits
    return a * b if problem.op == "*" else b * max(1, a - b + 1)  # each step works on the divisor


def _batches(rows: np.ndarray, lengths: np.ndarray) -> Iterator[np.ndarray]:
    """Rows, sorted by length, in groups of at most TOKENS_AT_ONCE tokens (but at least a row).

    Many short rows are kept apart from long ones, whose larger cache would only slow them down.
    """
    start = 0
    for end in range(1, len(rows) + 1):
        if end < len(rows):
            count, length = end - start, lengths[rows[end]]
            apart = count >= MIN_BATCH and length > 2 * lengths[rows[start]]
            if not apart and (count + 1) * length <= TOKENS_AT_ONCE:
                continue
        yield rows[start:end]
        start = end
