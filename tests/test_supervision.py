"""Deep supervision: labels against Python's integers, and a loss computed apart."""

from __future__ import annotations

import csv
import dataclasses
import math
import re
import shlex
from pathlib import Path

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
from addgpt.runs.checkpoint import weight_count
from addgpt.runs.published import load_recipe
from addgpt.runs.resolve import configure, reconfigure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.loop import Loop, train
from addgpt.training.supervision import DeepSupervision
from tests.helpers.resuming import check_resumed

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "products_without_trace.md"
ROWS = ROOT / "results" / "reference" / "products-without-trace.csv"
DIGITS = 7
ALL = "products@1,columns@2,carries@2"
PURE = {"task": "mul", "trace": "none", "attention": "full", "layers": 2}


def number(digits: np.ndarray) -> int:
    return sum(int(digit) * 10**place for place, digit in enumerate(digits))


def results(a: int, b: int) -> dict[str, list[list[int]]]:
    """For each digit of a product, lowest first, the numbers of each name."""
    first, second = ([int(char) for char in str(x)[::-1]] for x in (a, b))
    size = len(first) + len(second)
    pairs = [[0] * DIGITS for _ in range(size)]
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            pairs[i + j][i] = x * y
    below = [[0] * DIGITS, *pairs]
    columns = [sum(p % 10 for p in pairs[k]) + sum(p // 10 for p in below[k]) for k in range(size)]
    carries = [sum(columns[m] * 10**m for m in range(k)) // 10**k for k in range(size)]
    return {
        "products": pairs,
        "columns": [[column] for column in columns],
        "carries": [[carry] for carry in carries],
    }


@given(st.sampled_from([False, True]), st.integers(0, 10**7 - 1), st.integers(0, 10**7 - 1))
def test_each_digit_of_a_product_is_told_what_it_is_made_of(reverse, a, b):
    task = load_task("mul", {"digits": DIGITS, "trace": "none", "reverse_operands": reverse})
    batch = task.reference(task.encode(task.prompt(task.parse(f"{a}*{b}")))[None])
    written = batch.tokens[0, batch.scored[0]][:-1]
    told = results(a, b)
    ends = [(c[0] + x[0]) % 10 for c, x in zip(told["columns"], told["carries"], strict=True)]
    assert ends == written.tolist()
    sizes = task.supervised()
    for name, labels in task.labels_of(batch, [*sizes]).items():
        count, classes = sizes[name]
        assert labels.shape == (*batch.tokens.shape, count) and labels.max() < classes
        slots = (labels >= 0).all(2)
        assert (slots == (labels >= 0).any(2)).all()
        assert slots[0, -1 - len(written) : -1].all() and slots.sum() == len(written)
        each = labels[slots].reshape(len(written), len(told[name][0]), -1)
        assert [[number(n) for n in row] for row in each] == told[name]


@pytest.mark.parametrize("wide", [False, True])
def test_the_loss_is_the_cross_entropy_of_what_blocks_leave(toy_run, wide):
    """With `wide`, too few slots are padding for the last block to leave any out."""
    loop = Loop(toy_run(**PURE, supervise=ALL, supervise_weight=0.5, score_prompt=wide))
    (loss,), model, task = loop.learner.auxiliary, loop.model, loop.task
    assert isinstance(loss, DeepSupervision)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in (*loss.parameters(), *model.parameters()):
            parameter.normal_(std=0.3, generator=generator)
    batch = task.batch(np.random.default_rng(0), 12, "train")
    batch = batch.with_prompt_scored() if wide else batch
    model.train()
    forward(model, batch)
    got = loss(batch).item()
    seen = {}
    model.eval()
    with watched(model, lambda name, x: seen.setdefault(name, x)), torch.no_grad():
        ids = torch.from_numpy(batch.positions.astype(np.int64))
        model(torch.from_numpy(batch.tokens[:, :-1].astype(np.int64)), ids)
    total = 0.0
    for name, after in (("products", "after.0"), ("columns", "after.1"), ("carries", "after.1")):
        found = seen[after].double().numpy()
        labels = task.labels_of(batch, [name])[name]
        probes = loss.weights[name].detach().double().numpy()
        for row, slot, which in np.argwhere(labels >= 0):
            x = found[row, slot - 1]
            logits = probes[which] @ (x / math.sqrt((x**2).mean()))
            chances = np.exp(logits - logits.max())
            total -= math.log(chances[labels[row, slot, which]] / chances.sum())
    assert got == pytest.approx(0.5 * total, rel=1e-4)


def test_a_resumed_run_is_the_same_and_its_model_has_no_more_weights(toy_run):
    settings = PURE | {"save_every": 2, "steps": 4, "aux": 0.1}
    whole, part, plain = (
        toy_run(name=name, supervise=text, **settings)
        for name, text in (("a", ALL), ("b", ALL), ("c", ""))
    )
    check_resumed(whole, part, plain)


def test_probes_go_on_with_their_own_averages_beside_others(toy_run):
    one, *others = (
        Loop(toy_run(name=name, supervise=text, **PURE)).learner
        for name, text in (("a", ALL), ("b", "products@1"), ("c", ALL))
    )
    one.model.train()
    one.learn(load_task("mul", {"trace": "none"}).batch(np.random.default_rng(0), 8, "train"), 0, 1)
    state = one.state()
    by_number = dict(state)  # as runs were saved at first
    for place, name in one.names.items():
        for key in ("step", "exp_avg", "exp_avg_sq"):
            by_number[f"{place}.{key}"] = by_number.pop(f"{name}.{key}")
    assert len(one.names) == 3
    for learner, kept in zip(others, (state, by_number), strict=True):
        learner.restore(kept)
        for name, probe in learner.auxiliary[0].weights.items():
            moment = learner.optimizers[-1].state[probe]["exp_avg"]
            assert moment.any() and torch.equal(moment, state[f"optim.aux.weights.{name}.exp_avg"])


@pytest.mark.parametrize(
    "settings",
    [
        {"loops": 2, "supervise": "products@2,columns@4"},
        {"trace": "whole", "curriculum": "0:digits=1;1:trace_drop=4"},
    ],
)
def test_loops_and_stages_of_a_curriculum_are_supervised_too(toy_run, settings):
    state = train(toy_run(**PURE | {"supervise": ALL, "steps": 2} | settings))
    assert state.step == 2 and math.isfinite(state.loss)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--task add --set supervise=products@1", "task add names no results"),
        ("--task mul --set supervise=products", "supervise must be NAME@BLOCK"),
        ("--task mul --set supervise=sums@1", "unknown name 'sums' in supervise; valid: products"),
        ("--task mul --set supervise=carries@9", "carries@9 is none of the blocks 1 to"),
        ("--task mul --set supervise=carries@1,carries@2", "supervise names carries twice"),
        (
            "--task mul --set trace=none --set attention=full --set supervise=carries@1 "
            "--set curriculum=0:reverse_operands=true",
            "nor written otherwise, not '0:reverse_operands=true'",
        ),
        (
            "--task mul --digits 2 --set trace=none --set attention=full --set offset=40 "
            "--set supervise=carries@1 --set 'curriculum=0:digits=3 offset=0'",
            "aux and supervise need a curriculum whose operands are not longer",
        ),
        ("--task mul --set architecture=gru --set supervise=carries@1", "needs blocks"),
        ("--task mul --set supervise_weight=2", "supervise_weight needs supervise"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(words, message, tmp_path):
    out = tmp_path / "run"
    done = CliRunner().invoke(main, ["train", "--out", str(out), *shlex.split(words)])
    assert done.exit_code == 2 and message in done.output and not out.exists()
    assert len(done.output.splitlines()) == 1


def test_a_run_saved_with_a_weight_of_no_probes_stays_readable(toy_run):
    run = toy_run(**PURE)
    train = dataclasses.replace(run.config.train, supervise_weight=2.0)
    run.reconfigure(dataclasses.replace(run.config, train=train))
    assert Run(run.path).config.train == train
    assert reconfigure(run.config, None, {"steps": "9"}).train.steps == 9


def test_loop_raises_the_same(toy_run):
    with pytest.raises(UsageError, match="supervise must be empty; try mul"):
        Loop(toy_run(supervise="products@1"))


def test_the_recipe_builds_what_the_rows_of_the_page_were_measured_on():
    recipe = load_recipe("products-without-trace")
    config = configure(recipe.task, recipe.settings)
    weights, page = weight_count(config.model), PAGE.read_text(encoding="utf-8")
    assert weights < 1_000_000 and f"{weights:,} parameters" in page
    with ROWS.open(newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["recipe"] == recipe.name]
    assert {(row["params"], row["step"]) for row in rows} == {
        (f"{weights}", f"{config.train.steps}")
    }
    full = [
        row for row in rows if (row["len_a"], row["len_b"], row["stratum"]) == ("4", "4", "all")
    ]
    for row in full:
        n, right = int(row["n"]), int(row["answer_correct"])
        assert row["seen"] == "False" and n >= 1000 and right >= 0.99 * n
        assert re.search(rf"\| {row['seed']} \|.*\b{right:,} of {n:,}\b", page)
