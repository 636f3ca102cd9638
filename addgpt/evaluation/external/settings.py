"""What a person names, `hf:PATH`, `api:ADDRESS` or `answers:FILE`, and the folder it is kept in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.config.schema import RunConfig
from addgpt.config.settings import to_dict
from addgpt.evaluation.external.questions import check_template
from addgpt.runs.files import RunError
from addgpt.runs.provenance import command_line, versions
from addgpt.runs.run import CONFIG, RESULTS, Run
from addgpt.task import Task
from addgpt.task_lookup import lasting, short

KINDS = ("hf", "api", "answers")
# What replies follow from.
KEPT = ("source", "model", "endpoint", "template", "shots", "max_tokens")


def is_external(name: str) -> bool:
    """Whether a name is that of an external model."""
    return name.partition(":")[0] in KINDS and ":" in name


def external_config(source: str, task: Task, given: dict[str, Any]) -> ExternalConfig:
    """The settings of an external model: those given, else the defaults of its kind.

    Raises UsageError for what does not go together.
    """
    kind, _, where = source.partition(":")
    given = {name: value for name, value in given.items() if value is not None}
    if not where:
        raise UsageError(f"{source} names nothing; valid: hf:PATH, api:ADDRESS, answers:FILE")
    if kind == "api" and not re.match(r"https?://[^/]", where):
        raise UsageError(f"{source}: an address begins with http:// or https://")
    if kind == "api" and not given.get("model"):
        raise UsageError(f"{source}: give --model, one of the models there")
    for name, kinds in (("model", "api"), ("endpoint", "api"), ("max_tokens", "hf api"),
                        ("template", "hf api"), ("shots", "hf api")):  # fmt: skip
        if name in given and kind not in kinds.split():
            raise UsageError(f"--{name.replace('_', '-')} does not apply to {kind}:")
    chat = kind == "api" and given.get("endpoint", "chat") == "chat"
    usual = {"answer": "last" if chat else "first"}
    settings: dict[str, Any] = usual | {"template": "{problem}="} | given
    if settings["answer"] == "trace" and "template" not in given:
        settings["template"] = "{prompt}"
    check_template(settings["template"])
    if kind == "answers":
        settings["template"] = "{problem}"
    return ExternalConfig(source=source, **settings)


def open_folder(how: ExternalConfig, task_name: str, task: Task, out: Path | None) -> Run:
    """The run folder of an external model, made if need be; one with the same settings goes on.

    How an answer is found in a reply may change: replies are then graded again. Raises RunError
    if the folder holds something else.
    """
    config = RunConfig(
        lasting(task_name), to_dict(task), how, command=command_line(), versions=versions()
    )
    path = folder_of(how, task_name, task, out)
    if not (path / CONFIG).exists():
        return Run.create(path, config)
    run = Run(path)
    old = run.config.model
    if not isinstance(old, ExternalConfig):
        raise RunError(f"{path} holds a run of addgpt; choose another --out")
    if run.config.task != config.task or run.task() != task:
        raise RunError(f"{path} holds answers to other problems; choose another --out")
    other = [name for name in KEPT if getattr(old, name) != getattr(how, name)]
    if other:
        told = ", ".join(f"{name} {getattr(old, name)!r}" for name in other)
        raise RunError(f"{path} holds replies of {told}; choose another --out")
    run.reconfigure(replace(run.config, model=replace(how, params=how.params or old.params)))
    return run


def folder_of(how: ExternalConfig, task_name: str, task: Task, out: Path | None) -> Path:
    """Where an external model is kept: in `out`, or below results/."""
    return out or Path(RESULTS) / _folder_name(how, task_name, task)


def _folder_name(how: ExternalConfig, task_name: str, task: Task) -> str:
    """Such as `tiny-gpt2-add-3`, from the last part of what was named."""
    kind, _, where = how.source.partition(":")
    named = how.model if kind == "api" else where.rstrip("/")
    last = Path(named).stem if kind == "answers" else Path(named).name
    digits = getattr(task, "digits", None)
    parts = [last, short(task_name), *([str(digits)] if digits else [])]
    return re.sub(r"[^\w.-]+", "-", "-".join(parts)).strip("-.") or "external"
