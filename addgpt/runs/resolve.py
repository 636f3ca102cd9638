"""From a task's recipe and a person's `key=value` settings to the config of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from addgpt.config.architectures import (
    CustomConfig,
    GPTConfig,
    ModelConfig,
    model_settings,
    with_model_settings,
)
from addgpt.config.errors import UsageError
from addgpt.config.schema import RunConfig, TrainConfig, trained
from addgpt.config.settings import as_text, names_of, to_dict, unknown, with_settings
from addgpt.locality import LocalTrace, not_local
from addgpt.runs.curriculum import curriculum
from addgpt.task import Task
from addgpt.task_lookup import is_file, lasting, load_task, task_class


def parse_pairs(pairs: tuple[str, ...], **short: Any) -> dict[str, Any]:
    """`("digits=3",)` as `{"digits": "3"}`, with what has options of its own, unless it is None.

    Raises ValueError, too if a key has two values.
    """
    settings = {key: as_text(value) for key, value in short.items() if value is not None}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"--set takes key=value, not {pair!r}")
        key, value = key.strip().replace("-", "_"), value.strip()
        if settings.setdefault(key, value) != value:
            raise UsageError(f"{key} is given twice: {settings[key]} and {value}")
    return settings


def split_settings(task: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Settings sorted into task options, model and training. Raises ValueError for unknown keys."""
    names = (
        list(task_class(task).options()),
        model_settings(),
        names_of(TrainConfig),
    )
    known = [name for group in names for name in group]
    for key in settings:
        if key not in known:
            raise unknown("setting", key, known)
        if known.count(key) > 1:
            raise UsageError(f"task {task} has an option {key}, as model or training do: rename it")
    return tuple({k: v for k, v in settings.items() if k in group} for group in names)


def configure(
    task_name: str,
    settings: Mapping[str, Any],
    seed: int = 0,
    command: str = "",
    versions: dict[str, str] | None = None,
    shape: ModelConfig | None = None,
) -> RunConfig:
    """The config of a new run: the task's recipe with a person's settings on top.

    Settings are values (`{"tied": True}`) or text (`{"tied": "true"}`). The model is that of the
    recipe, or has another one's `shape`.
    """
    options, model, train = split_settings(task_name, settings)
    task = load_task(task_name, options).resolved()
    if "stop_at" in train and not task.cells():
        raise UsageError(f"stop_at is a share of exact match, which task {task_name} does not have")
    recipe = task.recipe()
    staged = curriculum(task, str(train.get("curriculum", recipe.train.get("curriculum", ""))))
    base = replace(
        shape or GPTConfig(),
        **({} if shape else recipe.model),
        vocab=len(task.alphabet),
        context=staged.longest,
        levels=task.levels,
    )
    built = with_model_settings(base, model)
    if isinstance(built, GPTConfig) and built.local:
        if not isinstance(task, LocalTrace):
            raise not_local(built.attention)
        built = replace(built, visible=task.visible(built.attention))
    if isinstance(built, GPTConfig) and built.alphabet == "used":
        built = replace(built, used=task.used())
    if isinstance(built, CustomConfig):  # a file is named by its whole path
        where, _, attribute = built.architecture.rpartition(":")
        if is_file(where):
            built = replace(built, architecture=f"{lasting(where)}:{attribute}")
    training = _training(TrainConfig(**trained(built.architecture, recipe.train)), train)
    return RunConfig(
        lasting(task_name),
        to_dict(task),
        built,
        training,
        seed,
        command,
        versions or {},
    )


def reconfigure(
    config: RunConfig, task_name: str | None, settings: Mapping[str, Any], command: str = ""
) -> RunConfig:
    """The config of a run to be resumed: training settings may change, task and model may not."""
    if task_name is not None and lasting(task_name) != config.task:
        raise UsageError(f"the run to resume is of task {config.task}, not {task_name}")
    options, model, train = split_settings(config.task, settings)
    task = load_task(config.task, config.options)
    wanted = load_task(config.task, config.options | _typed(task, options))
    if wanted != task or with_model_settings(config.model, model) != config.model:
        raise UsageError("a resumed run keeps its task and model; training settings may change")
    new = replace(config, train=_training(config.train, train))
    if curriculum(task, new.train.curriculum).longest > config.model.context:
        raise UsageError("curriculum: a stage has longer problems than the model was built for")
    if new.train.optimizer != config.train.optimizer:
        raise UsageError(f"a resumed run keeps its optimizer, {config.train.optimizer}")
    return (
        new
        if new == config
        else replace(new, command="; ".join(filter(None, (config.command, command))))
    )


def _training(base: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """Training settings with a person's on top. Raises UsageError for one without effect; a config
    that was saved with such a one stays readable."""
    found = with_settings(base, settings)
    if "supervise_weight" in settings and not found.supervise and found.supervise_weight != 1:
        raise UsageError("supervise_weight needs supervise, which says what probes predict")
    return found


def _typed(task: Task, options: dict[str, Any]) -> dict[str, Any]:
    """Text options as the task's own types."""
    return to_dict(with_settings(task, options)) if options else {}
