"""From a grid to its runs, and what is left to do of each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.schema import RunConfig, TrainConfig
from addgpt.config.settings import to_dict
from addgpt.evaluation.schema import read_eval
from addgpt.evaluation.scorecard import contaminated, usual_size
from addgpt.runs.files import RunError, read_text
from addgpt.runs.provenance import command_line, versions
from addgpt.runs.recipe import recipe
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run, is_empty
from addgpt.sweep.grid import Grid
from addgpt.task import load_task


@dataclass(frozen=True)
class Planned:
    """One run of a sweep; `status` is train, resume, score or done."""

    name: str
    path: Path
    combination: str
    settings: dict[str, str]
    config: RunConfig
    score: bool
    per_cell: int | None
    status: str

    def open(self, threads: int) -> Run:
        """The run, its folder made if it is new; on so many threads if the grid does not say.

        A run that is resumed keeps its threads, as long as they are not more. Raises RunError.
        """
        fixed = self.config.train.threads
        if self.status == "train" and not (self.path / "config.json").exists():
            return Run.create(self.path, _on_threads(self.config, fixed or threads))
        run = Run(self.path)
        wanted = replace(run.config, train=self.config.train)
        run.reconfigure(
            _on_threads(wanted, fixed or min(run.config.train.threads or threads, threads))
        )
        return run


def plan(grid: Grid, check: Callable[[RunConfig], None]) -> list[Planned]:
    """The runs of a grid, first seeds first. Trains and writes nothing.

    Args:
        check: raises ValueError if a config cannot be trained.

    Raises:
        ValueError: a combination that cannot be, is there twice, or differs from the run that is
            already in its folder.
        RunError: something that is no run in the place of one.
    """
    bases = _configs(grid, check)
    runs = []
    for seed in grid.seeds:
        for one in grid.combinations:
            name = f"{one.stem}{seed}"
            config = replace(bases[one.name], seed=seed)
            given = (grid.score, grid.per_cell)
            found = Planned(name, grid.out / name, one.name, one.settings, config, *given, "train")
            runs.append(replace(found, status=_status(found)))
    return runs


def finished(run: Run) -> bool:
    """Whether training would do nothing more; not if the model is damaged, which it may mend."""
    if not run.started:
        return False
    try:
        progress = run.progress()
    except RunError:
        return False
    return reached(run.config.train, progress["step"], progress.get("val_exact"))


def reached(settings: TrainConfig, step: int, val_exact: float | None) -> bool:
    """Whether training ends here."""
    return step >= settings.steps or 0 < settings.stop_at <= (val_exact or 0.0)


def _configs(grid: Grid, check: Callable[[RunConfig], None]) -> dict[str, RunConfig]:
    """A config for each combination; the seed is still to be put in."""
    command, facts = command_line(), versions()
    configs: dict[str, RunConfig] = {}
    names: dict[str, str] = {}
    for one in grid.combinations:
        try:
            config = configure(grid.task, grid.common | one.settings, 0, command, facts)
            check(config)
        except ValueError as error:
            raise UsageError(f"{grid.name}, {one.name}: {error}") from None
        same = names.setdefault(json.dumps(_flat(config)), one.name)
        if same != one.name:
            raise UsageError(f"{grid.name}: {same} and {one.name} are the same settings")
        configs[one.name] = config
    return configs


def _status(planned: Planned) -> str:
    path = planned.path
    if is_empty(path):
        return "train"
    run = Run(path)
    _refuse_another(run, planned.config)
    if not finished(run):
        return "resume" if run.started else "train"
    return "score" if planned.score and not _scored(planned) else "done"


def _scored(planned: Planned) -> bool:
    """Whether a run has been scored, on as many problems a cell as are wanted now, or more.

    Scores on problems that training could have drawn do not count: scoring fails again.
    """
    task = load_task(planned.config.task, planned.config.options)
    if not task.cells():
        return (planned.path / "loss.json").exists()
    try:
        read_eval(planned.path / "eval.csv")
        facts = json.loads(read_text(planned.path / "eval.json"))
        enough = facts["per_cell"] >= (planned.per_cell or usual_size(task))
        return enough and facts["evaluation_seed"] == 0 and not contaminated(facts)
    except (RunError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _refuse_another(run: Run, wanted: RunConfig) -> None:
    """Raise ValueError if a run has another seed or recipe than is wanted."""
    have, want = ({"seed": one.seed} | recipe(_flat(one)) for one in (run.config, wanted))
    differ = sorted(key for key in have.keys() | want.keys() if have.get(key) != want.get(key))
    if differ:
        told = ", ".join(
            f"{key.rpartition('.')[2]}={have.get(key)}, now {want.get(key)}" for key in differ
        )
        raise UsageError(
            f"{run.path} was made with {told}; give the grid another `out`, or remove that folder"
        )


def _flat(config: RunConfig) -> dict[str, Any]:
    """All settings in one dict, `train.steps` and so on, as they are read from config.json."""
    data = json.loads(json.dumps(to_dict(config)))
    parts = {part: data[part] for part in ("options", "model", "train")}
    flat = {
        f"{part}.{name}": value for part, inner in parts.items() for name, value in inner.items()
    }
    return flat | {"task": config.task}


def _on_threads(config: RunConfig, threads: int) -> RunConfig:
    return replace(config, train=replace(config.train, threads=threads))
