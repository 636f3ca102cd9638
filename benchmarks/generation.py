"""Problems written a second, on one core: tokens, mask, position ids and all.

Three-digit additions are compared with two Python loops that write the same, one problem at a time:
the usual one, a Dataset's items that a collate function pads and stacks, and a tight one that fills
arrays made beforehand. Both draw from the same split, without carry chains and edge cases, to their
advantage; that all write the same is checked first. Products of eight by eight digits come with
their whole trace.

    python -m benchmarks.generation
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable

import numpy as np

from addgpt.task import Batch, Cell, Task
from addgpt.task_lookup import load_task
from benchmarks import timing
from tasks.common import digits, splits
from tasks.common.sheet import ALPHABET, END, Kind

SIZES = (1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
MUL_SIZES = (250, 1_000, 4_000, 16_000)
LOOP = 2_000  # problems of the loop in one turn
ROUNDS = 9
CHECKED = 500
TARGETS = "1,000,000/s and 50 x", "50,000/s"

TOKEN = {char: token for token, char in enumerate(ALPHABET)}
MASK = (1 << 64) - 1

Pairs = list[tuple[int, int]]


def drawn(count: int, longest: int) -> Pairs:
    """Operands of training problems, by length first, then digits."""
    pairs: Pairs = []
    while len(pairs) < count:
        a, b = (
            random.randint(10 ** (length - 1) if length > 1 else 0, 10**length - 1)
            for length in (random.randint(1, longest), random.randint(1, longest))
        )
        small = (a < 10 and b < 100) or (b < 10 and a < 100)
        if small or split_of(a, b) == 0:
            pairs.append((a, b))
    return pairs


def split_of(a: int, b: int) -> int:
    """`tasks.common.splits.split_of` for one sum."""
    low, high = sorted((_mix(a * 0x9E3779B97F4A7C15), _mix(b * 0x9E3779B97F4A7C15)))
    share = _mix(low * 3 + _mix(high + ord("+"))) % 100
    return (share >= 100 - splits.VAL - splits.TEST) + (share >= 100 - splits.TEST)


def collated(pairs: Pairs) -> Batch:
    """A batch of additions as a Dataset and a collate function make it: items, padded, stacked."""
    items = []
    for pair in pairs:
        tokens, start, ids = written(*pair)
        mask = np.arange(len(tokens)) >= start
        items.append((np.array(tokens, np.uint8), mask, np.array(ids, np.int16)))
    size = max(len(tokens) for tokens, _, _ in items)
    fills = (TOKEN[END], False, 0)
    columns = zip(zip(*items, strict=True), fills, strict=True)
    stacks = [np.stack([_padded(row, size, fill) for row in rows]) for rows, fill in columns]
    return Batch(*stacks)


def tight(pairs: Pairs, longest: int) -> Batch:
    """The same batch, in arrays that are as wide as the longest addition there is."""
    size = 3 * longest + 4
    tokens = np.full((len(pairs), size), TOKEN[END], np.uint8)
    scored = np.zeros((len(pairs), size), bool)
    positions = np.zeros((len(pairs), size, 3), np.int16)
    for row, pair in enumerate(pairs):
        line, start, ids = written(*pair)
        tokens[row, : len(line)] = line
        scored[row, start : len(line)] = True
        positions[row, : len(ids)] = ids
    return Batch(tokens, scored, positions)


def written(a: int, b: int) -> tuple[list[int], int, list[tuple[int, int, int]]]:
    """Tokens of one addition, how many are its prompt, and the position ids of its slots."""
    len_a, len_b = len(str(a)), len(str(b))
    prompt = f"{a}+{b}="
    text = prompt + str(a + b)[::-1] + END
    slots = max(len_a, len_b) + 1
    ids = [
        *((place, 0, Kind.A) for place in range(len_a, 0, -1)),
        (0, 0, Kind.OPERATOR),
        *((place, 0, Kind.B) for place in range(len_b, 0, -1)),
        (0, 0, Kind.EQUALS),
        *((place, 0, Kind.TOTAL) for place in range(1, slots + 2)),
    ]
    return [TOKEN[char] for char in text], len(prompt), ids


def check(task: Task) -> None:
    """Raise AssertionError unless the loops and the task write the same."""
    pairs = drawn(CHECKED, task.digits)
    sides = zip(*pairs, strict=True)
    a, b = (np.array([digits.from_int(n, task.digits) for n in side]) for side in sides)
    ours = task.write(a, b, digits.length(a), digits.length(b)).batch()
    for loop in (collated(pairs), tight(pairs, task.digits)):
        for name in ("tokens", "scored", "positions"):
            mine, other = getattr(ours, name), getattr(loop, name)
            size = min(mine.shape[1], other.shape[1])
            assert (mine[:, :size] == other[:, :size]).all(), name
    split = splits.split_of(a, b, ord(task.op), task.commutes)
    assert split.tolist() == [split_of(*pair) for pair in pairs]


def batches(task: Task, size: int, cell: Cell | None = None) -> Callable[[], object]:
    """Something that draws another training batch at each call."""
    rng = np.random.default_rng(0)
    return lambda: task.batch(rng, size, "train", cell)


class Noted:
    """A random generator that notes what is drawn."""

    def __init__(self) -> None:
        self.rng, self.calls = np.random.default_rng(0), list[tuple[str, tuple, dict]]()

    def __getattr__(self, name: str) -> Callable:
        def draw(*args, **options):
            self.calls.append((name, args, options))
            return getattr(self.rng, name)(*args, **options)

        return draw


def least(task: Task, size: int) -> Callable[[], object]:
    """Something that draws the random numbers of a training batch, and copies its arrays."""
    noted = Noted()
    batch = task.batch(noted, size, "train")  # type: ignore[arg-type]

    def work() -> None:
        for name, args, options in noted.calls:
            getattr(noted.rng, name)(*args, **options)
        for array in (batch.tokens, batch.scored, batch.positions):
            array.copy()

    return work


def measure(options: argparse.Namespace) -> list[timing.Row]:
    rounds, sizes, mul_sizes = ROUNDS, SIZES, MUL_SIZES
    if options.quick:
        rounds, sizes, mul_sizes = 3, (1_000, 16_000), (1_000,)
    add, mul = load_task("add", {"digits": 3}), load_task("mul", {"digits": 8})
    alike = load_task("add", {"digits": 3, "carry": 0.0, "edges": 0.0})
    largest = Cell(mul.op, mul.digits, mul.digits)
    check(add)
    sizes = (add.recipe().train["batch_size"], *sizes)
    work = {f"add {size}": batches(add, size) for size in sizes}
    work |= {f"mul {size}": batches(mul, size, largest) for size in mul_sizes}
    work["alike"] = batches(alike, sizes[-2])
    work["usual"] = lambda: collated(drawn(LOOP, add.digits))
    work["tight"] = lambda: tight(drawn(LOOP, add.digits), add.digits)
    work["least"] = least(add, sizes[-1])
    times = timing.interleave(work, rounds)
    limit = [sizes[-1] / t for t in times["least"]]
    same = [sizes[-2] / t for t in times["alike"]]
    usual_loop, tight_loop = ([LOOP / t for t in times[name]] for name in ("usual", "tight"))

    def rates(name: str, sizes: tuple[int, ...]) -> dict[int, list[float]]:
        return {size: [size / t for t in times[f"{name} {size}"]] for size in sizes}

    sums, products = rates("add", sizes), rates("mul", mul_sizes)
    for name, found in (("additions", sums), ("products", products)):
        for size, values in found.items():
            timing.say(f"{name} in batches of {size:6,d}: {np.median(values):12,.0f} a second")
    best, trained, best_mul = _best(sums), sizes[0], _best(products)
    name, unit, note = "3-digit additions", "a second", f"batches of {best:,}"
    return [
        timing.Row(name, unit, sums[best], usual_loop, TARGETS[0], f"{note}; Dataset and collate"),
        timing.Row(name, unit, sums[best], tight_loop, TARGETS[0], f"{note}; tight loop"),
        timing.Row(name, unit, same, tight_loop, note="tight loop, which draws the same problems"),
        timing.Row(name, unit, sums[trained], usual_loop, note=f"batches of {trained:,}"),
        timing.Row(name, unit, sums[best], limit, note=f"{note}; random numbers and bytes alone"),
        timing.Row(
            "8x8 products with trace",
            unit,
            products[best_mul],
            target=TARGETS[1],
            note=f"up to {mul.longest()} tokens each, batches of {best_mul:,}",
        ),
    ]


def _best(rates: dict[int, list[float]]) -> int:
    return max(rates, key=lambda size: float(np.median(rates[size])))


def _padded(row: np.ndarray, size: int, fill: int) -> np.ndarray:
    """A row brought to `size` slots."""
    out = np.full((size, *row.shape[1:]), fill, row.dtype)
    out[: len(row)] = row[:size]
    return out


def _mix(x: int) -> int:
    """The finaliser of MurmurHash3 on 64 bits."""
    x &= MASK
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD & MASK
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53 & MASK
    return x ^ (x >> 33)


if __name__ == "__main__":
    timing.main(__doc__, measure)
