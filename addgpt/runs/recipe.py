"""What makes runs repeat one another: all settings that say what is learned and how, but the seed.

`addgpt eval`, sweeps, the report and the figures of seeds all go by this one rule.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from addgpt.config.schema import RunConfig
from addgpt.config.settings import to_dict

# How long a run takes and how often it saves; none of it changes what is learned.
ASIDE = ("train.device", "train.threads", "train.save_every", "train.keep")
# Nor how often val is scored, unless that can end the training (`stop_at`).
VALIDATION = ("train.eval_every", "train.eval_size")
# What follows from other settings, and is not named where recipes differ.
DERIVED = ("model.vocab", "model.context", "model.levels", "model.visible", "model.used")


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


def recipe_of(config: RunConfig) -> dict[str, Any]:
    """`recipe` of a config as `Run.config` has it."""
    return recipe(flat(json.loads(json.dumps(to_dict(config)))))


def key_of(config: RunConfig) -> str:
    """`key` of a config as `Run.config` has it."""
    return key(recipe_of(config))


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings on one level: `{"model": {"width": 64}}` as `{"model.width": 64}`."""
    level: dict[str, Any] = {}
    for name, value in settings.items():
        inner = flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else None
        level |= {prefix + name: value} if inner is None else inner
    return level
