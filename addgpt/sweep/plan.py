"""From a grid to its runs, and the remaining work of each."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.schema import RunConfig
from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import read_eval
from addgpt.evaluation.scorecard import contaminated, read_facts, usual_size
from addgpt.runs.files import RunError, read_text
from addgpt.runs.provenance import command_line, versions
from addgpt.runs.recipe import recipe_of
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, is_empty
from addgpt.sweep.grid import Combination, Grid
from addgpt.training.preflight import check_trainable


@dataclass(frozen=True)
class Planned:
    """One run of a sweep; `status` is train, resume, score or done."""

    grid: Grid
    combination: Combination
    config: RunConfig
    status: str = "train"

    @property
    def name(self) -> str:
        return f"{self.combination.stem}{self.config.seed}"

    @property
    def path(self) -> Path:
        return self.grid.folder / self.name

    def open(self) -> Path:
        """Its folder, made if it is new; training is as the grid says now. Raises RunError."""
        if is_empty(self.path):
            Run.create(self.path, self.config)
        else:
            run = Run(self.path)
            run.reconfigure(replace(run.config, train=self.config.train))
        return self.path

    def commands(self, path: Path) -> list[list[str]]:
        """The remaining work, on the run in a folder, as the words after `addgpt`."""
        found = [["train", "--resume", "--out", str(path)]] if self.status != "score" else []
        if self.grid.eval:
            cells = ["--per-cell", str(self.grid.per_cell)] if self.grid.per_cell else []
            found.append(["eval", str(path), *cells])
        return found


def plan_sweep(grid: Grid, on_this_machine: bool = True) -> list[Planned]:
    """The runs of a grid, first seeds first. Trains and writes nothing.

    Raises:
        ValueError: a combination that is invalid, is there twice, or differs from the run that is
            already in its folder.
        RunError: something else stands in the place of a run.
    """
    command, facts, names = command_line(), versions(), dict[str, str]()
    bases = []

    def configured(settings: dict[str, Any]) -> RunConfig | str:
        """The config of settings, or what is wrong with them."""
        try:
            config = configure(grid.task, grid.common | settings, 0, command, facts)
            device = config.train.device if on_this_machine else "cpu"  # not known from here
            check_trainable(replace(config, train=replace(config.train, device=device)))
            return config
        except ValueError as error:
            return str(error)

    for one in grid.combinations:
        config = configured(one.settings)
        if isinstance(config, str):
            where = "[set]" if configured({}) == config else one.name
            hint = "; values to compare go in [grid]" if config.endswith("]") else ""  # a list
            raise UsageError(f"{grid.name}.toml, {where}: {config}{hint}")
        same = names.setdefault(json.dumps(to_dict(config)), one.name)
        if same != one.name:
            raise UsageError(f"{grid.name}.toml: {same} and {one.name} are the same settings")
        bases.append(Planned(grid, one, config))
    seeded = (replace(b, config=replace(b.config, seed=s)) for s in grid.seeds for b in bases)
    return [replace(one, status=_status(one)) for one in seeded]


def held_out(run: Run) -> dict[str, float]:
    """The stored score: `n` and `answer_correct`, or for a text `bits` of the longest context.

    Raises RunError or, where what is stored is damaged, ValueError or others.
    """
    if not run.task().cells():
        return {"bits": json.loads(read_text(run.path / "loss.json"))[-1]["bits"]}
    rows = [row for row in read_eval(run.path / "eval.csv") if not row["seen"]]
    return {key: sum(row[key] for row in rows) for key in ("n", "answer_correct")}


def _status(planned: Planned) -> str:
    if is_empty(planned.path):
        return "train"
    run = Run(planned.path)
    _refuse_another(run, planned.config)
    if not run.started:
        return "train"
    try:
        progress = run.progress()
    except RunError:  # the model is damaged, which training may mend
        return "resume"
    train, reached = planned.config.train, progress.get("val_exact") or 0.0
    if progress["step"] < train.steps and not 0 < train.stop_at <= reached:
        return "resume"
    return "done" if not planned.grid.eval or _scored(run, planned.grid.per_cell) else "score"


def _scored(run: Run, per_cell: int | None) -> bool:
    """Whether a run has been scored, on as many problems a cell as are wanted now, or more.

    Scores on problems that training could have drawn do not count: scoring fails again.
    """
    try:
        held_out(run)
        if not run.task().cells():
            return True
        facts = read_facts(run.path)
        enough = facts["per_cell"] >= (per_cell or usual_size(run.task()))
        return enough and facts["evaluation_seed"] == 0 and not contaminated(facts)
    except (RunError, ValueError, LookupError, TypeError, AttributeError):
        return False


def _refuse_another(run: Run, wanted: RunConfig) -> None:
    """Raise ValueError if a run has another seed or recipe than is wanted."""
    have, want = ({"seed": one.seed} | recipe_of(one) for one in (run.config, wanted))
    names = sorted(key for key in have | want if have.get(key) != want.get(key))
    told = [f"{k.rpartition('.')[2]}={have.get(k)}, now {want.get(k)}" for k in names]
    if told:
        hint = "give the grid another `out`, or remove that folder"
        raise UsageError(f"{run.path} was made with {', '.join(told)}; {hint}")
