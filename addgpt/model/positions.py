"""How a position enters the model: added to the embedding, as a rotation of queries and keys, or
added to their products.

A *position* is either the index in the text or an id that the task gives (the digit's place
value, the row of a trace, ...). Added schemes give each position a vector. The rotary scheme turns
pairs of channels of queries and keys by an angle proportional to the position (Su et al. 2021,
arXiv:2104.09864), so that attention can ask for "same column, one row up" once and for all columns
and rows. Several positions share the channels of a head between them (as in axial rotary
embeddings, Heo et al. 2024, arXiv:2403.13298). ALiBi, FIRE and relative ids, the default of
arithmetic, add to each product of a query and a key what follows from their positions alone.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Wave lengths of the rotation. The index in the text uses the usual long range; task ids are small
# numbers that must be told apart exactly, so their fastest pair turns by 135 degrees per step.
INDEX_FASTEST, INDEX_RANGE = 1.0, 10_000.0
LEVEL_FASTEST, LEVEL_RANGE = 0.75 * math.pi, 100.0

# Share of a head's channels that turn when task ids do; the rest match by content alone.
LEVEL_SHARE = 0.75

# Relative ids: differences beyond NEAR count as NEAR; the last entry is for keys without a place.
NEAR = 4
ENTRIES = 2 * NEAR + 2

FIRE_HIDDEN = 32
FIRE_THRESHOLD = 0.25  # of the longest sequence: distances are measured against at least that


def drawn(count: int, below: int) -> Tensor:
    """(count,) places below a bound, drawn at random, in order (Ruoss et al. 2023,
    arXiv:2305.16843)."""
    return torch.randperm(below)[:count].sort().values


def sinusoidal(count: int, width: int) -> Tensor:
    """(count, width) table of sines and cosines (Vaswani et al. 2017, arXiv:1706.03762)."""
    place = torch.arange(count, dtype=torch.float32)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(count, width)
    table[:, 0::2] = torch.sin(place * rate)
    table[:, 1::2] = torch.cos(place * rate)[:, : width // 2]
    return table


def rotary_rates(head_width: int, index: bool, levels: int) -> Tensor:
    """(pairs, 1 + levels) radians that each channel pair turns per unit of each position.

    Column 0 is the index in the text, column 1 + l the l-th rotary level. Each pair follows one
    position only. Raises ValueError if the head is too narrow, or odd where every channel turns.
    """
    axes = int(index) + levels
    share = LEVEL_SHARE if levels else 1.0
    pairs = int(head_width * share) // (2 * axes)
    if pairs < 1:
        raise ValueError(f"heads of {head_width} channels are too narrow for {axes} rotary axes")
    if share == 1.0 and head_width % 2:
        raise ValueError(
            f"position=rotary turns pairs of channels, heads of {head_width} have an odd one out; "
            "choose width and heads so that width / heads is even"
        )
    # On the CPU also where shapes alone are asked for: working this out there is slow to load.
    rates = torch.zeros(pairs * axes, 1 + levels, device="cpu")
    columns = range(0 if index else 1, 1 + levels)
    for axis, column in enumerate(columns):
        fastest, span = (
            (INDEX_FASTEST, INDEX_RANGE) if column == 0 else (LEVEL_FASTEST, LEVEL_RANGE)
        )
        steps = torch.arange(pairs, device="cpu") / max(pairs - 1, 1)
        rates[axis * pairs : (axis + 1) * pairs, column] = fastest * span**-steps
    return rates


def turn(x: Tensor, angle: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the first 2 P channels of x (B, H, T, D) by angles (cos, sin), each (B, 1, T, P)."""
    cos, sin = angle
    pairs = cos.shape[-1]
    left, right, rest = x.split((pairs, pairs, x.shape[-1] - 2 * pairs), dim=-1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos, rest), dim=-1)


def alibi(places: Tensor, keys: Tensor, heads: int) -> Tensor:
    """(H, S, T) minus distance times a slope of each head (Press et al. 2022, arXiv:2108.12409).

    The slopes are 2^(-8 / H), 2^(-16 / H), ..., 2^-8, also where H is no power of two.
    """
    slopes = 2.0 ** (torch.arange(1, heads + 1, device=keys.device) * (-8 / heads))
    return -slopes[:, None, None] * (places[:, None] - keys).abs()


class Fire(nn.Module):
    """FIRE (Li et al. 2024, arXiv:2310.04418): a network of the relative distance.

    The distance of a key enters on a log scale, over the query's place or a trained threshold
    (whichever is larger), so it is at most 1 at any length. One network serves all blocks, as the
    paper's FIRE-S. Its output has no bias: what is added to all keys alike changes nothing.
    """

    def __init__(self, heads: int, context: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.1))
        self.threshold = nn.Parameter(torch.tensor(max(1.0, FIRE_THRESHOLD * context)))
        self.rise = nn.Parameter(torch.empty(FIRE_HIDDEN))
        self.shift = nn.Parameter(torch.empty(FIRE_HIDDEN))
        self.mix = nn.Parameter(torch.empty(heads, FIRE_HIDDEN))

    def forward(self, places: Tensor, keys: Tensor) -> Tensor:
        """(H, S, T) from (S,) places of queries and (T,) of keys."""

        def log(x: Tensor) -> Tensor:
            return (self.scale.abs() * x + 1).log()

        reach = torch.maximum(places.to(self.scale.dtype), self.threshold.abs())
        share = log((places[:, None] - keys).abs()) / (log(reach)[:, None] + 1e-6)  # (S, T)
        hidden = F.relu(share[:, :, None] * self.rise + self.shift)  # (S, T, N)
        return (hidden @ self.mix.T).permute(2, 0, 1)


class Relative(nn.Module):
    """A trained bias for each difference of two ids (Raffel et al. 2020, arXiv:1910.10683), where
    large differences are all alike (Shaw et al. 2018, arXiv:1803.02155).

    A key of id 0, which means no place on that level, has a bias of its own, the last of the table:
    what all rows refer to, such as an operand, is as near at any length. One table for each level
    and head serves all blocks. It starts as a window on near ids (`window`), to which the model
    adds noise.
    """

    def __init__(self, levels: int, heads: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(levels, heads, ENTRIES))

    @staticmethod
    def window() -> Tensor:
        """(ENTRIES,) where biases start: at -16 for large differences, which training moves little,
        so that a thousand far tokens together still weigh nothing against a near one.
        """
        return F.pad(-torch.arange(-NEAR, NEAR + 1.0).square(), (0, 1))

    def forward(self, ids: Tensor, keys: Tensor) -> Tensor:
        """(B, H, S, T) from the ids (B, S, L) of queries and (B, T, L) of keys."""
        ids, keys = ids.int(), keys.int()
        tables, codes = None, None  # (H, K) all levels' biases as one, (B, S, T) which of the K
        for level, table in enumerate(self.table):
            key = keys[:, None, :, level]
            apart = (ids[:, :, None, level] - key).clamp(-NEAR, NEAR) + NEAR
            apart = apart.masked_fill(key == 0, ENTRIES - 1)
            if codes is None:
                tables, codes = table, apart
            else:
                tables = (tables[:, :, None] + table[:, None]).flatten(1)
                codes = codes * ENTRIES + apart
        return _Lookup.apply(tables, codes)


class _Lookup(torch.autograd.Function):
    """(B, H, S, T) entries of tables (H, K) at codes (B, S, T).

    An embedding does the same, but its gradient took eight times as long for tables this small.
    On CUDA the order of its sums, and so their last bits, may differ from run to run. There is no
    gradient of the gradient.
    """

    @staticmethod
    def forward(ctx, tables: Tensor, codes: Tensor) -> Tensor:
        ctx.save_for_backward(codes)
        ctx.size = tables.shape[1]
        found = tables.new_empty(len(codes), len(tables), *codes.shape[1:])
        for head, table in enumerate(tables):
            found[:, head] = table[codes]
        return found

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:
        (codes,) = ctx.saved_tensors
        kind = torch.promote_types(grad.dtype, torch.float32)
        sums = grad.new_zeros(grad.shape[1], ctx.size, dtype=kind)
        for head, total in enumerate(sums):
            total.index_add_(0, codes.flatten(), grad[:, head].flatten().to(kind))
        return sums.to(grad.dtype), None
