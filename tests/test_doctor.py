"""addgpt doctor: what it says of a good and of a damaged results folder."""

import email.message
import json
import os
import shutil
import time

import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.device import matmul_flops
from addgpt.evaluation.schema import EVAL_COLUMNS, csv_text
from addgpt.runs import doctor, files
from addgpt.runs.run import Run
from addgpt.training.loop import train
from tests.helpers.hostile import edited

pytestmark = pytest.mark.slow


@pytest.fixture
def results(toy_run, tmp_path):
    """A results folder with a finished run, one that has not begun, and nothing else."""
    train(toy_run("done", steps=2))
    toy_run("begun")
    return tmp_path


def told(results, *more: str) -> tuple[int, dict]:
    began = time.process_time()
    done = CliRunner().invoke(main, ["doctor", "--results", str(results), "--json", *more])
    assert time.process_time() - began < 10
    return done.exit_code, {row["what"]: row for row in json.loads(done.stdout)}


def test_all_is_well(results):
    status, found = told(results)
    assert status == 0
    assert found["torch"]["found"] == torch.__version__
    assert found["sound runs"]["found"] == "2 of 2"
    assert found["calculator"]["found"] == "sound"
    for kind in ("float32", "bfloat16"):
        assert float(found[f"matrix products, {kind}"]["found"].split()[0].replace(",", "")) > 0
    assert not any(row["bad"] for row in found.values())
    text = CliRunner().invoke(main, ["doctor", "--results", str(results)]).output
    assert "What to do:" in text and "BROKEN" not in text


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "model.safetensors", "state.safetensors", "eval.csv"]
)
def test_each_damaged_file_is_named(results, name):

    files.write_checked(results / "done", {"eval.csv": csv_text(EVAL_COLUMNS, [{"n": 3}])})
    file = results / "done" / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    lines = doctor.faults(results / "done")
    assert lines and str(file) in lines[0] and "\n" not in lines[0]
    status, found = told(results)
    assert status == 1
    assert str(file) in found["damaged"]["found"] and found["damaged"]["advice"]
    assert found["sound runs"]["found"] == "1 of 2"


@pytest.mark.parametrize(
    ("part", "values", "says"),
    [
        ("", {"task": "mine"}, "unknown task 'mine'"),
        ("model", {"hyper": 3}, "unknown key 'hyper'"),
        ("", {"format": 99}, "by another version"),
        ("options", {"trace": "novel"}, "novel"),
    ],
)
def test_a_run_of_another_version_or_task_is_not_called_damaged(results, part, values, says):
    edited(Run(results / "done"), part, **values)
    status, found = told(results)
    assert status == 0 and "damaged" not in found
    row = found["another version"]
    assert says in row["found"] and str(results / "done") in row["found"] and not row["bad"]
    assert "remove" not in row["advice"] and "another version" in row["advice"]
    assert found["sound runs"]["found"] == "1 of 2"


def test_damage_is_told_also_of_a_run_that_cannot_be_opened(results):
    sums = files.checksums(results / "done")
    edited(Run(results / "done"), "", task="mine")
    files.record(results / "done", sums | {"config.json": None})
    file = results / "done" / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert [str(file) in line for line in doctor.faults(results / "done")] == [True]
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    (results / "done" / "metrics.jsonl").unlink()
    status, found = told(results)
    assert status == 1 and "metrics.jsonl is missing" in found["damaged"]["found"]


def test_requirements_are_those_that_apply_here(monkeypatch):
    """By the rules of packaging: markers, extras and versions."""
    texts = [
        "numpy>=1", "numpy>=999", "nothere; sys_platform == 'plan9'", "absent>=1; extra == 'more'",
        "addgpt[more]; extra == 'dev'", "click; extra == 'more'",
    ]  # fmt: skip
    about = email.message.Message()
    for text in texts:
        about["Requires-Dist"] = text
    about["Provides-Extra"] = "more"
    monkeypatch.setattr(doctor.importlib.metadata, "metadata", lambda name: about)
    base, extra = doctor._extras()
    assert base.bad and base.found == "missing: numpy>=999"
    assert not extra.bad and (extra.what, extra.found) == ("extra more", "missing: absent>=1")


def test_a_folder_that_is_not_there_yet_is_no_fault(tmp_path):
    status, found = told(tmp_path / "not" / "yet")
    assert status == 0 and "can be written" in found["results"]["found"]
    assert not (tmp_path / "not").exists()


def test_a_folder_that_cannot_be_written_is_one(tmp_path, monkeypatch):
    def refuse(**how):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    status, found = told(tmp_path)
    assert status == 1 and "Permission denied" in found["results"]["found"]


def test_runs_and_folders_of_runs_are_checked_alone(results):
    def lines(*names: object) -> tuple[int, list[str]]:
        done = CliRunner().invoke(main, ["doctor", *map(str, names)])
        return done.exit_code, done.output.splitlines()

    assert lines(results / "done")[1][0].split() == "ok sound runs: 1 of 1".split()
    assert lines(results, "calculator")[1][0].split() == "ok sound runs: 3 of 3".split()
    (code, (line,)) = lines("nowhere")
    assert code == 1 and line.startswith("error: there is no folder nowhere; train a run first")
    (results / "done" / "model.safetensors").write_bytes(b"")
    code, told = lines(results / "done")
    assert code == 1 and told[0].startswith(f"BROKEN  damaged: {results / 'done' / 'model.saf'}")
    assert lines(results / "begun")[0] == 0


def test_many_runs_are_not_waited_for(results, monkeypatch):
    monkeypatch.setattr(doctor, "CHECK_SECONDS", -1.0)
    shutil.copytree(results / "done", results / "again")
    assert told(results)[1]["more runs"]["found"].startswith("3 runs were not checked")


def test_the_matmul_rate_is_that_of_real_products():
    """The rate fits into the time that a product takes, measured another way."""
    device = torch.device("cpu")
    rate = matmul_flops(device, torch.float32, 0.1)
    a = torch.ones(512, 512)
    began = time.perf_counter()
    a @ a
    took = time.perf_counter() - began
    assert 1e8 < rate < 1e14
    assert 2 * 512**3 / rate < 5 * took
