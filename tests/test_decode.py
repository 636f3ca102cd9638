"""Generation with a cache against the plain loop that reads everything again for each token."""

import numpy as np
import pytest
import torch

from addgpt.config.architectures import GPTConfig
from addgpt.generation.decode import generate
from addgpt.model.kv_cache import Cache
from addgpt.task_lookup import load_task

LIMIT = 14
SHAPES = {
    "add": ("add", {}),
    "mul-shifted": ("mul", {"token_shift": True, "position": "learned"}),
    "sub-rotary": ("sub", {"level_position": ("rotary", "none", "learned")}),
    "mul-next-off": ("mul", {"next_ids": False, "position": "learned", "qk_norm": False}),
    "div-all-rotary": (
        "div",
        {"level_position": ("rotary",) * 3, "position": "rotary", "width": 32},
    ),
}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def case(request, toy_model):
    """A task, a random model of it, and prompts of equal length."""
    name, config = SHAPES[request.param]
    task = load_task(name, {"digits": 3} | ({"trace": "rows"} if name == "mul" else {}))
    model = toy_model(seed=2, context=80, levels=task.levels, **config)
    model.head.weight.data[task.alphabet.index(task.end)] *= 2  # rows end at different steps
    batch = task.batch(np.random.default_rng(0), 200, "val")
    starts = batch.scored.argmax(1)
    start = int(np.bincount(starts).argmax())
    return task, model, batch.tokens[starts == start, :start][:24]


def run(case, rows=slice(None), **settings):
    task, model, prompts = case
    positions = settings.pop("positions", task.positions)
    end = task.alphabet.index(task.end)
    return generate(model, positions, prompts[rows], settings.pop("limit", LIMIT), end, **settings)


@torch.inference_mode()
def naive(task, model, prompt, limit: int = LIMIT):
    """One row, no cache: tokens, whether the end mark came, probability of each token."""
    tokens, chances = list(prompt), []
    for _ in range(limit):
        row = np.array([tokens], np.uint8)
        ids = task.positions(row, 1)[:, : len(tokens) + 1]
        logits = model(torch.from_numpy(row).long(), torch.from_numpy(ids).long())[0, -1]
        best = int(logits.argmax())
        tokens.append(best)
        chances.append(float(logits.softmax(-1)[best]))
        if task.alphabet[best] == task.end:
            break
    return tokens[len(prompt) :], task.alphabet[tokens[-1]] == task.end, chances


def same(one, other, rows=slice(None)) -> None:
    assert (one.tokens[rows] == other.tokens).all()
    assert (one.length[rows] == other.length).all()
    assert (one.terminated[rows] == other.terminated).all()
    np.testing.assert_allclose(one.probability[rows], other.probability, atol=1e-4)


def test_greedy_equals_the_naive_loop_token_by_token(case):
    task, model, prompts = case
    out = run(case)
    ends = set()
    for row, prompt in enumerate(prompts):
        tokens, ended, chances = naive(task, model, prompt)
        ends.add(len(tokens))
        assert out.length[row] == len(tokens)
        assert out.terminated[row] == ended
        assert out.tokens[row, : len(tokens)].tolist() == tokens
        assert set(out.tokens[row, len(tokens) :]) <= {task.alphabet.index(task.end)}
        np.testing.assert_allclose(out.probability[row, : len(tokens)], chances, atol=1e-4)
    assert len(ends) > 1, "every row ends at the same step: the test shows nothing"


def test_a_row_does_not_depend_on_the_rows_beside_it(case):
    together = run(case)
    for row in range(0, len(case[2]), 5):
        same(together, run(case, rows=slice(row, row + 1)), slice(row, row + 1))
    same(together, run(case, rows=slice(None, None, -1)), slice(None, None, -1))


def test_a_shorter_limit_cuts_and_marks_what_is_unfinished(case):
    full, short = run(case), run(case, limit=3)
    assert short.tokens.shape[1] == 3
    assert (short.tokens == full.tokens[:, :3]).all()
    assert (short.terminated == (full.terminated & (full.length <= 3))).all()
    assert (short.length == np.minimum(full.length, 3)).all()


def test_top_1_sampling_is_greedy(case):
    rng = torch.Generator().manual_seed(0)
    same(run(case), run(case, temperature=1.0, top_k=1, rng=rng))


def test_sampling_is_a_function_of_the_generator(case, same_global_randomness):
    def sample(seed):
        return run(case, temperature=1.0, top_k=8, rng=torch.Generator().manual_seed(seed))

    same(sample(1), sample(1))
    assert (sample(1).tokens != sample(2).tokens).any()


def test_sampling_takes_the_likeliest_tokens_alone_and_as_often_as_they_are_likely(case):
    task, model, prompts = case
    prompt = prompts[:1].repeat(4000, 0)
    rng = torch.Generator().manual_seed(3)
    end = task.alphabet.index(task.end)
    out = generate(model, task.positions, prompt, 1, end, temperature=2.0, top_k=4, rng=rng)
    ids = torch.from_numpy(task.positions(prompt[:1], 1)[:, : prompt.shape[1] + 1]).long()
    logits = model(torch.from_numpy(prompt[:1]).long(), ids)[0, -1].detach()
    top = logits.topk(4)
    wanted = dict(zip(top.indices.tolist(), (top.values / 2).softmax(-1).tolist(), strict=True))
    found = np.bincount(out.tokens[:, 0], minlength=len(task.alphabet)) / 4000
    assert set(np.flatnonzero(found)) <= set(wanted)
    assert all(abs(found[token] - share) < 0.04 for token, share in wanted.items())
    chances = logits.softmax(-1)[torch.from_numpy(out.tokens[:, 0]).long()]
    np.testing.assert_allclose(out.probability[:, 0], chances, atol=1e-5)


def test_a_cache_keeps_what_it_was_given_while_it_grows_and_loses_rows():
    config = GPTConfig(vocab=2, context=200, layers=2, width=8, heads=4, kv_heads=2)
    rng = torch.Generator().manual_seed(0)
    cache = Cache(config, 6, 200, torch.device("cpu"))
    known = [torch.empty(2, 6, 2, 0, 2) for _ in range(2)]
    for size in [7, *[1] * 150, 5, *[1] * 38]:
        if cache.used in (20, 90):
            rows = torch.arange(0, len(known[0][0]), 2)
            cache.keep(rows)
            known = [pair[:, rows] for pair in known]
        for depth in range(2):
            new = torch.randn(2, known[depth].shape[1], 2, size, 2, generator=rng)
            known[depth] = torch.cat([known[depth], new], 3)
            found = cache.extend(depth, *new)
            assert all(torch.equal(a, b) for a, b in zip(found, known[depth], strict=True))
        cache.used += size
    assert cache.used == 200
