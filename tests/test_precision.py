"""bfloat16: where it is taken, and that it computes the same but for its rounding."""

import pytest
import torch

from addgpt import device
from addgpt.config.architectures import GPTConfig
from addgpt.device import WIDE, autocast, compute_dtype
from addgpt.model.attention import attend
from addgpt.model.build import build
from addgpt.training import optim
from addgpt.training.loop import TrainState, train

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BFLOAT16, FLOAT32 = torch.bfloat16, torch.float32


@pytest.mark.parametrize(
    "precision, width, has, wanted",
    [
        ("float32", 4 * WIDE, True, FLOAT32),
        ("bfloat16", 8, False, BFLOAT16),
        ("auto", WIDE, True, BFLOAT16),
        ("auto", WIDE, False, FLOAT32),
        ("auto", WIDE - 1, True, FLOAT32),
    ],
)
def test_auto_is_bfloat16_for_wide_models_where_the_cpu_has_it(
    monkeypatch, precision, width, has, wanted
):
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: has)
    assert compute_dtype(CPU, precision, GPTConfig(width=width, heads=1)) is wanted


def test_large_position_ids_are_told_apart_in_bfloat16():
    config = GPTConfig(
        vocab=7, context=8, levels=(9000,), level_position=("rotary",), layers=1, width=32, heads=2
    )
    model = build(config)
    torch.nn.init.normal_(model.blocks[0].attention.out.weight, std=0.3)
    torch.nn.init.normal_(model.head.weight, std=0.3)
    tokens = torch.randint(7, (16, 8), generator=torch.Generator().manual_seed(0))
    ids = 8000 + torch.arange(9).expand(16, -1)[..., None]
    exact = model(tokens, ids)
    with autocast(CPU, BFLOAT16):
        rounded = model(tokens, ids)
    assert rounded.dtype == BFLOAT16
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("kind", ["causal", "bool", "added"])
def test_attention_and_its_gradient_are_those_of_float32(kind, groups):
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(3, 4, 6, 8, generator=generator).to(BFLOAT16)
    key, value = (torch.randn(3, groups, 6, 8, generator=generator).to(BFLOAT16) for _ in "kv")
    seen = torch.ones(6, 6, dtype=torch.bool).tril(1)
    mask = {
        "causal": None,
        "bool": seen,
        "added": torch.zeros(6, 6).masked_fill(~seen, -torch.inf),
    }[kind]
    found = [x.clone().requires_grad_() for x in (query, key, value)]
    wanted = [x.float().requires_grad_() for x in (query, key, value)]
    outputs = [attend(*some, mask, 0.5) for some in (found, wanted)]
    assert outputs[0].dtype == BFLOAT16
    torch.testing.assert_close(outputs[0].float(), outputs[1], atol=0.03, rtol=0.03)
    for output in outputs:
        output.float().square().sum().backward()
    for ours, theirs in zip(found, wanted, strict=True):
        error = (ours.grad.float() - theirs.grad).norm()
        assert error < 0.02 * theirs.grad.norm()


def test_muon_in_bfloat16_goes_the_same_way():
    generator = torch.Generator().manual_seed(2)
    weights = [torch.nn.Parameter(torch.zeros(2, 24, 16)) for _ in range(2)]
    gradient = torch.randn(2, 24, 16, generator=generator)
    for weight, dtype in zip(weights, (BFLOAT16, FLOAT32), strict=True):
        weight.grad = gradient.clone()
        optim.Muon([weight], lr=0.1, dtype=dtype).step()
    rounded, exact = weights
    assert rounded.dtype == FLOAT32 and not torch.equal(rounded, exact)
    assert (rounded - exact).norm() < 0.08 * exact.norm()  # Newton-Schulz itself is 30 % off


def ends(toy_run, monkeypatch, has: bool, later: bool | None = None, **settings: str) -> dict:
    """Weights after 12 steps on a CPU that has bfloat16 or not; maybe on another from step 8 on."""
    monkeypatch.setattr(device, "WIDE", 1)
    monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: has)
    run = toy_run(name=f"{has}-{later}-{len(settings)}", **settings)
    if later is not None:

        def stop(moment: TrainState) -> None:
            if moment.step == 8:
                raise InterruptedError

        with pytest.raises(InterruptedError):
            train(run, stop)
        monkeypatch.setattr(device, "_cpu_has_bfloat16", lambda: later)
    train(run)
    return run.model().state_dict()


def same(one: dict, other: dict) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_resumed_run_multiplies_as_it_began(toy_run, monkeypatch):
    rounded, exact = (ends(toy_run, monkeypatch, has) for has in (True, False))
    assert not same(rounded, exact)
    assert same(rounded, ends(toy_run, monkeypatch, True, later=False))
    assert same(exact, ends(toy_run, monkeypatch, False, later=True))
    assert same(exact, ends(toy_run, monkeypatch, True, precision="float32"))
