"""The bounds on rounding that certificates rest on, against real rounding."""

import json
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from addgpt.evaluation import check_certificate
from addgpt.evaluation.certificate import list_contexts, logits_in, margin, spaced
from addgpt.evaluation.check_certificate import on_sphere, plus, read, times
from addgpt.evaluation.check_weights import written_out
from addgpt.evaluation.rounding import rounding_bound
from addgpt.model.build import build
from addgpt.model.layers import RMSNorm
from addgpt.runs.resolve import configure
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

VARIANTS = [
    {},
    {"norm": "rms", "activation": "relu2", "qk_norm": False},
    {"norm": "none", "heads": 1},
    {"norm": "plain", "level_position": ("relative", "relative", "relative")},
    {
        "norm": "none", "activation": "relu2", "content": False, "tied": True, "heads": 1,
        "level_position": ("relative", "none", "none"), "biases": "visible", "arc": 10,
        "alphabet": "used", "used": (*range(11), 14, 15),
    },
    {
        "arc": 5, "alphabet": "used", "used": (*range(11), 14, 15), "biases": "visible",
        "level_position": ("relative", "relative", "learned"), "tied": True,
    },
    {
        "content": False, "share": "vo", "biases": "pinned",
        "level_position": ("relative", "relative", "none"),
    },
    {"alphabet": "used", "used": tuple(range(19))},
]  # fmt: skip


@pytest.fixture(scope="module", params=range(len(VARIANTS)))
def some_model(request):
    """A model of random weights and every 9th context of the adder's widest group."""
    config = configure("add", {"attention": "window", "width": "16", "heads": "2"}).model
    config = config.__class__(**vars(config) | VARIANTS[request.param])
    model, generator = build(config), torch.Generator().manual_seed(request.param)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.6, generator=generator)
    groups = list_contexts(load_task("add", {}), config).groups
    group = max(groups, key=lambda some: len(some.tokens))
    return model.eval(), group.examples[0], group.tokens[::9], group.right[::9]


@torch.inference_mode()
def in_float64(model, example, tokens, monkeypatch):
    """(N, V) logits in float64, by the model itself; its norms keep the epsilon of float32."""

    def norm(self, x):
        weight = None if self.weight is None else self.weight.to(x.dtype)
        return F.rms_norm(x, x.shape[-1:], weight, torch.finfo(torch.float32).eps)

    monkeypatch.setattr(RMSNorm, "forward", norm)
    wide = build(model.config).double().eval()
    wide.load_state_dict(model.state_dict())
    text = torch.zeros(len(tokens), 2 * tokens.shape[1] - 1, dtype=torch.long)
    text[:, ::2] = torch.from_numpy(tokens.astype(np.int64))
    ids = torch.from_numpy(spaced(example)).expand(len(tokens), -1, -1)
    last = torch.full((len(tokens), 1), text.shape[1] - 1)
    return wide(text, ids, at=last)[:, 0].numpy()


def whole(model):
    """The model's settings and weights, as the checker reads them."""
    config = vars(model.config) | {"level_position": [*model.config.scheme]}
    weights = {name: x.numpy() for name, x in model.state_dict().items()}
    return json.loads(json.dumps(config)), weights


def checked(model, example, tokens):
    """The checker's logits and bounds."""
    config, weights = whole(model)
    ids, after, near = example.ids, example.after, check_certificate.NEAR
    apart = np.where(ids == 0, 2 * near + 1, np.clip(after[-1] - ids, -near, near) + near)
    weights = read(config, weights)
    return check_certificate.logits(config, weights, tokens, apart, ids[:, -1], after[:, -1])


def test_the_checker_computes_what_the_model_computes(some_model, monkeypatch):
    model, example, tokens, _ = some_model
    found, error = checked(model, example, tokens)
    deviation = found - in_float64(model, example, tokens, monkeypatch)
    assert len(tokens) > 1000
    assert np.abs(deviation).max() < 1e-11
    assert (np.abs(deviation) <= 2 * error).all()  # both of them round
    assert error.max() < 1e-6


def test_the_checkers_bound_holds_in_float32_as_well(some_model, monkeypatch):
    """Float64 hardly rounds at all; with the unit of float32 the same bound is put to the test."""
    monkeypatch.setattr(check_certificate, "U", 1.001 * 2.0**-24)
    model, example, tokens, _ = some_model
    found, error = checked(model, example, tokens)
    narrow = logits_in(model, example, tokens).numpy()
    assert (np.abs(narrow - found) <= error).all()


def test_the_bound_on_float32_is_above_what_it_does_and_not_absurd(some_model, monkeypatch):
    model, example, tokens, right = some_model
    wide = in_float64(model, example, tokens, monkeypatch)
    lead = np.take_along_axis(wide, right[:, None].astype(int), 1) - wide
    np.put_along_axis(lead, right[:, None].astype(int), np.inf, 1)
    monkeypatch.undo()
    deviation = np.abs(margin(model, example, tokens, right) - lead.min(1))
    bound = rounding_bound(model, example, tokens, right)
    assert len(bound) > 1000 and (deviation < bound).all()
    assert deviation.max() > bound.max() / 1000


def test_balls_hold_the_exact_results():
    """Sums, products and lengths of vectors, against fractions, with other numbers in the balls."""
    rng, off = np.random.default_rng(0), 1e-12
    x, y = rng.normal(size=(20, 7)), rng.normal(size=(5, 7))
    moved_x, moved_y = (z + off * rng.uniform(-1, 1, z.shape) for z in (x, y))
    one = x, np.full_like(x, off)
    found, error = plus(times(one, "nc,dc->nd", y, off), y[:, 0], off)
    sphere, far = on_sphere(one, 1.0)
    for n, row in enumerate(moved_x.tolist()):
        exact = [Fraction(number) for number in row]
        for d, other in enumerate(moved_y.tolist()):
            total = sum(a * Fraction(b) for a, b in zip(exact, other, strict=True)) + Fraction(
                other[0]
            )
            assert abs(total - Fraction(found[n, d])) <= Fraction(error[n, d])
        square = sum(number**2 for number in exact)
        for c, number in enumerate(exact):
            low, high = (Fraction(sphere[n, c] + sign * far[n, c]) for sign in (-1, 1))
            signed = number * abs(number) / square  # the square of the result, with its sign
            assert low * abs(low) <= signed <= high * abs(high)
    assert error.max() < 1e-10


def test_next_to_nothing_has_any_direction():
    """The model divides short queries by 1e-12 instead of by their length."""
    short = np.array([[3e-13, 4e-13], [3.0, 4.0]]), np.zeros((2, 2))
    value, error = on_sphere(short, 1.0)
    assert value[1].tolist() == pytest.approx([0.6, 0.8]) and error[1].max() < 1e-14
    assert (error[0] >= 2).all()


def test_weights_written_out_are_those_of_a_plain_model_that_says_the_same(some_model):
    model, example, tokens, _ = some_model
    stored = {"arc": 0, "alphabet": "all", "used": (), "biases": "all", "share": "none"}
    plain = build(model.config.__class__(**vars(model.config) | stored))
    weights = written_out(*whole(model))
    unused = weights.pop("unused")
    weights.pop("token.off")
    weights = {name: torch.from_numpy(np.nan_to_num(x, nan=7.0)) for name, x in weights.items()}
    plain.load_state_dict(weights)  # biases of what nobody sees may be anything
    found = logits_in(plain.eval(), example, tokens)[:, unused == 0]
    wanted = logits_in(model, example, tokens)[:, unused == 0]
    assert torch.allclose(found, wanted, atol=1e-4) if model.config.arc else found.equal(wanted)
    assert (unused < 0).sum() == (19 - len(model.config.used) if model.config.used else 0)


def test_weights_that_are_missing_of_another_shape_or_not_known_are_refused(some_model):
    model, example, tokens, _ = some_model
    config, stored = whole(model)
    ids, apart = example.ids, np.zeros_like(example.ids)

    def said_by(weights):
        w = read(config, weights)
        return check_certificate.logits(config, w, tokens[:2], apart, ids[:, -1], ids[:, -1])

    said_by(stored)
    for name, weight in stored.items():
        without = {other: x for other, x in stored.items() if other != name}
        for wrong in (without, without | {name: weight[..., 1:]}, without | {name: weight[:0]}):
            with pytest.raises((KeyError, ValueError)):
                said_by(wrong)
    with pytest.raises(KeyError, match="attention.sink"):
        said_by(stored | {"blocks.0.attention.sink": np.zeros(2)})
    out = "blocks.0.attention.out"
    with pytest.raises(ValueError):
        said_by(stored | {f"{out}.weight": np.zeros((16, 16)), out: np.eye(16)})
    more = {name.removesuffix(".rows"): np.zeros((19, 16)) for name in stored if ".rows" in name}
    assert np.array_equal(said_by(stored | more), said_by(stored))  # the rows count
