"""Which part of a model favours a token: direct logit attribution, and the logit lens.

Logits are a sum over what the embedding, each head and each MLP have written into the residual
stream, once the scale of the last norm is held as it is (Elhage et al. 2021, transformer circuits;
Wang et al. 2022, arXiv:2211.00593). The lens reads the stream as if the model ended there
(nostalgebraist 2020).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from addgpt.config.errors import UsageError
from addgpt.interpret.activations import Activations
from addgpt.model.gpt import GPT

LAYER_EPS = 1e-5  # of nn.LayerNorm


def attribution(model: GPT, found: Activations) -> tuple[list[str], np.ndarray]:
    """Names of P parts, and (P, T, V) what each adds to the logits; they sum to the logits of all
    characters that have a row.

    Parts are `embedding` (ids included), `head D.H` and `mlp D`. Raises UsageError for a model
    whose norms stand inside the residual stream: there the logits are no such sum.
    """
    config: Any = model.config
    if config.norm_place != "before":
        raise UsageError(f"logits are a sum of parts only with norm_place=before, not "
                         f"{config.norm_place}")  # fmt: skip
    names, parts = ["embedding"], [found["before.0"] * (config.loops if config.inject else 1)]
    for depth in range(config.depth):
        for head, part in enumerate(found[f"head.{depth}"]):
            names.append(f"head {depth}.{head}")
            parts.append(part)
        if config.hidden:
            names.append(f"mlp {depth}")
            parts.append(found[f"mlp.{depth}"])
    stacked = _normed(model, np.stack(parts), found[f"after.{config.depth - 1}"])
    bias = getattr(model.norm, "bias", None)
    if bias is not None:
        names.append("bias of the norm")
        stacked = np.concatenate([stacked, np.broadcast_to(_array(bias), stacked[:1].shape)])
    return names, stacked @ _array(_head(model)).T


def lens(model: GPT, found: Activations) -> tuple[list[str], np.ndarray]:
    """Names of S places in the residual stream, and (S, T, V) the logits read there."""
    names = [n for n in found if n.partition(".")[0] in ("before", "mid", "after")]
    names = [n for n in names if n == "before.0" or not n.startswith("before")]
    with torch.inference_mode():
        streams = torch.from_numpy(np.stack([found[name] for name in names]))
        head = _head(model)
        logits = F.linear(model.norm(streams.to(head)), head, model.unused)
    shown = {"before": "embedding", "mid": "after attention", "after": "after the MLP"}
    several = len(names) > 3
    labels = []
    for name in names:
        kind, _, depth = name.partition(".")
        labels.append(shown[kind] + (f" {depth}" if several and kind != "before" else ""))
    return labels, _array(logits)


def _normed(model: GPT, parts: np.ndarray, stream: np.ndarray) -> np.ndarray:
    """(P, T, C) parts of a stream (T, C), scaled as the last norm scales their sum."""
    name, weight = getattr(model.config, "norm", "none"), getattr(model.norm, "weight", None)
    if name == "none":
        return parts
    if name == "layer":
        parts = parts - parts.mean(-1, keepdims=True)
        scale = np.sqrt(stream.var(-1, keepdims=True) + LAYER_EPS)
    else:
        eps = np.finfo(np.float32).eps
        scale = np.sqrt(np.square(stream).mean(-1, keepdims=True) + eps)
    return parts / scale * (1 if weight is None else _array(weight))


def _head(model: GPT) -> torch.Tensor:
    head = model.token if model.head is None else model.head
    return head.matrix().detach()


def _array(x: torch.Tensor) -> np.ndarray:
    return x.detach().float().cpu().numpy()
