"""The auxiliary loss on running sums: against Python's integers, and a loss computed apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.model.forward import forward
from addgpt.model.hooks import watched
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.auxiliary import AuxiliaryLoss, auxiliary_loss
from addgpt.training.loop import Loop
from tests.helpers.resuming import check_resumed

FORMATS = [
    {"trace": "none"},
    {"trace": "none", "reverse_operands": True},
    {"trace": "whole", "trace_drop": 4},
    {"trace": "rows"},
    {},
]


def sums(a: int, b: int) -> list[int]:
    """For each digit of a product: the products of its column, and what was carried there."""
    first, second = ([int(char) for char in str(x)[::-1]] for x in (a, b))
    found, carry = [], 0
    for column in range(len(first) + len(second)):
        total = carry + sum(
            x * y for i, x in enumerate(first) for j, y in enumerate(second) if i + j == column
        )
        found.append(total)
        carry = total // 10
    return found


@given(st.sampled_from(FORMATS), st.integers(0, 10**6), st.integers(0, 10**6))
def test_each_digit_of_a_product_is_told_the_sum_that_it_ends(options, a, b):
    task = load_task("mul", options | {"digits": 7})
    prompt = task.prompt(task.parse(f"{a}*{b}"))
    batch = task.reference(task.encode(prompt)[None])
    told = task.auxiliary(batch)[0] * 81 * 7
    slots = np.flatnonzero(~np.isnan(told))
    np.testing.assert_allclose(told[slots], sums(a, b), rtol=1e-5)
    written = task.decode(batch.tokens[0])
    assert [int(written[slot]) for slot in slots] == [total % 10 for total in sums(a, b)]
    assert batch.scored[0, slots].all() and slots[-1] == batch.tokens.shape[1] - 2


@pytest.mark.parametrize("trace", ["none", "rows"])
def test_the_loss_is_the_squared_error_of_two_heads_of_the_last_block(toy_run, trace):
    run = toy_run(task="mul", trace=trace, layers=2, attention="full", aux=0.5)
    loop = Loop(run)
    (loss,), model, task = loop.learner.auxiliary, loop.model, run.task()
    assert isinstance(loss, AuxiliaryLoss)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*loss.parameters(), *model.parameters()):
            parameter.normal_(generator=generator)
    batch = task.batch(np.random.default_rng(0), 12, "train")
    model.train()
    forward(model, batch)
    got = loss(batch).item()
    seen = {}
    model.eval()
    with watched(model, lambda name, x: seen.setdefault(name, x)), torch.no_grad():
        ids = torch.from_numpy(batch.positions.astype(np.int64))
        model(torch.from_numpy(batch.tokens[:, :-1].astype(np.int64)), ids)
    found, wanted = seen["found.1"].numpy(), task.auxiliary(batch)
    weight, bias = (parameter.detach().numpy() for parameter in loss.parameters())
    total = 0.0
    for row, slot in np.argwhere(~np.isnan(wanted)):
        told = (found[row, :2, slot - 1] * weight).sum(-1) + bias
        total += ((told - wanted[row, slot]) ** 2).mean()
    assert got == pytest.approx(0.5 * total, rel=1e-4)


def test_a_resumed_run_is_the_same_and_its_model_has_no_more_weights(toy_run):
    settings = {"task": "mul", "trace": "none", "attention": "full", "save_every": 2, "steps": 4}
    whole, part, plain = (
        toy_run(name=name, aux=aux, **settings)
        for name, aux in (("a", 1.0), ("b", 1.0), ("c", 0.0))
    )
    check_resumed(whole, part, plain)


def test_a_loss_that_comes_and_goes_as_training_is_resumed(tmp_path):
    words = ["train", "--out", str(tmp_path / "run"), "--set", "save_every=1"]
    small = "digits=1 trace=none layers=1 width=8 heads=2 batch_size=4 eval_size=4 threads=1"
    first = [*words, "--task", "mul", *(f"--set={pair}" for pair in small.split())]
    for steps, aux in enumerate(("0.1", "0", "0.2", "0.2"), start=1):
        asked = [*(words if steps > 1 else first), f"--set=aux={aux}", f"--set=steps={steps}"]
        done = CliRunner().invoke(main, [*asked, "--resume"] if steps > 1 else asked)
        assert done.exit_code == 0, done.output
    assert Run(tmp_path / "run").progress()["step"] == 4


def test_what_has_none_is_refused(toy_run):
    with pytest.raises(UsageError, match="task add has no auxiliary loss: aux must be 0; try mul"):
        Loop(toy_run(aux=1.0))
    run = toy_run(name="gru", task="mul", trace="none")
    settings = run.config.train.__class__(aux=1.0)
    with pytest.raises(UsageError, match="aux needs attention"):
        auxiliary_loss(run.task(), torch.nn.Linear(1, 1), settings)
