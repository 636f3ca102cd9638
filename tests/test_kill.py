"""kill -9 just before any change of a file: what is resumed ends as if nothing had happened.

The full version, real processes killed at random moments: python -m benchmarks.kill
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import addgpt

pytestmark = pytest.mark.slow

ROOT = Path(addgpt.__file__).parents[1]
# Imports once and forks a process for each training. A child kills itself just before the n-th
# call that changes the folder; the next one resumes.
DRIVER = """
import json, os, signal, sys
from pathlib import Path
from addgpt.training import optim
from addgpt.model.build import build
from benchmarks.kill import content, saved_step
from addgpt.runs.run import Run
from addgpt.runs.resolve import configure
from addgpt.training.loop import train

folder, kills, optimizer = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
small = dict(digits="2", layers="1", width="16", heads="2", steps="6", batch_size="8",
             eval_every="2", eval_size="8", save_every="2", dropout="0.2", threads="1",
             optimizer=optimizer)
config = configure("add", small)
optim.build(build(config.model), config.train)  # so that not each child loads what torch loads late
CALLS = ("open", "fsync", "replace", "link", "unlink")

def attempt(path, at=None):
    child = os.fork()
    if child:
        status = os.waitpid(child, 0)[1]
        return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    count = 0
    for name in CALLS:
        def counted(*args, real=getattr(os, name), **kwargs):
            nonlocal count
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)
        setattr(os, name, counted)
    run = Run(path) if (path / "config.json").exists() else Run.create(path, config)
    train(run)
    (folder / "count").write_text(str(count))
    os._exit(0)

assert attempt(folder / "whole") == 0
wanted, calls = content(folder / "whole"), int((folder / "count").read_text())
points = sorted({1 + i * calls // kills for i in range(kills)})
for at in points:
    path = folder / f"killed{at}"
    assert attempt(path, at) == -signal.SIGKILL
    before = saved_step(path)
    assert attempt(path, at // 2 + 3) in (0, -signal.SIGKILL)  # and once more
    assert saved_step(path) >= before
    assert attempt(path) == 0
    assert content(path) == wanted, at
    left = [file.name for file in path.iterdir() if file.name.endswith("tmp")]
    assert left == [], left
print(json.dumps({"calls": calls, "points": len(points)}))
"""


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_killed_at_any_moment_a_run_ends_the_same(tmp_path, optimizer):
    kills = 10 if optimizer == "muon" else 4
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, str(tmp_path), str(kills), optimizer],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert told["points"] == kills and told["calls"] > 60
