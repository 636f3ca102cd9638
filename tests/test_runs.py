"""Run folders: atomic, checked, never unpickled."""

import errno
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from addgpt.evaluation.schema import EVAL_COLUMNS, csv_text
from addgpt.model.build import build
from addgpt.runs import checkpoint, files, provenance
from addgpt.runs import run as module
from addgpt.runs.checkpoint import read_tensors
from addgpt.runs.files import RunError, write_checked
from addgpt.runs.run import Run, newest_run

ROOT = Path(module.__file__).parents[2]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, toy_model):
    """A file of tensors of several kinds, what it holds, and its bytes."""
    path = tmp_path_factory.mktemp("saved") / "model.safetensors"
    tensors = dict(toy_model(width=4, heads=1, layers=1, levels=(3,)).state_dict())
    tensors |= {"rng": torch.get_rng_state()[:16], "step": torch.tensor(3.0)}
    content = checkpoint.packed(tensors, {"step": 7, "reached": False})
    write_checked(path.parent, {path.name: content})
    return path, tensors, content


def one_line(error) -> str:
    text = str(error.value)
    assert text and "\n" not in text
    return text


def reads_right_or_says_damaged(saved, content: bytes) -> bool:
    """Whether damaged content was noticed; anything but the truth or one clear line fails."""
    path, tensors, _ = saved
    path.write_bytes(content)
    try:
        found, progress = read_tensors(path)
    except RunError as error:
        wanted = f"{path} is damaged: its content does not match its checksum in SHA256SUMS"
        assert str(error) == wanted
        return True
    assert progress == {"step": 7, "reached": False}
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    return False


def test_tensors_come_back_as_they_were(saved):
    assert not reads_right_or_says_damaged(saved, saved[2])


@examples(max_examples=100)
@given(st.data())
def test_damage_of_a_checkpoint_is_noticed(saved, data):
    """A flipped bit, overwritten bytes, an end that is missing."""
    content = saved[2]
    place = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(min_size=1, max_size=40) | st.just(b""))
    changed = (content[:place] + patch + content[place + len(patch) :])[: len(content)]
    changed = changed if patch else content[:place]
    assert reads_right_or_says_damaged(saved, changed) == (changed != content)


@given(st.binary(max_size=300))
def test_random_bytes_without_a_checksum_are_no_checkpoint(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match="is damaged: it is no checkpoint"):
        read_tensors(path)


def test_a_safetensors_file_of_others_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="is damaged"):
        read_tensors(tmp_path / "model.safetensors")


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_named_as_a_checkpoint_is_refused_unread(toy_run, tmp_path):
    run, mark = toy_run(), tmp_path / "unpickled"
    for name in ("model", "state"):
        (run.path / f"{name}.safetensors").write_bytes(pickle.dumps(Trap(mark)))
    torch.save({"a": Trap(mark)}, run.path / "torch.safetensors")
    for read in (run.model, run.progress, run.state):
        with pytest.raises(RunError, match="is damaged"):
            read()
    with pytest.raises(RunError, match="is damaged"):
        read_tensors(run.path / "torch.safetensors")
    assert not mark.exists()
    pickle.loads(pickle.dumps(Trap(mark)))
    assert mark.exists()


def test_a_full_disk_keeps_the_run_loadable(toy_run, monkeypatch):
    run = toy_run()
    model = build(run.config.model)
    run.save(model, {}, {"step": 1})

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for write in (
        lambda: run.save(model, {}, {"step": 2}),
        lambda: write_checked(run.path, {"eval.csv": csv_text(EVAL_COLUMNS, [{"run": "x"}])}),
        lambda: run.truncate_log(0),
    ):
        with pytest.raises(RunError, match="No space left on device"):
            write()
    assert run.progress()["step"] == 1
    assert not list(run.path.glob(".*tmp"))


def test_metrics_on_a_full_disk_are_one_clear_line(toy_run, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = toy_run()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="cannot write .*metrics.jsonl: No space left") as caught:
        run.log({"step": 1})
    one_line(caught)


def test_a_folder_with_anything_in_it_is_refused_untouched(toy_run, tmp_path):
    config = toy_run("first").config
    folder = tmp_path / "used"
    folder.mkdir()
    Run.create(folder, config)
    before = (folder / "config.json").read_bytes()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="is not empty; choose another --out, or add --resume"):
        Run.create(folder, config)
    for use in (lambda: Run.create(tmp_path / "file", config), lambda: Run(tmp_path / "file")):
        with pytest.raises(RunError, match="file is a file, not a folder$"):
            use()
    assert (folder / "config.json").read_bytes() == before
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_that_cannot_be_made_is_one_line(toy_run, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot make .*: Not a directory"):
        Run.create(tmp_path / "file" / "run", toy_run().config)


def test_missing_files_are_named(toy_run, tmp_path):
    run = toy_run()
    for read, name in ((run.model, "model"), (run.progress, "model"), (run.state, "state")):
        with pytest.raises(RunError, match=f"{name}.safetensors is missing") as caught:
            read()
        one_line(caught)
    with pytest.raises(RunError, match="there is no folder .*nowhere; train a run first"):
        Run(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is not a run: it has no config.json"):
        Run(tmp_path)
    with pytest.raises(RunError, match="no trained run in .*; train one"):
        newest_run(tmp_path / "nowhere")
    assert not run.started and run.metrics() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=99), "format 99 by another version of addgpt; this one reads"),
        (lambda c: c.pop("format"), "format None by another version"),
        (lambda c: c.update(colour="red"), "unknown key 'colour'; valid keys: .*task"),
        (
            lambda c: c["model"].update(depth=3),
            "unknown key 'depth' in model; did you mean layers. valid keys:",
        ),
        (lambda c: c["model"].update(width="9"), "width in model must be a whole number, not '9'"),
        (lambda c: c["model"].update(norm="batch"), "norm must be one of rms, layer, plain"),
        (lambda c: c["model"].update(heads=3), "heads=3 does not divide width=16"),
        (lambda c: c["train"].update(lr="fast"), "lr in train must be a number"),
        (lambda c: c["train"].update(steps=0), "steps must be in 1"),
        (lambda c: c["train"].update(steps=True), "steps in train must be a whole number"),
        (lambda c: c.update(train=[]), ": train must be a table of settings"),
        (lambda c: c.pop("task"), ": task is missing"),
    ],
)
def test_a_config_that_cannot_be_read_is_one_clear_line(toy_run, change, message):
    run = toy_run()
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    (run.path / files.SUMS).unlink()
    with pytest.raises(RunError, match=message) as caught:
        Run(run.path)
    assert one_line(caught).startswith(str(file))


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"format": 1}'])
def test_a_broken_config_file_is_one_clear_line(toy_run, content):
    run = toy_run()
    (run.path / "config.json").write_bytes(content)
    with pytest.raises(RunError, match="config.json is damaged"):
        Run(run.path)
    (run.path / files.SUMS).unlink()
    with pytest.raises(RunError, match="config.json(: | is damaged: not (UTF-8|JSON))") as caught:
        Run(run.path)
    one_line(caught)


@examples(max_examples=200)
@given(data=st.data())
def test_any_value_in_a_config_is_taken_or_refused_in_one_line(tmp_path_factory, saved, data):
    folder = saved[0].parent
    config = json.loads(json.dumps(GOOD_CONFIG))
    table = data.draw(st.sampled_from([config, config["model"], config["train"]]))
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(json_values)
    (folder / "config.json").write_text(json.dumps(config))
    try:
        Run(folder)
    except RunError as error:
        assert "\n" not in str(error)


GOOD_CONFIG = {
    "task": "add",
    "options": {"digits": 2},
    "seed": 0,
    "command": "",
    "versions": {},
    "format": 1,
    "model": {
        "vocab": 19,
        "context": 12,
        "levels": [5, 1, 25],
        "layers": 1,
        "heads": 2,
        "width": 16,
        "dropout": 0.0,
        "norm": "rms",
        "tied": False,
        "level_position": ["rotary", "none", "learned"],
    },
    "train": {"steps": 3, "lr": 0.1, "stop_at": 0.5, "optimizer": "muon"},
}


def test_a_config_is_complete_and_comes_back_equal(toy_run):
    run = toy_run(task="calc", seed=3)
    stored = json.loads((run.path / "config.json").read_text())
    assert set(stored) == {
        "task",
        "options",
        "model",
        "train",
        "seed",
        "command",
        "versions",
        "format",
    }
    assert Run(run.path).config == run.config
    assert Run(run.path).task() == run.task()


def test_versions_name_what_a_result_depends_on():
    found = provenance.versions()
    assert set(found) >= {"addgpt", "python", "torch", "numpy", "commit", "machine"}
    assert all(isinstance(value, str) for value in found.values())
    assert found["torch"] == torch.__version__


def test_a_model_comes_back_from_its_folder_alone(toy_run):
    run = toy_run()
    model = build(run.config.model, seed=5)
    run.save(model, {"rng": torch.get_rng_state()}, {"step": 9, "examples": 90})
    again = Run(run.path)
    found = again.model()
    assert not found.training
    assert all(torch.equal(found.state_dict()[n], t) for n, t in model.state_dict().items())
    assert again.progress() == {"step": 9, "examples": 90}
    assert again.started
    state, progress = again.state()
    assert progress == {"step": 9, "examples": 90}
    assert {n for n in state if n != "rng"} == {f"model.{n}" for n in model.state_dict()}


def test_weights_of_another_shape_are_refused(toy_run):
    one, other = toy_run("one"), toy_run("other", width=32)
    other.save(build(other.config.model), {}, {})
    (one.path / "model.safetensors").write_bytes((other.path / "model.safetensors").read_bytes())
    with pytest.raises(RunError, match="does not fit the model in config.json") as caught:
        one.model()
    one_line(caught)


def test_metrics_survive_a_line_cut_short(toy_run):
    run = toy_run()
    for step in (1, 2, 3):
        run.log({"step": step})
    file = run.path / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-4])
    assert run.metrics() == [{"step": 1}, {"step": 2}]
    run.truncate_log(1)
    run.log({"step": 9})
    assert run.metrics() == [{"step": 1}, {"step": 9}]


def test_eval_csv_has_the_columns_of_the_contract_in_order(toy_run):
    run = toy_run()
    rows = [{"run": "a, b", "n": 3}, {"stratum": "carry:2"}]
    write_checked(run.path, {"eval.csv": csv_text(EVAL_COLUMNS, rows)})
    lines = (run.path / "eval.csv").read_text().splitlines()
    assert lines[0].split(",") == list(EVAL_COLUMNS)
    assert list(EVAL_COLUMNS) == (
        "run,task,seed,params,step,examples,seconds,split,op,len_a,len_b,stratum,seen,n,"
        "answer_correct,trace_correct,unterminated"
    ).split(",")
    assert lines[1].startswith('"a, b",') and len(lines) == 3


def test_the_newest_run_is_the_one_saved_last(toy_run, tmp_path):
    for name, when in (("a", 100), ("b", 300), ("c", 200)):
        run = toy_run(name)
        run.save(build(run.config.model), {}, {})
        os.utime(run.path / "model.safetensors", (when, when))
    assert newest_run(tmp_path) == tmp_path / "b"
