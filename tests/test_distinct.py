"""A batch as one text of what is distinct in it: the same logits as of every slot by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.batch import Batch
from addgpt.export.onnx import Exported, any_size, inputs
from addgpt.model import forward as passes
from addgpt.model import schemes
from addgpt.model.build import build
from addgpt.model.distinct import context_logits, sees_contexts
from addgpt.model.forward import (
    exact_chances,
    exact_rows,
    forward,
    loss_and_exact,
    next_token_loss,
    scored_logits,
    tensors,
)
from addgpt.runs.resolve import configure
from addgpt.task_lookup import load_task

LEVELS = (6, 4, 4)
SHAPE = {"vocab": 11, "context": 30, "levels": LEVELS, "width": 16, "layers": 1, "heads": 2}
WINDOW = {"attention": "window", "visible": ((0, 1), (), ()), "position": "none"}
TASKS = [
    ("add", {"digits": 3}),
    ("add", {"digits": 3, "trace": "carry", "attention": "reads"}),
    ("mul", {"digits": 2, "trace": "carry", "attention": "reads"}),
]


@st.composite
def shapes(draw) -> dict:
    """Any one block of local attention that knows positions by ids, without rotations."""
    ways = st.sampled_from(["learned", "relative", "none"])
    some = st.lists(st.integers(-1, 2), unique=True, max_size=3).map(tuple)
    shape = {name: draw(st.booleans()) for name in ("next_ids", "qk_norm", "content", "tied")}
    shape["level_position"] = draw(st.tuples(ways, ways, ways))
    shape["content"] |= "relative" not in shape["level_position"]
    shape["position"] = "none"
    shape["norm_place"] = draw(st.sampled_from(["before", "after", "both"]))
    shape["share"] = draw(st.sampled_from(["none", "qk", "kv"])) if shape["content"] else "none"
    shape["kv_heads"] = draw(st.sampled_from([0, 1])) if shape["share"] == "none" else 0
    shape["attention"] = "window"
    shape["visible"] = draw(st.tuples(some, some, some).filter(any))
    return SHAPE | shape


@settings(max_examples=25)
@given(shapes(), st.integers(0, 99), st.integers(1, 40))
def test_logits_of_contexts_are_those_of_the_slots(toy_model, shape, seed, size):
    model = toy_model(**shape).double()
    assert sees_contexts(model)
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 3, (20, 9))
    ids = torch.from_numpy(np.stack([rng.integers(0, n, (4, 10)) for n in LEVELS], -1))
    ids = ids[torch.from_numpy(rng.integers(0, 4, 20))]
    slots = (rng.random(tokens.shape) < 0.5).nonzero()
    with torch.inference_mode():
        usual = model(torch.from_numpy(tokens), ids)
        logits, which = context_logits(model, tokens, ids, slots, size)
    torch.testing.assert_close(logits[torch.from_numpy(which)], usual[slots])


@settings(max_examples=25)
@given(shapes(), st.integers(0, 99))
def test_gradients_are_those_of_the_slots(toy_model, shape, seed):
    model, rng = toy_model(**shape).double().train(), np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, n, (4, 10)) for n in LEVELS], -1)[rng.integers(0, 4, 20)]
    scored = np.arange(10) >= rng.integers(1, 11, (20, 1))
    batch = Batch(rng.integers(0, 3, (20, 10)), scored, ids)
    found = []
    for logits_of in (forward, scored_logits):
        model.zero_grad()
        next_token_loss(*logits_of(model, batch), smoothing=0.1, z_loss=0.1).backward()
        gradients = {n: p.grad for n, p in model.named_parameters()}
        found.append({n: torch.zeros(1) if g is None else g for n, g in gradients.items()})
    assert scored_logits(model, batch)[0].shape[:2] == (1, batch.scored[:, 1:].sum())
    torch.testing.assert_close(*found)


@pytest.fixture(params=TASKS, ids=lambda param: f"{param[0]}-{param[1].get('trace', 'none')}")
def judged(request, toy_model):
    """A model of a task that is sometimes right, and a batch with operands of many lengths."""
    config = configure(request.param[0], request.param[1])
    task = load_task(config.task, config.options)
    model = toy_model(**vars(config.model) | {"width": 24}).double()
    return model, task.batch(np.random.default_rng(0), 150, "train")


def test_a_batch_is_judged_alike(judged, monkeypatch):
    model, batch = judged
    called = []
    monkeypatch.setattr(
        passes, "context_logits", lambda *args: called.append(1) or context_logits(*args)
    )
    ours = *loss_and_exact(model, batch), exact_chances(model, batch)[1]
    assert called
    monkeypatch.setattr(passes, "sees_contexts", lambda model: False)
    called.clear()
    usual = *loss_and_exact(model, batch), exact_chances(model, batch)[1]
    assert not called
    for mine, other in zip(ours, usual, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-30)


def test_nothing_scored_is_nothing_wrong(judged):
    model, batch = judged
    batch.scored[:] = False
    total, right = loss_and_exact(model, batch)
    assert total == 0 and right.all()


def test_a_broken_weight_spoils_only_what_sees_it(judged):
    """What stands where a slot sees fewer keys is a token that it sees, not any."""
    model, batch = judged
    usual = exact_chances(model, batch)[1]
    with torch.no_grad():
        model.token.weight[4] = torch.nan
    spoiled, has = np.isnan(exact_chances(model, batch)[1]), (batch.tokens == 4).any(1)
    assert not spoiled[~has].any() and spoiled.any() and np.isfinite(usual).all()


def test_wide_models_take_fewer_tokens_at_once(judged, monkeypatch):
    model, batch = judged  # of width 24
    seen = []
    monkeypatch.setattr(
        passes, "context_logits", lambda *args: seen.append(args[1].size) or context_logits(*args)
    )
    for name, value in {"CPU_TOKENS_AT_ONCE": 256, "SAME_CHANNELS": 48, "FEW_TOKENS": 0}.items():
        monkeypatch.setattr(passes, name, value)
    loss_and_exact(model, batch)
    assert 256 < max(seen) <= 512


def test_contexts_are_fewer_than_slots():
    config = configure("add", {"digits": 3})
    batch = load_task("add", config.options).batch(np.random.default_rng(0), 2000, "train")
    model, slots = build(config.model).eval(), batch.scored[:, 1:].nonzero()
    ids = torch.from_numpy(batch.positions.astype(np.int64))
    with torch.inference_mode():
        logits, which = context_logits(model, batch.tokens[:, :-1], ids, slots, 4096)
    assert len(which) == len(slots[0]) and which.max() == len(logits) - 1
    assert len(logits) < len(which) / 2


def test_passes_in_bfloat16_have_few_sizes(judged, monkeypatch):
    model, batch = judged
    with torch.autocast("cpu", torch.bfloat16):
        logits, targets = scored_logits(model.float(), batch)
    scored = int(batch.scored[:, 1:].sum())
    assert logits.shape[1] % 64 == 0 and 0 <= logits.shape[1] - scored < 64
    assert (targets >= 0).sum() == scored and (targets[0, scored:] == -1).all()
    exact = scored_logits(model, batch)[0]
    torch.testing.assert_close(logits[:, :scored].float(), exact, rtol=0.1, atol=0.1)


def test_nothing_scored_teaches_nothing(judged):
    model, batch = judged
    batch.scored[:] = False
    loss = next_token_loss(*scored_logits(model, batch))
    loss.backward()
    assert loss == 0


def test_verdicts_do_not_depend_on_the_rows_beside(judged, monkeypatch):
    model, batch = judged
    monkeypatch.setattr(passes, "FEW_TOKENS", 0)
    # Only the last token of each row is judged, and half of the rows end as the model likes best.
    rows, last = np.arange(len(batch)), batch.lengths - 1
    batch.scored[:] = np.arange(batch.scored.shape[1]) == last[:, None]
    with torch.inference_mode():
        choice = model(*tensors(batch, torch.device("cpu"))[:2]).argmax(-1).numpy()
    batch.tokens[::2][rows[: len(rows) // 2], last[::2]] = choice[rows, last - 1][::2]
    together = exact_rows(model.float(), batch).tolist()
    assert all(together[::2]) and not all(together)
    for size in (1, 7):
        parts = [exact_rows(model, batch.rows(rows[i : i + size])) for i in range(0, 150, size)]
        assert np.concatenate(parts).tolist() == together


def test_rows_with_one_code_stand_for_themselves(judged, monkeypatch):
    model, batch = judged
    usual = loss_and_exact(model, batch)
    monkeypatch.setattr(schemes, "_factors", lambda count: np.zeros(count, np.int64))
    ours = loss_and_exact(model, batch)
    assert ours[0] == pytest.approx(usual[0]) and ours[1].tolist() == usual[1].tolist()


def test_exported_programs_keep_their_sizes_free(judged):
    """What ONNX files are made from, also where nothing of ONNX is installed."""
    model, batch = judged
    given = inputs(model, batch.rows(np.arange(8)))
    ours = model(given["tokens"], given["ids"])
    sizes, asked = any_size(given), tuple(given.values())
    program = torch.export.export(Exported(model), asked, dynamic_shapes=sizes, strict=False)
    less = [x[:3, :-1].contiguous() for x in asked]
    torch.testing.assert_close(program.module()(*less), ours[:3, :-1])


def test_other_models_are_read_slot_by_slot(toy_model):
    assert sees_contexts(toy_model(**SHAPE | WINDOW))
    others = (
        {"layers": 2}, {"loops": 2}, {"attention": "full", "visible": ()},
        {"position": "rotary"}, {"level_position": ("rotary", "none", "none")},
    )  # fmt: skip
    for other in others:
        assert not sees_contexts(toy_model(**SHAPE | WINDOW | other)), other
    model = toy_model(**SHAPE | WINDOW)
    assert not sees_contexts(torch.nn.Sequential(model))
    for watch in ("register_forward_hook", "register_full_backward_hook"):
        hook = getattr(model.blocks[0], watch)(lambda *args: None)
        assert not sees_contexts(model)
        hook.remove()
    assert sees_contexts(model)
