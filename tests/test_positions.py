"""How a position enters the model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from addgpt.config.architectures import GPTConfig
from addgpt.model import position_ids, positions, rotary
from addgpt.model.build import build

places = st.integers(0, 200)


def turned(x: torch.Tensor, rates: torch.Tensor, place: list[int]) -> torch.Tensor:
    """One channel vector at one place on each axis, each of which has channels of its own."""
    angle = torch.cat([rates.double() * one for one in place])[None, None, None]
    return rotary.apply_rotary(x[None, None, None], (angle.cos(), angle.sin()))[0, 0, 0]


def vectors(seed: int, count: int = 2, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("width", [2, 7, 16])
def test_the_sinusoidal_table_is_that_of_the_paper(width):
    table = positions.sinusoid_table(20, width)
    for place in range(20):
        for channel in range(width):
            angle = place / 10_000 ** ((channel - channel % 2) / width)
            wanted = math.cos(angle) if channel % 2 else math.sin(angle)
            assert float(table[place, channel]) == pytest.approx(wanted, abs=1e-5)


@given(places, places, places, st.integers(0, 99))
def test_a_rotary_score_depends_on_the_distance_alone(first, second, shift, seed):
    rates = rotary.frequencies(2, *rotary.ID_WAVES)
    query, key = vectors(seed)

    def score(move: int) -> float:
        q = turned(query, rates, [first + move, second + move, first])
        k = turned(key, rates, [second + move, first + move, second])
        return float(q @ k)

    assert score(shift) == pytest.approx(score(0), abs=1e-6)


@given(st.lists(places, min_size=3, max_size=3), st.integers(0, 99))
def test_turning_keeps_the_length_and_leaves_the_other_channels(place, seed):
    rates = rotary.frequencies(2, *rotary.ID_WAVES)
    x = vectors(seed)[0]
    out = turned(x, rates, place)
    assert float(out.norm()) == pytest.approx(float(x.norm()))
    assert torch.equal(out[2 * 3 * len(rates) :], x[2 * 3 * len(rates) :])
    assert torch.equal(turned(x, rates, [0, 0, 0]), x)


def rotating(head_width: int, index: bool, levels: int) -> GPTConfig:
    return GPTConfig(
        9,
        9,
        (9,) * levels,
        heads=1,
        width=head_width,
        position="rotary" if index else "none",
        level_position=("rotary",) * levels,
    )


def key_angles(model, ids: torch.Tensor) -> torch.Tensor:
    """(T, P) cosines of the angles that keys turn by."""
    slots = positions.Slots(ids, 1000 * torch.arange(ids.shape[1]), 0)
    (cosines, _) = rotary.joined([s.rotate(slots) for s in model.positions.values()])[1]
    return cosines[0, 0]


@pytest.mark.parametrize(("index", "levels"), [(True, 0), (False, 1), (False, 3), (True, 2)])
def test_each_channel_pair_follows_one_axis(index, levels):
    config = rotating(32, index, levels)
    model, pairs = build(config), rotary.rotary_pairs(config)
    ids = torch.zeros(1, 3, levels, dtype=torch.int64)
    still = key_angles(model, ids)
    assert still.shape == (2, pairs * (index + levels))
    assert 2 * pairs * (index + levels) <= (32 * rotary.LEVEL_SHARE if levels else 32)
    assert (still[1] != 1).nonzero().flatten().tolist() == list(range(pairs * index))
    for level in range(levels):
        moved = ids.clone()
        moved[:, :, level] = 1
        changed = (key_angles(model, moved) != still).any(0).nonzero().flatten().tolist()
        assert changed == list(range(pairs * (index + level), pairs * (index + level + 1)))


def test_level_ids_up_to_a_hundred_are_all_told_apart():
    rates = rotary.frequencies(12, *rotary.ID_WAVES)
    angles = torch.arange(100.0)[:, None] * rates
    codes = torch.cat([angles.cos(), angles.sin()], 1)
    distance = torch.cdist(codes, codes) + 9 * torch.eye(100)
    assert distance.min() > 0.05


@pytest.mark.parametrize(("width", "index", "levels"), [(1, True, 0), (2, False, 1), (6, True, 3)])
def test_a_head_too_narrow_is_refused(width, index, levels):
    with pytest.raises(ValueError, match=f"heads of {width} channels are too narrow"):
        rotary.rotary_pairs(rotating(width, index, levels))


class Biases(nn.Module):
    def __init__(self, relative: position_ids.RelativeIds) -> None:
        super().__init__()
        self.relative = relative

    def forward(self, slots: positions.Slots) -> torch.Tensor:
        return self.relative.bias(slots)


def test_the_gradient_of_relative_ids_is_that_of_finite_differences():
    config = GPTConfig(9, 9, (9, 9), heads=3, width=3, level_position=("relative", "relative"))
    relative, rng = (
        position_ids.RelativeIds(config, [0, 1]).double(),
        torch.Generator().manual_seed(0),
    )
    nn.init.normal_(relative.table, generator=rng)
    slots = positions.Slots(torch.randint(0, 12, (2, 7, 2), generator=rng), None, 0)
    assert torch.autograd.gradcheck(
        lambda table: functional_call(Biases(relative), {"relative.table": table}, (slots,)),
        relative.table.detach().requires_grad_(),
    )


def test_too_many_relative_levels_are_refused():
    with pytest.raises(ValueError, match="relative at most 4 times"):
        GPTConfig(9, 9, (9,) * 5, level_position=("relative",) * 5)


def test_relative_ids_are_told_apart_to_four_and_heads_start_unlike():
    model = build(GPTConfig(9, 9, (99,), level_position=("relative",), heads=2, kv_heads=1))
    table = model.positions["relative"].table.detach()
    window = torch.tensor([-16.0, -9, -4, -1, 0, -1, -4, -9, -16, 0])
    assert table.shape == (1, 2, 10) and 0.2 < (table - window).std() < 1
    assert not torch.allclose(table[0, 0], table[0, 1])
    ids = torch.tensor([[50]])
    keys = torch.tensor([[46, 45, 1, 54, 55, 98, 49, 0]])
    bias = model.positions["relative"].of_ids(ids[..., None], keys[:, None, :, None])
    wanted = table[0][:, [8, 8, 8, 0, 0, 0, 5, 9]]
    assert torch.equal(bias.detach()[0, :, 0], wanted)
