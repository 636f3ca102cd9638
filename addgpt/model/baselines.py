"""The ladder of models below the GPT, as in makemore (Karpathy 2022), and `build` for all kinds.

A recurrent network, a window of the last tokens, and two bigrams. They are called as `GPT` is:
decoding and scoring know no kind, training only that counts have no gradient. The GRU and the MLP
are told what the GPT is: ids that the task gives enter by learned embeddings, of the token read
and, with `next_ids`, of the slot to be filled. Which tokens they see, and how, is their own.

Shapes: B rows, T tokens, L id levels, V tokens of the alphabet, C channels (`width`), N tokens of
the window. What each kind has settings for: `USES` in addgpt/config/architectures.py.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from addgpt.config.architectures import ModelConfig
from addgpt.model.attention import pick
from addgpt.task import Batch

SPREAD = 0.5  # standard deviation of embeddings at the start, as in GPT


class Memory:
    """What a baseline keeps of the tokens it has read: (B, ...), None before the first."""

    def __init__(self) -> None:
        self.kept: Tensor | None = None
        self.used = 0

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these."""
        self.kept = None if self.kept is None else self.kept[rows]


class Baseline(nn.Module):
    """A model that makes a state of each place from what it has read, and logits of the state."""

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
        return self.logits(states if at is None else pick(states, at))

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        """(B, T, S) what logits follow from: the last token itself, unless a kind knows more."""
        return tokens[:, :, None]

    def logits(self, states: Tensor) -> Tensor:
        """(B, T, S) -> (B, T, V)."""
        raise NotImplementedError

    def parameter_count(self) -> int:
        """Number of trained scalars, each counted once."""
        return sum(parameter.numel() for parameter in self.parameters())


class Embedded(Baseline):
    """What GRU and MLP share: tokens and ids are embedded as in GPT, and a head makes logits."""

    def __init__(self, config: ModelConfig, out: int) -> None:
        super().__init__(config)
        c = config
        scheme = c.scheme
        self.added = [level for level, how in enumerate(scheme) if how == "learned"]
        self.token = nn.Embedding(c.vocab, c.width)
        self.level = nn.ModuleList(nn.Embedding(c.levels[i], c.width) for i in self.added)
        self.next_level = nn.ModuleList(
            nn.Embedding(c.levels[i], c.width) for i in self.added if c.next_ids
        )
        self.head = nn.Parameter(torch.empty(c.vocab, out))

    def embed(self, tokens: Tensor, ids: Tensor) -> Tensor:
        """(B, T, C) sums of the vectors of a token, of its ids and of those of the next slot."""
        x = self.token(tokens)
        for table, level in zip(self.level, self.added, strict=True):
            x = x + table(ids[:, :-1, level])
        for table, level in zip(self.next_level, self.added, strict=False):
            x = x + table(ids[:, 1:, level])
        return x

    def initialise(self, seed: int) -> None:
        """Embeddings at 0.5, matrices within 1/sqrt(fan-in) as torch has them, all else zero."""
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.startswith("blocks.") and parameter.ndim == 2:
                most = parameter.shape[1] ** -0.5
                nn.init.uniform_(parameter, -most, most, generator=generator)
            elif name.startswith(("token.", "level.", "next_level.")):
                nn.init.normal_(parameter, std=SPREAD, generator=generator)
            else:
                nn.init.zeros_(parameter)


class GRU(Embedded):
    """A gated recurrent network of `layers` layers (Cho et al. 2014, arXiv:1406.1078)."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__(config, config.width)
        self.blocks = nn.GRU(config.width, config.width, config.layers, batch_first=True)
        self.initialise(seed)

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        before = None
        if cache is not None and cache.kept is not None:
            before = cache.kept.transpose(0, 1).contiguous()  # (layers, B, C)
        states, last = self.blocks(self.embed(tokens, ids), before)
        if cache is not None:
            cache.kept = last.transpose(0, 1)
        return states

    def logits(self, states: Tensor) -> Tensor:
        return F.linear(states, self.head)


class MLP(Embedded):
    """The last N tokens' vectors, side by side, through tanh layers.

    After Bengio et al. 2003, JMLR 3:1137, without their direct connections from the vectors to the
    logits. Before the first token stands a trained vector.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        c = config
        super().__init__(c, c.hidden)
        sizes = [c.window * c.width, *[c.hidden] * c.layers]
        self.blocks = nn.ModuleList(
            nn.Linear(have, want) for have, want in zip(sizes, sizes[1:], strict=False)
        )
        self.blank = nn.Parameter(torch.empty(c.width))
        self.initialise(seed)

    def states(self, tokens: Tensor, ids: Tensor, cache: Memory | None) -> Tensor:
        window = self.config.window
        before = self.blank.expand(len(tokens), window - 1, -1)
        if cache is not None and cache.kept is not None:
            before = cache.kept
        x = torch.cat((before, self.embed(tokens, ids)), 1)  # (B, N - 1 + T, C)
        if cache is not None:
            cache.kept = x[:, tokens.shape[1] :]
        return x.unfold(1, window, 1).flatten(2)  # (B, T, C N)

    def logits(self, states: Tensor) -> Tensor:
        for layer in self.blocks:
            states = layer(states).tanh()
        return F.linear(states, self.head)


class Bigram(Baseline):
    """A table of logits, trained as any weights are: the row of the last token."""

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__(config)
        self.table = nn.Parameter(torch.zeros(config.vocab, config.vocab))

    def logits(self, states: Tensor) -> Tensor:
        return F.embedding(states[..., 0], self.table)


class Counts(Baseline):
    """The bigram in closed form: how often each token followed each, plus one, as shares.

    What training draws is counted (`tally`, then `add`), and nothing is optimised. One is added to
    each count (Laplace), so that no pair is impossible.
    """

    def __init__(self, config: ModelConfig, seed: int = 0) -> None:
        super().__init__(config)
        table = torch.zeros(config.vocab, config.vocab, dtype=torch.int64)  # exact at any size
        self.counts = nn.Parameter(table, requires_grad=False)

    def logits(self, states: Tensor) -> Tensor:
        rows = F.embedding(states[..., 0], self.counts) + 1
        return rows.float().log() - rows.sum(-1, keepdim=True).float().log()

    def tally(self, batch: Batch) -> None:
        """Put the scored pairs of a batch where other models have their gradient."""
        scored, size = batch.scored[:, 1:], self.config.vocab
        last, following = batch.tokens[:, :-1][scored], batch.tokens[:, 1:][scored]
        pairs = torch.from_numpy(last.astype("int64") * size + following)
        found = torch.bincount(pairs, minlength=size**2).view(size, size)
        self.counts.grad = found.to(self.counts.device)

    def add(self) -> None:
        """Add what `tally` found, on all workers, to the counts."""
        self.counts += self.counts.grad
        self.counts.grad = None
