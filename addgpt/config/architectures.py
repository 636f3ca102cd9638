"""What each kind of model has settings for (`ModelConfig.kind`). The models: baselines.py."""

from __future__ import annotations

import dataclasses
from typing import Any

# What each kind of model but the GPT has settings for, and its shape where none is asked for: the
# recipes of tasks are for the GPT. The GPT has all settings but `window`.
TASK_GIVES = ("kind", "vocab", "context", "levels")
USES = {
    "gru": ("layers", "width", "level_position", "next_ids"),
    "mlp": ("layers", "width", "mlp_ratio", "window", "level_position", "next_ids"),
    "bigram": (),
    "counts": (),
}
TABLES = ("bigram", "counts")
SHAPES: dict[str, dict[str, Any]] = {
    "gru": {"layers": 1, "width": 128},
    "mlp": {"layers": 1, "width": 32, "mlp_ratio": 8},
}

# What counting has no use for in training. It does not look at lr, muon_lr, micro_batch and
# precision either, which come with recipes.
NOT_COUNTING = (
    "optimizer weight_decay clip warmup schedule final_lr ema label_smoothing z_loss"
).split()


def check(config: Any) -> None:
    """Raise ValueError for a setting, away from its default, that the kind has no use for."""
    names = [item.name for item in dataclasses.fields(config)]
    used = USES.get(config.kind, [name for name in names if name not in (*TASK_GIVES, "window")])
    for item in dataclasses.fields(config):
        if item.name in (*TASK_GIVES, *used) or getattr(config, item.name) == item.default:
            continue
        valid = ", ".join(used) or "none"
        raise ValueError(f"kind={config.kind} has no {item.name}; its settings: {valid}")
    if config.kind == "gpt":
        return
    if not set(config.level_position) <= {"learned", "none"}:
        raise ValueError(
            f"kind={config.kind} takes in ids as learned or none in level_position, "
            f"not {', '.join(config.level_position)}"
        )
    if not config.mlp_ratio:
        raise ValueError(f"kind={config.kind} needs mlp_ratio above 0")


def training(kind: str, recipe: dict[str, Any]) -> dict[str, Any]:
    """What a kind of model takes of a recipe's settings of training."""
    unused = NOT_COUNTING if kind == "counts" else ()
    return {name: value for name, value in recipe.items() if name not in unused}


def check_counting(train: Any) -> None:
    """Raise ValueError for a setting of training that counting has no use for."""
    for item in dataclasses.fields(train):
        if item.name in NOT_COUNTING and getattr(train, item.name) != item.default:
            raise ValueError(f"kind=counts has no {item.name}: it counts what it is shown")
