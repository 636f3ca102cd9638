"""What goes wrong in use, for real: full disks, closed terminals, folders and workers that go."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import addgpt
from addgpt.runs import Run
from addgpt.settings import configure
from addgpt.train import train

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


def words(out: Path, settings: dict, *more: str) -> list[str]:
    command = [sys.executable, "-m", "addgpt", "train", "--task", "add", "--out", str(out), *more]
    return command + [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]


def launch(out: Path, settings: dict = ENDLESS, *more: str, **how) -> subprocess.Popen:
    return subprocess.Popen(
        words(out, settings, *more),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, **how,
    )  # fmt: skip


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


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
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1000, size - 1000))  # noqa: E731
    process = launch(run.path, SMALL, "--resume", preexec_fn=limit)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
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
        process = launch(disk / "run", wide)
        _, told = process.communicate(timeout=120)
        run = Run(disk / "run")
        assert process.returncode == 1
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
    for out, more in ((run.path, ["--resume"]), (run.path / "below", [])):
        command = [*drop, *words(out, SMALL, *more)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
        assert done.returncode == 1
        assert "Permission denied" in error_line(done.stderr) and str(out) in done.stderr
    assert sorted(file.name for file in run.path.iterdir()) == ["config.json"]


def test_a_folder_that_goes_away_is_one_line(folder):
    process = launch(folder / "run")
    wait_for((folder / "run" / "model.safetensors").exists)
    shutil.rmtree(folder / "run", ignore_errors=True)
    shutil.rmtree(folder / "run", ignore_errors=True)  # a file may have come in between
    _, told = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot write" in error_line(told) and "No such file or directory" in told


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_and_says_how_to_go_on(folder, number):
    out = folder / "run"
    process = launch(out)
    wait_for((out / "metrics.jsonl").exists)
    wait_for(lambda: (out / "metrics.jsonl").stat().st_size > 0)
    process.send_signal(number)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130
    step = Run(out).state()[1]["step"]
    assert error_line(told) == (
        f"error: stopped at step {step}; everything is saved, go on with: "
        f"addgpt train --resume --out {out}"
    )


def test_a_closed_terminal_saves(folder):
    """The terminal's end sends SIGHUP, and from then on nothing can be printed."""
    out = folder / "run"
    pid, terminal = os.forkpty()
    if not pid:
        os.chdir(ROOT)
        os.execv(sys.executable, words(out, ENDLESS))
    log = out / "metrics.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0 and os.read(terminal, 4096))
    os.close(terminal)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 130
    run = Run(out)
    run.check_log(run.state()[1]["step"], run.state()[1]["log"])
    assert run.state()[1]["step"] >= run.metrics()[-1]["step"] > 0


def test_an_ignored_hangup_and_a_dead_terminal_do_not_stop_it(folder):
    """As under nohup: writing to the terminal fails, training goes on."""
    out = folder / "run"
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    pipe_read, pipe_write = os.pipe()
    process = subprocess.Popen(
        words(out, SMALL), stdout=subprocess.DEVNULL, stderr=pipe_write, cwd=ROOT, preexec_fn=ignore
    )
    os.close(pipe_read)  # from now on, writing to stderr raises
    os.close(pipe_write)
    wait_for((out / "config.json").exists)
    process.send_signal(signal.SIGHUP)
    process.wait(120)
    assert Run(out).state()[1]["step"] == 12


def test_two_processes_on_one_folder(folder):
    out = folder / "run"
    first = launch(out)
    wait_for((out / "state.safetensors").exists)
    second = launch(out, {}, "--resume")
    _, told = second.communicate(timeout=120)
    assert second.returncode == 1
    assert error_line(told).endswith(f"{out} is being written by another process")
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=120)
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
