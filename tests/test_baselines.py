"""The kinds of models below the GPT, against plain formulas and counts of their parameters."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.config.architectures import CONFIGS
from addgpt.model.build import build, cache_of
from addgpt.model.forward import next_token_loss
from addgpt.model.gpt import GPT
from addgpt.runs.checkpoint import shapes, weight_count
from tests.helpers.baselines import BASELINES, LEVELS, NETWORKS, SIZES, TABLES, scrambled, sized

LENGTH = 9
CPU = torch.device("cpu")


def inputs(seed: int = 0, rows: int = 3, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    ids = [torch.randint(n, (rows, length + 1), generator=rng) for n in LEVELS]
    return torch.randint(SIZES["vocab"], (rows, length), generator=rng), torch.stack(ids, -1)


# Each kind against a formula of its own, one row and one token at a time.


def naive(model, tokens: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """(T, V) logits of (T,) tokens with (T + 1, L) ids, in numpy."""
    w = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    logits = {"gru": naive_gru, "mlp": naive_mlp, "bigram": naive_table, "counts": naive_counts}
    return np.stack(list(logits[model.config.architecture](model.config, w, tokens, ids)))


def naive_embedding(config, w, tokens, ids, t: int) -> np.ndarray:
    x = w["token.weight"][tokens[t]]
    scheme = config.level_position or ("learned",) * 3
    for number, level in enumerate(i for i, how in enumerate(scheme) if how == "learned"):
        x = x + w[f"ids.own.{number}.weight"][ids[t, level]]
        if config.next_ids:
            x = x + w[f"ids.target.{number}.weight"][ids[t + 1, level]]
    return x


def naive_gru(config, w, tokens, ids):
    """Cho et al. 2014, with the reset gate after the product, as torch has it."""

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    states = [np.zeros(config.width) for _ in range(config.layers)]
    for t in range(len(tokens)):
        x = naive_embedding(config, w, tokens, ids, t)
        for layer, h in enumerate(states):
            read = w[f"blocks.weight_ih_l{layer}"] @ x + w[f"blocks.bias_ih_l{layer}"]
            kept = w[f"blocks.weight_hh_l{layer}"] @ h + w[f"blocks.bias_hh_l{layer}"]
            (r, z, n), (hr, hz, hn) = read.reshape(3, -1), kept.reshape(3, -1)
            new, share = np.tanh(n + sigmoid(r + hr) * hn), sigmoid(z + hz)
            states[layer] = x = (1 - share) * new + share * h
        yield w["head.weight"] @ x


def naive_mlp(config, w, tokens, ids):
    seen = [w["blank"]] * config.window
    for t in range(len(tokens)):
        seen = [*seen[1:], naive_embedding(config, w, tokens, ids, t)]
        # the window is laid out channel by channel, the oldest token first
        x = np.array([vector[c] for c in range(config.width) for vector in seen])
        for layer in range(config.layers):
            x = np.tanh(w[f"blocks.{layer}.weight"] @ x + w[f"blocks.{layer}.bias"])
        yield w["head.weight"] @ x


def naive_table(config, w, tokens, ids):
    return (w["table"][token] for token in tokens)


def naive_counts(config, w, tokens, ids):
    for token in tokens:
        row = w["counts"][token] + 1
        yield np.log(row / row.sum())


@st.composite
def models(draw):
    kind = draw(st.sampled_from(BASELINES))
    shape = {}
    if kind in NETWORKS:
        learned = st.sampled_from(["learned", "none"])
        shape = {"layers": draw(st.integers(1, 3)), "next_ids": draw(st.booleans())}
        shape["level_position"] = draw(st.sampled_from([(), draw(st.tuples(*[learned] * 3))]))
    if kind == "mlp":
        shape["window"] = draw(st.integers(1, LENGTH + 3))
    return scrambled(kind, draw(st.integers(0, 99)), **shape)


@settings(max_examples=60)
@given(models(), st.integers(0, 99), st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_all_ways_to_read_agree_with_the_formula(model, seed, pieces):
    """At once, at some places alone, and in pieces with a cache that loses a row on the way."""
    tokens, ids = inputs(seed, length=sum(pieces))
    with torch.no_grad():
        whole = model(tokens, ids)
        for row in range(len(tokens)):
            wanted = naive(model, tokens[row].numpy(), ids[row].numpy())
            np.testing.assert_allclose(whole[row], wanted, rtol=1e-5, atol=1e-5)
        at = torch.randint(sum(pieces), (3, 2), generator=torch.Generator().manual_seed(seed))
        some = model(tokens, ids, at=at)
        torch.testing.assert_close(some, whole.take_along_dim(at[:, :, None], 1))

        cache, kept, start = cache_of(model.config, 3, sum(pieces), CPU), [0, 1, 2], 0
        for number, size in enumerate(pieces):
            end = start + size
            found = model(tokens[kept, start:end], ids[kept, start : end + 1], cache)
            torch.testing.assert_close(found, whole[kept, start:end])
            assert cache.used == end
            if number == 0:
                kept = [2, 0]
                cache.keep(torch.tensor(kept))
            start = end


@settings(max_examples=30)
@given(models(), st.integers(0, 99), st.integers(0, LENGTH - 1))
def test_no_token_before_it_knows_of_a_token(model, seed, place):
    tokens, ids = inputs(seed)
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % SIZES["vocab"]
    with torch.no_grad():
        before, after = model(tokens, ids), model(changed, ids)
    assert torch.equal(before[:, :place], after[:, :place])
    assert not torch.allclose(before[:, place], after[:, place])


@pytest.mark.parametrize("kind", NETWORKS)
def test_ids_of_the_token_and_of_the_next_slot_are_read_as_asked_for(kind):
    tokens, ids = inputs()
    moved = ids.clone()
    moved[:, -1] = (moved[:, -1] + 1) % torch.tensor(LEVELS)  # the slot after the last token
    for next_ids, scheme in ((True, ()), (False, ()), (True, ("none",) * 3)):
        model = scrambled(kind, next_ids=next_ids, level_position=scheme)
        with torch.no_grad():
            one, other = model(tokens, ids), model(tokens, moved)
        assert torch.equal(one[:, :-1], other[:, :-1])
        assert torch.equal(one[:, -1], other[:, -1]) == (not next_ids or bool(scheme))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_loss_has_a_gradient_for_every_parameter(kind):
    model = scrambled(kind, layers=2).train()
    tokens, ids = inputs(rows=8)
    next_token_loss(model(tokens, ids), tokens.roll(-1, 1)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_is_built_from_its_seed_alone_and_known_without_memory(kind):
    config = sized(kind)
    one, same, other = (build(config, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert kind in TABLES or any(not torch.equal(one[n], other[n]) for n in one)
    assert shapes(config) == {name: tensor.shape for name, tensor in one.items()}
    assert weight_count(config) == build(config).parameter_count()
    assert isinstance(build(config), GPT) == (kind == "gpt")


def test_parameters_are_those_of_the_formula():
    v, ids, c, n, h = 11, 2 * sum(LEVELS), 6, 4, 12
    gru = sized("gru", width=c, layers=2)
    mlp = sized("mlp", width=c, window=n, mlp_ratio=2, layers=2)
    assert build(gru).parameter_count() == (v + ids) * c + 2 * 3 * (2 * c * c + 2 * c) + v * c
    hidden = (n * c * h + h) + (h * h + h)
    assert build(mlp).parameter_count() == (v + ids) * c + c + hidden + v * h
    for kind in ("bigram", "counts"):
        assert build(sized(kind)).parameter_count() == v * v
