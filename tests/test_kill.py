"""kill -9 just before any change of a file: what is resumed ends as if nothing had happened.

The full version, real processes killed at random moments: python -m benchmarks.kill
"""

import itertools
import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from addgpt.config.schema import RunConfig
from addgpt.model.build import build
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.training import optim
from addgpt.training.loop import train
from benchmarks.kill import content, saved_step
from tests.helpers.processes import forked

pytestmark = pytest.mark.slow

CALLS = ("open", "fsync", "replace", "link", "unlink")
SMALL = {
    "digits": "2", "layers": "1", "width": "16", "heads": "2", "steps": "6", "batch_size": "8",
    "eval_every": "2", "eval_size": "8", "save_every": "2", "dropout": "0.2", "threads": "1",
}  # fmt: skip


def attempt(path: Path, config: RunConfig, at: int | None = None) -> int:
    """Train in a child, which kills itself just before the call `at` of those that change the
    folder. Its exit status; a whole run leaves the number of calls in the file `count`."""
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    calls = itertools.count(1)

    def counted(real, *args, **kwargs):
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    for name in CALLS:
        setattr(os, name, partial(counted, getattr(os, name)))
    try:
        train(Run(path) if (path / "config.json").exists() else Run.create(path, config))
        (path.parent / "count").write_text(str(next(calls) - 1))
    except BaseException as error:  # the child must not go on as if it were its parent
        print(repr(error), flush=True)
        os._exit(1)
    os._exit(0)


def killed_again_and_again(folder: Path, kills: int, optimizer: str) -> None:
    """In a process of its own, which has no threads yet and forks one for each training."""
    config = configure("add", SMALL | {"optimizer": optimizer})
    optim.build(build(config.model), config.train)  # so that no child loads what torch loads late
    assert attempt(folder / "whole", config) == 0
    wanted, calls = content(folder / "whole"), int((folder / "count").read_text())
    points = sorted({1 + i * calls // kills for i in range(kills)})
    for at in points:
        path = folder / f"killed{at}"
        assert attempt(path, config, at) == -signal.SIGKILL
        before = saved_step(path)
        assert attempt(path, config, at // 2 + 3) in (0, -signal.SIGKILL)  # and once more
        assert saved_step(path) >= before
        assert attempt(path, config) == 0
        assert content(path) == wanted, at
        left = [file.name for file in path.iterdir() if file.name.endswith("tmp")]
        assert left == [], left
    (folder / "told").write_text(json.dumps({"calls": calls, "points": len(points)}))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_killed_at_any_moment_a_run_ends_the_same(tmp_path, optimizer):
    kills = 10 if optimizer == "muon" else 4
    process = forked(killed_again_and_again, tmp_path, kills, optimizer)
    process.join(200)
    assert process.exitcode == 0
    told = json.loads((tmp_path / "told").read_text())
    assert told["points"] == kills and told["calls"] > 60
