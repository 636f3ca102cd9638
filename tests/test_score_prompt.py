"""A loss that counts the prompt, too: against a sum over characters, and off by default."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from addgpt.config.errors import UsageError
from addgpt.model.build import build
from addgpt.model.forward import loss
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.loop import Loop
from addgpt.training.preflight import check_trainable

TINY = {"digits": 3, "width": 16, "heads": 2, "batch_size": 8, "steps": 3, "eval_size": 20}


def batch_of(task, seed: int = 0):
    return task.batch(np.random.default_rng(seed), 8, "train")


@pytest.mark.parametrize("name", ["add", "mul", "div", "calc"])
def test_prompts_are_scored_and_padding_is_not(name):
    task = load_task(name, {"digits": 3})
    batch = batch_of(task)
    full = batch.with_prompt_scored()
    for row, (prompt, completion) in enumerate(task.texts(batch)):
        text = prompt + completion
        assert full.scored[row].tolist() == [
            place < len(text) for place in range(full.scored.shape[1])
        ]
    assert (full.tokens == batch.tokens).all() and (full.positions == batch.positions).all()
    assert (full.lengths == batch.lengths).all()


def naive_loss(model, task, batch, whole: bool) -> float:
    """Row by row, character by character, without padding."""
    total, count = 0.0, 0
    for row, (prompt, completion) in enumerate(task.texts(batch)):
        length = len(prompt + completion)
        tokens = torch.from_numpy(batch.tokens[row, :length].astype(np.int64))
        ids = torch.from_numpy(batch.positions[row, :length].astype(np.int64))
        with torch.no_grad():
            logits = model(tokens[None, :-1], ids[None])[0]
        for place in range(1 if whole else len(prompt), length):
            row_logits = logits[place - 1].double()
            total -= math.log(float(row_logits.softmax(-1)[tokens[place]]))
            count += 1
    return total / count


@pytest.mark.parametrize("whole", [True, False])
def test_the_loss_counts_what_it_says(whole, tmp_path):
    config = configure("add", TINY | {"score_prompt": whole, "label_smoothing": 0.0})
    run = Run.create(tmp_path / "run", config)
    task, model = run.task(), build(config.model, config.seed).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():  # those of the output are zero at first
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    loop = Loop(run, weights=model.state_dict())
    loop.advance()  # on batch 0
    batch = batch_of(task, (config.seed, 0, 0))
    assert loop.state.loss == pytest.approx(naive_loss(model, task, batch, whole), rel=1e-4)
    assert naive_loss(model, task, batch, True) != pytest.approx(
        naive_loss(model, task, batch, False), rel=1e-3
    )
    alone = naive_loss(model, task, loop.evaluation_set, False)
    assert loss(model, loop.evaluation_set) == pytest.approx(alone, rel=1e-4)


def test_it_is_off_by_default_and_val_is_as_ever(tmp_path):
    assert configure("add", TINY) == configure("add", TINY | {"score_prompt": "false"})
    loops = {}
    for whole in (False, True):
        config = configure("add", TINY | {"score_prompt": whole})
        loops[whole] = Loop(Run.create(tmp_path / str(whole), config))
    learned = []
    for loop in loops.values():
        loop.learner.learn = lambda batch, step, share: learned.append(batch) or 0.0
        loop.advance()
    default, full = learned
    assert (default.scored == batch_of(loops[False].task, (0, 0, 0)).scored).all()
    assert (full.scored >= default.scored).all() and (full.scored != default.scored).any()
    one, other = (loop.evaluation_set for loop in loops.values())
    assert (one.scored == other.scored).all()


def test_a_prefix_that_sees_its_own_prompt_is_not_scored_on_it():
    config = configure("add", TINY | {"attention": "full", "prefix": True, "score_prompt": True})
    with pytest.raises(UsageError, match="set score_prompt=false"):
        check_trainable(config)
