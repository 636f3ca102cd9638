"""Small models of the kinds below the GPT, their weights all random."""

from __future__ import annotations

import torch

from addgpt.config.schema import ModelConfig
from addgpt.model.build import KINDS, build

BASELINES = [kind for kind in KINDS if kind != "gpt"]
NETWORKS = ["gru", "mlp"]
LEVELS = (7, 5, 4)
SIZES = {"vocab": 11, "context": 20, "levels": LEVELS}
SMALL = {"gru": {"width": 6}, "mlp": {"width": 5, "mlp_ratio": 2, "window": 4}}


def scrambled(kind: str, seed: int = 0, **more):
    """A small model of a kind, all of whose weights are random, and that in float64."""
    model = build(ModelConfig(**{**SIZES, "kind": kind, **SMALL.get(kind, {}), **more}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.normal_(std=0.5, generator=generator)
            else:
                parameter.random_(0, 50, generator=generator)
    return model.double().eval()
