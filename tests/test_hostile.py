"""Files from a stranger: nothing is executed, written elsewhere, waited for or over-allocated."""

import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import save

from addgpt import checkpoint, files, problems
from addgpt.checkpoint import read_tensors, shapes, write_tensors
from addgpt.config import MOST, ModelConfig, load_run_config
from addgpt.files import read_toml
from addgpt.model import GPT
from addgpt.problems import read_problems
from addgpt.runs import Run, RunError
from addgpt.suites import load_suite
from addgpt.train import check_memory, train

ROOT = Path(checkpoint.__file__).parents[1]


@pytest.fixture(autouse=True)
def soon():
    """Nothing here may take long."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 60


@pytest.fixture
def trained(toy_run):
    run = toy_run(steps=2)
    train(run)
    return run


def refused(act) -> str:
    with pytest.raises((RunError, ValueError)) as caught:
        act()
    text = str(caught.value)
    assert text and "\n" not in text and len(text) < 1000
    return text


def edited(run: Run, part: str, **values) -> Path:
    """The run with other settings in its config, and no checksum over them."""
    file = run.path / "config.json"
    config = json.loads(file.read_text())
    (config[part] if part else config).update(values)
    config.pop("sha256", None)
    file.write_text(json.dumps(config))
    return run.path


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("model", {"width": 10**9}),
        ("model", {"width": 10**9, "heads": 10**9}),
        ("model", {"layers": 10**9}),
        ("model", {"loops": 10**9}),
        ("model", {"mlp_ratio": 1e300}),
        ("model", {"mlp_ratio": float("nan")}),
        ("model", {"vocab": 10**12}),
        ("model", {"context": 10**12}),
        ("model", {"levels": [10**12, 1, 1]}),
        ("model", {"levels": [1] * 1000, "level_position": ["none"] * 1000}),
        ("train", {"batch_size": 10**9}),
        ("train", {"eval_size": 10**15}),
        ("train", {"threads": 10**6}),
        ("train", {"steps": 10**400}),
        ("train", {"lr": float("nan")}),
        ("", {"seed": -1}),
        ("", {"seed": 10**30}),
        ("", {"format": [1]}),
        ("", {"format": 1e308}),
        ("", {"task": "../../etc"}),
        ("", {"task": "os"}),
        ("options", {"digits": 10**9}),
        ("options", {"digits": [[]]}),
        ("", {"options": [1]}),
    ],
)
def test_a_config_that_declares_the_impossible_is_refused(toy_run, part, values):
    path = edited(toy_run(), part, **values)
    refused(lambda: Run(path).task())


@pytest.mark.parametrize(
    "values",
    [{"width": 1 << 16}, {"layers": 1024}, {"levels": [5, 1, 1 << 20]}, {"vocab": 1 << 20}],
)
def test_a_config_larger_than_its_weights_is_refused_before_a_model_is_made(
    trained, monkeypatch, values
):
    path = edited(trained, "model", **values)
    made = []
    monkeypatch.setattr(torch.nn.init, "normal_", lambda tensor, *_, **__: made.append(tensor))
    for act in (Run(path).model, Run(path).state, lambda: train(Run(path))):
        assert "does not fit the model in config.json" in refused(act)
    assert all(tensor.is_meta for tensor in made)


def test_settings_that_need_more_memory_than_there_is_are_refused(toy_run):
    for part, values in (
        ("model", {"width": 1 << 16, "layers": 1024, "mlp_ratio": 64}),
        ("train", {"batch_size": 1 << 20, "micro_batch": 1 << 20}),
    ):
        name = part + "-run"
        big = {"digits": 500, "layers": 64, "width": 1024}
        path = edited(toy_run(name, **big) if part == "train" else toy_run(name), part, **values)
        assert "GiB" in refused(lambda path=path: check_memory(Run(path).config))


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": ' * 50_000, f'{{"a": "{"x" * (2 << 20)}"}}', "9" * 5000, "1e999"],
    ids=["deep-list", "deep-table", "large", "long-number", "infinite"],
)
def test_a_config_of_odd_json_is_refused(toy_run, text):
    run = toy_run()
    (run.path / "config.json").write_text(text)
    assert "config.json" in refused(lambda: Run(run.path))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = [*MOST, "levels", "level_position", "heads", "norm", "dropout", "task", "options", "digits"]


@examples(max_examples=200)
@given(
    model=st.dictionaries(st.sampled_from(NAMES), values | st.integers(-3, 70), max_size=5),
    train=st.dictionaries(st.sampled_from(NAMES), values, max_size=5),
    top=st.dictionaries(st.sampled_from([*NAMES, "seed", "format", "model", "train"]), values),
)
def test_any_config_is_a_config_or_refused(model, train, top):
    data = {"format": 1, "task": "add", "options": {}, "model": model, "train": train} | top
    try:
        config = load_run_config(data)
        shapes(config.model)
    except ValueError as error:
        assert str(error)


def framed(header: bytes, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + body


def header(**entries) -> bytes:
    return json.dumps(entries).encode()


HUGE = {"dtype": "F32", "shape": [1 << 38], "data_offsets": [0, 1 << 40]}
BAD_TENSORS = {
    "endless-header": struct.pack("<Q", 2**63 - 1) + b"{}",
    "header-of-a-terabyte": struct.pack("<Q", 1 << 40) + b"{}",
    "tensor-of-a-terabyte": framed(header(a=HUGE)),
    "overflowing-shape": framed(
        header(a={"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 0]})
    ),
    "negative": framed(header(a={"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]})),
    "overlapping": framed(
        header(**{n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}), b"1234"
    ),
    "deep": framed(b"[" * 100_000),
    "not-text": framed(b"\xff" * 64),
    "empty": b"",
    "no-metadata": save({"a": torch.zeros(2)}),
    "many-tensors": save({str(i): torch.zeros(0) for i in range(2000)}, {"progress": "[]"}),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_a_checkpoint_that_declares_the_impossible_is_refused(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD_TENSORS[name])
    assert refused(lambda: read_tensors(path)).startswith(str(path))


def test_a_file_larger_than_memory_is_refused_unread(tmp_path):
    path, size = tmp_path / "model.safetensors", 1 << 41
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    path.write_bytes(framed(header(a=entry)))
    os.truncate(path, path.stat().st_size + size)  # takes no room: it is all holes
    assert "too large for this machine" in refused(lambda: read_tensors(path))


@examples(max_examples=200)
@given(
    st.dictionaries(
        st.text(max_size=4) | st.just("__metadata__"),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["F32", "U8", "BOOL", "F8_E4M3", "X", 3]),
                "shape": st.lists(st.integers(-1, 1 << 40), max_size=3),
                "data_offsets": st.lists(st.integers(-1, 1 << 40), min_size=1, max_size=3),
            }
        )
        | values,
        max_size=4,
    ),
    st.binary(max_size=64),
)
def test_any_header_is_refused_in_one_line(tmp_path_factory, entries, body):
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    path.write_bytes(framed(json.dumps(entries).encode(), body))
    assert str(path) in refused(lambda: read_tensors(path))


def rewritten(run: Run, change) -> None:
    """A state with something changed, and a checksum that is right."""
    tensors, progress = read_tensors(run.path / "state.safetensors")
    tensors, progress = dict(tensors), dict(progress)
    change(tensors, progress)
    write_tensors(run.path / "state.safetensors", tensors, progress)


MOMENTUM = "optim.0.0.momentum"


@pytest.mark.parametrize(
    "change",
    [
        lambda t, p: p.update(step="x"),
        lambda t, p: p.update(step=-1),
        lambda t, p: p.update(step=10**30),
        lambda t, p: p.update(seconds=float("nan")),
        lambda t, p: p.update(step=[[1]]),
        lambda t, p: p.clear(),
        lambda t, p: t.update({MOMENTUM: torch.zeros(7, 7)}),
        lambda t, p: t.update({"optim.0.999.momentum": torch.zeros(())}),
        lambda t, p: t.update({"optim.0.x.momentum": torch.zeros(())}),
        lambda t, p: t.update({"optim.0.0": torch.zeros(())}),
        lambda t, p: t.update({"optim.0.0.a.b": torch.zeros(())}),
        lambda t, p: t.update({"model.other": torch.zeros(())}),
        lambda t, p: t.pop(next(n for n in t if n.startswith("model."))),
        lambda t, p: p.update(log=5),
    ],
)
def test_a_state_that_is_none_is_refused_though_its_checksum_is_right(trained, change):
    rewritten(trained, change)
    config = edited(trained, "train", steps=4)
    line = refused(lambda: train(Run(config)))
    assert "state.safetensors" in line or "metrics.jsonl" in line


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
    trained.write_eval([])  # put in its place


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
        run.write_eval([])
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
    from addgpt.sweep_grid import load_grid

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
from addgpt.files import RunError, read_log
from addgpt.problems import read_problems
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


def test_expected_shapes_are_those_of_the_model(toy_run):
    """For several kinds of models: what is worked out without memory is what is made."""
    base = toy_run().config.model
    kinds = [{}, {"position": "learned"}, {"position": "sinusoidal"}, {"position": "rotary"},
             {"tied": True}, {"norm": "layer"}, {"qk_norm": False}, {"position": "fire"},
             {"activation": "swiglu"}, {"rank": 3}, {"loops": 2}, {"share": "qk"}]  # fmt: skip
    from dataclasses import replace

    for kind in kinds:
        config: ModelConfig = replace(base, **kind)
        made = {name: tensor.shape for name, tensor in GPT(config).state_dict().items()}
        assert shapes(config) == made
        assert checkpoint.weight_count(config) == GPT(config).parameter_count()


def test_memory_is_not_taken_to_be_endless():
    assert resource.getpagesize() < checkpoint.memory() < 1 << 50
