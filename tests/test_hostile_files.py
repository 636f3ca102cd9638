"""Other files from a stranger: pipes, links, bombs; nothing is written elsewhere or waited for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from addgpt.evaluation import problem_files as problems
from addgpt.evaluation.problem_files import read_problems
from addgpt.evaluation.scorecard import write_eval
from addgpt.evaluation.suites import load_suite
from addgpt.runs import checkpoint, files
from addgpt.runs.files import read_toml
from addgpt.runs.run import Run, RunError
from addgpt.training.loop import train
from tests.helpers.hostile import edited, refused

ROOT = Path(checkpoint.__file__).parents[1]


pytestmark = pytest.mark.usefixtures("soon")


def test_pipes_and_devices_are_not_waited_for(trained, tmp_path):
    for name in ("config.json", "metrics.jsonl", "model.safetensors", "state.safetensors"):
        file = trained.path / name
        content = file.read_bytes()
        for make in (
            lambda file=file: os.mkfifo(file),
            lambda file=file: file.symlink_to("/dev/zero"),
            lambda file=file: file.mkdir(),
        ):
            file.unlink()
            make()
            assert name in refused(lambda: (Run(trained.path).model(), train(Run(trained.path))))
            file.rmdir() if file.is_dir() else file.unlink()
            file.write_bytes(content)
    for read in (read_problems, read_toml):
        path = tmp_path / read.__name__
        os.mkfifo(path)
        refused(lambda path=path, read=read: read(path))
    os.mkfifo(trained.path / "eval.csv")
    write_eval(trained.path, [])  # put in its place


@pytest.mark.parametrize(
    "name",
    [".lock", "metrics.jsonl", "state.safetensors", "state.previous.safetensors",
     "model.safetensors", "config.json", "eval.csv", "eval.csv.sha256"],
)  # fmt: skip
def test_a_link_in_a_run_folder_is_never_written_through(trained, tmp_path, name):
    target, file = tmp_path / "precious", trained.path / name
    content = file.read_bytes() if file.exists() else b""
    target.write_bytes(content)
    file.unlink(missing_ok=True)
    file.symlink_to(target)
    try:
        path = edited(trained, "train", steps=4) if name == "metrics.jsonl" else trained.path
        run = Run(path)
        write_eval(run.path, [])
        run.log({"step": 3})
        train(run)
    except RunError as error:
        assert "not a regular file" in str(error)
    assert target.read_bytes() == content


def test_a_link_laid_out_for_the_temporary_file_is_not_followed(tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    path = tmp_path / "model.safetensors"
    (tmp_path / f".{path.name}.{os.getpid()}.tmp").symlink_to(target)
    files.write_atomically(path, "new")
    assert target.read_text() == "mine" and path.read_text() == "new" and not path.is_symlink()


@pytest.mark.parametrize("name", ["../../outside", "a/../../outside"])
def test_a_suite_and_a_grid_write_inside_their_folders(tmp_path, name):
    from addgpt.sweep.grid import load_grid

    grid = tmp_path / "grid.toml"
    grid.write_text(f'task = "add"\nout = "{name}"\n')
    assert "climb" in refused(lambda: load_grid(str(grid)))
    grid.write_text(f'task = "add"\n[[case]]\nname = "{name}"\nset = {{digits = 2}}\n')
    refused(lambda: load_grid(str(grid)))


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000, ".".join("a" * 200_000) + " = 1", "[" + ".".join("a" * 90_000) + "]",
     "a = '" + "x" * (2 << 20) + "'", "a = " + "{b = " * 9_000],
    ids=["deep-list", "dotted-key", "dotted-table", "large", "deep-table"],
)  # fmt: skip
def test_a_toml_bomb_is_refused(tmp_path, text):
    path = tmp_path / "suite.toml"
    path.write_text(text)
    refused(lambda: read_toml(path))
    assert "suite.toml" in refused(lambda: load_suite(str(path)))


def test_a_suite_has_a_largest_size(tmp_path):
    part = '[[part]]\nname = "x"\nproblem = "{a}+1"\na = [0, 9]\nn = 900_000\n'
    (tmp_path / "s.toml").write_text(part * 100)
    assert "1..1000000" in refused(lambda: load_suite(str(tmp_path / "s.toml")))


@examples(max_examples=200)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode), st.booleans())
def test_any_problems_file_is_read_or_refused(tmp_path_factory, content, is_json):
    path = tmp_path_factory.getbasetemp() / f"p.{'jsonl' if is_json else 'csv'}"
    path.write_bytes((b"" if is_json else b"problem,answer\n") + content)
    try:
        assert all(problem.text.strip() for problem in read_problems(path))
    except ValueError as error:
        assert str(path) in str(error)


def test_problems_have_a_largest_number(tmp_path, monkeypatch):
    monkeypatch.setattr(problems, "MOST_PROBLEMS", 3)
    path = tmp_path / "p.csv"
    path.write_text("problem\n" + "1+1\n" * 3)
    assert len(read_problems(path)) == 3
    path.write_text("problem\n" + "1+1\n" * 4)
    assert "more than 3 problems" in refused(lambda: read_problems(path))


LARGE = """
import os, resource, sys
from pathlib import Path
from addgpt.runs.files import RunError, read_log
from addgpt.evaluation.problem_files import read_problems
path = Path(sys.argv[1])
limit = 1 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for name, head in (("a.csv", b"problem\\n"), ("a.jsonl", b"{"), ("m.jsonl", b"{")):
    file = path / name
    file.write_bytes(head)
    os.truncate(file, 2 << 30)
    try:
        (read_log if name[0] == "m" else read_problems)(file)
    except (RunError, ValueError) as error:
        print(error)
file.write_bytes(b'{"step": "' + b"1" * (1 << 20) + b'"}\\n')
try:
    read_log(file)
except RunError as error:
    print(error)
"""


def test_lines_of_gigabytes_fit_into_one_of_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LARGE, str(tmp_path)], capture_output=True, text=True, cwd=ROOT
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    for name, line in zip(("a.csv", "a.jsonl", "m.jsonl", "m.jsonl"), lines, strict=True):
        assert name in line and ("more than" in line or "line 1 does not match" in line)
    assert not done.stderr
