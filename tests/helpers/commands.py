"""Tiny runs that are trained and scored by commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner

from addgpt.cli.main import main

PROGRAM = """
import json, shlex, sys
from click.testing import CliRunner
from addgpt.cli.main import main
done = [CliRunner().invoke(main, shlex.split(line)) for line in sys.argv[1:]]
print(json.dumps([(one.exit_code, one.stdout, one.stderr) for one in done]))
"""
TINY = "steps=30 eval_every=10 eval_size=50 save_every=30 width=16 heads=2 batch_size=32".split()


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


class Done(NamedTuple):
    """What became of a command."""

    code: int
    stdout: str
    stderr: str


def in_one_process(*lines: str, python: str | Path = sys.executable, **where) -> list[Done]:
    """What follows `addgpt` in some commands, carried out one after another by another process,
    which imports torch once. `where` is of subprocess.run: its folder and environment."""
    command = [python, "-c", PROGRAM, *lines]
    done = subprocess.run(command, capture_output=True, text=True, **where)
    assert done.returncode == 0, done.stdout + done.stderr
    return [Done(*one) for one in json.loads(done.stdout)]


def train(folder: Path, task: str, *options: str) -> None:
    chosen = dict(pair.split("=") for pair in (*TINY, *options))
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    seed = folder.name.rpartition("-")[2]
    result = run("train", "--task", task, "--seed", seed, "--out", folder, *settings)
    assert result.exit_code == 0, result.output


def refused(*words: object, code: int = 2) -> str:
    """The one line of an error."""
    result = run(*words)
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line, result.stderr
    return line


def addgpt(*lines: str) -> list[Done]:
    """What becomes of commands of the copy in the current folder."""
    return in_one_process(*lines, env=os.environ | {"PYTHONPATH": os.getcwd()})
