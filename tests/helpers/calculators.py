"""Calculators whose model is perfect, or spoiled on purpose."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from addgpt.calculator.ask import Written
from addgpt.calculator.solver import Calculator
from addgpt.task import Problem, Task
from addgpt.task_lookup import load_task

ALL = {"calc": {"digits": 4, "sum_digits": 6}}


def written(task: Task, prompt: str) -> str:
    """What a perfect model writes after a prompt: the task's own work."""
    work = task.reference(task.encode(prompt)[None])
    return task.decode(work.tokens[0])[len(prompt) :]


def oracle(task: Task, spoil=lambda prompt, completion: completion):
    """A `write` for Calculator; `spoil` may change what it writes. Notes the batches it was given.

    Each token's probability is 0.5 + (its place % 50) / 100, so that places can be told apart.
    """

    def write(prompts: np.ndarray, limit: int) -> SimpleNamespace:
        write.batches.append(len(prompts))
        rows = len(prompts)
        tokens = np.full((rows, limit), task.alphabet.index(task.end), np.uint8)
        length, ended = np.full(rows, limit), np.zeros(rows, bool)
        for row, prompt in enumerate(prompts):
            text = task.decode(prompt)
            text = spoil(text, written(task, text))[:limit]
            tokens[row, : len(text)] = task.encode(text)
            if text.endswith(task.end):
                length[row], ended[row] = len(text), True
            else:
                tokens[row, len(text) :] = task.encode("0")
        chances = 0.5 + (np.arange(limit) % 50) / 100
        return SimpleNamespace(
            tokens=tokens,
            length=length,
            terminated=ended,
            probability=np.broadcast_to(chances.astype(np.float32), tokens.shape),
        )

    write.batches = []
    return write


def perfect(name: str = "calc", options: dict | None = None, **changes) -> Calculator:
    task = load_task(name, ALL.get(name, {"digits": 4}) if options is None else options)
    return Calculator(None, task, "perfect", write=oracle(task, **changes))


def exact(name: str = "calc", options: dict | None = None) -> Calculator:
    """A calculator whose every operation Python does, at once: for thousands of expressions."""
    calculator = perfect(name, options)
    task = calculator.task

    def ask(problems, together) -> dict[Problem, Written]:
        found = {}
        for problem in problems:
            truth = task.truth(problem)
            found[problem] = Written(problem, f"{truth}#", truth, truth, (1.0,), True, True)
        return found

    calculator._asker.ask = ask
    calculator._asker._limit = lambda problem, prompt: 1  # nothing is written, nothing laid out
    return calculator
