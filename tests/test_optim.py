"""Optimizers against naive ones, schedules by their shape."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from addgpt.config.schema import TrainConfig
from addgpt.training import optim

SHAPES = [(8, 8), (16, 8), (8, 24), (3, 8, 8), (2, 5, 12)]


def random(shape, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def naive_orthogonal(matrix: np.ndarray) -> np.ndarray:
    """One matrix at a time; Newton-Schulz on singular values alone."""
    u, s, v = np.linalg.svd(matrix, full_matrices=False)
    s = s / (np.linalg.norm(matrix) + 1e-7)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ v


def each(matrix: torch.Tensor, function) -> np.ndarray:
    flat = matrix.reshape(-1, *matrix.shape[-2:]).numpy()
    return np.stack([function(m) for m in flat]).reshape(matrix.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalise_is_the_naive_iteration(shape):
    matrix = random(shape)
    found = optim.orthogonalise(matrix).numpy()
    np.testing.assert_allclose(found, each(matrix, naive_orthogonal), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_orthogonalise_brings_singular_values_near_1_and_keeps_directions(shape, scale):
    matrix = random(shape, seed=1) * scale
    found = optim.orthogonalise(matrix)
    size = torch.linalg.svdvals(found)
    good = torch.linalg.svdvals(matrix) > 0.02 * matrix.norm(dim=(-2, -1)).max()
    assert (size[good] > 0.6).all() and (size < 1.3).all()
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    nearest = u @ v
    cosine = (found * nearest).sum() / found.norm() / nearest.norm()
    assert cosine > 0.93


@pytest.mark.parametrize("shape", SHAPES)
def test_muon_steps_as_its_definition_says(shape):
    weight = torch.nn.Parameter(random(shape, seed=2))
    wanted, momentum = weight.detach().clone().numpy(), np.zeros(shape)
    muon = optim.Muon([weight], lr=0.02, momentum=0.9, weight_decay=0.1)
    rows, columns = shape[-2:]
    for step in range(4):
        gradient = random(shape, seed=10 + step)
        weight.grad = gradient.clone()
        muon.step()
        momentum = 0.9 * momentum + gradient.numpy()
        update = each(gradient + 0.9 * torch.from_numpy(momentum), naive_orthogonal)
        wanted = wanted * (1 - 0.02 * 0.1) - 0.02 * max(1, rows / columns) ** 0.5 * update
        np.testing.assert_allclose(weight.detach().numpy(), wanted, atol=1e-6)


def test_muon_leaves_a_parameter_without_gradient():
    weight = torch.nn.Parameter(random((4, 4)))
    before = weight.detach().clone()
    optim.Muon([weight], lr=1.0).step()
    assert torch.equal(weight.detach(), before)


@pytest.mark.parametrize("optimizer", ("muon", "adamw"))
@pytest.mark.parametrize("tied", [True, False])
def test_groups_cover_every_parameter_once(toy_model, optimizer, tied):
    model = toy_model(levels=(4, 4), position="learned", norm="layer", tied=tied)
    built = optim.build(model, TrainConfig(optimizer=optimizer, weight_decay=0.1))
    groups = [(o, g) for o in built for g in o.param_groups]
    found = [id(p) for _, group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in model.parameters())
    parts = ("attention.qkv", "attention.out", "mlp.up", "mlp.down")
    matrices = {f"blocks.{i}.{part}.weight" for i in (0, 1) for part in parts}
    names = {id(p): name for name, p in model.named_parameters()}
    for kind, group in groups:
        inside = {names[id(p)] for p in group["params"]}
        assert inside == matrices or not inside & matrices
        assert isinstance(kind, optim.Muon) == (optimizer == "muon" and inside == matrices)
        assert (group["weight_decay"] > 0) == (inside == matrices)


@pytest.mark.parametrize("optimizer", ("muon", "adamw"))
def test_the_second_beta_of_adam_is_a_setting(toy_model, optimizer):
    built = optim.build(toy_model(), TrainConfig(optimizer=optimizer, beta2=0.75))
    adams = [o for o in built if not isinstance(o, optim.Muon)]
    assert adams and all(g["betas"] == (0.9, 0.75) for o in adams for g in o.param_groups)


@given(
    st.sampled_from(sorted(optim.SCHEDULES)),
    st.integers(0, 50),
    st.integers(60, 300),
    st.floats(0, 1),
)
def test_a_schedule_rises_to_the_peak_then_never_rises(schedule, warmup, steps, final):
    config = TrainConfig(schedule=schedule, warmup=warmup, steps=steps, final_lr=final)
    rates = [optim.rate(step, config) for step in range(steps + 1)]
    for step in range(warmup):
        assert rates[step] == pytest.approx((step + 1) / warmup)
    after = rates[warmup:]
    assert after[0] == 1 and all(x >= y for x, y in zip(after, after[1:], strict=False))
    assert all(0 <= rate <= 1 for rate in rates)
    last = {"constant": 1.0, "inverse_sqrt": max(1, steps / max(1, warmup)) ** -0.5}
    wanted = max(last.get(schedule, 0.0), final)
    assert after[-1] == pytest.approx(wanted, abs=1e-12)


def test_schedules_differ_in_the_middle_as_named():
    base = TrainConfig(warmup=0, steps=100, final_lr=0)
    found = {
        name: [optim.rate(s, dataclasses.replace(base, schedule=name)) for s in (25, 50, 75)]
        for name in optim.SCHEDULES
    }
    assert found["constant"] == [1, 1, 1]
    assert found["linear"] == pytest.approx([0.75, 0.5, 0.25])
    assert found["inverse_sqrt"] == pytest.approx([1 / 5, 50**-0.5, 75**-0.5])
    assert found["cosine"] == pytest.approx([0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])


def test_a_stable_rate_falls_in_the_last_fifth():
    config = TrainConfig(schedule="wsd", warmup=10, steps=110, final_lr=0)
    found = [optim.rate(step, config) for step in (10, 60, 90, 95, 100, 105, 110)]
    assert found == pytest.approx([1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_the_inverse_square_root_counts_in_units_of_the_warm_up():
    config = TrainConfig(schedule="inverse_sqrt", warmup=25, steps=1000, final_lr=0)
    assert [optim.rate(step, config) for step in (25, 100, 400)] == pytest.approx([1, 0.5, 0.25])


@pytest.mark.parametrize(("limit", "wanted"), [(0.0, 5.0), (1.0, 1.0), (50.0, 5.0)])
def test_clipping_bounds_the_joint_norm_of_adamw_and_leaves_muon(limit, wanted):
    one, two, matrix = (torch.nn.Parameter(torch.zeros(n, n)) for n in (1, 1, 2))
    one.grad, two.grad, matrix.grad = (
        torch.full((1, 1), 3.0),
        torch.full((1, 1), 4.0),
        7 * random((2, 2)).float(),
    )
    before = matrix.grad.clone()
    optim.clip([torch.optim.AdamW([one, two]), optim.Muon([matrix], lr=0.1)], limit)
    assert float(torch.hypot(one.grad, two.grad)) == pytest.approx(wanted, rel=1e-4)
    assert torch.equal(matrix.grad, before)
