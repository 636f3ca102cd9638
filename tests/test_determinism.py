"""The same seed, machine and thread count: the same run, bit by bit; batches change no row."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import addgpt
from addgpt.evaluation import exact_match as module
from addgpt.evaluation.exact_match import evaluate
from addgpt.model.forward import exact_rows
from addgpt.runs.run import Run

pytestmark = pytest.mark.slow

ROOT = Path(addgpt.__file__).parents[1]
SCRIPT = """
import sys
from pathlib import Path
from addgpt.runs.run import Run
from addgpt.runs.resolve import configure
from addgpt.training.loop import train
settings = dict(digits="3", layers="1", width="32", heads="2", steps="20", batch_size="32",
                eval_every="5", eval_size="64", threads="1", dropout="0.1")
for number in sys.argv[2:]:
    train(Run.create(Path(sys.argv[1]) / number, configure("mul", settings, seed=3)))
"""


def content(path) -> tuple:
    run = Run(path)
    tensors = {name: t.numpy().tobytes() for name, t in run.state()[0].items()}
    return tensors, [{k: v for k, v in row.items() if k != "seconds"} for row in run.metrics()]


def test_two_processes_make_the_same_run(tmp_path, monkeypatch):
    """Hashes of strings differ between processes, and this one trains one run before."""
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path), "one"], cwd=ROOT, check=True)
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), "other", "two"])
    exec(SCRIPT, {})
    assert content(tmp_path / "one") == content(tmp_path / "two") == content(tmp_path / "other")


@pytest.mark.parametrize("tokens", [60, 1000])
def test_rows_do_not_depend_on_the_batch_they_are_judged_in(half_trained, monkeypatch, tokens):
    task, model = half_trained
    cells = [cell for cell in task.cells() if cell.stratum == "all"][-2:]
    usual = list(evaluate(model, task, cells, per_cell=40))
    batch = task.batch(np.random.default_rng(0), 60, "test")
    exact = exact_rows(model, batch)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", tokens)
    assert list(evaluate(model, task, cells, per_cell=40)) == usual
    assert (exact_rows(model, batch) == exact).all()
    assert 0 < sum(row["answer_correct"] for row in usual) < sum(row["n"] for row in usual)


def test_a_cell_is_scored_alike_alone_and_among_others(half_trained):
    task, model = half_trained
    cells = task.cells()[:5]
    together = list(evaluate(model, task, cells, per_cell=20))
    alone = [row for cell in reversed(cells) for row in evaluate(model, task, [cell], per_cell=20)]
    assert together == alone[::-1]
