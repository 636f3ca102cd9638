"""What the tests of docs/explained.md share: a model in all its contexts, and the page's tables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch

import addgpt
from addgpt.interpret.contexts import Contexts, activation_in, contexts, logits_in
from addgpt.interpret.edits import Edit
from addgpt.interpret.subject import subject

OWN, BEFORE, SIGNS = range(3)  # biases
COLUMNS = (("a", 0), ("b", 0), ("a", 1), ("b", 1), ("total", 1))


class Third:
    """The contexts of a third column of a model in addgpt/pretrained, and what stands there.

    Points and streams have C numbers, the width of the model.
    """

    def __init__(self, name: str) -> None:
        self.folder = Path(addgpt.__file__).parent / "pretrained" / name
        self.of = subject(str(self.folder))
        self.every = contexts(self.of)
        self.size = sum(len(some.tokens) for some in self.every)
        self.all = self.every[0]
        model = self.of.model
        self.block, self.biases = model.blocks[0], model.positions.relative.table
        self.token = array(model.token.matrix())  # (V, C)
        with torch.no_grad():
            value = self.block.attention.value.weight[0]
            written = self.block.attention.out(model.token.matrix() @ value.T)
        self.written = array(written)  # (V, C) by full weight
        self.parts = np.array([self.all.values(*where) for where in COLUMNS]).T
        self.number = number(self.all)
        self.stream = activation_in(self.all, self.of, "mid.0")[:, 0]
        x = np.c_[self.stream, np.ones(len(self.stream))]
        self.direction = np.linalg.lstsq(x, self.number, rcond=None)[0]
        self.means = np.array([self.stream[self.number == k].mean(0) for k in range(20)])

    def along(self, stream: np.ndarray) -> np.ndarray:
        """The number that stands in a stream (..., C)."""
        return stream @ self.direction[:-1] + self.direction[-1]

    def writes(self, stream: np.ndarray) -> np.ndarray:
        """What a slot writes with a stream (..., C) between attention and MLP."""
        with torch.no_grad():
            x = torch.from_numpy(stream.astype(np.float32))
            y = array(x + self.block.mlp(x)) @ self.token.T
        return (y + array(self.of.model.unused)).argmax(-1)

    def right(self, edit: Any = lambda some: ()) -> list[np.ndarray]:
        """Which of all contexts are right."""
        return [
            logits_in(some, self.of, edit(some)).argmax(-1) == some.right for some in self.every
        ]

    def count(self, edit: Any = lambda some: ()) -> int:
        return sum(int(some.sum()) for some in self.right(edit))

    def at_work(self, unit: int) -> set[int]:
        """For which a + b + carry a hidden channel is above 0 in more than 90 % of contexts."""
        return self.mostly(self.stream @ array(self.block.mlp.up.weight)[unit] > 0, 0.9)

    def without(self, unit: int) -> list[np.ndarray]:
        """Which of all contexts are right without a hidden channel."""
        down = self.block.mlp.down.weight
        whole = down.detach().clone()
        down.data[:, unit] = 0
        right = self.right()
        down.data.copy_(whole)
        return right

    def mostly(self, true: np.ndarray, share: float = 0.5) -> set[int]:
        """The a + b + carry for which (N,) is true in more than a share of contexts."""
        return {k for k in range(20) if true[self.number == k].mean() > share}

    def valued(self, written: np.ndarray) -> Any:
        """Edits in which tokens say what writes (V, C)."""
        out = getattr(self.block.attention.out, "weight", torch.eye(written.shape[1]))
        values = np.linalg.solve(array(out).astype(float), written.T).T

        def edit(some: Contexts) -> list[Edit]:
            text = np.zeros((len(some.tokens), 2 * some.tokens.shape[1] - 1), int)
            text[:, ::2] = some.tokens
            return [Edit("value.0", values[text][:, None].astype(np.float32))]

        return edit


def array(x: torch.Tensor) -> np.ndarray:
    return x.detach().numpy()


def number(some: Contexts) -> np.ndarray:
    """a + b + carry."""
    both = some.values("a", 0) + some.values("b", 0)
    return np.where(both % 10 == some.right, both, both + 1)


def on_line(means: np.ndarray, at: float) -> np.ndarray:
    """The point of the broken line through the means of 0 to 19, its ends prolonged."""
    low = int(np.clip(np.floor(at), 0, 18))
    return means[low] + (at - low) * (means[low + 1] - means[low])


def section(title: str) -> str:
    """One section of the page."""
    page = (Path(__file__).parents[2] / "docs" / "explained.md").read_text(encoding="utf-8")
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, name: str) -> list[str]:
    """The cells of a table's row, without stars."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.replace("*", "").strip("|").split("|")][1:]


def numbers(told: str) -> set[int]:
    """`0 to 4, 9, 19`, `3 and more`, `up to 17`, `never`: which of 0 to 19 are meant."""
    if "never" in told or "all" in told:
        return set() if "never" in told else set(range(20))
    found = [[int(digits) for digits in re.findall(r"\d+", part)] for part in told.split(",")]
    if "up to" in told:
        return set(range(found[0][0] + 1))
    if "and more" in told:
        return set(range(found[0][0], 20))
    return {number for part in found for number in range(part[0], part[-1] + 1)}
