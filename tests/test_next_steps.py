"""What a newcomer is told: what to type next, what a loss holds, which runs a report shows."""

from __future__ import annotations

import io
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.model.forward import next_token_loss
from addgpt.training.progress import TrainingProgress, least_loss
from analysis import figures, load

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
TINY = ("steps=4", "batch_size=8", "width=16", "heads=2", "eval_size=20")

PARITY = '''
from dataclasses import dataclass
import numpy as np
from addgpt.task import Batch, Recipe, Task, setting

@dataclass(frozen=True)
class Parity(Task):
    """The parity of a string of bits: `0110=0#`."""
    alphabet = "01=#"
    bits: int = setting(5, "length of the string", low=1, high=40)

    def batch(self, rng, size, split, cell=None):
        bits = rng.integers(0, 2, (size, self.bits), np.uint8)
        rest = np.tile(np.array([2, 0, 3], np.uint8), (size, 1))
        rest[:, 1] = bits.sum(1) % 2
        tokens = np.hstack([bits, rest])
        scored = np.zeros(tokens.shape, bool)
        scored[:, -2:] = True
        return Batch(tokens, scored, np.zeros((*tokens.shape, 0), np.int16))

    def longest(self):
        return self.bits + 3

    def recipe(self):
        return Recipe(model={"position": "learned"}, train={})
'''


def run(*words: str):
    return CliRunner().invoke(main, list(words))


def train(out: Path, *words: str, settings: tuple[str, ...] = TINY):
    sets = [word for pair in settings for word in ("--set", pair)]
    result = run("train", "--out", str(out), *words, *sets)
    assert result.exit_code == 0, result.output
    return result


def commands(told: str) -> list[list[str]]:
    """The commands among the lines that say what to do next."""
    after = told.partition("Next:\n")[2].splitlines()
    assert after, told
    return [shlex.split(line, comments=True) for line in after]


def test_what_to_type_after_training_works(tmp_path):
    result = train(tmp_path / "my adder", "--task", "add", "--digits", "2")
    found = commands(result.stderr)
    assert [words[1] for words in found] == ["eval", "calc", "figures"]
    for words in found:
        assert words[0] == "addgpt"
        done = run(*words[1:])
        assert done.exit_code in ((0, 1) if words[1] == "calc" else (0,)), done.output
    drawn = [line for line in result.stderr.splitlines() if "draws" in line][0]
    assert (tmp_path / "my adder/training_curve.png").is_file() and "training_curve.png" in drawn


def test_a_text_is_sampled_next(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be\n" * 400)
    settings = (*TINY, f"corpus={text}", "block=16")
    result = train(tmp_path / "r", "--task", "shakespeare", settings=settings)
    assert [words[1] for words in commands(result.stderr)] == ["eval", "sample", "figures"]


def test_a_task_of_which_only_the_loss_is_known_is_not_to_be_evaluated_next(tmp_path):
    file = tmp_path / "parity.py"
    file.write_text(PARITY)
    result = train(tmp_path / "r", "--task", str(file))
    assert [words[1] for words in commands(result.stderr)] == ["figures"]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_the_demo_ends_with_what_to_open_and_type(tmp_path):
    done = subprocess.run(
        ["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    echoed = "\n".join(
        shlex.split(line)[1] for line in done.stdout.splitlines() if line.startswith("echo ")
    )
    shutil.copytree(ROOT / "results/reference/add-3", tmp_path / "demo")
    names = {f"results/demo/{file.name}" for file in figures.draw(tmp_path / "demo")}
    opened = [word.strip(".,") for word in echoed.split() if ".png" in word]
    assert opened and set(opened) <= names
    assert 'addgpt calc --model results/demo "128+367"' in echoed


@pytest.mark.parametrize(("smoothing", "vocab"), [(0.1, 19), (0.1, 5), (0.01, 64), (0.5, 2)])
def test_no_loss_is_below_the_least_and_one_reaches_it(smoothing, vocab):
    targets = torch.zeros(1, 1, dtype=torch.long)
    logits = torch.zeros(1, 1, vocab, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=200, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = next_token_loss(logits, targets, smoothing)
        value.backward()
        return value

    optimizer.step(closure)
    least = float(next_token_loss(logits.detach(), targets, smoothing))
    assert least == pytest.approx(least_loss(smoothing, vocab), abs=1e-4)


def test_the_terminal_says_how_much_of_the_loss_is_label_smoothing(tmp_path, capsys):
    with_it = train(tmp_path / "a", "--task", "add", "--digits", "2", settings=TINY)
    assert f"({least_loss(0.1, 19):.4f} of it label smoothing)" in with_it.stderr
    plain = train(
        tmp_path / "b", "--task", "add", "--digits", "2", settings=(*TINY, "label_smoothing=0")
    )
    assert "smoothing" not in plain.stderr
    facts = {"step": 1, "steps": 2, "loss": 0.7, "seconds": 1.0, "examples": 8, "contexts": 0}
    TrainingProgress(smoothed=0.59)(SimpleNamespace(**facts, validation={}))
    assert "loss 0.7000 (0.5900 of it label smoothing)" in capsys.readouterr().err
    TrainingProgress(added=["aux", "supervise"])(SimpleNamespace(**facts, validation={}))
    assert "loss 0.7000 (with that of aux and supervise)" in capsys.readouterr().err


def test_the_next_of_several_trainings_has_a_time_left_of_its_own(monkeypatch, capsys):
    clock = iter([0, 100, 100, 102])  # seconds: the second training begins at 100
    monkeypatch.setattr("addgpt.training.progress.time.monotonic", lambda: next(clock))
    progress = TrainingProgress()
    for step in (1, 10, 1, 2):
        facts = {"step": step, "steps": 10, "loss": 0.7, "seconds": 1.0, "examples": 8}
        progress(SimpleNamespace(**facts, contexts=0, validation={"step": step}))
    first, _, again, second = capsys.readouterr().err.splitlines()
    assert "ETA" not in first and "ETA" not in again
    assert "ETA 0:00:08" in second  # 8 steps are left, and 2 took 2 s


@pytest.mark.parametrize(("width", "shown"), [(40, False), (80, True), (140, True)])
def test_a_narrow_terminal_shows_loss_and_exact_match(width, shown, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys, "stderr", Terminal())
    validation = {"step": 400, "val_exact": 0.971}
    facts = {"step": 400, "steps": 1200, "loss": 0.7, "seconds": 1.0, "examples": 8000}
    facts |= {"contexts": 0}
    with TrainingProgress(smoothed=0.59) as progress:
        progress(SimpleNamespace(**facts, validation=validation))
    line = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sys.stderr.getvalue()).splitlines()[-1]
    assert "loss 0.7000" in line and "val exact 97.1 %" in line and "…" not in line
    assert ("of it label smoothing" in line) == shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("task", "settings", "said"),
    [
        ("add", "label_smoothing=0.1", ", which includes label smoothing"),
        ("add", "label_smoothing=0", ""),
        (
            "mul",
            "label_smoothing=0 trace=none attention=full aux=0.1 supervise=carries@1",
            ", which includes the auxiliary loss, the loss of probes",
        ),
    ],
)
def test_the_picture_says_so_too(tmp_path, task, settings, said):
    sets = (*TINY, *settings.split(), "eval_every=2")
    train(tmp_path / "a", "--task", task, "--digits", "2", settings=sets)
    titles = [axis.get_title() for axis in figures.training_curve(load.metrics(tmp_path)).axes]
    (title,) = (" ".join(title.split()) for title in titles if "pale" in title)
    assert title.endswith(f"pale: training{said}")
    assert max(map(len, titles[-1].splitlines())) < 50  # or the figure cuts them off


def test_reference_runs_are_not_added_to_ones_own_in_a_report(tmp_path):
    results = tmp_path / "my results"
    shutil.copytree(ROOT / "results/reference/add-3", results / "reference/add-3")
    page = str(tmp_path / "page.html")
    alone = run("report", str(results), "--out", page)
    assert "1 run," in alone.stdout and "left out" not in alone.stderr
    shutil.copytree(ROOT / "results/reference/add-3", results / "demo")
    both = run("report", str(results), "--out", page)
    assert "1 run," in both.stdout
    told = re.search("1 reference run, see addgpt (.*)", both.stderr)[1]
    assert shlex.split(told) == ["report", f"{results}/reference"]
    evals = load.evals(results / "demo")
    n = int(evals[~evals["seen"] & (evals["stratum"] == "all")]["n"].sum())
    html = (tmp_path / "page.html").read_text()
    assert f"{2 * n:,}" not in html and np.isfinite(n)
    asked = run(*shlex.split(told), "--out", page)
    assert "1 run," in asked.stdout
