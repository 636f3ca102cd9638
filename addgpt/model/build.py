"""The model of a config, whatever its architecture, and what it carries along while it writes."""

from __future__ import annotations

import torch

from addgpt.config.architectures import ModelConfig
from addgpt.model.baselines import GRU, MLP, Baseline, Bigram, Counts, Memory
from addgpt.model.gpt import GPT
from addgpt.model.kv_cache import Cache

Model = GPT | Baseline
MODELS = {"gpt": GPT, "gru": GRU, "mlp": MLP, "bigram": Bigram, "counts": Counts}


def build(config: ModelConfig, seed: int = 0) -> Model:
    """The model of a config, its weights drawn from `seed` alone."""
    return MODELS[config.architecture](config, seed)


def cache_of(config: ModelConfig, rows: int, length: int, device: torch.device) -> Cache | Memory:
    """What the model of a config carries along while it reads at most `length` tokens."""
    return Cache(config, rows, length, device) if config.architecture == "gpt" else Memory()
