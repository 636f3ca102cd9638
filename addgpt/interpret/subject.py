"""What is inspected: a model with attention, its task, and a problem written out as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from addgpt.config.errors import UsageError
from addgpt.config.gpt import GPTConfig
from addgpt.generation.decode import EXTRA_TOKENS, within_tables, write
from addgpt.locality import LocalTrace
from addgpt.model.gpt import GPT
from addgpt.runs.run import Run, run_path
from addgpt.task import Graded, Problem, Task, TextTask

MOST_TOKENS = 2000  # whose maps of attention are kept: some 100 MB with four heads


class Token(NamedTuple):
    """A token and its place in the work.

    char     as it is written
    column   place value, 1 for the ones; 0: it has none (of text: there are no columns)
    step     which step of the work, 0: the problem itself
    kind     what the row is that it stands in, such as `total`; of text, ""
    written  by the model; else it is the prompt's
    """

    char: str
    column: int
    step: int
    kind: str
    written: bool


@dataclass(frozen=True)
class Subject:
    """A model and its task."""

    model: GPT
    task: Task

    @property
    def config(self) -> GPTConfig:
        config = self.model.config
        assert isinstance(config, GPTConfig)
        return config


@dataclass(frozen=True)
class Written:
    """A problem as the model reads it.

    problem  None where it is a text
    prompt   how many of the tokens are the prompt
    tokens   (T + 1,) ids of the tokens that are read, and of the last one written
    ids      (T + 1, L) position ids
    """

    problem: Problem | None
    prompt: int
    tokens: np.ndarray
    ids: np.ndarray

    def inputs(self, model: GPT) -> tuple[Tensor, Tensor, Tensor | None]:
        """What the model is called with: tokens (1, T), ids (1, T + 1, L), lengths of prompts."""
        device = next(model.parameters()).device
        tokens = torch.from_numpy(self.tokens[None, :-1].astype(np.int64)).to(device)
        ids = torch.from_numpy(self.ids[None].astype(np.int64)).to(device)
        prefix = getattr(model.config, "prefix", False)
        return tokens, ids, torch.tensor([self.prompt], device=device) if prefix else None


def subject(model: Any, task: Task | None = None) -> Subject:
    """A run (or its name), or a model and its task. Raises UsageError for one without attention."""
    if isinstance(model, str):
        model = Run(run_path(model))
    if isinstance(model, Run):
        task, model = task or model.task(), model.model()
    if not isinstance(model, GPT):
        name = getattr(getattr(model, "config", None), "architecture", type(model).__name__)
        raise UsageError(f"{name} has no attention: this needs a run of architecture=gpt")
    if task is None:
        raise UsageError("a model alone is not enough: give its task, or its run")
    if len(task.alphabet) != model.config.vocab or len(task.levels) != len(model.config.levels):
        raise UsageError(f"the model is not of task {task.name}: its alphabet or ids differ")
    return Subject(model.eval(), task)


def written(of: Subject, problem: Problem | str, completion: str | None = None) -> Written:
    """A problem and what the model writes about it, or a `completion` in its place.

    Raises UsageError for a problem that the task cannot be asked, naming one that it can.
    """
    task, config = of.task, of.config
    asked, prompt = _prompt(task, problem)
    before = task.encode(prompt)
    longest = min(config.longest or MOST_TOKENS, MOST_TOKENS)
    if completion is not None:
        after = task.encode(completion)
    elif isinstance(task, TextTask):
        before, after = before[:-1], before[-1:]
    else:
        _check_fits(len(before) + 1, longest)
        right = task.reference(before[None]) if isinstance(task, Graded) else None
        expected = int(right.lengths[0]) if right is not None else len(before) + 1
        _check_fits(expected, longest)  # the right work cut short would look like wrong work
        room = expected if right is not None else len(before) + task.longest()
        room = min(room + EXTRA_TOKENS, longest) - len(before)
        made = write(of.model, task, before[None], room)
        after = made.tokens[0, : made.length[0]]
    tokens = np.concatenate([before, after])
    _check_fits(len(tokens), longest)
    if len(tokens) < 2:
        raise UsageError("nothing to inspect: give a problem, or at least 2 characters")
    positions = within_tables(task.positions, config)
    ids = positions(before[None], len(tokens) - len(before))[0]
    return Written(asked, len(before), tokens, ids)


def described(task: Task, work: Written) -> tuple[Token, ...]:
    """(T + 1) the tokens of a problem, with their places."""
    names = task.row_names() if isinstance(task, LocalTrace) else {}
    levels = work.ids.shape[1]
    out = []
    for place, (token, ids) in enumerate(zip(work.tokens, work.ids.tolist(), strict=True)):
        column = ids[0] if levels else 0
        step = ids[1] if levels == 3 else 0
        kind = names.get(ids[-1], str(ids[-1])) if levels else ""
        out.append(Token(task.alphabet[token], column, step, kind, place >= work.prompt))
    return tuple(out)


def _prompt(task: Task, problem: Problem | str) -> tuple[Problem | None, str]:
    if isinstance(task, TextTask):
        return None, task.begin(str(problem))
    if not isinstance(task, Graded):
        raise UsageError(f"{task.name} has no problems that can be asked")
    if not isinstance(problem, str | Problem):
        raise UsageError(f"a problem is a text, such as 12+34, or a Problem, not {problem!r}")
    try:
        asked = task.parse(problem) if isinstance(problem, str) else problem
        return asked, task.prompt(asked)
    except UsageError as error:
        example = f"12{task.cells()[0].op}34"
        text = str(error)
        raise UsageError(text if example in text else f"{text}; ask such as {example}") from None


def _check_fits(tokens: int, longest: int) -> None:
    if tokens > longest:
        raise UsageError(f"{tokens:,} tokens: at most {longest:,} can be inspected")
