"""Files of a run folder: written whole or not at all, locked, never unpickled."""

import errno
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs import files
from addgpt.runs import run as module
from addgpt.runs.files import RunError, write_atomically

ROOT = Path(module.__file__).parents[2]


def sources(folder: str) -> list[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert len(found) > 5
    return found


@pytest.mark.parametrize("folder", ["addgpt", "tasks", "analysis"])
def test_nothing_in_the_project_unpickles(folder):
    banned = re.compile(
        r"\b(pickle|dill|joblib|marshal|shelve|cloudpickle|read_pickle|to_pickle|allow_pickle)\b"
        r"|torch\.(load|save)\b"
    )
    for file in sources(folder):
        found = banned.search(file.read_text(encoding="utf-8"))
        assert not found, f"{file.relative_to(ROOT)}: {found[0]}"


@pytest.mark.parametrize("command", ["figures", "report", "eval", "doctor", "sample", "certify"])
def test_commands_say_alike_that_a_folder_is_missing_or_a_file(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    hint = "train a run first (addgpt train --task add --digits 3), or name another folder"
    for name, says in (
        ("nowhere", f"error: there is no folder nowhere; {hint}\n"),
        ("file", "error: file is a file, not a folder\n"),
    ):
        done = CliRunner().invoke(main, [command, name])
        assert done.exit_code and done.stderr == says


@pytest.mark.parametrize("command", ["figures", "report"])
def test_a_shipped_run_without_scores_is_told_once(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, [command, "calculator"])
    says = "calculator has no scores here yet; addgpt eval calculator writes them"
    assert done.exit_code == 2 and done.stderr == f"error: {says}\n"


@pytest.mark.parametrize("path", [".", "/"])
def test_a_folder_is_no_file_to_write(path):
    with pytest.raises(RunError, match=f"cannot write {re.escape(path)}: Is a directory"):
        write_atomically(Path(path), "text")


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("old", [b"old", None])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, failing, old):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    monkeypatch.setattr(os, failing, full)
    with pytest.raises(RunError, match=r"cannot write .*file: No space left on device") as caught:
        write_atomically(path, "new")
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == (["file"] if old else [])
    assert old is None or path.read_bytes() == old


@pytest.mark.parametrize("content", ["text", b"\x00bytes"])
def test_a_written_file_has_its_content_and_nothing_beside_it(tmp_path, content):
    write_atomically(tmp_path / "file", "before")
    write_atomically(tmp_path / "file", content)
    wanted = content.encode() if isinstance(content, str) else content
    assert (tmp_path / "file").read_bytes() == wanted
    assert len(list(tmp_path.iterdir())) == 1


def test_writing_into_a_folder_that_is_missing_is_one_line(tmp_path):
    with pytest.raises(RunError, match="cannot write .*: No such file or directory"):
        write_atomically(tmp_path / "none" / "file", "text")


HOLDER = """
import sys, time
from pathlib import Path
from addgpt.runs.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A lock, and another process that holds it until it reads a line."""
    lock = tmp_path / ".lock"
    words = [sys.executable, "-c", HOLDER, str(lock)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, text=True, **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield lock, process
        process.kill()


def test_a_second_process_gets_one_line_or_waits(holder):
    lock, process = holder
    with pytest.raises(RunError, match="^it is taken$"), files.locked(lock, "it is taken"):
        pass
    threading.Timer(0.3, process.kill).start()
    began = time.monotonic()
    with files.locked(lock):
        assert time.monotonic() - began > 0.2


def test_a_lock_goes_with_the_process_that_held_it(holder):
    lock, process = holder
    process.kill()
    process.wait()
    with files.locked(lock, "it is taken"):
        pass


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path):
    lock = tmp_path / "file" / ".lock"
    lock.parent.write_text("no folder")
    with pytest.raises(RunError, match="cannot lock .*file: "), files.locked(lock, "taken"):
        pass


@pytest.mark.parametrize("folder", ["addgpt", "tasks", "analysis", "benchmarks"])
def test_no_module_imports_what_windows_lacks(folder):
    banned = re.compile(r"^\s*(import|from) (fcntl|resource|pwd|grp|termios)\b", re.MULTILINE)
    for file in sources(folder):
        found = banned.search(file.read_text(encoding="utf-8"))
        assert not found, f"{file.relative_to(ROOT)}: {found[0]}"
