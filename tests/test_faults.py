"""What goes wrong in use, for real: full disks, closed terminals, folders and workers that go."""

import errno
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import addgpt
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.training.loop import TrainState, train
from addgpt.training.progress import TrainingProgress
from tests.helpers.processes import Training, wait_for, words

pytestmark = pytest.mark.slow

ROOT = Path(addgpt.__file__).parents[1]
SMALL = {
    "digits": "2", "layers": "1", "width": "16", "heads": "2", "steps": "12", "batch_size": "16",
    "eval_every": "4", "eval_size": "32", "save_every": "4", "warmup": "2", "threads": "1",
}  # fmt: skip
ENDLESS = SMALL | {"steps": "1000000", "save_every": "50", "eval_every": "50"}


@pytest.fixture
def folder():
    """A folder that any user may write in and look into."""
    path = Path(tempfile.mkdtemp(prefix="addgpt-"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if not line.startswith("step ")]
    assert len(lines) == 1 and lines[0].startswith("error: "), text
    return lines[0]


def same_end(run: Run, tmp_path, settings: dict) -> None:
    """The run, resumed, ends as one that nothing happened to."""
    train(Run(run.path))
    whole = Run.create(tmp_path / "whole", configure("add", settings))
    train(whole)
    tensors = [{n: t.numpy().tobytes() for n, t in r.state()[0].items()} for r in (run, whole)]
    assert tensors[0] == tensors[1]
    logs = [[{k: v for k, v in row.items() if k != "seconds"} for row in r.metrics()]
            for r in (Run(run.path), whole)]  # fmt: skip
    assert logs[0] == logs[1]


def test_a_file_that_cannot_grow_keeps_the_checkpoint_before(folder, tmp_path):
    """A limit on the size of files is hit in the middle of a checkpoint."""
    run = Run.create(folder / "run", configure("add", SMALL))

    def cut(moment) -> None:
        if moment.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, cut)
    size = (run.path / "state.safetensors").stat().st_size
    status, told = Training(run.path, SMALL, "--resume", limit=size - 1000).end()
    assert status == 1
    line = error_line(told)
    assert "cannot write" in line and "state.safetensors: File too large" in line
    assert not list(run.path.glob(".*.tmp"))
    assert Run(run.path).state()[1]["step"] == 4
    same_end(Run(run.path), tmp_path, SMALL)


def test_a_full_disk_in_the_middle_of_a_run(tmp_path):
    """The same on a small disk of its own, where the machine lets us have one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a file system")
    try:
        wide = SMALL | {"width": "48"}
        status, told = Training(disk / "run", wide).end()
        run = Run(disk / "run")
        assert status == 1
        assert "No space left on device" in error_line(told)
        step = run.state()[1]["step"]
        assert step and step < 12 and not list(run.path.glob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        same_end(run, tmp_path, wide)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_folder_that_cannot_be_written_is_one_line(folder, tmp_path):
    run = Run.create(folder / "run", configure("add", SMALL))
    run.path.chmod(0o555)
    drop = []
    if not os.geteuid():  # root may write anywhere, but for this
        drop = [shutil.which("setpriv") or pytest.skip("needs setpriv")]
        drop += ["--bounding-set", "-dac_override,-dac_read_search", "--"]
    command = [*drop, *words(run.path, SMALL, "--resume")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 1
    assert "Permission denied" in error_line(done.stderr) and str(run.path) in done.stderr
    assert "metrics.jsonl" not in [file.name for file in run.path.iterdir()]


def test_a_folder_that_goes_away_is_one_line(folder):
    training = Training(folder / "run", ENDLESS)
    wait_for((folder / "run" / "model.safetensors").exists)
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.rmtree(folder / "run", ignore_errors=True)  # a file may have come in between
    status, told = training.end()
    assert status == 1
    assert "cannot write" in error_line(told) and "No such file or directory" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_saves_and_says_how_to_go_on(folder, number):
    out = folder / "run"
    training = Training(out, ENDLESS)
    wait_for((out / "state.safetensors").exists)
    training.send(number)
    status, told = training.end()
    assert status == 130
    step = Run(out).state()[1]["step"]
    (line,) = [text for text in told.splitlines() if text.startswith(("error", "stopped"))]
    assert line == (
        f"stopped at step {step}; everything is saved; resume with: "
        f"addgpt train --resume --out {out}"
    )


def test_a_closed_terminal_saves(folder):
    """The terminal's end sends SIGHUP, and from then on nothing can be printed."""
    out = folder / "run"
    ours, theirs = os.openpty()
    training = Training(out, ENDLESS, terminal=os.ttyname(theirs))
    wait_for(lambda: os.read(ours, 4096) and (out / "state.safetensors").exists())
    os.close(theirs)
    os.close(ours)
    assert training.end()[0] == 130
    run = Run(out)
    assert run.state()[1]["step"] >= run.metrics()[-1]["step"] > 0


def test_an_ignored_hangup_and_a_dead_terminal_do_not_stop_it(folder):
    """As under nohup: writing to the terminal fails, training goes on."""
    out = folder / "run"
    ours, theirs = os.openpty()
    settings = ENDLESS | {"steps": "200", "eval_every": "5"}
    training = Training(out, settings, terminal=os.ttyname(theirs), ignore=True)
    wait_for(lambda: os.read(ours, 4096) and (out / "config.json").exists())
    os.close(theirs)
    os.close(ours)  # sends SIGHUP, and from now on writing raises
    assert training.end()[0] == 0
    assert Run(out).state()[1]["step"] == 200


def test_nobody_listening_does_not_stop_it(toy_run, monkeypatch):
    """As in `addgpt train 2>&1 | head -1`: writing to stderr fails from the first line on."""

    class Broken:
        isatty = staticmethod(lambda: False)

        def write(self, text: str) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    with TrainingProgress() as watch:
        assert train(toy_run(), watch).step == 12


def test_two_processes_on_one_folder(folder):
    out = folder / "run"
    first = Training(out, ENDLESS)
    wait_for((out / "state.safetensors").exists)
    status, told = Training(out, {}, "--resume").end()
    assert status == 1
    assert error_line(told).endswith(f"{out} is being written by another process")
    assert first.process.is_alive()
    first.send(signal.SIGTERM)
    assert first.end()[0] == 130
    assert Run(out).state()[1]["step"] > 0


def test_a_clock_that_jumps_back_changes_nothing(toy_run, monkeypatch):
    """The time of day is not looked at: seconds of training only ever grow."""
    run, usual = toy_run(), toy_run("usual")
    now = iter(range(10**9, 0, -(10**5)))
    for name in ("time", "time_ns"):
        monkeypatch.setattr(time, name, lambda: next(now))
    train(run)
    monkeypatch.undo()
    train(usual)
    seconds = [row["seconds"] for row in run.metrics()]
    assert seconds == sorted(seconds) and seconds[0] > 0
    assert seconds[-1] < 60
    assert all((run.state()[0][n] == t).all() for n, t in usual.state()[0].items())


class Dead(io.TextIOBase):
    """A terminal that is gone."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    flush = write


def test_a_terminal_that_is_gone_before_the_first_step_stops_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Dead())
    with TrainingProgress() as watch:
        for step in range(3):
            watch(TrainState(step, 3, step, step, 1.0, 0.5, {}))
