"""Tiny runs that are trained and scored by commands."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from addgpt.cli.main import main

TINY = "steps=30 eval_every=10 eval_size=50 save_every=30 width=16 heads=2 batch_size=32".split()


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


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
