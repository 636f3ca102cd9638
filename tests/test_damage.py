"""Damaged run folders: every file is either read right or refused in one line that names it."""

import json
import random
import shutil

import numpy as np
import pytest
import torch

from addgpt.evaluation.scorecard import write_eval
from addgpt.runs import files
from addgpt.runs.checkpoint import read_tensors
from addgpt.runs.files import csv_text
from addgpt.runs.run import Run, RunError
from addgpt.training.loop import train
from analysis import load

ROUNDS = 200
FILES = ("config.json", "metrics.jsonl", "eval.csv", "model.safetensors", "state.safetensors")
ROW = dict.fromkeys(load.EVAL_COLUMNS, 3) | {"seen": False, "op": "+", "stratum": "all"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run with a few looks, two checkpoints and an evaluation."""
    from addgpt.runs.resolve import configure

    settings = dict(
        digits="2", layers="1", width="8", heads="2", steps="12", batch_size="8", eval_every="4",
        eval_size="16", save_every="4", threads="1",
    )  # fmt: skip
    run = Run.create(tmp_path_factory.mktemp("whole") / "run", configure("add", settings))
    train(run)
    write_eval(run.path, [ROW, ROW | {"len_a": 1}])
    return run.path


def content(path, tables: bool = True) -> dict:
    """All that the files of a run say, read as their users read them."""
    run = Run(path)
    (weights, about), (state, progress) = (
        read_tensors(path / f"{name}.safetensors") for name in ("model", "state")
    )
    run.model()
    run.check_log(progress["step"], progress["log"])
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
    assert refused >= 0.95 * ROUNDS  # spaces of config.json may change without harm
    if name.startswith(("eval", "metrics")):  # and so does who reads it with pandas
        (folder / name).write_bytes(data)
        spoil(folder / name)
        with pytest.raises(ValueError, match=name):
            load.evals(folder), load.metrics(folder)


def test_a_digit_that_flips_in_a_config_is_noticed_and_an_edit_can_be_meant(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    file = folder / "config.json"
    text = file.read_text()
    file.write_text(text.replace('"steps": 12', '"steps": 92'))
    with pytest.raises(RunError, match="config.json is damaged or was edited.*remove its sha256"):
        Run(folder)
    data = json.loads(file.read_text())
    data.pop("sha256")
    file.write_text(json.dumps(data))
    assert Run(folder).config.train.steps == 92
    file.write_text(json.dumps(json.loads(text), sort_keys=True))  # other spaces, same content
    assert Run(folder).config == Run(whole).config


def test_lost_and_swapped_lines_of_metrics_are_noticed(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    for changed in (lines[1:], lines[:1] + lines[2:], lines[::-1], lines[:-1], [lines[0]] * 3, []):
        file.write_text("".join(changed))
        with pytest.raises(RunError, match="metrics.jsonl is damaged"):
            train(Run(folder))
    file.unlink()  # as the line says, to go on without it
    train(Run(folder))


def test_the_checksum_of_an_evaluation_is_what_sha256sum_checks(whole, tmp_path):
    import subprocess

    folder = shutil.copytree(whole, tmp_path / "run")
    words = ["sha256sum", "--check", "--status", "eval.csv.sha256"]
    assert subprocess.run(words, cwd=folder).returncode == 0
    (folder / "eval.csv").write_text((folder / "eval.csv").read_text().replace("3", "4"))
    assert subprocess.run(words, cwd=folder).returncode == 1
    with pytest.raises(ValueError, match="eval.csv is damaged"):
        load.evals(folder)
    (folder / "eval.csv.sha256").unlink()
    assert len(load.evals(folder)) == 2


def test_a_kill_between_a_file_and_its_checksum_leaves_it_readable(tmp_path, monkeypatch):
    path = tmp_path / "eval.csv"
    files.write_checked(path, "old\n")
    calls, replace = [], files.os.replace

    def once(*names):
        calls.append(names)
        if len(calls) == 2:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(files.os, "replace", once)
    with pytest.raises(KeyboardInterrupt):
        files.write_checked(path, "new\n")
    assert files.read_checked(path) == "new\n"


def spoil(file) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 4
    file.write_bytes(data)


@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_the_checkpoint_before_the_last_is_offered_and_goes_on_exactly(whole, tmp_path, how):
    folder = shutil.copytree(whole, tmp_path / "run")
    state = folder / "state.safetensors"
    spoil(state) if how == "damaged" else state.unlink()
    with pytest.raises(RunError, match=rf"state.safetensors is {how}.*step 8.* is sound") as caught:
        train(Run(folder))
    command = f"addgpt train --resume --previous --out {folder}"
    assert str(caught.value).endswith(command)
    from click.testing import CliRunner

    from addgpt.cli.main import main

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
    with pytest.raises(RunError, match=f"model.safetensors is sound: .*--init-from {folder}"):
        train(Run(folder))
    spoil(folder / "model.safetensors")
    with pytest.raises(RunError, match="does not match its checksum$"):
        train(Run(folder))


def test_a_damaged_model_is_written_anew_from_a_sound_state(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    spoil(folder / "model.safetensors")
    with pytest.raises(RunError, match=f"addgpt train --resume --out {folder}$"):
        Run(folder).model()
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


def test_runs_written_before_there_were_checksums_are_read(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "run")
    for name in ("state.safetensors", "state.previous.safetensors", "eval.csv.sha256"):
        (folder / name).unlink()
    data = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: data[k] for k in data if k != "sha256"}))
    run, metrics = Run(folder), Run(whole).metrics()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    assert run.metrics() == metrics and len(load.evals(folder)) == 2
    run.log({"step": 99})
    assert run.metrics() == [*metrics, {"step": 99}]


def test_numbers_of_a_log_come_back_as_they_were(tmp_path):
    rng, crc, rows = np.random.default_rng(0), 0, []
    path = tmp_path / "metrics.jsonl"
    for step in range(50):
        rows.append({"step": step, "loss": float(rng.normal()), "crc": "x", "é": [1, {"a": "}"}]})
        line, crc = files.seal(rows[-1], crc)
        files.append_line(path, line)
    assert [row for row, _ in files.read_log(path)] == rows


def test_csv_text_quotes_what_needs_it():
    assert csv_text(["a", "b"], [{"a": 'x,"y"', "b": 1}]) == 'a,b\n"x,""y""",1\n'
