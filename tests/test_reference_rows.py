"""The commands of the pages still build what the committed rows were measured on.

A default that changes must not change an old experiment: its grid, or its command, names what was
the default then. Each row says how many weights and steps its run had.
"""

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from addgpt.config.schema import load_run_config
from addgpt.config.settings import to_dict
from addgpt.runs.checkpoint import weight_count
from addgpt.runs.resolve import configure
from addgpt.sweep.grid import load_grid
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "results" / "reference"

# The sweep of each file and, where the rows do not name the case, how it follows from a row.
SCHEMES = {
    "relative ids": "relative",
    "rotary ids, two slots and gaps": "slots",
    "rotary ids, two slots": "slots-no-gaps",
    "rotary ids": "ids-rotary",
    "coupled ids": "coupled",
    "abacus ids": "abacus",
    "rotary positions": "rotary",
    "ALiBi": "alibi",
    "FIRE": "fire",
    "no positions": "none",
    "index hints": "hints",
}
FORMATS = {
    "plain": "plain",
    "reverse": "reverse",
    "simplified scratchpad": "simplified",
    "detailed scratchpad": "detailed",
    "reverse, with position ids": "ids",
}
FILES = {
    "lengths.csv": lambda row: ("length", SCHEMES[row["scheme"]]),
    "lengths-200.csv": lambda row: ("length-200", SCHEMES[row["scheme"]]),
    "lengths-mul.csv": lambda row: ("length-mul", SCHEMES[row["scheme"]]),
    "lengths-3.csv": lambda row: ("length-3", None),
    "ablation.csv": lambda row: (row["sweep"], row["case"]),
    "gated.csv": lambda row: (row["sweep"], row["case"]),
    "baselines.csv": lambda row: (f"baselines-{row['task']}", row["case"]),
    "sample_efficiency.csv": lambda row: (
        "sample-efficiency",
        f"{FORMATS[row['format']]}-{row['n_pool']}",
    ),
    "smallest.csv": lambda row: ("smallest", row["case"]),
    "smallest-padded.csv": lambda row: ("smallest-padded", row["case"]),
}
TEXT = ("ablation-text", "gated-text", "baselines-lines")  # their alphabet is that of the corpus


def rows_of(file: str) -> dict[tuple, set[tuple[str, str]]]:
    """The sweep and case of each kind of row, with the weights and steps that it names."""
    found: dict[tuple, set[tuple[str, str]]] = {}
    with (ROWS / file).open(newline="") as lines:
        for row in csv.DictReader(lines):
            sweep, case = FILES[file](row)
            if sweep not in TEXT:
                found.setdefault((sweep, case), set()).add((row["params"], row["step"]))
    return found


def built(sweep: str, case: str | None):
    """What the sweep builds of a case today."""
    grid = load_grid(sweep)
    (settings,) = [one.settings for one in grid.combinations if case is None or one.name == case]
    return configure(grid.task, grid.common | settings)


@pytest.mark.parametrize("file", FILES)
def test_a_sweep_builds_the_models_of_its_rows(file):
    rows = rows_of(file)
    assert rows
    for (sweep, case), named in rows.items():
        config = built(sweep, case)
        weights = weight_count(config.model)
        for params, step in named:
            assert params in ("", str(weights)), (sweep, case)
            stops_early = config.train.stop_at > 0
            assert int(step) == config.train.steps or (
                stops_early and int(step) < config.train.steps
            )
        if hasattr(config.model, "attention"):
            wanted = "window" if sweep == "smallest-padded" else "full"
            assert config.model.attention == wanted, (sweep, case)


@pytest.mark.parametrize("sweep", ["ablation-mul", "gated-mul", "length-mul"])
def test_products_are_traced_as_they_were(sweep):
    grid = load_grid(sweep)
    assert all(
        configure(grid.task, grid.common | one.settings).options["trace"] == "rows"
        for one in grid.combinations
    )


# The calculator as it was trained: passes of 8 rows, which take as long as those of 16 did then.
CALCULATOR = "--task calc --seed 0 --set far=6,8,12,20 --set micro_batch=8 --until-certified"
FULL = "--set attention=full --set eval_every=50"
COMMANDS = {
    "results/reference/add-3": "--task add --digits 3 --seed 0 " + FULL,
    "results/reference/add-3-s1": "--task add --digits 3 --seed 1 " + FULL,
    "results/reference/add-3-s2": "--task add --digits 3 --seed 2 " + FULL,
    "results/reference/calculator": CALCULATOR,
    "addgpt/pretrained/calculator": CALCULATOR,
}


@pytest.mark.parametrize("folder", COMMANDS)
def test_a_command_builds_the_reference_run(folder):
    words = shlex.split(COMMANDS[folder].replace("--until-certified", "--set until_certified=true"))
    given = dict(zip(words[::2], words[1::2], strict=True)) | {"--set": ""}
    settings = dict(w.split("=") for w in words if "=" in w)
    settings |= {"digits": given["--digits"]} if "--digits" in given else {}
    config = configure(given["--task"], settings, int(given["--seed"]))
    stored = load_run_config(json.loads((ROOT / folder / "config.json").read_text()))
    options = to_dict(load_task(stored.task, stored.options))  # with those that came later
    stored = replace(stored, options=options)
    assert replace(config, command=stored.command, versions=stored.versions) == stored
