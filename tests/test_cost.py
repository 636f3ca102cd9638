"""What `addgpt cost` says, against formulas worked out by hand and against a real training."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from addgpt.cli.main import main
from addgpt.config.architectures import GPTConfig
from addgpt.config.gpt import NO_PLACE
from addgpt.model.build import build
from addgpt.model.forward import next_token_loss
from addgpt.runs.checkpoint import outline
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Batch
from addgpt.task_lookup import load_task
from addgpt.training import cost

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A machine's speed is measured in a moment."""
    monkeypatch.setattr(cost.speed, "__defaults__", (0.05,))


SMALL = {"digits": "3", "width": "32", "layers": "3", "heads": "4", "batch_size": "24"}


def full_batch(rows: int, length: int) -> Batch:
    """Every token but the first is scored, so that every place is worked out in every block."""
    tokens = np.ones((rows, length), np.uint8)
    scored = np.ones((rows, length), bool)
    scored[:, 0] = False
    return Batch(tokens, scored, np.ones((rows, length, 0), np.int16))


@pytest.mark.parametrize(("rows", "length"), [(3, 9), (1, 2), (5, 33)])
@pytest.mark.parametrize(("layers", "width", "ratio"), [(1, 16, 4), (3, 32, 2)])
def test_flops_of_a_plain_transformer_are_those_of_the_textbook(rows, length, layers, width, ratio):
    model = GPTConfig(vocab=11, context=64, layers=layers, width=width, heads=2, mlp_ratio=ratio)
    tokens = length - 1
    weights = layers * (4 + 2 * ratio) * width**2 + 11 * width
    attention = layers * 2 * tokens * width  # multiplications a token: with all keys, of all values
    forward = 2 * rows * tokens * (weights + attention)
    found, training = cost.flops(outline(model), full_batch(rows, length))
    if tokens > 1:  # a single query takes another way through attention
        assert found == forward
    # Backward: the gradients of both factors of each product, two products for one.
    assert training == pytest.approx(3 * found, rel=1e-9)


@pytest.mark.parametrize(
    "kind",
    [{}, {"activation": "swiglu"}, {"kv_heads": 1}, {"loops": 2}, {"rank": 4}, {"tied": True},
     {"position": "rotary"}, {"position": "fire"}, {"share": "qk"}, {"mlp_ratio": 0}],
    ids=lambda kind: next(iter(kind), "plain"),
)  # fmt: skip
def test_flops_without_memory_are_those_of_the_real_model(kind):
    """torch counts on real tensors, with attention as plain products, what we count on outlines."""
    config = configure("add", SMALL | {"attention": "full"})
    model = replace(config.model, **kind)
    batch = load_task("add", config.options).batch(np.random.default_rng(0), 7, "train")
    real = build(model)
    backend = torch.nn.attention.SDPBackend.MATH
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(backend):
        logits, targets = cost.forward(real, batch)
        first = counter.get_total_flops()
        next_token_loss(logits, targets).backward()
    assert cost.flops(outline(model), batch) == (first, counter.get_total_flops())


@pytest.mark.parametrize("layers", [1, 2])
def test_local_attention_costs_what_the_keys_in_sight_cost(layers):
    """A digit of a sum sees itself and one more: 2 keys a token where full attention has all 8."""
    visible = ((5, 5, 0, NO_PLACE),)  # digits of the sum of the slot's column
    config = configure("add", SMALL | {"layers": layers, "attention": "reads"})
    model = replace(config.model, visible=visible)
    positions = np.zeros((2, 9, 3), np.int16)
    positions[:, :, 0], positions[:, :, 2] = [0, 0, 0, 1, 2, 3, 1, 2, 3], 5
    batch = replace(full_batch(2, 9), positions=positions)
    found, training = cost.flops(outline(model), batch)
    full = cost.flops(outline(replace(model, attention="full", visible=())), batch)[0]
    assert full - found == 2 * 8 * layers * (8 - 2) * 4 * 32  # rows, tokens, blocks, keys, width
    assert training == 3 * found


@pytest.mark.parametrize(("attention", "most"), [("full", 3.0), ("reads", 1.05)])
def test_a_token_of_a_long_problem_costs_no_more_with_local_attention(attention, most):
    settings = {"digits": "12", "width": "16", "layers": "1", "trace": "carry"}
    rows = cost.by_length(configure("mul", settings | {"attention": attention}))
    short, long = (row.training / row.tokens for row in (rows[3], rows[-1]))
    assert most / 1.5 < long / short < most * 1.5
    assert (long / short < 1.1) == (attention == "reads")


def test_a_plan_adds_up_what_training_does(toy_run):
    from addgpt.training.loop import train

    run = toy_run(steps=20, batch_size=64)
    end = train(run)
    plan = cost.plan(run.config)
    assert plan.examples == end.examples == 20 * 64 and plan.steps == 20
    assert plan.tokens == pytest.approx(end.tokens, rel=0.02)
    assert plan.parameters == run.model().parameter_count()
    more = cost.plan(run.config, 1000)
    assert (more.examples, more.steps) == (1000, 16)
    assert more.flops == pytest.approx(plan.flops * 1000 / 1280)
    assert more.seconds(more.flops, gpu=False) == pytest.approx(1)
    assert more.seconds(1e30, gpu=True) == 16 * cost.STEP


def test_small_passes_cost_no_more_than_padded_ones():
    long = SMALL | {"digits": "20", "layers": "1", "batch_size": "64"}
    whole = cost.plan(configure("add", long))
    parts = cost.plan(configure("add", long | {"micro_batch": "16"}))
    assert parts.example.training < 0.95 * whole.example.training
    assert parts.tokens == whole.tokens


def test_longer_problems_cost_more():
    rows = cost.by_length(configure("mul", SMALL))
    assert [row.what for row in rows] == ["1*1", "2*2", "3*3"]
    for one, other in zip(rows, rows[1:], strict=False):
        assert one.tokens < other.tokens and one.training < other.training
    assert len(cost.by_length(configure("add", {"digits": "40"}))) == cost.LENGTHS


def test_the_command_prints_json_alone_and_refuses_nonsense(tmp_path):
    words = ["cost", "--task", "add", "--digits", "2", "--set", "layers=1", "--set", "width=16"]
    done = CliRunner().invoke(main, [*words, "--json", "--utilisation", "0.5"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    machines = {machine["machine"]: machine for machine in told["machines"]}
    assert machines["NVIDIA A100"]["flops_per_second"] == 156e12
    own = machines["this one, measured"]
    assert own["seconds"] == pytest.approx(told["flops"] / own["flops_per_second"])
    assert all(machine["source"] for name, machine in machines.items() if "NVIDIA" in name)
    assert "GPUs at 30" in CliRunner().invoke(main, words).output
    no_run = ["--run", str(tmp_path)]
    nan = ["--utilisation", "nan"]
    for bad, code in (
        (["cost"], 2),
        ([*words, *no_run], 2),
        (["cost", *no_run], 1),
        ([*words, *nan], 2),
    ):
        assert CliRunner().invoke(main, bad).exit_code == code


def test_a_run_of_another_machine_is_measured_on_this_one(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = []
    for device in ("cuda", "cpu"):
        Run.create(tmp_path / device, configure("add", SMALL | {"device": device}))
        done = CliRunner().invoke(main, ["cost", "--run", str(tmp_path / device), "--json"])
        assert done.exit_code == 0, done.output
        told.append({key: v for key, v in json.loads(done.stdout).items() if key != "machines"})
    assert told[0] == told[1]
    refused = CliRunner().invoke(main, ["cost", "--task", "add", "--set", "device=cuda"])
    assert refused.exit_code == 2 and "this machine has no cuda" in refused.stderr


def test_what_is_scored_of_the_prompt_and_what_a_table_lacks_count(toy_run):
    plain, more = (cost.plan(toy_run(str(x), score_prompt=x).config) for x in (False, True))
    assert more.example.training > 1.2 * plain.example.training
    table = configure("modular", {"p": "23", "batch_size": "512", "steps": "30"})
    assert cost.plan(table).examples == 30 * round(0.5 * 23**2)
    assert len(cost.by_length(configure("modular", {"p": "11"}))) >= 1
