"""A curriculum: which task a step trains on, what is refused, exact resume."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.config.errors import UsageError
from addgpt.runs.curriculum import curriculum
from addgpt.runs.resolve import configure, reconfigure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training import loop
from addgpt.training.loop import train

pytestmark = pytest.mark.slow

TASK = load_task("add", {"digits": 4})


def test_without_stages_the_task_is_itself():
    assert curriculum(TASK, "").at(0) is TASK
    assert curriculum(TASK, "").at(10**9) is TASK


@given(
    st.lists(st.integers(0, 2000), unique=True, max_size=5).map(sorted),
    st.integers(0, 2500),
)
def test_the_last_stage_that_has_begun_counts(starts, step):
    shares = [round(0.1 * (i + 1), 1) for i in range(len(starts))]
    text = ";".join(f"{n}:carry={x} digits=2" for n, x in zip(starts, shares, strict=True))
    begun = [x for n, x in zip(starts, shares, strict=True) if n <= step]
    wanted = dataclasses.replace(TASK, carry=begun[-1], digits=2) if begun else TASK
    assert curriculum(TASK, text).at(step) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("carry=0.5", "curriculum must be STEP:option=value"),
        ("0:", "curriculum must be STEP"),
        ("0:carry", "curriculum must be STEP"),
        ("-1:carry=1", "curriculum must be STEP"),
        ("1.5:carry=1", "curriculum must be STEP"),
        ("5:carry=1;5:carry=0", "curriculum must be STEP"),
        ("9:carry=1;5:carry=0", "curriculum must be STEP"),
        ("0:carry=1;0:carry=0", "curriculum must be STEP"),
        ("0:carry=0.3;0:carry=0", "curriculum must be STEP"),
        ("0:digits=1 digits=2", "curriculum must be STEP"),
        ("0:cary=1", "unknown option 'cary' in curriculum; did you mean carry"),
        ("0:carry=2", r"carry must be in \[0, 1\], not 2"),
        ("0:digits=5", "stage '0:digits=5' needs other position ids than the task"),
        ("0:hints=true", "stage '0:hints=true' has another alphabet than the task"),
    ],
)
def test_what_cannot_be_is_refused_before_training(text, message):
    with pytest.raises(UsageError, match=message) as error:
        configure("add", {"digits": 4, "curriculum": text})
    assert "\n" not in str(error.value)


def test_no_stage_trains_on_what_is_held_out():
    with pytest.raises(UsageError, match="'5:train_share=0.9' trains on problems that the task"):
        configure("modular", {"curriculum": "0:train_share=0.2;5:train_share=0.9"})
    for text in ("0:train_share=0.2", "0:op=-"):  # fewer pairs of train; other problems
        configure("modular", {"curriculum": text})


def test_training_draws_from_the_stage_of_its_step(toy_run, monkeypatch):
    run = toy_run(digits=3, steps=6, curriculum="0:digits=1;2:digits=2;4:digits=3 full=1")
    seen = []
    learner = loop.learner

    def spying(*arguments):
        real = learner(*arguments)
        learn = real.learn
        real.learn = lambda batch, step, share: (seen.append(batch), learn(batch, step, share))[1]
        return real

    monkeypatch.setattr(loop, "learner", spying)
    train(run)
    longest = [max(len(str(n)) for p in batch.problems for n in p.operands) for batch in seen]
    assert longest == [1, 1, 2, 2, 3, 3]
    assert all(len(str(n)) == 3 for p in seen[-1].problems for n in p.operands)


def test_a_resumed_run_is_the_same(toy_run):
    weights = []
    for name, halves in (("whole", [8]), ("halves", [4, 8])):
        run = toy_run(name=name, steps=8, curriculum="0:carry=1;5:carry=0 edges=0.5")
        for steps in halves:
            config = reconfigure(run.config, None, {"schedule": "constant", "steps": steps})
            run.reconfigure(config)
            train(run)
        weights.append({k: v.numpy() for k, v in Run(run.path).model().state_dict().items()})
    for name, tensor in weights[0].items():
        np.testing.assert_array_equal(tensor, weights[1][name])


def test_the_trace_is_dropped_bit_by_bit_until_the_sum_stands_alone(toy_run, tmp_path):
    """Stepwise internalisation: the task itself has no work left; earlier stages are longer."""
    text = "0:trace_drop=0;2:trace_drop=3"
    options = {"digits": 3, "format": "plain", "trace": "carry", "trace_drop": 6}
    run = toy_run(steps=4, curriculum=text, position="learned", **options)
    whole = load_task("add", options | {"trace_drop": 0})
    assert run.config.model.context == whole.longest() == run.task().longest() + 6
    assert train(run).step == 4
    with pytest.raises(UsageError, match="longer problems than the model was built for"):
        short = toy_run(name="short", **options)
        reconfigure(short.config, None, {"curriculum": text})


def test_validation_is_on_the_task_itself(toy_run):
    staged, plain = (
        toy_run(name=name, steps=2, digits=2, curriculum=text)
        for name, text in (("staged", "0:digits=1"), ("plain", ""))
    )
    sets = [loop.Loop(run).evaluation_set for run in (staged, plain)]
    assert (sets[0].tokens == sets[1].tokens).all()
    assert re.fullmatch(r"0:digits=1", staged.config.train.curriculum)
