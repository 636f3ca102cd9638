"""Small models of the kinds below the GPT, their weights all random."""

from __future__ import annotations

import torch

from addgpt.config.architectures import CONFIGS, ModelConfig, model_config
from addgpt.model.build import build

BASELINES = [name for name in CONFIGS if name != "gpt"]
TABLES = ("bigram", "counts")
NETWORKS = ["gru", "mlp"]
LEVELS = (7, 5, 4)
SIZES = {"vocab": 11, "context": 20, "levels": LEVELS}
SMALL = {"gru": {"width": 6}, "mlp": {"width": 5, "mlp_ratio": 2, "window": 4}}


def sized(architecture: str, **more) -> ModelConfig:
    """The config of an architecture on a small task."""
    return model_config({**SIZES, "architecture": architecture, **more})


def scrambled(kind: str, seed: int = 0, **more):
    """A small model of a kind, all of whose weights are random, and that in float64."""
    model = build(sized(kind, **SMALL.get(kind, {}) | more))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.normal_(std=0.5, generator=generator)
            else:
                parameter.random_(0, 50, generator=generator)
    return model.double().eval()
