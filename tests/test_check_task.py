"""Tasks that break their contract, each in one way: the check and the evaluation find it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from addgpt.calculator.solver import Calculator
from addgpt.cli.main import main
from addgpt.evaluation.check_task import check_auxiliary, check_supervised, check_task
from addgpt.evaluation.exact_match import answer_of, evaluation_problems
from addgpt.generation.decode import Generated
from addgpt.task import Answer, Cell, Problem, UsageError
from addgpt.task_lookup import load_task
from tasks.add import Add
from tasks.lines import Lines
from tests.helpers.broken import BROKEN, WRONG_LABELS, Misquoted, Nonsense, Unsaid, WrongOnce
from tests.helpers.commands import addgpt

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def faults(task) -> str:
    return "\n".join(fault for _, found in check_task(task) for fault in found)


def test_every_task_keeps_its_contract(any_task, monkeypatch):
    monkeypatch.setattr("addgpt.evaluation.check_task.MAX_CELLS", 15)
    checks = check_task(any_task)
    assert len(checks) == (13 if any_task.name == "mul" else 11)
    assert not [fault for _, found in checks for fault in found]


def test_a_text_task_keeps_its_contract(tmp_path):
    (tmp_path / "names.txt").write_text("\n".join(f"name{n}" for n in range(300)) + "\n")
    task = load_task("lines", {"corpus": str(tmp_path / "names.txt")}).resolved()
    assert faults(task) == ""

    class Short(Lines):
        def num_tokens(self, split):
            return super().num_tokens(split) - 1

    short = Short(**{name: getattr(task, name) for name in Lines.options()})
    assert "scored tokens, num_tokens is" in faults(short)


@pytest.mark.parametrize(("broken", "words"), BROKEN)
def test_each_fault_is_found(broken, words):
    assert words in faults(broken(digits=3))


@pytest.mark.parametrize(("broken", "words"), WRONG_LABELS)
def test_each_fault_of_auxiliary_losses_is_found(broken, words):
    task = broken(digits=3, trace="none")
    first, *_ = [*check_auxiliary(task, None), *check_supervised(task, None)]
    assert words in first


@pytest.mark.parametrize("wrong", [Nonsense, WrongOnce])
def test_a_task_that_contradicts_itself_is_not_scored(wrong):
    with pytest.raises(ValueError, match=r"contradicts itself: of \d+.\d+ it writes '\d+#', which"):
        for cell in wrong(digits=3).cells():
            evaluation_problems(wrong(digits=3), cell)


def test_a_task_that_asks_otherwise_than_it_says_is_not_scored():
    cell = Cell("+", 3, 3)
    with pytest.raises(UsageError, match=r"asks '\d+\+\d+=' where the prompt of \d+\+\d+ is"):
        evaluation_problems(Misquoted(digits=3), cell)
    with pytest.raises(UsageError, match="holds 0 problems for 1000 rows; give Batch its problems"):
        evaluation_problems(Unsaid(digits=3), cell)


@pytest.mark.parametrize("wrong", [Nonsense, WrongOnce])
def test_a_task_that_contradicts_itself_is_not_trained(wrong, tmp_path, monkeypatch):
    monkeypatch.setattr(Add, "compute", wrong.compute)
    out = tmp_path / "run"
    done = CliRunner().invoke(main, ["train", "--task", "add", "--out", str(out)])
    assert isinstance(done.exception, SystemExit) and done.exit_code == 2
    assert re.search(r"task add contradicts itself: of \d+\+\d+ it writes '\d+#'", done.output)
    assert not out.exists()


def test_the_command_says_what_was_checked(monkeypatch):
    done = CliRunner().invoke(main, ["tasks", "--check", "sub", "--set", " trace = none"])
    assert done.exit_code == 0
    assert [line[:5] for line in done.stdout.splitlines()] == ["ok   "] * 11
    monkeypatch.setattr(Add, "longest", lambda task: 7)
    done = CliRunner().invoke(main, ["tasks", "--check", "add"])
    lines = done.stdout.splitlines()
    assert done.exit_code == 1 and sum(line.startswith("FAULT") for line in lines) == 1
    assert "tokens, and longest() is 7" in done.stdout
    monkeypatch.setattr(Add, "batch", lambda *words: 1 / 0)
    done = CliRunner().invoke(main, ["tasks", "--check", "add"])
    lines, (told,) = done.stdout.splitlines(), re.findall("ZeroDivisionError.*", done.stdout)
    times = sum(line.startswith("FAULT") for line in lines)
    assert times > 5 and told.endswith(f"in <lambda>); {times} times in all")
    for words, message in [
        (["--check", "nothing"], "unknown task 'nothing'; valid: add"),
        (["--check", "add", "--set", "digits"], "--set takes key=value, not 'digits'"),
        (["--check", "add", "--set", "digits=2", "--set", "digits=3"], "digits is given twice"),
        (["--set", "digits=3"], "--set goes with --check NAME"),
    ]:
        done = CliRunner().invoke(main, ["tasks", *words])
        assert done.exit_code == 2 and message in done.stderr


CORE = '''"""Ten letters in their order: the least that training needs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from addgpt.task import Batch, Recipe, Task


@dataclass(frozen=True)
class Core(Task):
    alphabet: ClassVar[str] = "abcdefghij#"

    def batch(self, rng, size, split, cell=None):
        place = np.arange(6)
        letters = rng.integers(0, 5, (size, 1)) + place
        tokens = np.where(place < 5, letters, 10).astype(np.uint8)
        return Batch(tokens, np.tile(place > 0, (size, 1)), self.positions(tokens, 0))

    def longest(self):
        return 6

    def recipe(self):
        return Recipe({"layers": 1, "width": 16, "heads": 2}, {"steps": 4, "batch_size": 8})
'''


README = (ROOT / "README.md").read_text(encoding="utf-8")


def example() -> str:
    """The task that README.md shows."""
    (code,) = [
        block
        for part in README.split("```python\n")[1:]
        if "class Double" in (block := part.split("```")[0])
    ]
    return code


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A copy of the package and its tasks, in the current folder."""
    for folder in ("addgpt", "tasks"):
        ignored = shutil.ignore_patterns("__pycache__", "pretrained")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BUG = """
class Buggy(Add):
    def read(self, problem, completion):
        return Answer(int("none"))
"""


@pytest.fixture
def buggy(tmp_path):
    """A task of a user's own file, whose `read` fails on line 4."""
    file = tmp_path / "buggy.py"
    file.write_text(BUG)
    names = {"Add": Add, "Answer": Answer, "__name__": "tasks.buggy"}
    exec(compile(BUG, file, "exec"), names)
    return names["Buggy"](digits=2)


def test_a_bug_in_read_is_no_wrong_answer(buggy):
    with pytest.raises(ValueError, match="invalid literal"):
        answer_of(buggy, Problem("+", (1, 2)), "3#")
    with pytest.raises(ValueError, match="invalid literal"):
        evaluation_problems(buggy, Cell("+", 2, 2))
    assert answer_of(Add(digits=2), Problem("+", (1, 2)), "3") is None


def test_the_calculator_hides_no_bug_of_a_task(buggy):
    def write(prompts, most):
        tokens = np.tile(buggy.encode("3#"), (len(prompts), 1))
        ones = np.ones(len(prompts), bool)
        return Generated(tokens, ones * 2, ones, np.ones(tokens.shape))

    calculator = Calculator(None, buggy, write=write)
    with pytest.raises(ValueError, match="invalid literal"):
        calculator.solve("1+2")
    buggy.__class__.prompt = buggy.read
    with pytest.raises(TypeError):
        calculator.solve_many(["1+2"])


def test_a_fault_says_where_the_task_failed(buggy, tmp_path):
    assert f"({tmp_path / 'buggy.py'}, line 4, in read)" in faults(buggy)


def test_a_broken_task_does_not_hide_the_others(clone):
    (clone / "tasks" / "broken.py").write_text('"""Mine."""\nfrom nowhere import x\n')
    (clone / "tasks" / "odd.py").write_text("def f(:\n")
    words = [sys.executable, "-m", "addgpt", "tasks"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(clone)}
    )
    told = done.stdout + done.stderr
    assert done.returncode == 1, told
    assert "add: Addition" in told and "sub: Subtraction" in told
    assert (
        f"broken: ModuleNotFoundError: No module named 'nowhere' ({clone}/tasks/broken.py, line 2"
        in told
    )
    assert (
        f"odd: SyntaxError: invalid syntax (odd.py, line 1) ({clone}/tasks/odd.py, line 1;" in told
    )


def test_descriptions_do_not_depend_on_docstrings(monkeypatch):
    monkeypatch.setenv("PYTHONOPTIMIZE", "2")
    monkeypatch.chdir(ROOT)
    listed, checked = addgpt("tasks", "tasks --check sub --set trace=none")
    assert "add: Addition of two non-negative integers." in listed.stdout
    lines = checked.stdout.splitlines()
    assert len(lines) == 11 and all(len(line.split()) > 4 for line in lines)


def test_the_task_of_readme_works_as_it_stands(clone):
    (clone / "tasks" / "double.py").write_text(example(), encoding="utf-8")
    few = {"steps": 3, "batch_size": 8, "eval_size": 16, "threads": 1, "width": 16}
    settings = " ".join(f"--set {key}={value}" for key, value in few.items())
    done = addgpt(
        "tasks --check double",
        "tasks",
        f"train --task double --digits 3 --out run {settings}",
        "eval run --per-cell 5",
        "sample run --prompt 12+34= --temperature 0",
    )
    assert [one.code for one in done] == [0] * 5, done
    assert "FAULT" not in done[0].stdout and "double: " in done[1].stdout
    assert (clone / "run" / "eval.csv").read_text().count("double") > 9


def test_a_task_with_only_the_core_trains_and_reports_its_loss(clone):
    (clone / "tasks" / "core.py").write_text(CORE, encoding="utf-8")
    *done, scored = addgpt(
        "tasks --check core",
        "train --task core --out run --set eval_size=16 --set eval_every=2 --set threads=1",
        "sample run --prompt ab --temperature 0",
        "eval run",
    )
    assert [one.code for one in done] == [0] * 3, done
    assert "FAULT" not in done[0].stdout
    assert '"val_loss"' in (clone / "run" / "metrics.jsonl").read_text()
    assert scored.code == 2 and "task core has no" in scored.stderr
    assert len(scored.stderr.strip().splitlines()) == 1 and not scored.stdout
