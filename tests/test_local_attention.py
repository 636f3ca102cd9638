"""Local attention: what is seen, by formulas; few keys as a mask of all; the cost of a token."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from addgpt.config.gpt import NO_PLACE
from addgpt.generation.decode import generate
from addgpt.generation.verify import verify_or_write
from addgpt.model import forward as passes
from addgpt.model.build import build, cache_of
from addgpt.model.forward import forward, loss_and_exact, next_token_loss, tensors
from addgpt.runs.resolve import configure
from addgpt.task import Problem
from addgpt.task_lookup import load_task
from tests.helpers.naive import Naive

pytestmark = pytest.mark.slow

LEVELS = (6, 4, 4)
LENGTH = 12
SHAPE = {"vocab": 11, "context": 30, "levels": LEVELS, "width": 32}
CPU = torch.device("cpu")
LOCAL = [
    ("add", {"digits": 3, "attention": "window"}),
    ("add", {"digits": 3, "attention": "reads"}),
    ("add", {"digits": 3, "trace": "carry", "attention": "reads"}),
    ("sub", {"digits": 3, "trace": "carry", "attention": "window"}),
    ("mul", {"digits": 2, "trace": "carry", "attention": "reads"}),
    ("mul", {"digits": 2, "trace": "carry", "attention": "window"}),
    ("div", {"digits": 2, "trace": "carry", "attention": "reads"}),
    ("div", {"digits": 2, "trace": "carry", "attention": "window"}),
]
CALC = {f"{op}_trace": "carry" for op in ("add", "sub", "mul", "div")}
CALC |= {"digits": 3, "sum_digits": 4, "layers": 1, "attention": "reads"}

differences = st.sampled_from([-2, -1, 0, 1, 2, NO_PLACE])
some = st.lists(differences, unique=True, max_size=4).map(tuple)
kinds = st.integers(0, LEVELS[-1] - 1)
reads = st.lists(st.tuples(kinds, kinds, differences, differences), min_size=1, max_size=8)


@st.composite
def shapes(draw) -> dict:
    """Any local attention, with any features that go with it."""
    heads = draw(st.sampled_from([1, 2, 4]))
    ways = st.sampled_from(["learned", "rotary", "relative", "none"])
    shape = {
        "heads": heads,
        "kv_heads": draw(st.sampled_from([n for n in (0, 1, 2) if heads % (n or 1) == 0])),
        "layers": draw(st.integers(1, 2)),
        "loops": draw(st.integers(1, 2)),
        "position": draw(st.sampled_from(["none", "learned", "sinusoidal", "rotary"])),
        "level_position": draw(st.tuples(ways, ways, ways)),
        "attention": draw(st.sampled_from(["window", "reads"])),
    }
    for name in ("next_ids", "qk_norm", "content"):
        shape[name] = draw(st.booleans())
    used = {shape["position"], *shape["level_position"]}
    shape["content"] |= "rotary" in used or "relative" not in used
    windows = st.tuples(some, some, some).filter(any)
    shape["visible"] = draw(windows if shape["attention"] == "window" else reads.map(tuple))
    return shape


def inputs(seed: int, rows: int = 2, length: int = LENGTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Few ids, so that many tokens share theirs, and many are 0."""
    rng = torch.Generator().manual_seed(seed)
    ids = [torch.randint(n, (rows, length + 1), generator=rng) for n in LEVELS]
    return torch.randint(11, (rows, length), generator=rng), torch.stack(ids, -1)


@settings(max_examples=20)
@given(shapes(), st.sampled_from(["visible", "pinned"]), st.integers(0, 99))
def test_biases_of_what_is_visible_alone_equal_the_naive_formulas(toy_model, shape, biases, seed):
    if "relative" not in shape["level_position"]:
        shape["level_position"] = ("relative", *shape["level_position"][1:])
    share = "none" if shape["content"] else ("none", "vo")[seed % 2]
    model = toy_model(**SHAPE, **shape, biases=biases, share=share, seed=seed).double()
    tokens, ids = inputs(seed, rows=1)
    naive, found = Naive(model), model(tokens, ids)[0].detach().numpy()
    wanted = naive.logits(tokens[0].numpy(), ids[0].numpy())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


def planned(model, ids: torch.Tensor):
    cache = cache_of(model.config, len(ids), ids.shape[1] - 1, CPU)
    cache.store = cache.store.to(next(model.parameters()).dtype)
    cache.plan(ids)
    return cache


def masked(model, sight: torch.Tensor):
    """The same model, but all keys are looked at, and a mask hides those not in `sight`."""
    full = build(replace(model.config, attention="full", visible=())).to(torch.double)
    full.load_state_dict(model.state_dict())
    bias = full.positions.bias

    def hiding(slots):
        total = bias(slots)
        hidden = torch.zeros(sight.shape).double().masked_fill(~sight, -torch.inf)[:, None]
        hidden = hidden.expand(-1, model.config.heads, -1, -1)
        return hidden if total is None else total + hidden

    full.positions.bias = hiding
    return full


def sight_of(model, ids: torch.Tensor) -> torch.Tensor:
    """(B, T, T) which places see which, by the naive formulas."""
    naive, length = Naive(model), ids.shape[1] - 1
    sight = torch.zeros(len(ids), length, length, dtype=torch.bool)
    naive.prompt = 0
    for row, one in enumerate(ids.numpy()):
        naive.ids, naive.found = one, {}
        for t in range(length):
            sight[row, t, naive.seen(t)] = True
    return sight


@settings(max_examples=60, deadline=None)
@given(shapes(), st.integers(0, 99), st.integers(1, LENGTH - 2))
def test_all_ways_to_read_agree_with_plain_formulas(toy_model, shape, seed, size):
    """All at once, some places alone, and in pieces with a cache that loses a row."""
    model = toy_model(**SHAPE, **shape).double()
    tokens, ids = inputs(seed)
    with torch.no_grad():
        whole = model(tokens, ids)
        naive = Naive(model)
        for row in range(2):
            wanted = naive.logits(tokens[row].numpy(), ids[row].numpy())
            np.testing.assert_allclose(whole[row], wanted, rtol=1e-4, atol=1e-4)

        at = torch.tensor([[0, size], [size, LENGTH - 1]])
        wanted = whole.take_along_dim(at[:, :, None], 1)
        torch.testing.assert_close(model(tokens, ids, at=at), wanted, rtol=1e-6, atol=1e-6)

        cache = planned(model, ids)
        found = model(tokens[:, :size], ids[:, : size + 1], cache)
        torch.testing.assert_close(found, whole[:, :size], rtol=1e-6, atol=1e-6)
        cache.keep(torch.tensor([1]))
        found = [
            model(tokens[1:, t : t + 1], ids[1:, t : t + 2], cache) for t in range(size, LENGTH)
        ]
        torch.testing.assert_close(torch.cat(found, 1), whole[1:, size:], rtol=1e-6, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(shapes(), st.integers(0, 99))
def test_few_keys_are_as_a_mask_of_all_gradients_too(toy_model, shape, seed):
    model = toy_model(**SHAPE, **shape).double().train()
    tokens, ids = inputs(seed)
    full = masked(model, sight_of(model, ids)).train()
    found, wanted = ([one(tokens, ids), one] for one in (model, full))
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-6, atol=1e-6)
    for logits, _ in (found, wanted):
        next_token_loss(logits, tokens.roll(-1, 1)).backward()
    gradients = dict(full.named_parameters())
    for name, parameter in model.named_parameters():
        other = gradients[name].grad
        if parameter.grad is None or other is None:  # biases alone: one path may not reach it
            assert not any(g is not None and g.any() for g in (parameter.grad, other)), name
        else:
            torch.testing.assert_close(parameter.grad, other.to(parameter.grad.dtype), msg=name)


@settings(max_examples=40, deadline=None)
@given(shapes(), st.integers(0, 99), st.integers(0, LENGTH - 1))
def test_a_token_changes_what_sees_it_and_nothing_else(toy_model, shape, seed, place):
    model = toy_model(**SHAPE, **shape | {"layers": 1, "loops": 1}).double()
    tokens, ids = inputs(seed)
    changed = tokens.clone()
    changed[:, place] = (changed[:, place] + 1) % 11
    with torch.no_grad():
        before, after = model(tokens, ids), model(changed, ids)
    moved = ((before - after).abs() > 1e-12).any(-1)
    sight = sight_of(model, ids)[:, :, place]
    assert not sight[:, :place].any() and sight[:, place].all()  # no future; the token just read
    assert torch.equal(moved, sight)


@pytest.mark.parametrize(("name", "chosen"), [*LOCAL, ("calc", CALC)])
def test_batches_of_tasks_agree_with_plain_formulas(toy_model, name, chosen):
    config = configure(name, chosen | {"width": 24, "heads": 2, "layers": 2})
    task = load_task(config.task, config.options)
    model = toy_model(**vars(config.model)).double()
    rows = 3 if name != "calc" else 2
    batch = task.batch(np.random.default_rng(0), rows, "val")
    with torch.no_grad():
        logits, targets = forward(model, batch)
    tokens, ids, _ = tensors(batch, CPU)
    naive, checked = Naive(model), 0
    for row in range(rows):
        end = int(batch.lengths[row])
        wanted = naive.logits(tokens[row, : end - 1].numpy(), ids[row, :end].numpy())
        scored = np.flatnonzero(batch.scored[row, 1:])
        got = logits[row][targets[row] >= 0]
        np.testing.assert_allclose(got, wanted[scored], rtol=1e-4, atol=1e-4)
        checked += len(scored)
        few = [len(naive.seen(int(t))) for t in scored]
        assert 1 < max(few) < len(tokens[row])
    assert checked > 6


@pytest.mark.parametrize("ahead", [1, 40, 10_000])
def test_decoding_writes_what_whole_passes_choose(toy_model, monkeypatch, ahead):
    monkeypatch.setattr("addgpt.model.schemes.AHEAD", ahead)
    config = configure("calc", CALC | {"width": 24, "heads": 2})
    task = load_task(config.task, config.options)
    model = toy_model(seed=1, spread=0.5, **vars(config.model)).double()
    prompts = np.stack([task.encode(text) for text in ("12*34=", "67*89=", "10*99=")])
    limit = 40
    free = generate(model, task.positions, prompts, limit, end=255).tokens
    first = {end: (free == end).argmax(1) for end in np.unique(free) if (free == end).any()}
    end = max(first, key=lambda end: len(set(first[end].tolist())))
    out = generate(model, task.positions, prompts, limit, end)
    assert len(set(out.length.tolist())) > 1  # rows leave the batch
    ids = torch.from_numpy(task.positions(prompts, limit).astype(np.int64))
    for row in range(3):
        text = prompts[row].astype(np.int64).tolist()
        for now in range(out.length[row]):
            with torch.no_grad():
                logits = model(torch.tensor([text]), ids[row : row + 1, : len(text) + 1])[0, -1]
            assert out.tokens[row, now] == logits.argmax()
            chance = logits.softmax(-1).max().item()
            assert out.probability[row, now] == pytest.approx(chance, rel=1e-4)
            text.append(int(out.tokens[row, now]))


@pytest.mark.parametrize("size", [5, 64])
def test_long_rows_in_pieces_are_as_rows_in_one(toy_model, monkeypatch, size):
    config = configure("calc", CALC | {"width": 24, "heads": 2})
    task = load_task(config.task, config.options)
    model = toy_model(**vars(config.model)).double()
    batch = task.batch(np.random.default_rng(0), 5, "val")
    whole = loss_and_exact(model, batch)
    monkeypatch.setattr(passes, "CPU_TOKENS_AT_ONCE", size)
    monkeypatch.setattr(passes, "SAME", 1)
    pieces = loss_and_exact(model, batch)
    assert pieces[0] == pytest.approx(whole[0], rel=1e-6)
    assert pieces[1].tolist() == whole[1].tolist()


class Work(TorchDispatchMode):
    """Counts the numbers that operations write; views write none."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = [x for x in torch.utils._pytree.tree_leaves(args) if isinstance(x, torch.Tensor)]
        known = {x.untyped_storage().data_ptr() for x in given}
        for made in torch.utils._pytree.tree_leaves(out):
            fresh = isinstance(made, torch.Tensor)
            if fresh and made.untyped_storage().data_ptr() not in known:
                self.numbers += made.numel()
                self.largest = max(self.largest, made.numel())
        return out


def long_row(task, digits: int):
    """The reference work of a product, and its prompt."""
    a = b = int("1234567891" * 10) % 10**digits
    prompt = task.encode(task.prompt(Problem("*", (a, b))))[None]
    return task.reference(prompt), prompt


@pytest.mark.parametrize("attention", ["window", "reads"])
def test_a_token_of_a_long_text_costs_what_one_of_a_short_text_costs(toy_model, attention):
    config = configure("mul", {"digits": 3, "trace": "carry", "attention": attention})
    task = load_task(config.task, config.options)
    model = toy_model(**vars(config.model) | {"width": 24, "heads": 2})
    work = {}
    for digits in (8, 24):
        batch, _ = long_row(task, digits)
        tokens, ids, _ = tensors(batch, CPU)
        cache = planned(model, ids)
        length = tokens.shape[1]
        with torch.inference_mode():
            model(tokens[:, : length - 21], ids[:, : length - 20], cache)
            one = slice(length - 21, length - 20)  # works out positions of tokens to come
            model(tokens[:, one], ids[:, one.start : one.stop + 1], cache)
            with Work() as count:
                for t in range(length - 20, length):
                    model(tokens[:, t : t + 1], ids[:, t : t + 2], cache)
        work[digits] = length, count.numbers, count.largest
    (short, few, _), (long, many, largest) = work.values()
    assert long > 6 * short and largest < long
    assert many < 1.2 * few


@pytest.mark.parametrize("attention", ["window", "reads"])
def test_training_grows_with_the_length_not_its_square(toy_model, attention):
    config = configure("mul", {"digits": 3, "trace": "carry", "attention": attention})
    task = load_task(config.task, config.options)
    model = toy_model(**vars(config.model)).train()
    work = {}
    for digits in (8, 24):
        batch, _ = long_row(task, digits)
        with Work() as count:
            logits, targets = forward(model, batch)
            next_token_loss(logits, targets).backward()
        work[digits] = batch.lengths[0], count.numbers
    (short, few), (long, many) = work.values()
    assert long > 6 * short
    assert many / few < 1.3 * long / short


def test_work_of_any_length_is_settled_as_a_draft(toy_model, monkeypatch):
    monkeypatch.setattr(passes, "PAIRS_AT_ONCE", 3)
    monkeypatch.setattr(passes, "CPU_TOKENS_AT_ONCE", 100)
    config = configure("mul", {"digits": 3, "trace": "carry", "attention": "reads"})
    task = load_task(config.task, config.options)
    reference, prompt = long_row(task, 8)

    class Right(torch.nn.Module):
        """Says what the reference says, through the passes of a local model."""

        def __init__(self) -> None:
            super().__init__()
            self.model = toy_model(**vars(config.model))
            self.config = self.model.config
            self.most = 0

        def forward(self, tokens, ids, cache=None, at=None, prompt=None):
            first = cache.used if cache is not None else 0
            self.most = max(self.most, tokens.shape[1])
            logits = self.model(tokens, ids, cache, at, prompt)
            said = torch.from_numpy(reference.tokens[:, first + 1 :].astype(np.int64))
            return logits * 0 + torch.nn.functional.one_hot(
                said[:, : logits.shape[1]], logits.shape[2]
            )

    model, limit = Right(), int(reference.lengths[0])
    out = verify_or_write(model, task, prompt, limit)
    assert out.terminated.all() and 1 < model.most <= 100  # not token by token, nor all at once
    wanted = reference.tokens[0, prompt.shape[1] : reference.lengths[0]]
    np.testing.assert_array_equal(out.tokens[0, : out.length[0]], wanted)
