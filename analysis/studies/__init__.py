"""Studies: the numbers behind a page of docs/, and how its figure is drawn.

Each is a module with three functions: `collect(*places)` makes a table from folders of runs (or
files of such tables), `draw(table)` a figure, `describe(table)` a text. `addgpt study NAME` calls
them. `common` holds what they share; `english` makes the text that `pretraining` reads.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from addgpt.config.errors import UsageError

# name: (what it reads, what it draws)
STUDIES = {
    "ablation": (
        "sweeps with a case `default`: addgpt sweep ablation-add",
        "what each case differs from `default`, seed by seed",
    ),
    "attention": (
        "results/reference/attention.csv, which benchmarks/attention.py writes",
        "exact match by length of each pattern of attention",
    ),
    "efficiency": (
        "addgpt sweep sample-efficiency",
        "exact match by number of training problems, a line per format",
    ),
    "lengths": (
        "addgpt sweep length",
        "exact match by operand length, a line per kind of positions",
    ),
    "pretraining": (
        "the runs of docs/pretraining.md",
        "loss on Shakespeare, pretrained and from scratch",
    ),
    "recipes": (
        "addgpt sweep recipes, or folders of scored runs named for their recipe",
        "exact match by length over the longest trained length, a line per published recipe",
    ),
    "smallest": (
        "addgpt sweep smallest, then addgpt eval results/smallest --suite ten-digit",
        "exact match on ten-digit sums by number of parameters",
    ),
    "traces": (
        "results/reference/traces.csv, which benchmarks/traces.py writes",
        "exact match of scratchpads in equal training time",
    ),
}


def study(name: str) -> ModuleType:
    """The module of a study. Raises ValueError if there is none of that name."""
    if name not in STUDIES:
        raise UsageError(f"no study {name!r}; valid: {', '.join(STUDIES)}")
    return importlib.import_module(f"analysis.studies.{name}")
