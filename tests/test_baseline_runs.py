"""The kinds of models below the GPT in whole runs, in every command, and in their settings."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.utils.flop_counter import FlopCounterMode

from addgpt.cli.main import main
from addgpt.config.architectures import CONFIGS, model_config, with_model_settings
from addgpt.config.settings import to_dict
from addgpt.evaluation.exact_match import score
from addgpt.generation.decode import generate, stream
from addgpt.model.build import build
from addgpt.model.forward import loss, next_token_loss
from addgpt.runs.checkpoint import outline
from addgpt.runs.resolve import configure, reconfigure
from addgpt.runs.run import Run
from addgpt.sweep.grid import load_grid
from addgpt.task_lookup import load_task
from addgpt.training import cost
from addgpt.training.loop import train
from addgpt.training.preflight import check_trainable
from tasks.common import corpus
from tests.helpers.baselines import BASELINES, NETWORKS, SMALL, TABLES, scrambled, sized

pytestmark = pytest.mark.slow

NAMES = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "lmnrst"]


@pytest.fixture
def names(tmp_path, monkeypatch):
    """The path of a list of names."""
    monkeypatch.setenv("ADDGPT_CACHE", str(tmp_path / "cache"))
    corpus._load.cache_clear()
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return tmp_path / "names.txt"


@pytest.fixture
def lines_run(tmp_path, names):
    """Starts a run on the list of names."""

    def create(name: str, **more) -> Run:
        texts = {
            "steps": 20, "batch_size": 16, "eval_every": 10, "eval_size": 16, "save_every": 10,
            "threads": 1, "corpus": names,
        }  # fmt: skip
        texts = {key: str(value) for key, value in (texts | more).items()}
        return Run.create(tmp_path / name, configure("lines", texts))

    return create


@pytest.fixture
def kind_run(tmp_path):
    """Starts a run of a kind on addition that trains in well under a second."""

    def create(name: str, kind: str, **more) -> Run:
        texts = {
            "digits": 2, "architecture": kind, "steps": 12, "batch_size": 16, "eval_every": 3,
            "eval_size": 32, "save_every": 4, "threads": 1,
        }  # fmt: skip
        texts = {key: str(value) for key, value in (texts | SMALL.get(kind, {}) | more).items()}
        return Run.create(tmp_path / name, configure("add", texts))

    return create


# Counting and the gradient come to the same table.


def counted(task, run: Run) -> np.ndarray:
    """How often each character follows each in all that a run was trained on, one at a time."""
    table = np.zeros((len(task.alphabet),) * 2, int)
    settings = run.config.train
    for step in range(settings.steps):
        rng = np.random.default_rng((run.config.seed, step, 0))
        batch = task.batch(rng, settings.batch_size, "train")
        for tokens, scored in zip(batch.tokens, batch.scored, strict=True):
            for t in range(1, len(tokens)):
                table[tokens[t - 1], tokens[t]] += int(scored[t])
    return table


def test_counts_are_those_of_what_was_drawn(lines_run, kind_run):
    for run in (
        lines_run("names", architecture="counts", micro_batch=3),
        kind_run("sums", "counts"),
    ):
        end = train(run)
        task, model = run.task(), run.model()
        table = counted(task, run)
        assert (model.counts.numpy() == table).all() and table.sum() > 500
        shares = (table + 1) / (table + 1).sum(1, keepdims=True)
        val = task.batch(np.random.default_rng(5), 50, "val")
        pairs = val.tokens[:, :-1][val.scored[:, 1:]], val.tokens[:, 1:][val.scored[:, 1:]]
        assert loss(model, val) == pytest.approx(-np.log(shares[pairs]).mean(), rel=1e-5)
        assert math.isfinite(end.loss) and set(run.state()[0]) == {"model.counts"}


def test_the_bigram_by_gradient_comes_to_the_counted_loss(lines_run):
    same = {"steps": 400, "batch_size": 128, "eval_every": 400}
    by_count = lines_run("counts", architecture="counts", **same)
    by_gradient = lines_run("bigram", architecture="bigram", lr=0.1, optimizer="adamw", **same)
    train(by_count), train(by_gradient)
    task = by_count.task()
    for split in ("train", "val"):
        val = task.batch(np.random.default_rng(1), 2000, split)
        one, other = loss(by_count.model(), val), loss(by_gradient.model(), val)
        assert one == pytest.approx(other, abs=0.01), split
    assert one < math.log(len(task.alphabet)) - 0.5


# Whole trainings.


@pytest.mark.parametrize(
    ("kind", "optimizer"),
    [("counts", "muon"), *((k, o) for k in BASELINES[:3] for o in ("muon", "adamw"))],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(kind_run, kind, optimizer):
    whole, cut = (kind_run(name, kind, optimizer=optimizer) for name in ("whole", "cut"))
    end = train(whole)

    def stop(moment) -> None:
        if moment.step == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, stop)
    resumed = train(Run(cut.path))
    assert resumed.loss == end.loss
    one, other = (run.state()[0] for run in (whole, cut))
    assert one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)
    assert [row["val_loss"] for row in whole.metrics()] == [
        row["val_loss"] for row in cut.metrics()
    ]
    assert whole.metrics()[-1]["val_loss"] < math.log(19)


@pytest.mark.parametrize("kind", BASELINES)
def test_decoding_with_a_cache_writes_what_reading_anew_does(kind_run, kind):
    run = kind_run("run", kind)
    train(run)
    task, model = run.task(), run.model()
    batch = task.batch(np.random.default_rng(0), 40, "val", task.cells()[-1])
    fast, slow = score(model, task, batch), score(model, task, batch, fast=False)
    assert fast.wrong == slow.wrong and (fast.trace_correct == slow.trace_correct).all()
    start, limit = int(batch.scored[0].argmax()), 6
    end = task.alphabet.index(task.end)
    written = generate(model, task.positions, batch.tokens[:, :start], limit, end)
    for row in range(len(batch)):
        tokens = batch.tokens[row : row + 1, :start].astype(np.int64)
        ids = task.positions(batch.tokens[row : row + 1, :start], limit).astype(np.int64)
        for now in range(limit):
            seen = torch.from_numpy(ids[:, : start + now + 1])
            with torch.no_grad():
                token = int(model(torch.from_numpy(tokens), seen)[0, -1].argmax())
            assert token == written.tokens[row, now]
            tokens = np.append(tokens, [[token]], 1)
            if token == end:
                break
        assert written.length[row] == tokens.shape[1] - start


@pytest.mark.parametrize("kind", BASELINES)
def test_a_stream_beyond_the_window_reads_the_last_tokens_alone(kind):
    model = scrambled(kind, levels=()).float()
    none = load_task("shakespeare", {"corpus": "x", "characters": "abcdefghijk"}).positions
    prompt = np.array([1, 2, 3], np.uint8)
    found = [token for token, _ in stream(model, none, prompt, 20, window=5)]
    tokens = prompt.tolist()
    for token in found:
        last = torch.tensor([tokens[-5:]])
        with torch.no_grad():
            logits = model(last, torch.zeros(1, last.shape[1] + 1, 0, dtype=torch.int64))
        assert token == int(logits[0, -1].argmax())
        tokens.append(token)


@pytest.mark.parametrize("kind", BASELINES)
def test_every_command_takes_every_kind(tmp_path, names, kind):
    """Lines and sums: train, go on, eval, sample, calc; cost where there are products to count."""

    def call(*words: str, codes: tuple[int, ...] = (0,)) -> str:
        done = CliRunner().invoke(main, list(words))
        assert done.exit_code in codes, done.output
        return done.output

    sets = [
        "steps=6",
        "batch_size=8",
        "eval_every=3",
        "eval_size=8",
        "threads=1",
        f"architecture={kind}",
    ]
    sets += ["width=8"] if kind in NETWORKS else []
    sets = [word for text in sets for word in ("--set", text)]
    text, sums = str(tmp_path / "lines"), str(tmp_path / "sums")
    call("train", "--task", "lines", "--out", text, *sets, "--set", f"corpus={names}")
    call("train", "--out", text, "--resume", "--set", "steps=9", "--set", f"architecture={kind}")
    call("eval", text)
    row = json.loads((tmp_path / "lines" / "loss.json").read_text())[0]
    assert row["n"] == sum(len(line) + 1 for line in Run(text).task().by_split["test"])
    assert 0 < row["nats"] < math.log(30)
    call("eval", text, "--split", "val")  # beside it
    assert row == json.loads((tmp_path / "lines" / "loss.json").read_text())[0]
    assert json.loads((tmp_path / "lines" / "loss-val.json").read_text())[0]["split"] == "val"
    assert "3 samples: " in call("sample", text, "--lines", "3")

    call("train", "--task", "add", "--digits", "1", "--out", sums, *sets)
    assert "a + b: exact match" in call("eval", sums)
    assert call("sample", sums, "--prompt", "1+2=").startswith("1+2=")
    assert "3" in call("calc", "1+2", "--model", sums, codes=(0, 1))  # 1: the model is wrong
    told = call("cost", "--run", sums, codes=(2 * (kind in TABLES),))
    assert ("looks rows up" in told) == (kind in TABLES)


@pytest.mark.parametrize("kind", NETWORKS)
def test_flops_without_memory_are_those_of_the_real_model_and_of_the_formula(kind):
    config = configure("add", {"architecture": kind, "layers": "2"})
    batch = load_task("add", config.options).batch(np.random.default_rng(0), 7, "train")
    model = build(config.model)
    with FlopCounterMode(display=False) as counter:
        logits, targets = cost.forward(model, batch)
        first = counter.get_total_flops()
        next_token_loss(logits, targets).backward()
    assert cost.flops(outline(config.model), batch) == (first, counter.get_total_flops())
    c, rows, tokens = config.model, *batch.tokens.shape
    head = 2 * logits.numel() * (c.width if kind == "gru" else c.hidden)
    if kind == "gru":
        blocks = 2 * rows * (tokens - 1) * c.layers * 6 * c.width**2
    else:
        blocks = 2 * rows * logits.shape[1] * (c.window * c.width + c.hidden) * c.hidden
    assert first == blocks + head


def test_weights_go_to_a_new_run_where_the_alphabet_allows(kind_run, lines_run, names):
    gru, table = kind_run("gru", "gru"), kind_run("table", "bigram")
    train(gru), train(table)
    alphabet = gru.task().alphabet
    assert set(gru.weights_for(gru.config.model, alphabet)) == set(gru.model().state_dict())
    assert set(table.weights_for(table.config.model, alphabet)) == {"table"}
    with pytest.raises(ValueError, match="a table of one alphabet"):
        table.weights_for(table.config.model, alphabet[::-1])
    with pytest.raises(ValueError, match="other parts"):
        gru.weights_for(sized("mlp"), alphabet)


# What means nothing for a kind is refused.


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (
            {"architecture": "lstm"},
            "must be one of gpt, gru, mlp, bigram, counts, or a class of your own .*, not 'lstm'",
        ),
        (
            {"architecture": "gru", "heads": "2"},
            "unknown setting 'heads' of architecture=gru; valid: architecture, layers, level_pos",
        ),
        ({"architecture": "gru", "position": "rotary"}, "unknown setting 'position' of archi"),
        ({"architecture": "gru", "window": "3"}, "unknown setting 'window' of architecture=gru"),
        ({"architecture": "gru", "dropout": "0.1"}, "unknown setting 'dropout' of archit"),
        (
            {"architecture": "gru", "level_position": "rotary,none,learned"},
            "level_position must be one of learned, none, not 'rotary'",
        ),
        ({"architecture": "gru", "level_position": "learned"}, "names 1 levels, the task has 3"),
        ({"architecture": "mlp", "mlp_ratio": "0"}, "mlp_ratio must be in .*, not 0"),
        ({"architecture": "mlp", "window": "0"}, r"window must be in 1\.\.256, not 0"),
        ({"architecture": "mlp", "window": "100000"}, r"window must be in 1\.\.256"),
        ({"architecture": "mlp", "activation": "gelu"}, "unknown setting 'activation' of archi"),
        (
            {"architecture": "bigram", "width": "64"},
            "unknown setting 'width' of architecture=bigram; valid: architecture$",
        ),
        ({"architecture": "counts", "next_ids": "false"}, "'next_ids' of architecture=counts"),
        ({"architecture": "counts", "optimizer": "adamw"}, "architecture=counts has no optimizer"),
        ({"architecture": "counts", "ema": "0.9"}, "architecture=counts has no ema: it counts"),
        ({"architecture": "gpt", "window": "8"}, "unknown setting 'window' of architecture=gpt"),
    ],
)
def test_settings_that_a_kind_has_no_use_for_are_refused(sets, message):
    with pytest.raises(ValueError, match=message):
        configure("add", {"digits": "3"} | sets)


def test_a_kind_starts_from_its_own_shape_and_the_recipe_s_training():
    plain, other = configure("add", {"digits": "3"}), configure("add", {"architecture": "gru"})
    assert other.train == plain.train
    assert other.model.level_position == () != plain.model.level_position
    assert not hasattr(other.model, "position")
    assert (other.model.levels, other.model.context) == (plain.model.levels, plain.model.context)
    assert with_model_settings(plain.model, {"architecture": "gpt"}) == plain.model
    wide = configure("add", {"architecture": "gru", "width": "50"})
    assert wide.model.width == 50
    assert reconfigure(wide, None, {"architecture": "gru"}) == wide
    with pytest.raises(ValueError, match="keeps its task and model"):
        reconfigure(wide, None, {"architecture": "mlp"})
    for kind in CONFIGS:
        config = configure("mul", {"architecture": kind})
        check_trainable(config)
        assert model_config(to_dict(config.model)) == config.model


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_kind_goes_with_the_recipe_of_a_text(kind, names):
    text = {"corpus": str(names), "block": "4"}
    config = configure("shakespeare", text | {"architecture": kind})
    check_trainable(config)
    plain = configure("shakespeare", text).train
    assert plain.ema > 0
    assert config.train == (replace(plain, ema=0.0) if kind == "counts" else plain)


@pytest.mark.parametrize("name", ["baselines-add", "baselines-lines"])
def test_the_grids_can_be_trained_and_hold_every_kind(name, names):
    grid = load_grid(name)
    common = grid.common | ({"corpus": str(names)} if grid.task == "lines" else {})
    configs = [configure(grid.task, common | one.settings) for one in grid.combinations]
    assert {config.model.architecture for config in configs} == set(CONFIGS)
    assert len(grid.seeds) == 3
