"""One row token by token in numpy: what torch writes, for the models that it knows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from addgpt.generation import decode, one_row
from addgpt.model.build import build
from addgpt.runs.resolve import configure
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

STEPPED = [
    ("calc", {"digits": 2, "sum_digits": 2}),
    ("mul", {"attention": "window", "norm": "none"}),
    ("sub", {"level_position": "relative,none,learned"}),
    ("sum", {"activation": "relu2", "tied": "true", "next_ids": "false"}),
    ("add", {"activation": "relu2"}),
]
OTHER = [
    ("add", {}),  # geglu
    ("sub", {"attention": "full"}),
    ("sub", {"layers": 2}),
    ("sub", {"norm": "rms"}),
    ("sub", {"qk_norm": "false"}),
    ("sub", {"mlp_ratio": 0}),
    ("sub", {"kv_heads": 2}),
    ("sub", {"level_position": "rotary,rotary,learned"}),
]


def random_model(name: str, chosen: dict):
    """A task, and a model of it whose every weight is drawn at random."""
    config = configure(name, {"width": 24, "heads": 4} | chosen)
    model = build(config.model).eval()
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return load_task(config.task, config.options), model


@pytest.mark.parametrize(("name", "chosen"), STEPPED)
def test_it_writes_what_torch_writes(name, chosen, monkeypatch):
    """Also where positions are worked out in several parts, and up to the last token there is."""
    monkeypatch.setattr(one_row, "AHEAD", 7)
    task, model = random_model(name, chosen)
    assert one_row.can_step(model)
    for problem in task.batch(np.random.default_rng(1), 6, "train").problems:
        prompt = task.encode(task.prompt(problem))[None]
        quick = decode.write(model, task, prompt, 40)
        with monkeypatch.context() as patch:
            patch.setattr(one_row, "can_step", lambda model: False)
            slow = decode.write(model, task, prompt, 40)
        np.testing.assert_array_equal(quick.tokens, slow.tokens)
        np.testing.assert_array_equal(quick.length, slow.length)
        np.testing.assert_allclose(quick.probability, slow.probability, atol=2e-5)
    assert len({*quick.tokens[0]}) > 1


@pytest.mark.parametrize(("name", "chosen"), OTHER)
def test_models_with_other_parts_are_left_to_torch(name, chosen):
    assert not one_row.can_step(random_model(name, chosen)[1])


def test_dropout_in_training_is_left_to_torch():
    _, model = random_model("sub", {"dropout": 0.1})
    assert one_row.can_step(model)
    assert not one_row.can_step(model.train())


def test_who_listens_to_a_model_hears_each_token():
    task, model = random_model("sub", {})
    heard = []
    hook = model.blocks[0].mlp.register_forward_hook(lambda *_: heard.append(1))
    prompt = task.encode("12-345=")[None]
    length = int(decode.write(model, task, prompt, 9).length[0])
    assert len(heard) == length
    hook.remove()
    decode.write(model, task, prompt, 9)
    assert len(heard) == length
