"""What `import addgpt` offers, as one uses it: real values, clear messages, cells run twice."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import addgpt
from addgpt.config.errors import UsageError
from addgpt.evaluation.intervals import wilson
from addgpt.evaluation.schema import EVAL_COLUMNS
from addgpt.runs.files import RunError
from addgpt.runs.resolve import configure
from addgpt.runs.run import SHIPPED, Run, run_path
from addgpt.task import Cell

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
TINY = {"steps": 4, "batch_size": 8, "width": 16, "heads": 2, "eval_size": 20, "quiet": True}
OWN = '''
"""Twice one number and another."""
from dataclasses import dataclass
from typing import ClassVar
import numpy as np
from addgpt.task import Answer, Recipe
from tasks.common import digits
from tasks.common.arithmetic import Arithmetic
from tasks.common.sheet import Kind, Sheet

@dataclass(frozen=True)
class Double(Arithmetic):
    """2 a + b."""
    op: ClassVar[str] = "+"

    def write(self, a, b, len_a, len_b) -> Sheet:
        sheet = self.start(a, b, len_a, len_b)
        longer = np.maximum(len_a, len_b)[:, None]
        width = int(longer.max()) + 1
        total, _ = digits.carried(FACTOR * digits.wide(a, width) + digits.wide(b, width))
        sheet.number(total, Kind.TOTAL, exists=np.arange(width) <= longer)
        sheet.symbol("#", Kind.TOTAL, col=longer + 2)
        return sheet

    def compute(self, a: int, b: int) -> Answer:
        return Answer(FACTOR * a + b)

    def recipe(self) -> Recipe:
        levels = ("relative", "none", "learned")
        model = {"layers": 1, "width": 16, "heads": 2, "level_position": levels}
        return Recipe(model, {"steps": 3, "batch_size": 8})
'''


def python(code: str, folder: Path = ROOT) -> str:
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, check=True)
    return done.stdout.strip()


@pytest.fixture
def own(tmp_path) -> Path:
    """A file with a task of one's own."""
    file = tmp_path / "double.py"
    file.write_text(OWN.replace("FACTOR", "2"))
    return file


def test_the_package_offers_what_it_says_and_loads_nothing_for_it():
    code = "import sys, addgpt; print(sorted({'torch', 'numpy', 'addgpt.api'} & set(sys.modules)))"
    assert python(code) == "[]"
    code = "import sys, addgpt; addgpt.load_task('add', digits=3); addgpt.Problem; addgpt.Answer;"
    assert python(code + "print('torch' in sys.modules)") == "False"
    assert set(addgpt.__all__) <= set(dir(addgpt))
    assert all(getattr(addgpt, name).__doc__ for name in addgpt.__all__)
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        addgpt.trane  # noqa: B018
    assert (ROOT / "addgpt/py.typed").is_file()


def test_no_setting_has_the_name_of_an_argument_of_train():
    from addgpt.config.architectures import model_settings
    from addgpt.config.schema import TrainConfig
    from addgpt.config.settings import names_of
    from addgpt.task_lookup import task_class, task_names

    options = {name for task in task_names() for name in task_class(task).options()}
    ours = {"task", "out", "seed", "resume", "init_from", "quiet", "on_step"}
    assert not ours & {*options, *model_settings(), *names_of(TrainConfig)}


def test_settings_are_values_or_text():
    levels = ("relative", "none", "learned")
    values = {"digits": 4, "tied": True, "lr": 1, "level_position": levels, "steps": 7}
    texts = {"digits": "4", "tied": "true", "lr": "1", "level_position": ",".join(levels)}
    config = configure("add", values)
    assert config == configure("add", texts | {"steps": "7"})
    assert config.options["digits"] == 4 and config.model.tied is True
    corpus = {"corpus": str(ROOT / "README.md"), "tied": True, "block": 16}
    assert configure("shakespeare", corpus).model.tied is True
    assert configure("add", {"level_position": list(levels)}) == configure(
        "add", {"level_position": levels}
    )


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"learning_rate": 0.1}, "did you mean lr?"),
        ({"n_layer": 2}, "did you mean layers?"),
        ({"n_embd": 2}, "did you mean width?"),
        ({"digts": 2}, "did you mean digits?"),
        ({"tied": 3}, "tied must be true or false, not 3"),
        ({"width": "wide"}, "width must be a whole number, not 'wide'"),
        ({"digits": 2.5}, "digits in the options of add must be a whole number, not 2.5"),
    ],
)
def test_a_wrong_setting_is_one_line_that_helps_and_nothing_is_written(tmp_path, wrong, says):
    with pytest.raises(UsageError) as caught:
        addgpt.train("add", out=tmp_path / "run", **wrong)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_train_returns_the_run_and_calls_back(tmp_path, capsys):
    steps = []
    run = addgpt.train(
        "add", digits=np.int64(2), seed=3, out=tmp_path / "a", tied=True,
        on_step=lambda state: steps.append((state.step, state.loss)), **TINY,
    )  # fmt: skip
    assert [step for step, _ in steps] == [1, 2, 3, 4] and np.isfinite([x for _, x in steps]).all()
    assert run.config.seed == 3 and run.config.options["digits"] == 2 and run.config.model.tied
    assert run.metrics()[-1]["step"] == 4
    assert capsys.readouterr().err == ""
    again = addgpt.load_run(tmp_path / "a")
    assert again.config == run.config and again.task() == addgpt.load_task("add", digits=2)
    command = run.config.command
    assert "--task add" in command and "--set tied=true" in command and "--seed 3" in command
    shown = TINY | {"quiet": False}
    addgpt.train("add", digits=2, out=tmp_path / "b", **shown)
    assert "step 4/4" in capsys.readouterr().err


def test_the_command_that_a_run_keeps_trains_the_same(tmp_path, monkeypatch):
    import shlex

    from click.testing import CliRunner

    from addgpt.cli.main import main

    monkeypatch.chdir(tmp_path)
    run = addgpt.train("add", digits=2, level_position=("none",) * 3, out="a b", **TINY)
    words = shlex.split(run.config.command)
    assert words[0] == "addgpt" and words[-1] == "a b"
    assert CliRunner().invoke(main, [*words[1:-1], "other"]).exit_code == 0
    mine, other = (Run(name).model().state_dict() for name in ("a b", "other"))
    assert all((mine[name] == other[name]).all() for name in mine)


def test_a_cell_that_is_run_twice(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = (addgpt.train("add", digits=2, **TINY) for _ in range(2))
    assert [str(run.path) for run in (first, second)] == ["results/add-2", "results/add-2-2"]
    with pytest.raises(UsageError) as caught:
        addgpt.train("add", digits=2, out=first.path, **TINY)
    assert "resume=True" in str(caught.value) and "--" not in str(caught.value)
    before = (first.path / "model.safetensors").read_bytes()
    for _ in range(2):
        addgpt.train("add", digits=2, out=first.path, resume=True, **TINY)
    assert (first.path / "model.safetensors").read_bytes() == before
    longer = addgpt.train("add", digits=2, out=first.path, resume=True, **TINY | {"steps": 6})
    assert longer.metrics()[-1]["step"] == 6
    with pytest.raises(UsageError, match="keeps its task and model"):
        addgpt.train("add", digits=3, out=first.path, resume=True, **TINY)
    with pytest.raises(UsageError, match="seed 0"):
        addgpt.train("add", digits=2, out=first.path, resume=True, seed=1, **TINY)
    with pytest.raises(UsageError, match="needs out="):
        addgpt.train("add", resume=True)
    Path("file").touch()
    for kind, resume in ((UsageError, False), (RunError, True)):
        with pytest.raises(kind, match="^file is a file, not a folder$"):
            addgpt.train("add", digits=2, out="file", resume=resume, **TINY)


def test_a_run_can_start_from_another_ones_model(tmp_path):
    first = addgpt.train("add", digits=2, out=tmp_path / "a", **TINY)
    for number, start in enumerate((first, first.path, str(first.path))):
        still = TINY | {"steps": 1, "lr": 0.0, "muon_lr": 0.0}
        run = addgpt.train("add", digits=2, out=tmp_path / f"{number}", init_from=start, **still)
        mine, theirs = run.model().state_dict(), first.model().state_dict()
        assert all((mine[name] == theirs[name]).all() for name in theirs)


def test_evaluate_has_the_columns_of_eval_csv_and_intervals(tmp_path):
    run = addgpt.train("add", digits=2, out=tmp_path / "a", **TINY)
    table = addgpt.evaluate(run, per_cell=20)
    assert list(table.columns) == [*EVAL_COLUMNS, "accuracy", "low", "high"]
    assert len(table) == len(run.task().cells()) and (table["run"] == "a").all()
    assert not (run.path / "eval.csv").exists()
    right, n = table["answer_correct"], table["n"]
    assert np.allclose(table["accuracy"], right / n)
    assert np.allclose([table["low"], table["high"]], wilson(right, n))
    for same in (
        addgpt.evaluate(str(run.path), per_cell=20),
        addgpt.evaluate(run.model(), run.task(), per_cell=20),
    ):
        assert (same["answer_correct"] == right).all() and (same["n"] == n).all()
    some = [Cell("+", 2, 2)]
    assert len(addgpt.evaluate(run, per_cell=20, cells=some)) == 1
    with pytest.raises(UsageError, match="a model needs its task"):
        addgpt.evaluate(run.model())
    with pytest.raises(UsageError, match="its own task"):
        addgpt.evaluate(run, "mul")
    for wrong, message in (
        ({"split": "dev"}, "unknown split 'dev'; valid: train, val, test"),
        ({"per_cell": 0}, "per_cell must be a whole number from 1 on, not 0"),
        ({"per_cell": 2.5}, "per_cell .* not 2.5"),
        ({"seed": -1}, "seed must be a whole number from 0 on, not -1"),
        ({"cells": [Cell("*", 2, 2)]}, r"task add has no cell Cell\(op='\*'"),  # of sums
    ):
        with pytest.raises(UsageError, match=message):
            addgpt.evaluate(run, **wrong)


def test_the_shipped_run_is_called_calculator_everywhere(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from addgpt.cli.main import main
    from addgpt.evaluation.compare.runs import find_runs
    from addgpt.training import cost

    monkeypatch.setattr(cost.speed, "__defaults__", (0.05,))
    monkeypatch.chdir(tmp_path)
    assert addgpt.load_run("calculator").path == SHIPPED
    assert [run.path for run in find_runs(["calculator"])] == [SHIPPED]
    assert addgpt.load_calculator("calculator").solve("12*34").answer == "408"
    assert addgpt.load_calculator(addgpt.load_run("calculator")).solve("9-3").answer == "6"
    for words in (
        ["calc", "--model", "calculator", "3*4"],
        ["sample", "calculator", "--prompt", "3*4=", "--temperature", "0"],
        ["cost", "--run", "calculator", "--json", "--examples", "1"],
        ["eval", "calculator", "--problems", str(tmp_path / "p.csv")],
    ):
        (tmp_path / "p.csv").write_text("problem\n3*4\n")
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    assert run_path("./calculator") == run_path(Path("calculator")) == Path("calculator")
    with pytest.raises(RunError, match="there is no folder calculator"):
        addgpt.load_run("./calculator")


def test_a_task_of_ones_own_is_a_file(own, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    task = addgpt.load_task("./double.py", digits=2)
    problem = task.parse("12+34")
    assert task.name == "double" and task.truth(problem) == addgpt.Answer(58)
    assert addgpt.load_task(own, digits=2) == task
    run = addgpt.train("./double.py", digits=2, quiet=True)
    assert str(run.path) == "results/double-2" and run.config.task == str(own.resolve())
    monkeypatch.chdir(ROOT)
    opened = addgpt.load_run(tmp_path / run.path)
    assert opened.task() == task
    assert set(addgpt.evaluate(opened, per_cell=5)["task"]) == {"double"}
    again = addgpt.train(task, out=tmp_path / "b", quiet=True)
    assert again.config.task == run.config.task and again.config.options == run.config.options


def test_a_file_that_has_changed_is_read_again(own):
    before = addgpt.load_task(own)
    own.write_text(OWN.replace("FACTOR", "3"))
    after = addgpt.load_task(own)
    problem = before.parse("1+1")
    assert (before.truth(problem).whole, after.truth(problem).whole) == (3, 4)


def test_a_file_that_is_no_task_is_refused(own, tmp_path):
    with pytest.raises(UsageError, match="cannot read .*nowhere.py"):
        addgpt.load_task(tmp_path / "nowhere.py")
    own.write_text("import numpy\n")
    with pytest.raises(UsageError, match="double.py must define one Task, not 0"):
        addgpt.load_task(own)
    own.write_text("1 / 0\n")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            addgpt.load_task(own)
    with pytest.raises(UsageError, match="unknown task 'double'.*or a file such as ./mine.py"):
        addgpt.load_task("double")


def test_reading_a_strangers_run_carries_out_no_file(own, tmp_path, monkeypatch):
    """A run folder from elsewhere may name a file in itself, by a path of the current folder."""
    from analysis import load

    monkeypatch.chdir(tmp_path)
    run = addgpt.train(own, digits=2, out=tmp_path / "r", quiet=True)
    own.write_text("raise SystemExit('carried out')")
    assert list(load.runs(tmp_path)["step"]) == [3.0]
    config = json.loads((run.path / "config.json").read_text())
    (run.path / "config.json").write_text(json.dumps(config | {"task": "double.py"}))
    (run.path / "SHA256SUMS").unlink()
    with pytest.raises(RunError, match="absolute path"):
        Run(run.path).task()


def test_a_task_of_a_notebooks_cell_is_refused_with_what_to_do():
    task = addgpt.load_task("add")
    stray = type("Stray", (type(task),), {"__module__": "__main__"})
    with pytest.raises(UsageError, match="a file of its own"):
        addgpt.train(stray())


def test_products_modulo_a_prime_are_no_products_of_a_calculator():
    from addgpt.calculator.questions import operators

    class Modular(type(addgpt.load_task("mul"))):  # 7 * 3 is the same, 54321 * 678 is not
        def truth(self, problem):
            return addgpt.Answer(super().truth(problem).whole % 97)

    assert operators(addgpt.load_task("calc")) == "+-*/"
    assert operators(addgpt.load_task("mul")) == "*" and operators(Modular()) == ""


def test_a_file_is_named_without_its_folder_to_a_reader(own, tmp_path):
    from analysis import load, report

    run = addgpt.train(own, digits=2, out=tmp_path / "r", quiet=True)
    assert set(load.metrics(run.path)["task"]) == {"double"}
    html = report.build(run.path).html
    assert "double" in html and f"{own}, digits" not in html
