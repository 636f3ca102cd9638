"""A model writing freely: a prompt in, characters out as they are drawn."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from addgpt.config.errors import UsageError
from addgpt.generation.decode import stream, within_tables
from addgpt.model.build import Model
from addgpt.task import Graded, Task, TextTask


class Writer:
    """Writes with a model of a task; temperature and top_k as in `generation.decode`."""

    def __init__(self, model: Model, task: Task, temperature: float = 0.8, top_k: int = 0) -> None:
        self.model, self.task = model.eval(), task
        self.temperature, self.top_k = temperature, top_k

    def stream(self, prompt: str, tokens: int, rng: torch.Generator) -> Iterator[str]:
        """Up to `tokens` characters after a prompt, the end mark included.

        What a task writes to an end is at most as long as in training; running text goes on, and
        beyond the block of training the model reads the last block alone. Raises UsageError for a
        prompt that the task cannot begin with.
        """
        task = self.task
        start = task.encode(self.start(prompt))
        end = task.alphabet.index(task.end) if task.end else None
        if not len(start):
            raise UsageError("the prompt is empty; the model needs a character to begin with")
        most = min(self.model.config.longest or task.longest(), task.longest())
        if end is not None:
            tokens = min(tokens, most - len(start))
            if tokens < 1:
                raise UsageError(f"prompt {prompt!r} leaves no room: {most} tokens are the most")
        window = most - 1 if end is None else None
        written = stream(
            self.model, within_tables(task.positions, self.model.config), start, tokens, end,
            window, self.temperature, self.top_k, rng,
        )  # fmt: skip
        return (task.alphabet[token] for token, _ in written)

    def start(self, prompt: str) -> str:
        """The text that the model goes on from."""
        return begin(self.task, prompt)

    def membership(self, text: str) -> str:
        """As in `TextTask`; empty where the text that the task learned is not available."""
        try:
            return self.task.membership(text) if isinstance(self.task, TextTask) else ""
        except (UsageError, OSError):
            return ""


def begin(task: Task, prompt: str) -> str:
    """What a model is given where a person types `prompt`. Raises UsageError."""
    if isinstance(task, Graded):
        return task.prompt(task.parse(prompt))
    return task.begin(prompt) if isinstance(task, TextTask) else prompt
