"""Anybody's task: operations of their own, text in and text out, a file, another package."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import addgpt
from addgpt.calculator.questions import operators
from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.evaluation.check_task import check_task
from addgpt.task import Problem
from addgpt.task_lookup import load_task
from tests.helpers.processes import forked

pytestmark = pytest.mark.slow

LARGER = '''
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Answer, Recipe
from tasks.common import digits
from tasks.common.arithmetic import Arithmetic
from tasks.common.sheet import Kind, Sheet


@dataclass(frozen=True)
class Larger(Arithmetic):
    """The larger of two numbers: `12-7=21#`."""

    op: ClassVar[str] = "max"
    symbol: ClassVar[str] = "-"
    form: ClassVar[str] = "max({a}, {b})"
    commutes: ClassVar[bool] = True

    def write(self, a, b, len_a, len_b) -> Sheet:
        sheet = self.start(a, b, len_a, len_b)
        width = max(a.shape[1], b.shape[1])
        a, b = digits.wide(a, width), digits.wide(b, width)
        values = 10 ** np.arange(width)
        larger = np.where((a @ values >= b @ values)[:, None], a, b)
        longer = np.maximum(len_a, len_b)[:, None]
        sheet.number(larger, Kind.TOTAL, exists=np.arange(width) < longer)
        sheet.symbol("#", Kind.TOTAL, col=longer + 1)
        return sheet

    def compute(self, a: int, b: int) -> Answer:
        return Answer(max(a, b))

    def recipe(self) -> Recipe:
        return Recipe(model={"layers": 1, "width": 32}, train={"steps": 20})
'''
PARITY = '''
from dataclasses import dataclass
from typing import ClassVar

from tasks.common.in_out import InOut


@dataclass(frozen=True)
class Parity(InOut):
    """Whether the number of ones is odd: `1011=odd#`."""

    characters: ClassVar[str] = "01evnod"

    def draw(self, rng):
        return f"{rng.integers(1 << 7, 1 << 10):b}"

    def answer(self, text):
        return ("even", "odd")[text.count("1") % 2]

    def groups(self):
        return ["8 bits", "9 bits", "10 bits"]

    def group(self, text):
        return f"{len(text)} bits"
'''
TINY = "layers=1 width=16 heads=2 steps=4 batch_size=8 eval_size=16 threads=1".split()


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def run(*words, code: int = 0):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == code, done.output
    return done


def train(task, *pairs, out: str = "run"):
    sets = [word for pair in (*TINY, *pairs) for word in ("--set", pair)]
    return run("train", "--task", task, "--out", out, *sets)


def test_an_operation_has_its_own_symbol_and_name(write):
    file = write("larger.py", LARGER)
    task = load_task(str(file), {"digits": 3})
    assert [fault for _, faults in check_task(task) for fault in faults] == []
    problem = task.parse("max(12,  7)")
    assert problem == Problem("max", (12, 7)) and task.text(problem) == "max(12, 7)"
    assert task.parse(task.prompt(problem)) == problem  # as `sample --prompt` gets it
    assert (task.prompt(problem), task.truth(problem).whole) == ("12-7=", 12)
    assert operators(task) == "", "it does not pose as a difference"
    with pytest.raises(UsageError, match=r"'12-7' is not a problem like max\(12, 34\)"):
        task.parse("12-7")
    train("./larger.py", "digits=2")
    shown = run("eval", "run", "--per-cell", "20").stdout
    assert "max of a and b: exact match" in shown.replace("\n", " ") and "a max b" not in shown
    drawn = run("problems", "--task", "./larger.py", "--digits", "2", "--n", "20").stdout
    assert '"max(' in drawn and '"2, 2"' in drawn
    assert run("figures", "run").stdout


def test_text_in_text_out_is_a_task_of_ten_lines(write):
    file = write("parity.py", PARITY)
    task = load_task(str(file))
    assert [fault for _, faults in check_task(task) for fault in faults] == []
    assert task.truth(task.parse("1011")) == addgpt.Answer("odd")
    train("./parity.py")
    shown = run("eval", "run", "--per-cell", "30", "--predictions", "p.jsonl")
    assert "parity: exact match by group" in shown.stdout and "10 bits" in shown.stdout
    assert "0 of" in shown.stdout.splitlines()[-1]  # held-out problems drawn in training
    rows = [json.loads(line) for line in Path("p.jsonl").read_text().splitlines()]
    assert {row["stratum"] for row in rows} == set(task.groups())
    assert all(row["answer"] == ("even", "odd")[row["problem"].count("1") % 2] for row in rows)
    shutil.copytree("run", "other")
    shown = run("eval", "run", "--against", "other", "--stored").stdout
    assert "exact match in points" in shown and "no difference in any of 3 cells" in shown
    assert run("figures", "run").stdout


def test_a_file_of_problems_is_a_task_with_its_prompts_masked(write):
    lines = [{"q": f"say {n}", "a": f"no {n % 7}", "group": "ab"[n % 2]} for n in range(300)]
    write("mine.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    options = {"path": "mine.jsonl", "columns": "problem=q,answer=a"}
    task = load_task("file", options).resolved()
    assert [fault for _, faults in check_task(task) for fault in faults] == []
    splits = {split: set(task.by_split[split]) for split in ("train", "val", "test")}
    assert sum(map(len, splits.values())) == 300 and not splits["train"] & splits["test"]
    assert 0.7 < len(splits["train"]) / 300 < 0.9
    short = load_task("file", options | {"train_up_to": 5}).resolved().by_split
    assert short == task.by_split | {"train": [t for t in task.by_split["train"] if len(t) < 6]}
    train("file", "path=mine.jsonl", "columns=problem=q,answer=a", "curriculum=1:train_up_to=5")
    shown = run("eval", "run", "--json").stdout
    rows = {row["stratum"]: row["n"] for row in json.loads(shown)}
    held_out = splits["test"]
    assert rows == {g: sum(int(t[4:]) % 2 == k for t in held_out) for k, g in enumerate("ab")}
    with pytest.raises(UsageError, match="for train; .* some of up to train_up_to=3 characters"):
        load_task("file", options | {"train_up_to": 3}).by_split.keys()
    write("more.jsonl", "".join(json.dumps(line) + "\n" for line in lines[:200]))
    further = ["--init-from", "run", "--out", "further", "--set", "path=more.jsonl"]
    run("train", *further, "--set", "steps=1", "--set", "eval_size=20")
    write("mine.jsonl", '{"q": "other", "a": "no"}\n')
    assert "has changed since the run began" in run("eval", "run", code=2).stderr


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"problem": "x"}\n', "line 1: no answer; columns: problem; --set columns names others"),
        (
            '{"problem": "x", "answer": "1"}\n{"problem": "x", "answer": "2"}\n',
            "stands above with another answer",
        ),
        ('{"problem": "x", "answer": "1"}\n', "has no problems for"),
    ],
)
def test_a_file_that_cannot_be_learned_is_refused_before_training(write, text, fault):
    write("mine.jsonl", text)
    assert fault in run("train", "--task", "file", "--set", "path=mine.jsonl", code=2).stderr
    assert not Path("results").exists()


def its_test(folder: Path) -> None:
    """In a process of its own: the test that lies beside a new task."""
    os.chdir(folder)
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "test_twice_back.py"]))


def test_a_new_task_is_written_with_its_test_and_both_hold(write, tmp_path):
    run("tasks", "--new", "twice_back")
    assert "is there already" in run("tasks", "--new", "twice_back", code=2).stderr
    assert "Python name" in run("tasks", "--new", "a-b", code=2).stderr
    assert "FAULT" not in run("tasks", "--check", "./twice_back.py").stdout
    process = forked(its_test, tmp_path)
    process.join(120)
    assert process.exitcode == 0


def test_another_package_offers_a_task(write, tmp_path, monkeypatch):
    package = tmp_path / "site" / "their_tasks"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "odd.py").write_text(PARITY)
    info = tmp_path / "site" / "their_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-tasks\nVersion: 1.0\n")
    points = "[addgpt.tasks]\nodd = their_tasks.odd\neven = their_tasks.odd:Parity\nno = nowhere\n"
    points += "bad = their_tasks.bad\nthree = their_tasks.three:number\n"
    (package / "bad.py").write_text("1 / 0")
    (package / "three.py").write_text("number = 3")
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert type(load_task("odd")) is type(load_task("even"))
    train("odd")
    assert json.loads(Path("run/config.json").read_text())["task"] == "odd"
    assert json.loads(run("eval", "run", "--per-cell", "5", "--json").stdout)
    listed = run("tasks", code=1)
    assert "odd: " in listed.stdout and "no: " in listed.stderr
    where = r"\(of the package their-tasks: "
    with pytest.raises(UsageError, match=where + r"nowhere\) .*loaded: No module named 'nowhere'"):
        load_task("no")
    with pytest.raises(UsageError, match=where + r"their_tasks.bad\) .*loaded: ZeroDivisionError"):
        load_task("bad")
    with pytest.raises(UsageError, match=where + r"their_tasks.three:number\) is not a Task but 3"):
        load_task("three")
    with pytest.raises(UsageError, match=r"valid: add, .*odd"):
        load_task("nothing")
