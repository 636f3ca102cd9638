"""Rotary positions: queries and keys are rotated by angles proportional to positions (Su et al.
2021, arXiv:2104.09864). Several positions share the channels of a head (Heo et al. 2024,
arXiv:2403.13298): each pair of channels follows one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from addgpt.config.architectures import GPTConfig
from addgpt.config.errors import UsageError

Angles = tuple[Tensor, Tensor]  # cosines and sines, each (B or 1, 1, T, P)

# Fastest rate, in radians per unit of position, and how many times slower the slowest pair is. The
# index in the text uses the usual long range; task ids are small numbers that must be told apart
# exactly, so their fastest pair turns by 135 degrees per step.
INDEX_WAVES = 1.0, 10_000.0
ID_WAVES = 0.75 * math.pi, 100.0
LEVEL_SHARE = 0.75  # of a head's channels turn when task ids do; the rest match by content alone


def frequencies(pairs: int, fastest: float, span: float) -> Tensor:
    """(pairs,) radians per unit of position: from `fastest` down to `fastest / span`."""
    return fastest * span ** -(torch.arange(pairs) / max(pairs - 1, 1))


def rotary_levels(config: GPTConfig) -> list[int]:
    """The id levels that rotate; one that gives queries two positions counts twice."""
    scheme = config.scheme
    both = [level for level, way in enumerate(scheme) if way in ("rotary", "rotary2")]
    return both + [level for level, way in enumerate(scheme) if way == "rotary2"]


def rotary_pairs(config: GPTConfig) -> int:
    """How many pairs of a head's channels each axis (the index, each id level) rotates.

    Raises ValueError if the head is too narrow, or odd where every channel turns.
    """
    levels, width = rotary_levels(config), config.width // config.heads
    axes = (config.position == "rotary") + len(levels)
    share = LEVEL_SHARE if levels else 1.0
    pairs = int(width * share) // (2 * axes)
    if pairs < 1:
        raise UsageError(f"heads of {width} channels are too narrow for {axes} rotary axes")
    if share == 1.0 and width % 2:
        raise UsageError(
            f"position=rotary turns pairs of channels, heads of {width} have an odd one out; "
            "choose width and heads so that width / heads is even"
        )
    return pairs


def query_and_key(
    angle: Tensor, from_target: bool, kept: int | None = None
) -> tuple[Angles, Angles]:
    """Cosines and sines for queries and keys from the angles (B, 1, T + 1, P) of all slots.

    A key turns with its own slot; a query with `from_target` with the next, in its first `kept`
    pairs (None: in all).
    """
    cos, sin = angle.cos(), angle.sin()
    own = cos[:, :, :-1], sin[:, :, :-1]
    if not from_target:
        return own, own
    query = cos[:, :, 1:], sin[:, :, 1:]
    if kept is not None:
        cos, sin = (torch.cat((query[i][..., :kept], own[i][..., kept:]), -1) for i in (0, 1))
        query = cos, sin
    return query, own


def joined(rotations: list[tuple[Angles, Angles]]) -> tuple[Angles, Angles] | None:
    """The angles of all schemes that rotate, for queries and for keys: each its own channels."""
    if len(rotations) < 2:
        return rotations[0] if rotations else None
    queries, keys = zip(*rotations, strict=True)
    return _beside(queries), _beside(keys)


def apply_rotary(x: Tensor, angles: Angles) -> Tensor:
    """Rotate the first 2 P channels of x (B, H, T, D) by angles (cos, sin), each (B, 1, T, P)."""
    cos, sin = angles
    pairs = cos.shape[-1]
    left, right, rest = x.split_with_sizes((pairs, pairs, x.shape[-1] - 2 * pairs), -1)
    return torch.cat((left * cos - right * sin, left * sin + right * cos, rest), dim=-1)


def _beside(parts: tuple[Angles, ...]) -> Angles:
    """Angles (B or 1, 1, T, P) of some schemes as those of all their pairs."""
    rows = max(len(cos) for cos, _ in parts)
    both = (tuple(x.expand(rows, -1, -1, -1) for x in xs) for xs in zip(*parts, strict=True))
    cos, sin = (torch.cat(xs, -1) for xs in both)
    return cos, sin
