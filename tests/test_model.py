"""The GPT against a naive reference: one row, one head and one token at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from addgpt.config.architectures import GPTConfig
from addgpt.model.build import build
from addgpt.model.forward import next_token_loss, tensors
from addgpt.model.gpt import ACTIVATIONS, GPT
from addgpt.model.kv_cache import Cache
from addgpt.model.layers import NORMS, L2Normalise
from addgpt.task_lookup import load_task
from tests.helpers.naive import Naive

LEVELS = (7, 5, 4)
CONFIGS = {
    "bare": {},
    "learned": {"position": "learned", "norm": "layer", "activation": "gelu", "qk_norm": False},
    "sinusoidal": {"position": "sinusoidal", "activation": "relu", "tied": True},
    "rotary": {"position": "rotary", "activation": "silu", "heads": 4, "layers": 1},
    "levels": {"levels": LEVELS, "next_ids": False, "norm": "plain"},
    "levels-next": {"levels": LEVELS, "next_ids": True, "norm": "plain", "qk_norm": False},
    "mixed": {"levels": LEVELS, "level_position": ("rotary", "none", "learned")},
    "mixed-next-off": {
        "levels": LEVELS,
        "level_position": ("rotary", "rotary", "learned"),
        "next_ids": False,
    },
    "everything": {
        "levels": LEVELS,
        "level_position": ("rotary", "rotary", "rotary"),
        "position": "rotary",
        "width": 32,
        "norm": "layer",
        "activation": "gelu",
        "mlp_ratio": 3,
    },
    "one-head": {"heads": 1, "width": 6, "position": "learned", "layers": 3, "tied": True},
    "alibi": {"position": "alibi", "kv_heads": 1, "heads": 4, "norm_place": "both"},
    "hard-alibi": {"position": "hard_alibi", "heads": 4, "log_scale": True, "loops": 2},
    "fire": {"position": "fire", "log_scale": True, "share": "qk", "activation": "swiglu"},
    "looped": {"loops": 3, "inject": True, "rank": 3, "norm_place": "after", "qk_norm": False},
    "factorised": {"embed_rank": 2},
    "shifted": {"position": "rotary", "token_shift": True, "loops": 2, "activation": "swiglu"},
    "grouped": {
        "levels": LEVELS,
        "level_position": ("rotary", "none", "learned"),
        "heads": 4,
        "width": 32,
        "kv_heads": 2,
        "share": "kv",
        "activation": "geglu",
        "loops": 2,
    },
    "relative": {
        "levels": LEVELS,
        "level_position": ("relative", "none", "relative"),
        "kv_heads": 2,
        "heads": 4,
        "width": 32,
        "log_scale": True,
    },
    "ids-alone": {
        "levels": LEVELS,
        "level_position": ("relative", "learned", "none"),
        "content": False,
        "heads": 4,
        "kv_heads": 2,
        "norm": "none",
        "next_ids": False,
        "activation": "gelu",
        "log_scale": True,
    },
    "few-rows": {
        "alphabet": "used",
        "used": tuple(v for v in range(19) if v not in (2, 7, 16)),
        "arc": 6,
        "norm": "plain",
        "qk_norm": False,
        "position": "rotary",
    },
    "few-rows-tied": {
        "alphabet": "used",
        "used": tuple(v for v in range(19) if v not in (11, 14)),
        "arc": 10,
        "width": 2,
        "heads": 1,
        "tied": True,
        "position": "relative",
        "norm": "none",
        "content": False,
    },
    "tiny": {
        "heads": 1,
        "width": 4,
        "mlp_ratio": 0,
        "share": "qkv",
        "norm": "plain",
        "position": "alibi",
        "tied": True,
    },
}


@pytest.fixture(scope="module", params=CONFIGS, ids=str)
def model(request, toy_model) -> GPT:
    return toy_model(**CONFIGS[request.param])


def inputs(model: GPT, seed: int = 0, rows: int = 3, length: int = 11):
    """Random tokens (B, T) and ids (B, T + 1, L)."""
    rng = torch.Generator().manual_seed(seed)
    config = model.config
    ids = [torch.randint(n, (rows, length + 1), generator=rng) for n in config.levels]
    tokens = torch.randint(config.vocab, (rows, length), generator=rng)
    none = torch.zeros(rows, length + 1, 0, dtype=torch.int64)
    return tokens, torch.stack(ids, -1) if ids else none


def test_logits_equal_the_naive_reference(model):
    tokens, ids = inputs(model)
    found = model(tokens, ids).detach().numpy()
    naive = Naive(model)
    for row in range(len(tokens)):
        wanted = naive.logits(tokens[row].numpy(), ids[row].numpy())
        assert abs(wanted).max() > 0.1
        np.testing.assert_allclose(found[row], wanted, rtol=2e-4, atol=2e-4)


def test_a_future_token_changes_no_earlier_logit(model):
    tokens, ids = inputs(model)
    before = model(tokens, ids)
    for place in range(tokens.shape[1]):
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % model.config.vocab
        after = model(changed, ids)
        assert torch.equal(after[:, :place], before[:, :place])
        assert not torch.allclose(after[:, place], before[:, place])


def test_ids_of_a_later_slot_change_no_earlier_logit_but_the_one_that_fills_it(model):
    tokens, ids = inputs(model)
    before = model(tokens, ids)
    for place in range(1, ids.shape[1] if model.config.levels else 1):
        changed = ids.clone()
        changed[:, place] = (changed[:, place] + 1) % torch.tensor(model.config.levels)
        after = model(tokens, changed)
        first = place - 1 if model.config.next_ids else place
        assert torch.equal(after[:, :first], before[:, :first])
        alone = first == 0 and "learned" not in Naive(model).scheme  # nothing to choose from
        if first < tokens.shape[1] and not alone:
            assert not torch.allclose(after[:, first], before[:, first])


def test_rows_do_not_see_each_other(model):
    tokens, ids = inputs(model, rows=5)
    together = model(tokens, ids)
    for row in range(5):
        alone = model(tokens[row : row + 1], ids[row : row + 1])[0]
        torch.testing.assert_close(alone, together[row], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 99))
def test_reading_in_pieces_with_a_cache_equals_reading_at_once(model, pieces, seed):
    tokens, ids = inputs(model, seed, rows=2, length=sum(pieces))
    cache = Cache(model.config, 2, sum(pieces), torch.device("cpu"))
    found, start = [], 0
    with torch.no_grad():
        for size in pieces:
            end = start + size
            found.append(model(tokens[:, start:end], ids[:, start : end + 1], cache))
            start = end
        wanted = model(tokens, ids)
    torch.testing.assert_close(torch.cat(found, 1), wanted, rtol=1e-4, atol=1e-4)
    assert cache.used == sum(pieces)


@pytest.mark.slow
@given(st.integers(1, 11), st.integers(0, 99))
def test_logits_at_some_places_are_those_of_all_places(model, count, seed):
    tokens, ids = inputs(model, seed, rows=3)
    rng = np.random.default_rng(seed)
    first = rng.integers(0, tokens.shape[1] - min(count, tokens.shape[1]) + 1, (3, 1))
    at = torch.from_numpy(first + np.arange(min(count, tokens.shape[1])))
    wanted = model(tokens, ids).take_along_dim(at[:, :, None], 1)
    torch.testing.assert_close(model(tokens, ids, at=at), wanted, rtol=1e-4, atol=1e-4)


def test_a_cache_keeps_the_rows_asked_for(model):
    tokens, ids = inputs(model, rows=4)
    cache = Cache(model.config, 4, 11, torch.device("cpu"))
    kept = torch.tensor([3, 1])
    with torch.no_grad():
        model(tokens[:, :7], ids[:, :8], cache)
        cache.keep(kept)
        found = model(tokens[kept, 7:], ids[kept, 7:], cache)
        wanted = model(tokens, ids)[kept, 7:]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_prompt_gets_no_signal_from_the_loss(toy_model):
    task = load_task("mul", {"digits": 2})
    model = toy_model(levels=task.levels, context=task.longest())
    batch = task.batch(np.random.default_rng(0), 8, "train")
    tokens, ids, targets = tensors(batch, torch.device("cpu"))
    scored = torch.from_numpy(batch.scored[:, 1:])
    assert (targets[~scored] == -1).all()
    assert torch.equal(targets[scored], torch.from_numpy(batch.tokens[:, 1:]).long()[scored])
    logits = model(tokens, ids)
    logits.retain_grad()
    next_token_loss(logits, targets).backward()
    assert (logits.grad[~scored] == 0).all()
    assert (logits.grad[scored].abs().sum(-1) > 0).all()


@given(st.integers(0, 2**32))
def test_the_loss_is_the_summed_surprise_of_scored_targets(seed):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(3, 5, 7)) * 3
    targets = rng.integers(-1, 7, (3, 5))
    wanted = 0.0
    for row, column in np.ndindex(3, 5):
        if targets[row, column] >= 0:
            z = logits[row, column]
            wanted += math.log(np.exp(z).sum()) - z[targets[row, column]]
    found = next_token_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    assert float(found) == pytest.approx(wanted, rel=1e-5, abs=1e-5)


def test_parameter_count_counts_each_scalar_once():
    width, vocab, context = 8, 19, 30
    block = 4 * width**2 + 2 * 2 * width * width
    shape = {"vocab": vocab, "context": context, "width": width, "heads": 2, "mlp_ratio": 2}
    plain = {**shape, "layers": 3, "norm": "plain", "qk_norm": False}
    body = 3 * block + vocab * width
    for more, wanted in [
        ({}, body + vocab * width),
        ({"tied": True}, body),
        ({"qk_norm": True, "tied": True}, body + 3 * 2),
        ({"norm": "rms", "tied": True}, body + 7 * width),
        ({"norm": "layer", "tied": True}, body + 14 * width),
        ({"position": "learned", "tied": True}, body + context * width),
        ({"position": "rotary", "tied": True}, body),
        ({"levels": (5, 3), "tied": True, "next_ids": False}, body + 8 * width),
        ({"levels": (5, 3), "tied": True}, body + 16 * width),
        (
            {"levels": (5, 3), "tied": True, "level_position": ("rotary", "learned")},
            body + 6 * width,
        ),
        ({"tied": True, "loops": 4}, body),
        ({"tied": True, "kv_heads": 1}, body - 3 * 2 * width * width // 2),
        ({"tied": True, "share": "qk"}, body - 3 * width**2),
        ({"tied": True, "share": "kv", "kv_heads": 1}, body - 3 * 3 * width**2 // 2),
        ({"tied": True, "share": "qkv"}, body - 3 * 2 * width**2),
        ({"tied": True, "mlp_ratio": 0}, body - 3 * 2 * 2 * width**2),
        ({"tied": True, "mlp_ratio": 3, "activation": "swiglu"}, body + 3 * 2 * width**2),
        ({"tied": True, "embed_rank": 2}, body + (2 - width) * vocab + 2 * width),
        ({"embed_rank": 2}, body + (4 - width) * vocab + 4 * width),
        ({"tied": True, "rank": 2}, vocab * width + 3 * 2 * (8 * width + 2 * 3 * width)),
        ({"tied": True, "norm": "rms", "norm_place": "both"}, body + 13 * width),
        ({"tied": True, "norm": "rms", "norm_place": "after"}, body + 6 * width),
        ({"tied": True, "position": "alibi"}, body),
        ({"tied": True, "position": "relative"}, body + 2 * 65),
        ({"tied": True, "position": "fire"}, body + 2 + 32 * (2 + 2)),
        ({"tied": True, "position": "learned", "random_index": 50}, body + 50 * width),
    ]:
        assert build(GPTConfig(**plain | more)).parameter_count() == wanted, more


def test_weights_are_a_function_of_the_seed_alone():
    config = GPTConfig(vocab=19, context=8, width=16)
    one, same, other = (build(config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["token.weight"], other["token.weight"])


def test_an_untrained_model_finds_all_tokens_equally_likely(toy_model):
    model = build(toy_model(levels=LEVELS).config)
    assert (model(*inputs(model)) == 0).all()


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_reading_past_the_context_is_caught(toy_model, position):
    model = toy_model(position=position, context=8)
    model(*inputs(model, length=8))
    with pytest.raises(AssertionError):
        model(*inputs(model, length=9))


@pytest.mark.parametrize("position", ["none", "rotary"])
def test_relative_schemes_read_past_the_context(toy_model, position):
    model = toy_model(position=position, context=8)
    assert model(*inputs(model, length=20)).shape == (3, 20, 19)


def test_dropout_acts_in_training_only(toy_model):
    model = toy_model(dropout=0.5)
    tokens, ids = inputs(model)
    assert torch.equal(model(tokens, ids), model(tokens, ids))
    model.train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert not torch.equal(model(tokens, ids), model(tokens, ids))
    model.eval()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vocab": 0}, "vocab=0 and context=9 must be positive"),
        ({"context": 0}, "vocab=9 and context=0 must be positive"),
        ({"width": 30, "heads": 4}, "heads=4 does not divide width=30"),
        ({"heads": 0}, r"heads must be in 1\.\.1024, not 0"),
        ({"layers": -1}, r"layers must be in 1\.\.1024, not -1"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), not 1.0"),
        ({"levels": (4, 4), "level_position": ("none",)}, "names 1 levels, the task has 2"),
        ({"level_position": ("rotary",)}, "names 1 levels, the task has 0"),
        (
            {"levels": (3,), "level_position": ("rotary2",), "next_ids": False},
            "rotary2 also uses target position ids: it needs next_ids=true",
        ),
        ({"position": "rotary", "width": 4, "heads": 4}, "too narrow for 1 rotary axes"),
        ({"position": "rotary", "width": 28, "heads": 4}, "heads of 7 have an odd one out; choose"),
        ({"kv_heads": 3, "heads": 4}, "kv_heads=3 does not divide heads=4"),
        ({"kv_heads": -1}, r"kv_heads must be in 0\.\.1024, not -1"),
        ({"kv_heads": 2, "heads": 4, "share": "qk"}, "share=qk needs as many kv_heads as heads"),
        ({"content": False}, "content=false needs positions that decide the attention"),
        ({"content": False, "position": "rotary"}, "rotary rotates queries and keys"),
        ({"content": False, "levels": (3,), "level_position": ("rotary2",)}, "rotary2 rotates"),
        (
            {"content": False, "position": "alibi", "share": "kv"},
            "share applies to queries and keys",
        ),
        ({"kv_heads": 8, "heads": 4}, "kv_heads=8 does not divide heads=4"),
        ({"rank": 129}, "rank=129 is more than width=128"),
        ({"embed_rank": 129}, "embed_rank=129 is more than width=128"),
        ({"loops": 0}, r"loops must be in 1\.\.1024, not 0"),
        ({"inject": True}, "inject=true needs loops of at least 2"),
        ({"token_shift": True, "norm_place": "both"}, "token_shift=true needs norm_place=before"),
        ({"token_shift": True, "mlp_ratio": 0}, "token_shift=true needs .* an MLP"),
        ({"mlp_ratio": -1}, r"mlp_ratio must be in \[0, 64\]"),
        ({"mlp_ratio": math.nan}, "mlp_ratio must .*, not nan"),
        ({"random_index": 20}, "random_index needs a position that reads the index, not none"),
        ({"random_index": 9, "position": "fire"}, "must be above the longest sequence, 9"),
        ({"position": "far"}, "position must be one of none, .*, alibi, .*, fire, not 'far'"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(GPTConfig(**{"vocab": 9, "context": 9} | settings))


def test_unit_length_is_normalise_and_has_its_gradient():
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x.requires_grad_()
    assert torch.equal(L2Normalise.apply(x), torch.nn.functional.normalize(x, dim=-1))
    assert torch.autograd.gradcheck(L2Normalise.apply, x)
    zero = torch.zeros(1, 4, requires_grad=True)
    assert (L2Normalise.apply(zero) == 0).all()


@pytest.mark.parametrize("name", ["rms", "plain"])
def test_the_quick_norm_is_that_of_torch_and_has_its_gradient(name):
    norm = NORMS[name](6)
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = torch.nn.functional.rms_norm(x, (6,), norm.weight)
    assert torch.equal(norm(x), wanted)
    with torch.no_grad():
        assert torch.equal(norm(x), wanted)
    assert torch.autograd.gradcheck(norm.double(), x.detach().double().requires_grad_())


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_have_the_gradient_of_what_they_compute(name):
    x = torch.linspace(-2, 2, 12, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(ACTIVATIONS[name], x)
