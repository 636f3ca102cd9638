"""The model of a config, whatever its architecture, and the cache it keeps while it writes."""

from __future__ import annotations

import torch

from addgpt.config.architectures import (
    CustomConfig,
    GPTConfig,
    GRUConfig,
    MLPConfig,
    ModelConfig,
)
from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.model.baselines import GRU, Baseline, Bigram, Counts, Memory, WindowMLP
from addgpt.model.custom import Custom, Reread
from addgpt.model.gpt import GPT
from addgpt.model.kv_cache import Cache, LocalCache
from addgpt.model.variants import gpt_of

Model = GPT | Baseline


def build(config: ModelConfig, seed: int | None = 0) -> Model:
    """The model of a config, its weights drawn from `seed` alone; None: shapes without content."""
    if isinstance(config, GPTConfig):
        return gpt_of(config, seed)
    if isinstance(config, GRUConfig):
        return GRU(config, seed)
    if isinstance(config, MLPConfig):
        return WindowMLP(config, seed)
    if isinstance(config, ExternalConfig):
        raise UsageError(f"{config.source} is an external model: only its answers are here")
    if isinstance(config, CustomConfig):
        return Custom(config, seed)
    return (Counts if config.architecture == "counts" else Bigram)(config)


def cache_of(config: ModelConfig, rows: int, length: int, device: torch.device) -> Cache | Memory:
    """The cache of a config's model for reading at most `length` tokens."""
    if isinstance(config, GPTConfig):
        return (LocalCache if config.local else Cache)(config, rows, length, device)
    return Reread() if isinstance(config, CustomConfig) else Memory()
