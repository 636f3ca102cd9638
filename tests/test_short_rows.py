"""What makes short steps quicker changes nothing but last bits."""

import numpy as np
import pytest
import torch

from addgpt.model import local, schemes
from addgpt.model.build import build
from addgpt.model.forward import forward, next_token_loss
from addgpt.model.layers import geglu, rows_at, softmax
from addgpt.model.schemes import distinct_rows
from addgpt.runs.resolve import configure
from addgpt.task_lookup import load_task
from addgpt.training import optim

PLACES = {"content": "false", "level_position": "relative,none,none"}
MODELS = {
    "default": {},
    "deep": {"layers": "2", "kv_heads": "2"},
    "carry": {"trace": "carry", "attention": "reads"},
    "positions alone": PLACES | {"norm": "none", "biases": "visible", "tied": "true"},
    "rotary": {"level_position": "rotary,relative,learned"},
    "looped": {"loops": "2", "position": "rotary"},
}


@pytest.mark.parametrize("name", MODELS)
def test_masked_keys_give_what_gathered_keys_give(name, monkeypatch):
    """Logits, loss and every gradient: of rows with positions of their own and gathered keys, of
    shared ones, and of masked keys."""
    config = configure("add", {"width": "32"} | MODELS[name])
    options = {key: MODELS[name][key] for key in ("trace",) if key in MODELS[name]}
    task = load_task("add", {"digits": 3} | options)
    batch = task.batch(np.random.default_rng(1), 40, "train")
    model, generator = build(config.model).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    found = []
    for likely, below in ((1000, 0), (1, 0), (1, 1000)):
        monkeypatch.setattr(schemes, "LIKELY", likely)
        monkeypatch.setattr(schemes, "MASKED_BELOW", below)
        model.train().zero_grad()
        logits, targets = forward(model, batch)
        next_token_loss(logits, targets, 0.1).backward()
        found.append([logits.detach(), *(p.grad.clone() for p in model.parameters())])
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            size = float(mine.abs().max())
            torch.testing.assert_close(theirs, mine, rtol=1e-9, atol=1e-12 + 1e-9 * size)


def test_one_place_a_row_and_biases_without_heads():
    """Where no bias is trained, one row of them serves all heads, which share keys in groups."""
    places = {"level_position": "rotary,none,learned", "heads": "4", "kv_heads": "2"}
    config = configure("add", {"width": "32"} | places).model
    model, generator = build(config), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    tokens = torch.randint(10, (20, 8), generator=generator)
    ids = torch.arange(9, 0, -1)[None, :, None].expand(20, -1, 3) % torch.tensor(config.levels)
    one = torch.full((20, 1), 6)
    gathered, masked = model.eval()(tokens, ids), model.train()(tokens, ids, at=one)
    torch.testing.assert_close(masked, gathered[:, 6:7], rtol=1e-4, atol=1e-5)


def test_few_layouts_are_kept(monkeypatch):
    monkeypatch.setattr(local, "KEPT", 3)
    some = local.LocalAttention(configure("add", {}).model)
    for last in range(2, 9):
        ids = torch.ones(4, 6, 3, dtype=torch.int64)
        ids[:, -1, 0] = last % 6
        seen = some.seen_by_layouts(ids)
        assert (seen == some.seen_keys(ids)).all() and some.seen_by_layouts(ids) is seen
        assert 0 < len(some.known) <= 3
    monkeypatch.setattr(local, "KEPT_IDS", 10)
    assert some.seen_by_layouts(ids) is not seen


def test_rows_that_are_alike_are_told_from_others():
    rng = np.random.default_rng(0)
    few = torch.from_numpy(rng.integers(0, 5, (6, 7, 2)))
    ids = few[torch.from_numpy(rng.integers(0, 6, 64))]
    first, which = distinct_rows(ids)
    assert len(first) == len(ids.unique(dim=0)) and (ids[first][which] == ids).all()
    assert distinct_rows(torch.from_numpy(rng.integers(0, 5, (64, 7, 2)))) is None
    assert distinct_rows(ids[:8]) is None


@pytest.mark.parametrize("size", [1, 3, 8, 31, 32, 40])
def test_softmax_is_torchs(size):
    x = torch.randn(5, 4, size, generator=torch.Generator().manual_seed(size)) * 10
    x = x.masked_fill(torch.arange(size) % 3 == 1, -torch.inf).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (mine,) = torch.autograd.grad((softmax(x) * weight).sum(), x)
    (theirs,) = torch.autograd.grad((x.softmax(-1) * weight).sum(), x)
    torch.testing.assert_close(softmax(x), x.softmax(-1))
    torch.testing.assert_close(mine, theirs)
    with torch.no_grad():
        torch.testing.assert_close(softmax(x), x.softmax(-1))


def test_own_gradients_are_those_of_differences():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 8, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(geglu, x)
    assert torch.autograd.gradcheck(softmax, x)
    index = torch.tensor([2, 0, 2])
    assert torch.autograd.gradcheck(lambda x: rows_at(x, index), x)
    assert rows_at(torch.arange(6).view(3, 2), index).tolist() == [[4, 5], [0, 1], [4, 5]]


def test_matrices_of_one_shape_are_updated_as_if_alone():
    shapes = [(3, 8, 8), (8, 8), (2, 12, 8), (8, 12), (5, 8)]
    generator = torch.Generator().manual_seed(0)
    draws = [[torch.randn(shape, generator=generator) for shape in shapes] for _ in range(2)]
    together, alone = ([torch.nn.Parameter(x.clone()) for x in draws[0]] for _ in range(2))
    many = [optim.Muon(together, lr=0.1, weight_decay=0.1)]
    ones = [optim.Muon([one], lr=0.1, weight_decay=0.1) for one in alone]
    for parameters, optimizers in ((together, many), (alone, ones)):
        for parameter, gradient in zip(parameters, draws[1], strict=True):
            parameter.grad = gradient.clone()
        for optimizer in [*optimizers, *optimizers]:
            optimizer.step()
    for mine, other in zip(together, alone, strict=True):
        torch.testing.assert_close(mine, other)
