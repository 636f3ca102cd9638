"""Features of the model: each acts, all go together, and each does what its formula says."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.config.architectures import GPTConfig
from addgpt.config.settings import features_of, with_settings
from addgpt.model import positions, schemes
from addgpt.model.build import build
from addgpt.model.forward import forward, loss, loss_and_exact, next_token_loss
from addgpt.model.kv_cache import Cache
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training import optim
from addgpt.training.loop import VAL_SEED, Interrupted, train
from addgpt.training.preflight import check_trainable
from tests.helpers.naive import Naive

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
LEVELS = (7, 5, 4)
LENGTH = 9
SHAPE = {"vocab": 11, "context": 20, "levels": LEVELS, "width": 96}
CPU = torch.device("cpu")


def choices(name: str) -> st.SearchStrategy:
    field = next(f for f in dataclasses.fields(GPTConfig) if f.name == name)
    return st.sampled_from(field.metadata["choices"])


@st.composite
def shapes(draw) -> dict:
    """Any features of the model that go together."""
    heads = draw(st.sampled_from([1, 2, 4]))
    shape = {
        "heads": heads,
        "kv_heads": draw(st.sampled_from([n for n in (0, 1, 2, 4) if heads % (n or 1) == 0])),
        "layers": draw(st.integers(1, 2)),
        "loops": draw(st.integers(1, 3)),
        "mlp_ratio": draw(st.sampled_from([0, 0.25, 1])),
        "rank": draw(st.sampled_from([0, 0, 3])),
        "embed_rank": draw(st.sampled_from([0, 0, 2])),
        "level_position": draw(st.tuples(*[choices("level_position")] * 3)),
    }
    for name in ("position", "norm", "norm_place", "activation", "share"):
        shape[name] = draw(choices(name))
    for name in ("next_ids", "qk_norm", "tied", "log_scale", "prefix", "inject", "token_shift"):
        shape[name] = draw(st.booleans())
    shape["inject"] &= shape["loops"] > 1
    shape["token_shift"] &= shape["norm_place"] == "before" and shape["mlp_ratio"] > 0
    shape["next_ids"] |= "rotary2" in shape["level_position"]
    if 0 < shape["kv_heads"] < heads and "q" in shape["share"]:
        shape["share"] = "kv"
    shape["content"] = draw(st.booleans())
    ways = {shape["position"], *shape["level_position"]}
    if ways & {"rotary", "rotary2"} or not ways & {"alibi", "fire", "relative"}:
        shape["content"] = True
    if shape["content"] == (shape["share"] == "vo"):
        shape["share"] = "none"
    if shape["position"] != "none":
        shape["random_index"] = draw(st.sampled_from([0, 40]))
    return shape


def inputs(seed: int = 0, rows: int = 2, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    ids = [torch.randint(n, (rows, length + 1), generator=rng) for n in LEVELS]
    return torch.randint(11, (rows, length), generator=rng), torch.stack(ids, -1)


@pytest.mark.slow
@settings(max_examples=60)
@given(shapes(), st.integers(0, 99), st.lists(st.integers(1, LENGTH), min_size=2, max_size=2))
def test_all_ways_to_read_agree_in_any_combination(toy_model, shape, seed, prompts):
    """Naive formulas, all at once, some places alone, and in pieces with a cache."""
    model = toy_model(**SHAPE, **shape).double()
    tokens, ids = inputs(seed)
    prompt = torch.tensor(prompts)
    with torch.no_grad():
        whole = model(tokens, ids, prompt=prompt)
        naive = Naive(model)
        for row in range(2):
            wanted = naive.logits(tokens[row].numpy(), ids[row].numpy(), prompts[row])
            np.testing.assert_allclose(whole[row], wanted, rtol=1e-4, atol=1e-4)

        first = np.random.default_rng(seed).integers(0, LENGTH - 2, (2, 1))
        at = torch.from_numpy(first + np.arange(3))
        found = model(tokens, ids, at=at, prompt=prompt)
        wanted = whole.take_along_dim(at[:, :, None], 1)
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)

        size = prompts[0]
        cache = Cache(model.config, 1, LENGTH, CPU)
        cache.store = cache.store.double()
        pieces = [slice(0, size), *(slice(t, t + 1) for t in range(size, LENGTH - 2))]
        pieces.append(slice(max(size, LENGTH - 2), LENGTH))
        found = [
            model(tokens[:1, p], ids[:1, p.start : p.stop + 1], cache)
            for p in pieces
            if p.stop > p.start
        ]
        torch.testing.assert_close(torch.cat(found, 1), whole[:1], rtol=1e-6, atol=1e-6)


@settings(max_examples=40)
@given(shapes(), st.integers(0, 99), st.integers(0, LENGTH - 1), st.integers(1, LENGTH))
def test_a_future_token_changes_nothing_but_inside_the_prompt(toy_model, shape, seed, place, size):
    model = toy_model(**SHAPE, **shape)
    tokens, ids = inputs(seed)
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % 11
    prompt = torch.tensor([size, size])
    with torch.no_grad():
        before, after = (model(t, ids, prompt=prompt) for t in (tokens, changed))
    first = 0 if shape["prefix"] and place < size else place
    torch.testing.assert_close(after[:, :first], before[:, :first], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after[:, place], before[:, place])
    if first < place:
        assert not torch.allclose(after[:, first], before[:, first])


@settings(max_examples=40)
@given(shapes(), st.integers(0, 99))
def test_the_loss_has_a_gradient_for_every_parameter(toy_model, shape, seed):
    model = toy_model(**SHAPE, **shape)
    if model.config.position == "fire":  # a threshold below all places has no effect
        model.positions.index.threshold.data.fill_(60.0)
    model.train()
    tokens, ids = inputs(seed, rows=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        logits = model(tokens, ids, prompt=torch.tensor([3, 3, 4, 5]))
    next_token_loss(logits, tokens.roll(-1, 1), z_loss=0.1).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    "position", ["learned", "sinusoidal", "rotary", "alibi", "relative", "fire"]
)
def test_random_places_are_drawn_in_order_while_training_alone(toy_model, position, monkeypatch):
    model = toy_model(**SHAPE, position=position, random_index=64, heads=2)
    assert model.config.longest in (None, 64)
    tokens, ids = inputs()
    drawn, draw = [], schemes.random_index
    note = lambda *a: drawn.append(draw(*a)) or drawn[-1]  # noqa: E731
    monkeypatch.setattr("addgpt.model.schemes.random_index", note)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        model.train()
        torch.manual_seed(0)
        found = [model(tokens, ids) for _ in range(2)]
        model.eval()
        still = [model(tokens, ids) for _ in range(2)]
    assert not torch.allclose(*found) and torch.equal(*still)
    assert len(drawn) == 2
    for places, logits in zip(drawn, found, strict=True):
        assert len(places) == LENGTH + 1 and (places.diff() > 0).all()
        assert places[0] >= 0 and places[-1] < 64
        wanted = Naive(model).logits(tokens[0].numpy(), ids[0].numpy(), places=places.tolist())
        np.testing.assert_allclose(logits[0], wanted, rtol=1e-3, atol=1e-3)
    wanted = Naive(model).logits(tokens[0].numpy(), ids[0].numpy())
    np.testing.assert_allclose(still[0][0], wanted, rtol=1e-3, atol=1e-3)


def test_every_place_is_drawn_as_often():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = torch.cat([schemes.random_index(5, 20) for _ in range(4000)])
    counts = torch.bincount(drawn, minlength=20)
    assert (counts - 1000).abs().max() < 130  # four standard deviations


def test_slopes_of_alibi_are_those_of_the_paper():
    alibi = positions.Alibi(GPTConfig(9, 9, heads=8, width=8, position="alibi"))
    slots = positions.Slots(torch.zeros(1, 3, 0), torch.tensor([0.0, 1.0, 2.0]), 0)
    slopes = -alibi.bias(slots)[0, :, 1, 0]
    assert slopes.tolist() == [1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]


def test_fire_sees_shares_of_the_way_and_starts_from_the_seed_alone():
    one, same, other = (build(GPTConfig(9, 40, position="fire"), seed) for seed in (1, 1, 2))
    assert torch.equal(one.positions.index.mix, same.positions.index.mix)
    assert not torch.equal(one.positions.index.mix, other.positions.index.mix)
    assert one.positions.index.threshold.item() == 10
    bias = one.positions.index.of_places(
        torch.tensor([30, 3000]), torch.tensor([0, 30, 3000])
    ).detach()
    torch.testing.assert_close(bias[:, 0, 0], bias[:, 1, 0], rtol=1e-3, atol=1e-3)  # all the way


def test_a_grouped_cache_is_as_small_as_its_heads():
    few, many = (GPTConfig(9, 9, heads=8, kv_heads=n, loops=2) for n in (2, 0))
    rooms = []
    for config in (few, many):
        cache, full = Cache(config, 3, 10, CPU), torch.zeros(3, config.key_heads, 10, 16)
        for depth in range(config.depth):
            key, _ = cache.extend(depth, full, full)
            assert key.shape == full.shape
        rooms.append(cache.store.shape)
    assert [room[:4] for room in rooms] == [(4, 2, 3, heads) for heads in (2, 8)]
    assert rooms[0][4:] == rooms[1][4:] and rooms[0][4] < 10 + 10


# What each setting of training does.


def test_smoothing_and_z_loss_are_their_formulas():
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(3, 5, 7)) * 3, rng.integers(-1, 7, (3, 5))
    wanted = 0.0
    for row, column in np.ndindex(3, 5):
        if targets[row, column] >= 0:
            z = logits[row, column]
            log_sum = math.log(np.exp(z).sum())
            spread = np.full(7, 0.2 / 7) + 0.8 * (np.arange(7) == targets[row, column])
            wanted += float(spread @ (log_sum - z)) + 0.01 * log_sum**2
    found = next_token_loss(torch.from_numpy(logits), torch.from_numpy(targets), 0.2, 0.01)
    assert float(found) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("setting", "smoothing", "z_loss"),
    [({"label_smoothing": 0.3}, 0.3, 0.0), ({"z_loss": 1e-2}, 0.0, 1e-2)],
)
def test_training_takes_them_and_validation_does_not(toy_run, setting, smoothing, z_loss):
    plain, changed = toy_run("plain", steps=50), toy_run("changed", steps=50, **setting)
    train(plain), train(changed)
    state = [run.state()[0]["model.head.weight"] for run in (plain, changed)]
    assert not torch.equal(*state)
    size = changed.config.train.eval_size
    some = changed.task().batch(np.random.default_rng(VAL_SEED), size, "val")
    model, reported = changed.model(), changed.metrics()[-1]["val_loss"]
    with torch.no_grad():
        logits, targets = forward(model, some)
    scored = int((targets >= 0).sum())
    without = float(next_token_loss(logits, targets)) / scored
    with_them = float(next_token_loss(logits, targets, smoothing, z_loss)) / scored
    assert reported == pytest.approx(without, rel=1e-4)
    assert abs(with_them - without) > 0.01 * without  # were they in, it would show


def test_the_average_is_that_of_all_steps_and_is_what_is_scored(toy_run, monkeypatch):
    decay, wanted = 0.8, None
    for steps in range(7):
        run = toy_run(f"run-{steps}", steps=max(steps, 1), schedule="constant", save_every=1)
        if not steps:
            wanted = {k: v.double() for k, v in build(run.config.model, 0).state_dict().items()}
            continue
        train(run)
        share = min(decay, (1 + steps) / (10 + steps))
        for name, now in run.model().state_dict().items():
            wanted[name] = share * wanted[name] + (1 - share) * now
    averaged, judged = toy_run("averaged", steps=6, schedule="constant", ema=decay), []

    def judge(model, batch) -> tuple[float, np.ndarray]:
        judged.append(model.head.weight.detach().clone())
        return loss_and_exact(model, batch)

    monkeypatch.setattr("addgpt.training.loop.loss_and_exact", judge)
    train(averaged)
    state = averaged.state()[0]
    for name, kept in averaged.model().state_dict().items():
        torch.testing.assert_close(kept.double(), wanted[name], rtol=1e-4, atol=1e-5)
        assert torch.equal(state[f"average.{name}"], kept)
        assert torch.equal(state[f"model.{name}"], run.model().state_dict()[name])
    evaluation_set = averaged.task().batch(np.random.default_rng(VAL_SEED), 32, "val")
    reported = averaged.metrics()[-1]["val_loss"]
    assert reported == pytest.approx(loss(averaged.model(), evaluation_set), rel=1e-5)
    assert torch.equal(judged[-1], state["average.head.weight"])


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_resumed_run_with_an_average_ends_as_an_uninterrupted_one(toy_run, optimizer):
    odd = {"ema": 0.9, "dropout": 0.2, "random_index": 60, "position": "rotary", "save_every": 5}
    whole, cut = (toy_run(name, optimizer=optimizer, **odd) for name in ("whole", "cut"))
    train(whole)

    def stop(moment) -> None:
        if moment.step == 7:
            raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(cut, stop)
    train(Run(cut.path))
    one, other = (run.state()[0] for run in (whole, cut))
    assert one.keys() == other.keys() and any(name.startswith("average.") for name in one)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_average_can_begin_when_a_run_is_resumed(toy_run):
    run = toy_run(steps=4)
    train(run)
    settings = dataclasses.replace(run.config.train, steps=8, ema=0.5)
    run.reconfigure(dataclasses.replace(run.config, train=settings))
    assert train(Run(run.path)).step == 8
    assert any(name.startswith("average.") for name in run.state()[0])


@pytest.mark.parametrize(("step", "decay", "share"), [(1, 0.5, 9 / 11), (100, 0.5, 0.5)])
def test_averaging_moves_by_the_share_of_its_formula(step, decay, share):
    ours, now = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    wanted = (1 - share) * ours.weight.detach() + share * now.weight.detach()
    optim.average(ours, now, step, decay)
    torch.testing.assert_close(ours.weight.detach(), wanted)


# Prefix LM: what the prompt sees in training is what it sees in decoding.


def test_training_tells_a_prefix_model_where_prompts_end(toy_model):
    task = load_task("sub", {"digits": 3})
    shape = {"levels": task.levels, "context": task.longest(), "vocab": len(task.alphabet)}
    model = toy_model(**shape, prefix=True)
    batch = task.batch(np.random.default_rng(0), 12, "train")
    sizes = batch.scored.argmax(1)
    assert len(set(sizes)) > 2
    logits, targets = forward(model, batch)
    naive = Naive(model)
    for row, size in enumerate(sizes):
        ids = batch.positions[row].astype(int)
        wanted = naive.logits(batch.tokens[row, :-1], ids, int(size))
        scored = (targets[row] >= 0).numpy()
        places = batch.scored[row, 1:]
        found = logits[row].detach().numpy()
        np.testing.assert_allclose(found[scored], wanted[places], rtol=1e-3, atol=1e-3)


def test_a_task_that_scores_its_prompt_cannot_have_a_prefix_model(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question.\n" * 50, encoding="utf-8")
    plain = {"corpus": str(text), "block": "16"}
    with pytest.raises(ValueError, match="task shakespeare scores its prompt; set prefix=false"):
        check_trainable(configure("shakespeare", plain | {"prefix": "true"}))
    check_trainable(configure("shakespeare", plain))
    check_trainable(configure("add", {"prefix": "true", "attention": "full"}))


# The catalogue.


def samples(value: str) -> list[str]:
    return {"N": ["2", "3"], "X": ["0.25", "0.5"]}.get(value, [value])


LEARNED, ALIBI = {"position": "learned"}, {"position": "alibi"}
WINDOW = {"attention": "window", "level_position": "relative,none,none"}
EXTRA = {"content": ALIBI, "inject": {"loops": "2"}, "random_index": LEARNED, "biases": WINDOW}
EXTRA["share=vo"] = ALIBI | {"content": "false"}
VISIBLE = {"full": (), "window": ((0,), (0,), ()), "reads": ((1, 1, 0, 0), (2, 1, 1, 0))}
OF_GPT = [(field, value) for field, value, _ in features_of(GPTConfig) if field != "architecture"]
MODEL_FEATURES = sorted(set(OF_GPT))  # what an architecture is: tests/test_baselines.py


@pytest.mark.parametrize(("field", "value"), MODEL_FEATURES, ids="=".join)
def test_every_feature_of_the_model_changes_what_it_computes(toy_model, field, value):
    """Setting it gives other logits than another value of the same field, from like weights."""
    base = GPTConfig(**SHAPE, heads=6, layers=1)
    value = "40" if field == "random_index" else samples(value)[0]
    value = ",".join([value] * 3) if field == "level_position" else value
    extra = EXTRA.get(f"{field}={value}", EXTRA.get(field, {}))
    on = with_settings(base, extra | {field: value})
    off = with_settings(base, extra)
    if on == off:
        metadata = next(f for f in dataclasses.fields(GPTConfig) if f.name == field).metadata
        others = [choice for choice in metadata["choices"] if choice != value] or ["false"]
        off = with_settings(base, {field: others[0]})
    if field == "level_position" and value == "learned,learned,learned":
        off = with_settings(base, {field: "rotary,rotary,rotary"})
    tokens, ids = inputs()
    found = []
    for config in (on, off):
        told = {"visible": VISIBLE[config.attention]}
        told["used"] = tuple(range(SHAPE["vocab"] - 1)) if config.alphabet == "used" else ()
        model = toy_model(**dataclasses.asdict(config) | told).train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found.append(model(tokens, ids, prompt=torch.tensor([4, 4])).detach())
    assert not torch.allclose(*found, atol=1e-3)
