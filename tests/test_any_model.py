"""Anybody's model: trained, resumed, scored and asked as one of ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.architectures import CustomConfig
from addgpt.evaluation.exact_match import score
from addgpt.generation.decode import write
from addgpt.model.build import build
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

MODEL = '''
import torch
from torch import nn


class Mine(nn.Module):
    """Means of all before, which no cache can hold wrongly; the embedding is tied."""

    def __init__(self, config):
        super().__init__()
        self.token = nn.Embedding(config.vocab, config.width)
        self.ids = nn.ModuleList(nn.Embedding(n, config.width) for n in config.levels)
        self.layers = nn.ModuleList(
            nn.Linear(2 * config.width, config.width) for _ in range(config.layers)
        )
        self.head = nn.Linear(config.width, config.vocab, bias=False)
        self.head.weight = self.token.weight

    def forward(self, tokens, ids):
        x = self.token(tokens)
        for level, table in enumerate(self.ids):
            x = x + table(ids[:, :-1, level]) + table(ids[:, 1:, level]).roll(1, -1)
        count = torch.arange(1, x.shape[1] + 1)[:, None]
        for layer in self.layers:
            x = x + layer(torch.cat((x, x.cumsum(1) / count), -1)).tanh()
        return self.head(x)


class Wrong(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab, config.vocab + 1)

    def forward(self, tokens, ids):
        return self.table(tokens)


class Ahead(Wrong):
    def forward(self, tokens, ids):
        every = tokens.sum(1)[:, None, None]
        return self.table(tokens)[:, :, :-1] + every * self.table.weight[0, :-1]
'''
TINY = {"digits": 2, "width": 16, "layers": 2, "heads": 2, "steps": 6, "batch_size": 8,
        "eval_size": 16, "eval_every": 3, "threads": 1, "schedule": "constant"}  # fmt: skip


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(MODEL)
    return tmp_path / "mine.py"


def run(*words, code: int = 0):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


def train(architecture: str, out: str, code: int = 0, **more):
    pairs = TINY | {"architecture": architecture} | more
    sets = [word for key, value in pairs.items() for word in ("--set", f"{key}={value}")]
    return run("train", "--task", "add", "--out", out, *sets, code=code)


def test_a_class_in_a_file_trains_resumes_and_is_scored(mine, tmp_path, monkeypatch):
    train("./mine.py:Mine", "whole")
    train("./mine.py:Mine", "parts", steps=3)
    assert (
        json.loads(Path("whole/config.json").read_text())["model"]["architecture"] == f"{mine}:Mine"
    )
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "the right answer is 3" in run("calc", "--model", "../whole", "1+2", code=1).stderr


def test_no_export_brings_the_code_of_others_along(mine):
    pytest.importorskip("transformers")
    train("./mine.py:Mine", "whole", steps=1)
    for form, out in (("hf", "hf"), ("adderboard", "adder.py")):
        done = run("export", "whole", "--to", form, "--out", out, code=2)
        assert f"{mine}:Mine" in done.stderr and done.stderr.count("\n") == 1
        assert not Path(out).exists()


def test_decoding_without_a_cache_is_reading_all_again(mine):
    train("./mine.py:Mine", "run")
    task, model = load_task("add", {"digits": 2}), Run("run").model()
    batch = task.batch(np.random.default_rng(0), 12, "test")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(3))
    slow = score(model, task, batch, fast=False)
    assert (slow.trace_correct == score(model, task, batch).trace_correct).all()
    prompt = task.encode("12+34=")[None]
    out, text = write(model, task, prompt, 6), "12+34="
    for _ in range(out.length[0]):
        tokens = task.encode(text)[None]
        ids = torch.from_numpy(task.positions(tokens, 1).astype(np.int64))
        logits = model(torch.from_numpy(tokens.astype(np.int64)), ids)
        text += task.alphabet[int(logits[0, -1].argmax())]
    assert text == "12+34=" + task.decode(out.tokens[0, : out.length[0]])


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_of_transformers_is_one(kind, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    train(f"hf:{kind}", "run")
    if kind == "gpt2":
        rows = json.loads(run("eval", "run", "--per-cell", "3", "--json").stdout)
        assert rows[0]["params"] == Run("run").model().parameter_count() > 0
    model, (tokens, ids) = Run("run").model(), (torch.tensor([[1, 2, 3]]), torch.zeros(1, 4, 3))
    assert model(tokens, ids.long()).equal(model.inner(tokens).logits)
    assert not type(model.inner).__module__.startswith("addgpt")


def test_an_entry_point_names_a_model(mine, tmp_path, monkeypatch):
    package = tmp_path / "site"
    package.mkdir()
    (package / "their_models.py").write_text(MODEL)
    info = package / "their_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[addgpt.architectures]\ntheirs = their_models:Mine\n")
    monkeypatch.syspath_prepend(str(package))
    train("theirs", "a")
    train("their_models:Mine", "b")
    weights = [Run(name).model().state_dict() for name in "ab"]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("./mine.py:Nothing", "cannot be loaded: module"),
        ("./other.py:Mine", "cannot read"),
        ("nowhere.models:Mine", "cannot be loaded: No module named 'nowhere'"),
        ("./mine.py:Wrong", "gives logits"),
        ("./mine.py:Ahead", "looks ahead"),
        ("nothing", "or a class of your own such as mypackage.models:MyGPT"),
    ],
)
def test_a_model_that_cannot_be_is_told_in_one_line(mine, name, fault):
    assert fault in train(name, "run", code=2).stderr
    assert not Path("run").exists()


def test_the_seed_alone_draws_the_weights(mine):
    config = CustomConfig(vocab=19, context=20, levels=(5, 1, 8), architecture="./mine.py:Mine")
    before = torch.get_rng_state()
    one, two, other = (build(config, seed).inner.token.weight for seed in (1, 1, 2))
    assert one.equal(two) and not one.equal(other) and torch.equal(torch.get_rng_state(), before)
