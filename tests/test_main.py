"""What holds for every command: where it may be called, what its help loads, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from addgpt.cli import main as cli
from addgpt.config.errors import UsageError
from addgpt.runs.files import RunError

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def python(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    """What Python does in a folder."""
    names = os.environ | environment
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=names, capture_output=True, text=True)


@pytest.fixture(params=["file", "package", "folder"])
def in_the_way(request, tmp_path):
    """A folder that holds another `tasks`."""
    if request.param == "file":
        (tmp_path / "tasks.py").write_text("x = 1\n")
    else:
        (tmp_path / "tasks").mkdir()
        (tmp_path / "tasks" / "deploy.py").write_text("x = 1\n")
        if request.param == "package":
            (tmp_path / "tasks" / "__init__.py").touch()
    return tmp_path


def test_a_module_call_takes_its_own_tasks(in_the_way):
    done = python(in_the_way, "-m", "addgpt", "tasks")
    assert done.returncode == 0, done.stderr
    assert "add: Addition" in done.stdout and "deploy" not in done.stdout


def test_another_tasks_is_named(in_the_way):
    code = "from addgpt.task_lookup import load_task; load_task('add')"
    done = python(in_the_way, "-c", code, PYTHONPATH=str(ROOT))
    if (in_the_way / "tasks" / "deploy.py").exists() and not done.returncode:
        return  # a folder without __init__.py is never in the way of a package
    last = done.stderr.splitlines()[-1]
    assert str(in_the_way / "tasks") in last and str(ROOT / "tasks") in last


def test_help_names_every_command_and_imports_none():
    code = (
        "import sys; from click.testing import CliRunner; from addgpt.cli.main import main\n"
        "print(CliRunner().invoke(main, ['--help']).output)\n"
        "print(sorted(m for m in sys.modules if m.startswith('addgpt.cli.')))"
    )
    done = python(ROOT, "-c", code)
    assert done.stdout.splitlines()[-1] == "['addgpt.cli.main']", done.stderr
    names = sorted(file.stem for file in (ROOT / "addgpt" / "cli").glob("[!_]*.py"))
    lines = done.stdout.partition("Commands:\n")[2].splitlines()[: len(names) - 1]
    assert [line.split()[0] for line in lines] == [name for name in names if name != "main"]
    assert not [line for line in lines if line.endswith("...")]  # none is cut off on 80 columns
    assert all(len(line.split()) > 3 for line in lines)


def test_help_says_what_click_would_say():
    for name in cli.main.list_commands(None):
        command = cli.main.get_command(None, name)
        told = click.Command(name, help=cli.help_text(name))
        assert told.get_short_help_str() == command.get_short_help_str()


def test_no_command_shows_the_help():
    done = CliRunner().invoke(cli.main, [])
    assert done.exit_code == 2
    assert done.stderr.startswith("Usage:") and "\n  train " in done.stderr


@pytest.fixture
def invoke(monkeypatch):
    """Calls a command that does what is given; the result."""

    def call(act, *words: str):
        command = click.Command("tasks", callback=act)
        monkeypatch.setattr(cli.Commands, "get_command", lambda self, ctx, name: command)
        return CliRunner().invoke(cli.main, [*words, "tasks"])

    return call


def own(tmp_path: Path, body: str):
    """A function of a user's own file, on its fourth line."""
    file = tmp_path / "double.py"
    file.write_text(
        f"import numpy as np\nfrom addgpt.task_lookup import load_task\ndef act():\n    {body}"
    )
    names: dict = {}
    exec(compile(file.read_text(), file, "exec"), names)
    return names["act"]


def one_line(result) -> str:
    assert isinstance(result.exception, SystemExit), result.exception
    line = result.stderr.rstrip("\n")
    assert line.startswith("error: ") and "\n" not in line and not result.stdout
    return line


BROKEN = "np.zeros((2, 3)) + np.zeros(4)"


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (BROKEN, "ValueError: operands could not be broadcast"),
        ("{}['digits']", "KeyError: 'digits'"),
        ("raise RuntimeError('odd')", "RuntimeError: odd"),
        ("assert False, 'never'", "AssertionError: never"),
        ("np.random.default_rng(-1)", "ValueError: "),
    ],
)
def test_an_error_in_a_users_file_says_where(invoke, tmp_path, body, says):
    result = invoke(own(tmp_path, body))
    line = one_line(result)
    assert result.exit_code == 1
    assert says in line and f"{tmp_path / 'double.py'}, line 4, in act" in line
    assert "--traceback" in line


def test_an_operating_system_s_error_in_a_users_file_says_where(invoke, tmp_path):
    line = one_line(invoke(own(tmp_path, "open('my.txt')")))
    assert "FileNotFoundError: my.txt: No such file" in line
    assert f"{tmp_path / 'double.py'}, line 4, in act" in line


def test_an_operating_system_s_error_of_the_library_needs_no_place(invoke):
    result = invoke(lambda: cli.help_text("nope"))
    assert result.exit_code == 1 and one_line(result).endswith("nope.py: No such file or directory")


def test_a_text_that_is_no_python_is_named(invoke, tmp_path):
    file = tmp_path / "double.py"
    file.write_text("x = 1\ndef act(:\n")
    result = invoke(lambda: compile(file.read_text(), file, "exec"))
    assert result.exit_code == 1 and f"({file}, line 2; --traceback" in one_line(result)


def test_what_is_asked_wrongly_needs_no_place(invoke, tmp_path):
    result = invoke(own(tmp_path, "load_task('nope')"))
    assert result.exit_code == 2 and "double.py" not in one_line(result)
    assert "unknown task 'nope'; valid: add" in result.stderr


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UsageError("no such\nthing"), 2, "error: no such thing"),
        (RunError("run: damaged"), 1, "error: run: damaged"),
        (type("Diverged", (RunError,), {})("lost"), 1, "error: lost"),
        (MemoryError(), 1, "error: out of memory; try a smaller --set batch_size or width"),
        (KeyboardInterrupt(), 130, "error: stopped"),
    ],
)
def test_errors_for_people_are_their_message(invoke, error, code, says):
    def act():
        raise error

    result = invoke(act)
    assert (result.exit_code, one_line(result)) == (code, says)


@pytest.mark.parametrize("words", [["--traceback"], []])
def test_all_of_an_error_is_shown_if_asked_for(invoke, tmp_path, monkeypatch, words):
    if not words:
        monkeypatch.setenv("ADDGPT_DEBUG", "1")
    result = invoke(own(tmp_path, BROKEN), *words)
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback") and "in act" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: ValueError: operands")


def test_the_traceback_may_be_asked_for_behind_the_command():
    result = CliRunner().invoke(cli.main, ["train", "--task", "nope", "--traceback"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Traceback") and "in task_class" in result.stderr


def test_a_reader_that_goes_away_ends_it_quietly():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "addgpt", "features"]
    process = subprocess.Popen(command, stdout=write, stderr=subprocess.PIPE, cwd=ROOT)
    os.close(write)
    assert b"Traceback" not in process.communicate()[1] and process.returncode == 1


def test_a_reader_of_the_list_of_tasks_that_leaves_is_no_fault_of_a_task():
    command = f"{sys.executable} -m addgpt tasks | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("add:") and done.stderr == ""
