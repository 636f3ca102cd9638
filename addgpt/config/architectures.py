"""The sizes and parts of a model: a config for each architecture. The models: addgpt/model.

`ModelConfig` is any of them; its `architecture` says which. `vocab`, `context` and `levels` come
from the task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from addgpt.config.base import LAYERS, WIDTH, BaseConfig, LevelledConfig, architecture_setting
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.config.gpt import GPTConfig
from addgpt.config.settings import from_dict, names_of, setting, unknown, with_settings

FROM_TASK = ("vocab", "context", "levels")
TOLD = (*FROM_TASK, "visible", "used")  # what a person does not set


@dataclass(frozen=True)
class GRUConfig(LevelledConfig):
    """A gated recurrent network."""

    architecture: str = architecture_setting("gru")
    layers: int = setting(1, "recurrent layers", **LAYERS)
    width: int = setting(128, "channels of embeddings and of the state", **WIDTH)

    @property
    def depth(self) -> int:
        return self.layers


@dataclass(frozen=True)
class MLPConfig(LevelledConfig):
    """The last `window` tokens through layers."""

    architecture: str = architecture_setting("mlp")
    layers: int = setting(1, "hidden layers", **LAYERS)
    width: int = setting(32, "channels of embeddings", **WIDTH)
    mlp_ratio: float = setting(8, "width of hidden layers over width", low=1 / 64, high=64.0)
    window: int = setting(16, "tokens that the model sees", low=1, high=256)

    @property
    def depth(self) -> int:
        return self.layers

    @property
    def hidden(self) -> int:
        """Width of the hidden layers."""
        return max(1, round(self.mlp_ratio * self.width))


@dataclass(frozen=True)
class TableConfig(BaseConfig):
    """A table of bigrams, by gradient (`bigram`) or by counting (`counts`): all sizes are given."""

    architecture: str = architecture_setting("bigram", "counts")


@dataclass(frozen=True)
class CustomConfig(BaseConfig):
    """Somebody else's model: `mypackage.models:MyGPT`, `./mine.py:MyGPT`, an entry point, `hf:gpt2`
    (see addgpt/model/custom.py)."""

    architecture: str = setting("", "package.module:Class, file.py:Class, an entry point, hf:KIND")
    layers: int = setting(2, "layers, if the model has any", **LAYERS)
    width: int = setting(128, "channels of a token between layers", **WIDTH)
    heads: int = setting(4, "attention heads", low=1, high=1024)

    @property
    def longest(self) -> int | None:
        return self.context

    @property
    def depth(self) -> int:
        return self.layers


ARCHITECTURES = "addgpt.architectures"  # the entry point group of other packages' models

ModelConfig = GPTConfig | GRUConfig | MLPConfig | TableConfig | ExternalConfig | CustomConfig
CONFIGS: dict[str, type[ModelConfig]] = {
    "gpt": GPTConfig, "gru": GRUConfig, "mlp": MLPConfig, "bigram": TableConfig,
    "counts": TableConfig,
}  # fmt: skip


def model_settings() -> list[str]:
    """The names of all settings of all architectures that a person may set."""
    found = {name: None for cls in CONFIGS.values() for name in names_of(cls)}
    return [name for name in found if name not in TOLD]


def model_config(data: Mapping[str, Any]) -> ModelConfig:
    """The config that a plain dict holds. Raises ValueError."""
    if not isinstance(data, dict):
        raise UsageError(f"model must be a table of settings, not {data!r}")
    name = data.get("architecture", "gpt")
    if name == "external":
        return from_dict(ExternalConfig, data, "model")
    return from_dict(_class_of(name), data, "model")


def with_model_settings(config: ModelConfig, changes: Mapping[str, Any]) -> ModelConfig:
    """A copy of a config with other values, text or not.

    Another `architecture` starts from the usual shape of that one, for the same task. Raises
    ValueError, naming the valid settings, for one that the architecture does not have.
    """
    name = changes.get("architecture", config.architecture)
    cls = _class_of(name)
    if name != config.architecture:
        sizes = {size: getattr(config, size) for size in FROM_TASK}
        config = cls(**sizes, architecture=name)  # type: ignore[call-arg]
    valid = [setting for setting in names_of(cls) if setting not in TOLD]
    for key in changes:
        if key not in (*valid, *TOLD):
            raise unknown("setting", key, valid, f" of architecture={name}")
    return with_settings(config, changes)


def _class_of(name: Any) -> type[ModelConfig]:
    if isinstance(name, str) and name in CONFIGS:
        return CONFIGS[name]
    if isinstance(name, str) and (":" in name or name in entry_points(group=ARCHITECTURES).names):
        return CustomConfig
    valid = f"{', '.join(CONFIGS)}, or a class of your own such as mypackage.models:MyGPT"
    raise UsageError(f"architecture must be one of {valid}, not {name!r}")
