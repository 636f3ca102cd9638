"""What tests of sweeps share: the file of a sweep of tiny runs, and the command."""

import json
from pathlib import Path

from click.testing import CliRunner

from addgpt.cli.main import main

SMALL = {
    "digits": 2, "layers": 1, "width": 16, "heads": 2, "steps": 12, "batch_size": 16,
    "eval_every": 4, "eval_size": 32, "save_every": 4, "warmup": 2, "threads": 1,
}  # fmt: skip


def write_grid(folder: Path, text: str = "", **common) -> Path:
    """The file of a sweep whose runs are in `runs` beside it."""
    settings = "\n".join(f"{k} = {json.dumps(v)}" for k, v in (SMALL | common).items())
    head = f'task = "add"\nper_cell = 20\nout = "{folder / "runs"}"\n'
    (folder / "tiny.toml").write_text(f"{head}{text}\n[set]\n{settings}\n")
    return folder / "tiny.toml"


def sweep(*words: object):
    return CliRunner().invoke(main, ["sweep", *map(str, words)])


def refused(result, code: int = 2) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line, result.stderr
    return line
