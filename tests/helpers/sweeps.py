"""What tests of sweeps share: the file of a sweep of tiny runs, the command, its processes."""

import json
import os
import sys
import time
from pathlib import Path

from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs.run import Run
from tests.helpers.processes import child, forked

SMALL = {
    "digits": 2, "layers": 1, "width": 16, "heads": 2, "steps": 12, "batch_size": 16,
    "eval_every": 4, "eval_size": 32, "save_every": 4, "warmup": 2, "threads": 1,
}  # fmt: skip
LEAKING = """
from tasks.common.arithmetic import Arithmetic
Arithmetic.in_train = lambda *_: True
"""  # as `sitecustomize`: all problems are taken for ones of training

QUITTING = """
import os
from tasks.common.arithmetic import Arithmetic
usual = Arithmetic.batch
def batch(self, rng, size, *rest):
    if "quits" in "".join(os.sys.argv) and size == 16:
        os._exit(0)
    return usual(self, rng, size, *rest)
Arithmetic.batch = batch
"""  # the same: training of a run whose name has that in it ends at once, with exit status 0


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


def in_session(command: list[str], errors: str, place: list[str]) -> None:
    """In a process of its own: the command, in a session that signals reach by themselves, with
    more places to import from."""
    os.setsid()
    sys.path[:0] = place
    child(command, errors, "", 0, False, {})


class SweepProcess:
    """`with` a sweep in a process of its own, forked from one that has imported everything."""

    def __init__(self, file: Path, *words: str, place: tuple[str, ...] = ()) -> None:
        command = [sys.executable, "-m", "addgpt", "sweep", str(file), *words]
        self.errors = file.parent / "errors"
        self.process = forked(in_session, command, str(self.errors), list(place))
        self.pid, self.kill = self.process.pid, self.process.kill

    def __enter__(self):
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self.process.join()

    def end(self, seconds: float = 120) -> tuple[int | None, str]:
        """The exit status and what was said on stderr, once it has ended."""
        self.process.join(seconds)
        return self.process.exitcode, self.errors.read_text()


def holder(path: Path) -> int | None:
    """The process that trains a run: it holds its lock."""
    if not (path / ".lock").exists():
        return None
    file = str((path / ".lock").stat().st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        _, _, _, _, process, place, *_ = line.split()
        if place.rpartition(":")[2] == file:
            return int(process)
    return None


def trained(path: Path) -> bool:
    """Whether a run has logged a line."""
    return (path / "metrics.jsonl").exists() and "\n" in (path / "metrics.jsonl").read_text()


def until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def tensors(path: Path) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in Run(path).state()[0].items()}
