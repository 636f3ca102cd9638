"""A model of width 2 that can be certified: all that it does happens in a plane."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.interpret.contexts import Contexts, activation_in, contexts
from addgpt.interpret.subject import Subject

SUM = 6, 9, 9, 1, 0  # of 69 + 91 = 160: the tens, 6 + 9, and the ones, where 0 is written
END, ONE = "end", "1 in front"  # above the highest digits: nothing is carried there, or 1 is
Point = tuple[str, str, float, float]


def plane(of: Subject) -> list[dict[str, Any]]:
    """Points of the plane: rows of `part`, `name`, `x`, `y`.

    part    `token` (its row of the embedding), `adds` (what a digit of the own column adds, and the
            signs), `sum` (one sum, part by part), `unit` (what a hidden channel reads), and, for
            all contexts of a third column and above the highest, `before` and `after` the MLP
    name    the character, the number of the unit, or a + b + carry; above the highest digits
            `end` and `1 in front`

    Raises UsageError for other models than one block of width 2 with one head that attends by ids
    alone, without a norm, of which all contexts can be listed.
    """
    config: Any = of.model.config
    shape = config.width, config.layers, config.heads, config.content, config.norm
    if of.task.name != "add" or shape != (2, 1, 1, False, "none"):
        wanted = "task add, width=2, layers=1, heads=1, content=false, norm=none"
        raise UsageError(f"a plane is drawn of {wanted}, such as addgpt/pretrained/smallest-31")
    every = contexts(of)
    points = list(_weights(of, every[0].some(np.arange(1))))
    for some in (every[0], *(one for one in every if one.values("a", 0) is None)):
        for name, point in (("before", "mid.0"), ("after", "after.0")):
            found = activation_in(some, of, point)[:, 0].tolist()
            points += [(name, *one) for one in _named(_numbers(some), found)]
    return [dict(zip(("part", "name", "x", "y"), point, strict=True)) for point in points]


def _named(names: Any, points: list[list[float]]) -> Iterator[tuple[str, float, float]]:
    return ((str(name), x, y) for name, (x, y) in zip(names, points, strict=True))


def _numbers(some: Contexts) -> np.ndarray:
    """(N,) a + b + carry, or what stands above the highest digits."""
    a, b = some.values("a", 0), some.values("b", 0)
    if a is None or b is None:
        return np.where(some.right == 1, ONE, END)
    return np.where((a + b) % 10 == some.right, a + b, a + b + 1)


def _weights(of: Any, some: Contexts) -> Iterator[Point]:
    """What the weights say; shares of attention are those in `some`."""
    block, letters = of.model.blocks[0], of.task.alphabet
    matrix = of.model.token.matrix().detach()
    token = matrix.numpy()
    adds = block.attention.out(matrix @ block.attention.value.weight[0].T).detach().numpy()
    seen = dict(zip(some.seen, activation_in(some, of, "weights.0")[0, 0, 0, ::2], strict=True))
    own, before = seen["a", 0], seen["a", 1]
    signs = seen["operator", None] * adds[letters.index("+")]
    signs = signs + seen["equals", None] * adds[letters.index("=")]
    a, b, a1, b1, written = SUM
    steps = {
        str(written): token[written],
        "+ and =": signs,
        str(a): own * adds[a],
        str(b): own * adds[b],
        f"{a1}, {b1}, {written}": before * (adds[a1] + adds[b1] + adds[written]),
    }
    parts = {
        "token": {letters[at]: token[at] for at in (*range(10), *map(letters.index, "+=#"))},
        "adds": {str(digit): own * adds[digit] for digit in range(10)} | {"+ and =": signs},
        "sum": dict(zip(steps, np.cumsum(list(steps.values()), axis=0), strict=True)),
        "unit": dict(enumerate(block.mlp.up.weight.detach().numpy())),
    }
    for part, points in parts.items():
        yield from ((part, str(name), float(x), float(y)) for name, (x, y) in points.items())
