"""How a position enters the model."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.func import functional_call

from addgpt.config.schema import GPTConfig
from addgpt.model import positions
from addgpt.model.gpt import GPT

places = st.integers(0, 200)


def turned(x: torch.Tensor, rates: torch.Tensor, place: list[int]) -> torch.Tensor:
    """One channel vector at one place on each axis."""
    angle = rates.double() @ torch.tensor(place, dtype=torch.float64)
    spread = angle[None, None, None]
    return positions.turn(x[None, None, None], (spread.cos(), spread.sin()))[0, 0, 0]


def vectors(seed: int, count: int = 2, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("width", [2, 7, 16])
def test_the_sinusoidal_table_is_that_of_the_paper(width):
    table = positions.sinusoidal(20, width)
    for place in range(20):
        for channel in range(width):
            angle = place / 10_000 ** ((channel - channel % 2) / width)
            wanted = math.cos(angle) if channel % 2 else math.sin(angle)
            assert float(table[place, channel]) == pytest.approx(wanted, abs=1e-5)


@given(places, places, places, st.integers(0, 99))
def test_a_rotary_score_depends_on_the_distance_alone(first, second, shift, seed):
    rates = positions.rotary_rates(16, True, 2)
    query, key = vectors(seed)

    def score(move: int) -> float:
        q = turned(query, rates, [first + move, second + move, first])
        k = turned(key, rates, [second + move, first + move, second])
        return float(q @ k)

    assert score(shift) == pytest.approx(score(0), abs=1e-6)


@given(st.lists(places, min_size=3, max_size=3), st.integers(0, 99))
def test_turning_keeps_the_length_and_leaves_the_other_channels(place, seed):
    rates = positions.rotary_rates(16, True, 2)
    x = vectors(seed)[0]
    out = turned(x, rates, place)
    assert float(out.norm()) == pytest.approx(float(x.norm()))
    assert torch.equal(out[2 * len(rates) :], x[2 * len(rates) :])
    assert torch.equal(turned(x, rates, [0, 0, 0]), x)


@pytest.mark.parametrize(("index", "levels"), [(True, 0), (False, 1), (False, 3), (True, 2)])
def test_each_channel_pair_follows_one_axis(index, levels):
    rates = positions.rotary_rates(32, index, levels)
    assert rates.shape[1] == 1 + levels
    assert ((rates > 0).sum(1) == 1).all()
    used = (rates > 0).sum(0)
    assert used[0] == (used[-1] if index else 0)
    assert len(set(used[1 - index :].tolist())) == 1
    assert 2 * len(rates) <= (32 * positions.LEVEL_SHARE if levels else 32)


def test_level_ids_up_to_a_hundred_are_all_told_apart():
    rates = positions.rotary_rates(32, False, 1)[:, 1]
    angles = torch.arange(100.0)[:, None] * rates
    codes = torch.cat([angles.cos(), angles.sin()], 1)
    distance = torch.cdist(codes, codes) + 9 * torch.eye(100)
    assert distance.min() > 0.05


@pytest.mark.parametrize(("width", "index", "levels"), [(1, True, 0), (2, False, 1), (6, True, 3)])
def test_a_head_too_narrow_is_refused(width, index, levels):
    with pytest.raises(ValueError, match=f"heads of {width} channels are too narrow"):
        positions.rotary_rates(width, index, levels)


def test_the_gradient_of_relative_ids_is_that_of_finite_differences():
    relative, rng = positions.Relative(levels=2, heads=3).double(), torch.Generator().manual_seed(0)
    nn.init.normal_(relative.table, generator=rng)
    ids = torch.randint(0, 12, (2, 6, 2), generator=rng)
    assert torch.autograd.gradcheck(
        lambda table: functional_call(relative, {"table": table}, (ids[:, 2:], ids)),
        relative.table.detach().requires_grad_(),
    )


def test_too_many_relative_levels_are_refused():
    with pytest.raises(ValueError, match="relative at most 4 times"):
        GPTConfig(9, 9, (9,) * 5, level_position=("relative",) * 5)


def test_relative_ids_are_told_apart_to_four_and_heads_start_unlike():
    model = GPT(GPTConfig(9, 9, (99,), level_position=("relative",), heads=2, kv_heads=1))
    table = model.relative.table.detach()
    window = torch.tensor([-16.0, -9, -4, -1, 0, -1, -4, -9, -16, 0])
    assert table.shape == (1, 2, 10) and 0.2 < (table - window).std() < 1
    assert not torch.allclose(table[0, 0], table[0, 1])
    ids = torch.tensor([[50]])
    keys = torch.tensor([[46, 45, 1, 54, 55, 98, 49, 0]])
    bias = model.relative(ids[..., None], keys[..., None]).detach()  # (1, H, 1, 8)
    wanted = table[0][:, [8, 8, 8, 0, 0, 0, 5, 9]]
    assert torch.equal(bias[0, :, 0], wanted)
