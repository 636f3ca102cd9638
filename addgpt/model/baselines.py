"""The ladder of models below the GPT, as in makemore (Karpathy 2022).

A recurrent network, a window of the last tokens, and two bigrams. They are called as `GPT` is, so
decoding and scoring need not know the architecture. The GRU and the MLP get the same position ids
as the GPT, as learned embeddings: those of the token read and, with `next_ids`, of the slot to be
filled. Which tokens they see, and how, is their own.

Shapes: B rows, T tokens, L id levels, V tokens of the alphabet, C channels (`width`), N tokens of
the window.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import GRUConfig, MLPConfig, ModelConfig, TableConfig
from addgpt.model.attention import gather
from addgpt.model.gpt import EMBEDDING_STD
from addgpt.model.layers import Embedding, Head
from addgpt.model.position_ids import LearnedIds
from addgpt.model.positions import Slots
from addgpt.task import Batch


class Memory:
    """What a baseline keeps of the tokens it has read: (B, ...), None before the first."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.used = 0

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.kept = None if self.kept is None else self.kept[rows]


class Baseline(nn.Module):
    """A model that computes a state at each place from what it has read, and logits from it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        config.check_sizes()
        self.config = config

    def forward(
        self,
        tokens: Tensor,
        ids: Tensor,
        cache: Memory | None = None,
        at: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token; arguments and result are those of `GPT.forward`."""
        states = self.states(tokens, ids, cache)
        if cache is not None:
            cache.used += tokens.shape[1]
        return self.logits(states if at is None else gather(states, at))

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        """(B, T, S) the states that logits follow from: by default the last token itself."""
        return tokens[:, :, None]

    def logits(self, states: Tensor) -> Tensor:
        """(B, T, S) -> (B, T, V)."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


class Embedded(Baseline):
    """What GRU and MLP share: tokens and ids are embedded as in GPT, and a head makes logits."""

    def __init__(self, config: GRUConfig | MLPConfig, out: int) -> None:
        super().__init__(config)
        levels = [level for level, way in enumerate(config.scheme) if way == "learned"]
        self.token = Embedding(config.vocab, config.width, per="token")
        self.ids = LearnedIds(config, levels)
        self.head = Head(config.vocab, out)

    def embed(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """(B, T, C) sums of the vectors of a token, of its ids and of those of the next slot."""
        return self.ids.embed(self.token(tokens), Slots(ids, None, 0))

    def init_weights(self, generator: torch.Generator) -> None:
        """Embeddings at 0.5, matrices within 1/sqrt(fan-in) as torch has them, all else zero."""
        self.token.init_weights(generator, EMBEDDING_STD)
        self.ids.init_weights(generator, EMBEDDING_STD)
        self.head.init_weights(generator, zero=True)


class Recurrent(nn.GRU):
    """The layers of a GRU."""

    def muon_matrices(self) -> list[nn.Parameter]:
        return [p for p in self.parameters() if p.ndim == 2]

    def reset_parameters(self) -> None:
        """Nothing: see `init_weights`."""

    def init_weights(self, generator: torch.Generator) -> None:
        for parameter in self.parameters():
            _uniform(parameter, generator)


class Layer(nn.Linear):
    """A layer of the MLP."""

    weight: nn.Parameter

    def muon_matrices(self) -> list[nn.Parameter]:
        return [self.weight]

    def reset_parameters(self) -> None:
        """Nothing: see `init_weights`."""

    def init_weights(self, generator: torch.Generator) -> None:
        _uniform(self.weight, generator)
        _uniform(self.bias, generator)


class GRU(Embedded):
    """A gated recurrent network of `layers` layers (Cho et al. 2014, arXiv:1406.1078)."""

    def __init__(self, config: GRUConfig, seed: int | None = 0) -> None:
        super().__init__(config, config.width)
        self.blocks = Recurrent(config.width, config.width, config.layers, batch_first=True)
        if seed is not None:
            self.init_weights(torch.Generator().manual_seed(seed))

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        before = None
        if cache is not None and cache.kept is not None:
            before = cache.kept.transpose(0, 1).contiguous()  # (layers, B, C)
        states, last = self.blocks(self.embed(tokens, ids), before)
        if cache is not None:
            cache.kept = last.transpose(0, 1)
        return states

    def logits(self, states: Tensor) -> Tensor:
        return self.head(states)

    def init_weights(self, generator: torch.Generator) -> None:
        super().init_weights(generator)
        self.blocks.init_weights(generator)


class WindowMLP(Embedded):
    """The last N tokens' vectors, side by side, through tanh layers.

    After Bengio et al. 2003, JMLR 3:1137, without their direct connections from the vectors to the
    logits. Before the first token stands a trained vector.
    """

    config: MLPConfig

    def __init__(self, config: MLPConfig, seed: int | None = 0) -> None:
        c = config
        super().__init__(c, c.hidden)
        sizes = [c.window * c.width, *[c.hidden] * c.layers]
        self.blocks = nn.ModuleList(
            Layer(have, want) for have, want in zip(sizes, sizes[1:], strict=False)
        )
        self.blank = nn.Parameter(torch.empty(c.width))
        if seed is not None:
            self.init_weights(torch.Generator().manual_seed(seed))

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        window = self.config.window
        before = self.blank.expand(tokens.shape[0], window - 1, -1)
        if cache is not None and cache.kept is not None:
            before = cache.kept
        x = torch.cat((before, self.embed(tokens, ids)), 1)  # (B, N - 1 + T, C)
        if cache is not None:
            cache.kept = x[:, tokens.shape[1] :]
        return x.unfold(1, window, 1).flatten(2)  # (B, T, C N)

    def logits(self, states: Tensor) -> Tensor:
        for layer in self.blocks:
            states = layer(states).tanh()
        return self.head(states)

    def init_weights(self, generator: torch.Generator) -> None:
        super().init_weights(generator)
        for layer in self.blocks:
            layer.init_weights(generator)  # type: ignore[operator]
        nn.init.zeros_(self.blank)


class Bigram(Baseline):
    """A table of logits, trained as any weights are: the row of the last token."""

    def __init__(self, config: TableConfig, seed: int | None = 0) -> None:
        super().__init__(config)
        self.table = nn.Parameter(torch.zeros(config.vocab, config.vocab))

    def logits(self, states: Tensor) -> Tensor:
        return F.embedding(states[..., 0], self.table)


class Counts(Baseline):
    """The bigram in closed form: how often each token followed each, plus one, as probabilities.

    Nothing is optimised: what training draws is counted (`add`). One is added to each count
    (Laplace), so that no pair is impossible.
    """

    def __init__(self, config: TableConfig, seed: int | None = 0) -> None:
        super().__init__(config)
        table = torch.zeros(config.vocab, config.vocab, dtype=torch.int64)  # exact at any size
        self.counts = nn.Parameter(table, requires_grad=False)

    def logits(self, states: Tensor) -> Tensor:
        rows = F.embedding(states[..., 0], self.counts) + 1
        return rows.float().log() - rows.sum(-1, keepdim=True).float().log()

    def pairs(self, batch: Batch) -> np.ndarray:
        """(V, V) how often each token follows each where a batch is scored."""
        scored, size = batch.scored[:, 1:], self.config.vocab
        last, following = batch.tokens[:, :-1][scored], batch.tokens[:, 1:][scored]
        codes = last.astype(np.int64) * size + following
        return np.bincount(codes, minlength=size**2).reshape(size, size)

    def add(self, pairs: np.ndarray) -> None:
        """Add pairs to the counts."""
        self.counts.add_(torch.from_numpy(pairs).to(self.counts.device))


def _uniform(parameter: Tensor, generator: torch.Generator) -> None:
    """A matrix within 1/sqrt(fan-in); a bias at zero."""
    if parameter.ndim < 2:
        nn.init.zeros_(parameter)
        return
    most = parameter.shape[1] ** -0.5
    nn.init.uniform_(parameter, -most, most, generator=generator)
