"""What people expect of a command line, whatever their shell, terminal and machine."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import addgpt
from addgpt.cli.main import main
from addgpt.runs.provenance import command_line
from addgpt.sweep.table import outcome_table
from addgpt.training.signals import stop_requests
from tests.helpers.commands import in_one_process

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
UNIX = ("fcntl", "resource", "termios", "pwd", "grp", "readline", "tty", "pty", "curses")
BLOCKED = f"""
import sys
for name in {UNIX}:
    sys.modules[name] = None
import os, signal
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL"):
    if hasattr(signal, name):
        delattr(signal, name)
for name in ("sched_getaffinity", "sysconf", "getloadavg", "fork"):
    if hasattr(os, name):
        delattr(os, name)
"""


def python(code: str, **options) -> subprocess.CompletedProcess:
    words = [sys.executable, "-c", code]
    return subprocess.run(words, capture_output=True, text=True, check=True, **options)


def complete(*words: str) -> set[str]:
    """What bash is offered for the last of some words."""
    names = {"_ADDGPT_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words)}
    names["COMP_CWORD"] = str(len(words) - 1)
    code = "from addgpt.cli.main import main; main(prog_name='addgpt')"
    done = python(code, env=os.environ | names)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_the_shell_completes_commands_options_and_choices():
    assert complete("addgpt", "st") == {"study"}
    assert {"--problems", "--predictions", "--per-cell"} <= complete("addgpt", "eval", "--p")
    assert complete("addgpt", "problems", "--task", "add", "--format", "l") == {"lm-eval"}
    code = "from addgpt.cli.main import main; main(prog_name='addgpt')"
    for shell in ("bash", "zsh", "fish"):
        script = python(code, env=os.environ | {"_ADDGPT_COMPLETE": f"{shell}_source"}).stdout
        assert "_ADDGPT_COMPLETE" in script


def test_the_version_is_known_in_a_bare_clone():
    done = CliRunner().invoke(main, ["--version"])
    assert done.exit_code == 0 and addgpt.__version__ in done.output
    text = (ROOT / "setup.cfg").read_text()
    assert re.search(r"^version = (.*)$", text, re.M)[1] == addgpt.__version__
    code = (
        "import sys; sys.argv = ['addgpt', '--version']; from addgpt.cli.main import main; main()"
    )
    done = python(
        f"import importlib.metadata as m\nm.distributions = lambda **k: ()\n{code}", cwd=ROOT
    )
    assert addgpt.__version__ in done.stdout


def test_the_home_folder_is_meant_where_a_shell_leaves_the_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    words = "--task add --digits 1 --set steps=1 --set width=16 --set heads=2 --set eval_size=8"
    done = CliRunner().invoke(main, ["train", *words.split(), "--out=~/my run"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "my run" / "config.json").exists() and not (tmp_path / "~").exists()
    assert f"addgpt eval '{tmp_path}/my run'" in done.stderr
    (tmp_path / "p.csv").write_text("problem\n1+1\n")
    done = CliRunner().invoke(main, ["eval", "~/my run", "--problems", "~/p.csv", "--json"])
    assert done.exit_code == 0, done.output


def test_a_stored_command_can_be_pasted(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["/usr/bin/addgpt", "train", "--out", "my run", "--set", "a=b"]
    )
    assert command_line() == "addgpt train --out 'my run' --set a=b"


def test_square_brackets_in_names_are_shown_as_they_are():
    from io import StringIO

    from rich.console import Console

    row = {"combination": "far=[20]", "state": "done", "bits": None, "n": 10, "answer_correct": 9}
    row |= {"seconds": 1.0, "val_exact": None, "run": "r"}
    shown = StringIO()
    Console(file=shown, width=100).print(outcome_table("[red]here[/x]", [row]))
    assert "far=[20]" in shown.getvalue() and "[red]here[/x]" in shown.getvalue()


def test_a_scheduler_s_signal_asks_to_stop():
    import signal

    with stop_requests() as asked:
        assert not asked
        os.kill(os.getpid(), signal.SIGUSR1)
        assert asked


@pytest.mark.slow
def test_nothing_that_only_unix_has_is_needed(tmp_path):
    """Not Windows, but what is missing there is missing here: modules, signals, functions of os."""
    code = f"""{BLOCKED}
import importlib, pkgutil, addgpt, tasks, analysis
for package in (addgpt, tasks, analysis):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__") and "pretrained" not in module.name:
            importlib.import_module(module.name)
run = addgpt.train("add", digits=1, steps=2, width=16, heads=2, eval_size=8, out="run", quiet=True)
assert "torch._dynamo" not in sys.modules  # a second, and nothing is compiled
from addgpt.cli.main import main
for words in (["eval", "run", "--per-cell", "5"], ["calc", "12*34"], ["doctor"], ["tasks"]):
    main(words)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "\n408\n" in done.stdout


@pytest.mark.slow
def test_a_wheel_works_in_an_empty_environment_from_another_folder(tmp_path):
    """Built, installed, used: what the clone has beside the packages is not needed."""
    if None in map(importlib.util.find_spec, ("pip", "setuptools")):
        pytest.skip("there is no pip or no setuptools to build with")
    (tmp_path / "source").mkdir()
    names = "addgpt tasks analysis setup.cfg pyproject.toml README.md LICENSE".split()
    for name in names:
        os.symlink(ROOT / name, tmp_path / "source" / name)
    build = "-m pip -q wheel --no-deps --no-build-isolation -w dist .".split()
    done = subprocess.run(
        [sys.executable, *build], cwd=tmp_path / "source", capture_output=True, text=True
    )
    (wheel,) = (tmp_path / "source" / "dist").glob("*.whl") if not done.returncode else [None]
    assert wheel, done.stderr
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    (site,) = bare.glob("lib/python*/site-packages")
    shared = [path for path in sys.path if Path(path).is_dir() and Path(path).resolve() != ROOT]
    (site / "shared.pth").write_text("\n".join(shared) + "\n")
    pip = [sys.executable, "-m", "pip", "-q", "--python", str(bare / "bin" / "python")]
    options = ["--no-deps", "--no-index", "--ignore-installed", "--no-warn-script-location"]
    done = subprocess.run([*pip, "install", *options, str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    work = tmp_path / "work"
    work.mkdir()

    names = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    where = {"cwd": work, "env": names}
    python = bare / "bin" / "python"
    code = "import addgpt; print(addgpt.__file__)"
    found = subprocess.run([python, "-c", code], capture_output=True, **where)
    assert str(site).encode() in found.stdout
    asked = [bare / "bin" / "addgpt", "calc", "12*34"]
    assert subprocess.run(asked, capture_output=True, **where).stdout.strip() == b"408"
    tiny = " ".join(f"--set {pair}" for pair in "steps=2 width=16 heads=2 eval_size=8".split())
    done = in_one_process(
        f"train --task add --digits 1 {tiny}",
        "eval results/add-1 --per-cell 5 --json",
        "report results",
        "tasks --new mine",
        "tasks --check ./mine.py",
        python=python,
        **where,
    )
    assert [one.code for one in done] == [0] * 5, done
    assert json.loads(done[1].stdout)[0]["op"] == "+"
    assert "FAULT" not in done[-1].stdout
