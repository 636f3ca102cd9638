"""Somebody else's model as one of ours: tokens and position ids in, logits out.

`architecture=mypackage.models:MyGPT` (or `./mine.py:MyGPT`, or the name of an entry point of the
group `addgpt.architectures`) names a class, or a function that makes a model. It is called with the
config (`vocab`, `context`, `levels`, `width`, `layers`, `heads`), and what it makes is a Module
whose `forward(tokens, ids)` returns logits, or an object that has them:

    tokens  (B, T) long         what was read so far
    ids     (B, T + 1, L) long  position ids of these and of the next slot (L may be 0)
    logits  (B, T, V)           of the token after each; a place never depends on later ones

`architecture=hf:gpt2`, `hf:llama`, ... is a causal language model of transformers of these sizes.

Such a model needs no cache: for each token that it writes, it reads the whole text again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from addgpt.config.architectures import ARCHITECTURES, CustomConfig
from addgpt.config.errors import UsageError
from addgpt.model.baselines import Baseline, Memory
from addgpt.task_lookup import attribute, installed, loaded


class Reread(Memory):
    """All that was read: (B, T) tokens, (B, T + 1, L) ids."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: Tensor | None = None

    def extend(self, tokens: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Add what is new; return all of it."""
        if self.kept is not None and self.ids is not None:
            tokens = torch.cat((self.kept, tokens), 1)
            ids = torch.cat((self.ids[:, :-1], ids), 1)
        self.kept, self.ids = tokens, ids
        return tokens, ids

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.ids = None if self.ids is None else self.ids[rows]


class Custom(Baseline):
    """A model that another class makes."""

    config: CustomConfig

    def __init__(self, config: CustomConfig, seed: int | None = 0) -> None:
        super().__init__(config)
        with torch.random.fork_rng([]):
            if seed is not None:
                torch.manual_seed(seed)
            self.inner = _made(config)
        if not isinstance(self.inner, nn.Module):
            raise UsageError(f"{config.architecture} makes no torch.nn.Module: {self.inner!r}")

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        """(B, T, V) the logits: the inside of another model is not known."""
        new = tokens.shape[1]
        if isinstance(cache, Reread):
            tokens, ids = cache.extend(tokens, ids)
        found = self.inner(tokens, ids) if self.takes_ids else self.inner(tokens)
        logits = found if isinstance(found, Tensor) else found.logits
        wanted = (*tokens.shape, self.config.vocab)
        if logits.shape != wanted:
            name = self.config.architecture
            raise UsageError(f"{name} gives logits {tuple(logits.shape)}, not {wanted}")
        return logits[:, -new:]

    def logits(self, states: Tensor) -> Tensor:
        return states

    @property
    def takes_ids(self) -> bool:
        return not self.config.architecture.startswith("hf:")

    def muon_matrices(self) -> list[nn.Parameter]:
        """The weights of linear layers, but for the one that makes logits."""
        layers = [module for module in self.inner.modules() if isinstance(module, nn.Linear)]
        hidden = [layer for layer in layers if layer.out_features != self.config.vocab]
        return [p for layer in hidden for p in layer.parameters(recurse=False) if p.ndim == 2]


def _made(config: CustomConfig) -> Any:
    name = config.architecture
    if name.startswith("hf:"):
        return _of_transformers(name.removeprefix("hf:"), config)
    return _maker(name)(config)


def _maker(name: str) -> Callable[[CustomConfig], Any]:
    """The class or function that a name stands for. Raises UsageError."""
    points = installed(ARCHITECTURES)
    if name in points:
        return loaded(points[name], f"architecture {name}")
    try:
        return attribute(name)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"architecture {name} cannot be loaded: {error}") from error


def _of_transformers(kind: str, config: CustomConfig) -> nn.Module:
    """A causal language model of transformers, with random weights."""
    try:
        from transformers import AutoConfig, AutoModelForCausalLM
    except ImportError:
        raise UsageError("architecture=hf:… needs transformers: pip install 'addgpt[hf]'") from None
    sizes = {
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "intermediate_size": 4 * config.width,
        "max_position_embeddings": max(config.context, 2),
    }
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    try:
        shape = AutoConfig.for_model(kind, **sizes, **tokens, use_cache=False)
        return AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    except (ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(f"architecture hf:{kind}: {reason}") from None
