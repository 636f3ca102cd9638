"""Damaged run folders: every file is either read right or refused in one line that names it."""

import errno
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.evaluation.schema import csv_text
from addgpt.runs import files
from addgpt.runs.checkpoint import read_tensors
from addgpt.runs.run import Run, RunError
from addgpt.training.loop import train
from analysis import load

pytestmark = pytest.mark.slow

ROUNDS = 200
FILES = ("config.json", "metrics.jsonl", "eval.csv", "model.safetensors", "state.safetensors")
ROW = dict.fromkeys(load.EVAL_COLUMNS, 3) | {"seen": False, "op": "+", "stratum": "all"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run with a few validations, two checkpoints and an evaluation."""
    from addgpt.runs.resolve import configure

    settings = dict(
        digits="2", layers="1", width="8", heads="2", steps="12", batch_size="8", eval_every="4",
        eval_size="16", save_every="4", threads="1",
    )  # fmt: skip
    run = Run.create(tmp_path_factory.mktemp("whole") / "run", configure("add", settings))
    train(run)
    files.write_checked(
        run.path, {"eval.csv": csv_text(load.EVAL_COLUMNS, [ROW, ROW | {"len_a": 1}])}
    )
    return run.path


def content(path, tables: bool = True) -> dict:
    """All that the files of a run say, read as their users read them."""
    run = Run(path)
    (weights, about), (state, progress) = (
        read_tensors(path / f"{name}.safetensors") for name in ("model", "state")
    )
    run.model()
    return {
        "config": run.config,
        "metrics": run.metrics(),
        "text": files.read_checked(path / "eval.csv"),
        "eval": load.evals(path).to_dict("list") if tables else {},
        "looks": load.metrics(path).to_dict("list") if tables else [],
        "progress": (about, progress),
        "tensors": {n: t.numpy().tobytes() for n, t in (weights | state).items()},
    }


def damage(data: bytes, rng: random.Random) -> bytes:
    """Cut short, or with one bit the other way round."""
    if rng.random() < 0.5:
        return data[: rng.randrange(len(data))]
    place = rng.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << rng.randrange(8)]) + data[place + 1 :]


def refusal(path, name: str, truth: dict) -> str | None:
    """The one line that a damaged file is refused with; None if all was read right."""
    try:
        found = content(path, tables=False)
    except (RunError, ValueError) as error:
        assert str(path / name) in str(error) and "\n" not in str(error)
        return str(error)
    assert found == truth
    return None


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_or_harmless(whole, tmp_path, name):
    truth, rng = content(whole, tables=False), random.Random(name)
    folder = shutil.copytree(whole, tmp_path / "run")
    data = (folder / name).read_bytes()
    assert len(content(folder)["eval"]["n"]) == 2
    refused = 0
    for _ in range(ROUNDS):
        (folder / name).write_bytes(damage(data, rng))
        refused += refusal(folder, name, truth) is not None
    assert refused >= 0.99 * ROUNDS  # but for a metrics.jsonl cut at its very end
    if name.startswith(("eval", "metrics")):  # and so does who reads it with pandas
        (folder / name).write_bytes(data)
        spoil(folder / name)
        with pytest.raises(ValueError, match=name):
            load.evals(folder), load.metrics(folder)


def test_damage_of_the_checksums_is_refused_or_harmless(whole, tmp_path):
    truth, rng = content(whole, tables=False), random.Random(0)
    folder = shutil.copytree(whole, tmp_path / "run")
    data = (folder / files.SUMS).read_bytes()
    for _ in range(50):
        (folder / files.SUMS).write_bytes(damage(data, rng))
        try:
            assert content(folder, tables=False) == truth
        except RunError as error:
            assert str(folder) in str(error) and "\n" not in str(error)


def test_a_digit_that_flips_in_a_config_is_noticed_and_an_edit_can_be_meant(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    file, sums = folder / "config.json", folder / files.SUMS
    file.write_text(file.read_text().replace('"steps": 12', '"steps": 92'))
    with pytest.raises(RunError, match="config.json is damaged.*if it was edited on purpose"):
        Run(folder)
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if "config.json" not in line))
    assert Run(folder).config.train.steps == 92


def test_lost_and_swapped_lines_of_metrics_are_noticed(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for changed in (lines[1:], lines[:1] + lines[2:], lines[::-1], lines[:-1], [lines[0]] * 3, []):
        file.write_text("".join(changed))
        with pytest.raises(RunError, match="metrics.jsonl is damaged"):
            train(Run(folder))
    file.write_text("".join(lines) + '{"step": 13}\n{"ste')  # grown since, the last line cut short
    assert len(Run(folder).metrics()) == len(lines) + 1
    file.unlink()
    with pytest.raises(RunError, match="metrics.jsonl is missing; .* remove its line in SHA256"):
        train(Run(folder))
    files.record(folder, {file.name: None})  # to go on without it
    train(Run(folder))


def test_sha256sum_checks_a_run_folder(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    words = ["sha256sum", "--check", "--strict", files.SUMS]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {
        *FILES, "state.previous.safetensors"
    }  # fmt: skip
    (folder / "eval.csv").write_text((folder / "eval.csv").read_text().replace("3", "4"))
    assert subprocess.run([*words, "--status"], cwd=folder).returncode == 1
    with pytest.raises(ValueError, match="eval.csv is damaged"):
        load.evals(folder)
    (folder / files.SUMS).unlink()
    assert len(load.evals(folder)) == 2


def test_a_kill_at_any_change_of_a_file_leaves_each_file_readable(tmp_path, monkeypatch):
    """Between a file and its checksum there is none rather than a wrong one."""
    real = files.os.replace
    for stop in range(1, 8):
        folder = tmp_path / str(stop)
        folder.mkdir()
        files.write_checked(folder, {"a": "old", "b": "old"}, keep={"a": "kept"})
        calls = iter(range(1, 99))

        def once(*names, calls=calls, stop=stop):
            if next(calls) == stop:
                raise KeyboardInterrupt
            real(*names)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", once)
            ended = False
            try:
                files.write_checked(folder, {"a": "new", "b": "new"}, keep={"a": "kept"})
                ended = True
            except KeyboardInterrupt:
                pass
        assert {files.read_checked(folder / name) for name in "ab"} <= {"old", "new"}
        if (folder / "kept").exists():
            assert files.read_checked(folder / "kept") == "old"
        if ended:
            break
    assert ended and set(files.checksums(folder)) == {"a", "b", "kept"}


def test_a_reader_beside_a_writer_sees_no_damage(tmp_path):
    """Readers and a writer that replaces a file, again and again, in processes of their own."""
    code = (
        "import sys; from pathlib import Path; from addgpt.runs import files\n"
        "for i in range(150): files.write_checked(Path(sys.argv[1]), {'a': str(i) * 1000})"
    )
    files.write_checked(tmp_path, {"a": "x"})
    writer = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    seen = set()
    while writer.poll() is None:
        seen.add(files.read_checked(tmp_path / "a"))
    assert writer.returncode == 0 and len(seen) > 5


def test_writers_of_two_files_keep_each_other_s_checksums(tmp_path):
    code = (
        "import sys; from pathlib import Path; from addgpt.runs import files\n"
        "for i in range(60): files.write_checked(Path(sys.argv[1]), {sys.argv[2]: str(i)})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert set(files.checksums(tmp_path)) == {"a", "b"}
    assert {files.read_checked(tmp_path / name) for name in "ab"} == {"59"}


def spoil(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_the_checkpoint_before_the_last_is_offered_and_goes_on_exactly(whole, tmp_path, how):
    folder = shutil.copytree(whole, tmp_path / "run")
    state = folder / "state.safetensors"
    spoil(state) if how == "damaged" else state.unlink()
    with pytest.raises(RunError, match=f"state.safetensors is {how}"):
        train(Run(folder))
    told = CliRunner().invoke(main, ["train", "--resume", "--out", str(folder)]).stderr
    assert "step 8) is sound" in told
    command = f"addgpt train --resume --previous --out {folder}"
    assert told.strip().endswith(command)
    done = CliRunner().invoke(main, command.split()[1:])
    assert done.exit_code == 0, done.output
    one, other = content(folder), content(whole)
    assert one["tensors"] == other["tensors"]
    strip = [{k: v for k, v in row.items() if k != "seconds"} for row in one["metrics"]]
    assert strip == [{k: v for k, v in r.items() if k != "seconds"} for r in other["metrics"]]
    refused = CliRunner().invoke(main, command.split()[1:])
    assert refused.exit_code == 2 and "is sound; drop --previous" in refused.output


def test_with_no_sound_state_the_weights_are_offered(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    spoil(folder / "state.safetensors")
    spoil(folder / "state.previous.safetensors")
    words = ["train", "--resume", "--out", str(folder)]
    told = CliRunner().invoke(main, words).stderr.strip()
    assert f"model.safetensors is sound: start a new run from it with --init-from {folder}" in told
    spoil(folder / "model.safetensors")
    assert CliRunner().invoke(main, words).stderr.strip().endswith("checksum in SHA256SUMS")


def test_a_damaged_model_is_written_anew_from_a_sound_state(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    spoil(folder / "model.safetensors")
    with pytest.raises(RunError, match="model.safetensors is damaged"):
        Run(folder).model()
    told = CliRunner().invoke(main, ["eval", str(folder)]).stderr
    assert told.strip().endswith(f"addgpt train --resume --out {folder}")
    train(Run(folder))
    for name, tensor in Run(folder).model().state_dict().items():
        assert torch.equal(tensor, Run(whole).model().state_dict()[name])


def test_the_state_before_is_kept_at_every_moment_of_a_save(tmp_path, monkeypatch):
    """After every single change in the folder there is a state, and soon one before it."""
    names = tmp_path / "state.safetensors", tmp_path / "state.previous.safetensors"
    files.write_atomically(names[0], "1", keep=names[1])
    seen = []
    for function in ("replace", "link", "unlink"):
        real = getattr(files.os, function)

        def watched(*args, real=real, **kwargs):
            real(*args, **kwargs)
            seen.append((names[0].exists(), names[1].exists() or not seen))

        monkeypatch.setattr(files.os, function, watched)
    for text in "234":
        files.write_atomically(names[0], text, keep=names[1])
    assert len(seen) >= 9 and all(state for state, _ in seen)
    assert all(before for _, before in seen[5:])
    assert [name.read_text() for name in names] == ["4", "3"]
    assert len(list(tmp_path.iterdir())) == 2

    def refuse(*args, **kwargs):
        raise OSError("no second names here")

    monkeypatch.setattr(files.os, "link", refuse)
    files.write_atomically(names[0], "5", keep=names[1])
    assert [name.read_text() for name in names] == ["5", "4"]


def test_a_folder_without_checksums_is_taken_as_it_is(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    (folder / files.SUMS).unlink()
    assert content(folder) == content(whole)


def test_numbers_of_a_log_come_back_as_they_were(tmp_path):
    rng, rows = np.random.default_rng(0), []
    path = tmp_path / "metrics.jsonl"
    for step in range(50):
        rows.append({"step": step, "loss": float(rng.normal()), "crc": "x", "é": [1, {"a": "}"}]})
        files.append_line(path, json.dumps(rows[-1]) + "\n")
    assert files.read_log(path) == rows


def test_csv_text_quotes_what_needs_it():
    assert csv_text(["a", "b"], [{"a": 'x,"y"', "b": 1}]) == 'a,b\n"x,""y""",1\n'


def test_of_several_files_none_is_replaced_if_one_does_not_fit(tmp_path, monkeypatch):
    """So that no new eval.csv stands beside the old eval.json."""
    names = ("one", "two", "three")
    files.write_checked(tmp_path, dict.fromkeys(names, "old"))
    sums = files.checksums(tmp_path)
    opened = open

    def full(path, *how, **more):
        if Path(path).name.startswith(".two."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, *how, **more)

    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(files.RunError, match=r"cannot write .*two: No space left on device"):
        files.write_checked(tmp_path, dict.fromkeys(names, "new"))
    monkeypatch.undo()
    assert [(tmp_path / name).read_text() for name in names] == ["old"] * 3
    assert files.checksums(tmp_path) == sums and len(list(tmp_path.iterdir())) == 5


def test_a_damaged_log_says_how_to_go_on_without_it(trained):
    (trained.path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(files.RunError, match="to go on with what is left, remove its line there"):
        trained.metrics()
    files.record(trained.path, {"metrics.jsonl": None})
    assert train(trained).step == 2
