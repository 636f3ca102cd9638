"""What makes runs repeat one another: all settings that say what is learned and how, but the seed.

This is the one rule: of `addgpt eval`, of sweeps, of the report and of the figures of seeds.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from addgpt.config.architectures import CONFIGS
from addgpt.config.schema import RunConfig, TrainConfig, to_dict
from addgpt.task import is_file, task_class

# How long a run takes and how often it saves; none of it changes what is learned.
ASIDE = ("train.device", "train.threads", "train.save_every")
# Nor how often val is scored, unless that can end the training (`stop_at`).
VALIDATION = ("train.eval_every", "train.eval_size")


def complete(config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a config.json with the defaults of settings that it does not name.

    A version that did not know a setting did what is now its default, see `config.schema`. The
    options of a task that is not installed, or a file of somebody's, stay as they are.
    """
    architecture = (config.get("model") or {}).get("architecture", "gpt")
    defaults = {
        "options": _options(config["task"]),
        "model": _defaults(CONFIGS.get(architecture, CONFIGS["gpt"])),
        "train": _defaults(TrainConfig),
    }
    filled = {part: known | (config.get(part) or {}) for part, known in defaults.items()}
    return {**config, **filled}


def recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a run's flat settings (`train.lr`, see `flat`) that make its recipe.

    Settings without a value (None or NaN: a table has one for each run) are left out.
    """
    aside = ASIDE if settings.get("train.stop_at") else (*ASIDE, *VALIDATION)
    return {
        name: value
        for name, value in settings.items()
        if (name == "task" or name.startswith(("options.", "model.", "train.")))
        and name not in aside
        and not (value is None or (isinstance(value, float) and math.isnan(value)))
    }


def key(settings: Mapping[str, Any]) -> str:
    """The same text for flat settings of the same recipe, and for no others."""
    return json.dumps(recipe(settings), sort_keys=True)


def key_of(config: RunConfig) -> str:
    """`key` of a config as `Run.config` has it."""
    return key(flat(complete(json.loads(json.dumps(to_dict(config))))))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings on one level: `{"model": {"width": 64}}` as `{"model.width": 64}`."""
    level: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        level |= {prefix + name: value} if inner is None else inner
    return level


def _options(task: str) -> dict[str, Any]:
    if is_file(task):  # reading the settings of a run carries out no file that it names
        return {}
    try:
        return _defaults(task_class(task))
    except ValueError:
        return {}


def _defaults(cls: type) -> dict[str, Any]:
    """The defaults of a dataclass of settings, as JSON has them."""
    known = {item.name: item.default for item in dataclasses.fields(cls)}
    given = {name: value for name, value in known.items() if value is not dataclasses.MISSING}
    return json.loads(json.dumps(given))
