"""Several runs on the same problems: their spread, and the difference of two groups of them.

The difference of exact match, A minus B, is uncertain because of the problems that were drawn and
because of the runs (the seeds of initial weights and training data). Both groups answer the same
problems, so problems count once, as paired differences. The variance of the difference is the sum
of three:

    problems    of the paired difference from problem to problem, within each cell
    runs of A   of their mean exact match from run to run, divided by the number of runs
    runs of B   likewise

Noise of one run on one problem is in both the first and the others, which makes intervals of runs
that hardly differ a little too wide rather than too narrow: leaving out the intersection term of
two-way clustering (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136; on crossed
factors Owen 2007, arXiv:0712.1111). Student's t has Welch's degrees of freedom (Welch 1947,
doi:10.1093/biomet/34.1-2.28), so that two or three runs give honestly wide intervals. As errors are
rare, two problems are added, of which each side alone solves one (Bonett and Price 2012,
doi:10.3102/1076998611411915); for one cell and one run a side the interval is theirs exactly.

Of stored scores only counts are known, not which problems a run got right. Then the variance over
problems is that of two independent samples, p (1 - p) / n for each side: what both sides find hard
no longer cancels out, so that the interval is wider than the paired one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from addgpt.config.errors import UsageError
from addgpt.evaluation.schema import digits_of
from addgpt.task import Cell

LEVEL = 0.95
MANY = 10_000  # degrees of freedom from which Student's t is as good as normal


class Marks(NamedTuple):
    """What a run got right in a cell: (n,) bool, and a digest of the n problems, in order."""

    right: np.ndarray
    problems: str


class Asked(NamedTuple):
    """What was asked in a cell: n problems of a split, and their digest where it is known."""

    split: str = ""
    n: int = 0
    problems: str = ""

    def may_be(self, other: Asked) -> bool:
        """Whether these are the same problems, as far as is known."""
        digests = {self.problems, other.problems} - {""}
        return self[:2] == other[:2] and len(digests) < 2


@dataclass(frozen=True)
class Scored:
    """A run as it was scored: its rows of eval.csv, and its marks where they are known.

    `seed` is that of its training, `evaluation_seed` the seed of the problems, where that is known;
    `longer` are the cells of longer operands than it was trained on.
    """

    name: str
    seed: int
    rows: Sequence[Mapping[str, Any]]
    marks: Mapping[Cell, Marks] | None = None
    evaluation_seed: int | None = None
    longer: frozenset[Cell] = frozenset()

    def asked(self) -> dict[Cell, Asked]:
        digests = {cell: marks.problems for cell, marks in (self.marks or {}).items()}
        cells = {cell_of(row): row for row in self.rows}
        return {
            cell: Asked(row["split"], row["n"], digests.get(cell, ""))
            for cell, row in cells.items()
        }


@dataclass(frozen=True)
class Spread:
    """Exact match of several runs on the same `n` problems; `right` counts, one for each run."""

    n: int
    right: tuple[int, ...]

    @property
    def shares(self) -> list[float]:
        return [count / self.n for count in self.right]

    @property
    def median(self) -> float:
        return statistics.median(self.shares)

    @property
    def worst(self) -> float:
        return min(self.shares)

    @property
    def best(self) -> float:
        return max(self.shares)

    @property
    def deviation(self) -> float | None:
        """Standard deviation from run to run (n - 1); None for one run, which cannot tell."""
        return statistics.stdev(self.shares) if len(self.right) > 1 else None

    def row(self) -> dict[str, Any]:
        """As a row of numbers; shares in 0..1."""
        names = ("median", "worst", "best", "deviation")
        numbers = {name: getattr(self, name) for name in names}
        return {"runs": len(self.right), "n": self.n, "right": list(self.right)} | numbers


@dataclass(frozen=True)
class Difference:
    """Exact match of group A minus that of group B, shares, with its 95 % interval.

    Over several cells, each weighs the same; `n` problems were asked in all.
    """

    cells: int
    n: int
    a: float
    b: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.a - self.b

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.low <= 0 <= self.high

    def row(self) -> dict[str, Any]:
        names = ("cells", "n", "a", "b", "difference", "low", "high", "significant")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Comparison:
    """Group A against group B: over all plain held-out cells, by operation, by held-out cell.

    `special` is over the held-out cells of special problems (strata), `longer` over those of
    longer operands than some run was trained on, which are in neither of the others; if any.
    """

    runs: tuple[int, int]
    overall: Difference
    ops: Mapping[str, Difference]
    special: Difference | None
    longer: Difference | None
    cells: Mapping[Cell, Difference]
    paired: bool = True

    def caveat(self) -> str:
        """What the intervals cannot account for; empty where each side has several runs."""
        single = [side for side, count in zip("AB", self.runs, strict=True) if count == 1]
        if not single:
            return ""
        which = "A and B have one run each" if len(single) == 2 else f"{single[0]} has one run"
        return f"{which}: how much seeds differ there is not known, and not in the intervals"


def held_out(runs: Sequence[Scored]) -> Spread | None:
    """The spread over the held-out problems of lengths trained on, each of which weighs the same.

    None without any.
    """
    beyond = longer_cells(runs)
    kept = _pooled(runs, lambda row: None if row["seen"] or cell_of(row) in beyond else 1)
    return kept.get(1)


def longer(runs: Sequence[Scored]) -> Spread | None:
    """The spread over the problems that are longer than trained on; None without any."""
    beyond = longer_cells(runs)
    return _pooled(runs, lambda row: 1 if cell_of(row) in beyond else None).get(1)


def longer_cells(runs: Iterable[Scored]) -> frozenset[Cell]:
    """The cells of longer operands than one of the runs was trained on."""
    return frozenset().union(*(run.longer for run in runs))


def by_kind(runs: Sequence[Scored]) -> dict[tuple[str, str], Spread]:
    """The spread over the held-out problems of an operation: `plain`, `special`, `longer` ones."""
    beyond = longer_cells(runs)

    def kind(row: Mapping[str, Any]) -> tuple[str, str] | None:
        plain = "plain" if row["stratum"] == "all" or not row["len_a"] else "special"
        known = "longer" if cell_of(row) in beyond else plain
        return None if row["seen"] else (row["op"], known)

    return _pooled(runs, kind)


def by_cell(runs: Sequence[Scored]) -> dict[Cell, Spread]:
    """The spread in each cell, those included that hold no problems out."""
    return _pooled(runs, cell_of)


def cell_of(row: Mapping[str, Any]) -> Cell:
    return Cell(*(row[name] for name in Cell._fields))


def check_same(runs: Sequence[Scored]) -> None:
    """Raises ValueError naming what differs, if runs were scored on different problems."""
    first, *others = runs
    wanted = first.asked()
    for run in others:
        asked, seeds = run.asked(), {first.evaluation_seed, run.evaluation_seed}
        if len(seeds - {None}) > 1:
            raise UsageError(
                f"{first.name} and {run.name} were scored on different problems: "
                f"evaluation seeds {first.evaluation_seed} and {run.evaluation_seed}"
            )
        for cell in dict.fromkeys([*wanted, *asked]):
            if not asked.get(cell, Asked()).may_be(wanted.get(cell, Asked())):
                where = f"{digits_of(*cell[:3])} {cell.stratum}".strip()
                counts = " and ".join(f"{one.get(cell, Asked()).n:,}" for one in (wanted, asked))
                raise UsageError(
                    f"{first.name} and {run.name} were scored on different problems "
                    f"(first in {where}: {counts} of them)"
                )


def compare(a: Sequence[Scored], b: Sequence[Scored]) -> Comparison:
    """Compare two groups of runs problem by problem, or by counts where marks are not known.

    Raises ValueError if they were not scored on the same problems, or if no problem was held out.
    """
    paired = all(run.marks is not None for run in (*a, *b))
    beyond = longer_cells([*a, *b])
    cells = [cell_of(row) for row in a[0].rows if not row["seen"]]
    near, far = ([c for c in cells if (c in beyond) == which] for which in (False, True))
    plain = [cell for cell in near if cell.stratum == "all" or not cell.len_a]
    if not plain:
        raise UsageError(f"{a[0].name} has no held-out problems to compare")
    check_same([*a, *b])

    def contrast(part: Iterable[Cell]) -> Difference:
        sides = [[_stacked(group, cell) for group in (a, b)] for cell in part]
        one, other = zip(*sides, strict=True)
        return difference(one, other, paired)

    ops = dict.fromkeys(cell.op for cell in plain)
    special = [cell for cell in near if cell not in plain]
    return Comparison(
        runs=(len(a), len(b)),
        overall=contrast(plain),
        ops={op: contrast(cell for cell in plain if cell.op == op) for op in ops},
        special=contrast(special) if special else None,
        longer=contrast(far) if far else None,
        cells={cell: contrast([cell]) for cell in cells},
        paired=paired,
    )


def difference(a: Sequence[np.ndarray], b: Sequence[np.ndarray], paired: bool = True) -> Difference:
    """Exact match of A minus B over C cells that weigh the same.

    Args:
        a: C arrays (runs of A, n) bool, one for each cell; n may differ from cell to cell.
        b: C arrays (runs of B, n) bool, of the same problems in the same order.
        paired: whether the order is that of the problems; else only how many are true counts.
    """
    weight, sizes = 1 / len(a), [one.shape[1] for one in a]
    gaps = [one.mean(0) - other.mean(0) for one, other in zip(a, b, strict=True)]
    mean = weight * sum(part.mean() for part in gaps)
    if paired:
        spread = [part.var() for part in gaps]
    else:
        shares = [(one.mean(), other.mean()) for one, other in zip(a, b, strict=True)]
        spread = [p * (1 - p) + q * (1 - q) for p, q in shares]
    problems = weight**2 * sum(one / size for one, size in zip(spread, sizes, strict=True))
    # As many problems as would tell as much if all were of one cell; two more are added.
    n = 1 / (weight**2 * sum(1 / size for size in sizes))
    shrunk = n / (n + 2)
    variance = shrunk**2 * problems + (2 + 2 * shrunk * mean**2) / (n + 2) ** 2
    freedom = 0.0
    for group in (a, b):
        runs = len(group[0])
        if runs > 1:
            own = weight * sum(cell.mean(1) for cell in group)
            between = float(own.var(ddof=1)) / runs
            variance += between
            freedom += between**2 / (runs - 1)
    freedom = variance**2 / freedom if freedom else math.inf
    half = student((1 + LEVEL) / 2, freedom) * math.sqrt(variance)
    return Difference(
        cells=len(a),
        n=sum(sizes),
        a=float(weight * sum(cell.mean() for cell in a)),
        b=float(weight * sum(cell.mean() for cell in b)),
        low=max(-1.0, float(shrunk * mean - half)),
        high=min(1.0, float(shrunk * mean + half)),
    )


def student(share: float, freedom: float) -> float:
    """The quantile of Student's t: below it lies a share in [0.5, 1) of the distribution.

    With t = sqrt(freedom) tan(x), the density of x is proportional to cos(x) ^ (freedom - 1), whose
    integral is taken numerically. `freedom` is at least 1.
    """
    if freedom > MANY:
        return statistics.NormalDist().inv_cdf(share)
    x = np.linspace(0, math.pi / 2, 20_001)
    density = np.cos(x) ** (freedom - 1)
    below = np.concatenate([[0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(2 * share - 1, below / below[-1], x))


def _pooled(
    runs: Sequence[Scored], key: Callable[[Mapping[str, Any]], Hashable | None]
) -> dict[Any, Spread]:
    """Counts of each run added up over rows of the same key; rows of key None are left out."""
    n: dict[Hashable, int] = {}
    right: dict[Hashable, list[int]] = {}
    for place, run in enumerate(runs):
        for row in run.rows:
            name = key(row)
            if name is None:
                continue
            counts = right.setdefault(name, [0] * len(runs))
            counts[place] += row["answer_correct"]
            n[name] = n.get(name, 0) + (row["n"] if place == 0 else 0)
    return {name: Spread(n[name], tuple(counts)) for name, counts in right.items()}


def _stacked(group: Sequence[Scored], cell: Cell) -> np.ndarray:
    """(runs, n) bool; where marks are not known, as many true as were right, in any order."""
    return np.stack([_right(run, cell) for run in group])


def _right(run: Scored, cell: Cell) -> np.ndarray:
    if run.marks is not None:
        return run.marks[cell].right
    row = next(row for row in run.rows if cell_of(row) == cell)
    return np.arange(row["n"]) < row["answer_correct"]
