"""Files that are not what they should be: one clear line, and no model larger than its weights."""

import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from safetensors.torch import save

from addgpt.config.architectures import GPTConfig
from addgpt.config.schema import TrainConfig, load_run_config
from addgpt.config.settings import names_of
from addgpt.evaluation.problem_files.scores import read_problems
from addgpt.evaluation.suites import load_suite
from addgpt.model.build import build
from addgpt.runs import checkpoint
from addgpt.runs.checkpoint import packed, read_tensors, shapes
from addgpt.runs.files import read_toml, write_checked
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.training.loop import train
from addgpt.training.preflight import check_memory
from tests.helpers.hostile import edited, refused

pytestmark = [pytest.mark.timeout(60), pytest.mark.slow]


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


def test_biases_of_ids_are_counted_among_what_training_needs(monkeypatch):
    """Products of 120x120 digits take 30,000 tokens, hence 900 million pairs a row."""
    monkeypatch.setattr("addgpt.training.preflight.memory", lambda: 24 << 30)
    full = {"trace": "rows", "attention": "full"}
    check_memory(configure("mul", full | {"digits": "40"}))
    check_memory(
        configure("mul", full | {"digits": "120", "level_position": "rotary,rotary,learned"})
    )
    with pytest.raises(ValueError, match="GiB or more to train"):
        check_memory(configure("mul", full | {"digits": "120"}))
    check_memory(configure("mul", {"digits": "120"}))  # each token sees a few others


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"format": ' * 50_000, "9" * 5000, "1e999"],
    ids=["deep-list", "deep-table", "long-number", "infinite"],
)
def test_a_config_of_odd_json_is_refused(toy_run, text):
    run = toy_run()
    (run.path / "config.json").write_text(text)
    (run.path / "SHA256SUMS").unlink()
    assert "config.json" in refused(lambda: Run(run.path))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)
NAMES = [*names_of(GPTConfig), *names_of(TrainConfig), "task", "options", "digits"]


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
    "no-progress": save({"a": torch.zeros(2)}, {"progress": "[]"}),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_a_checkpoint_that_declares_the_impossible_is_refused(tmp_path, name):
    path = tmp_path / "model.safetensors"
    path.write_bytes(BAD_TENSORS[name])
    assert refused(lambda: read_tensors(path)).startswith(str(path))


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
    write_checked(run.path, {"state.safetensors": packed(tensors, progress)})


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
    ],
)
def test_a_state_that_is_none_is_refused_though_its_checksum_is_right(trained, change):
    rewritten(trained, change)
    config = edited(trained, "train", steps=4)
    line = refused(lambda: train(Run(config)))
    assert "state.safetensors" in line or "metrics.jsonl" in line


def test_expected_shapes_are_those_of_the_model(toy_run):
    """For several kinds of models: what is worked out without memory is what is made."""
    base = toy_run().config.model
    kinds = [{}, {"position": "learned"}, {"position": "sinusoidal"}, {"position": "rotary"},
             {"tied": True}, {"norm": "layer"}, {"qk_norm": False},
             {"position": "fire", "attention": "full", "visible": ()},
             {"activation": "swiglu"}, {"rank": 3}, {"loops": 2}, {"share": "qk"}]  # fmt: skip
    from dataclasses import replace

    for kind in kinds:
        config: GPTConfig = replace(base, **kind)
        made = {name: tensor.shape for name, tensor in build(config).state_dict().items()}
        assert shapes(config) == made
        assert checkpoint.weight_count(config) == build(config).parameter_count()


@pytest.mark.parametrize("name", ["../../outside", "a/../../outside"])
def test_a_suite_and_a_grid_write_inside_their_folders(tmp_path, name):
    from addgpt.sweep.grid import load_grid

    grid = tmp_path / "grid.toml"
    grid.write_text(f'task = "add"\nout = "{name}"\n')
    assert "folder's name without .., not" in refused(lambda: load_grid(str(grid)))
    grid.write_text(f'task = "add"\n[[case]]\nname = "{name}"\nset = {{digits = 2}}\n')
    refused(lambda: load_grid(str(grid)))


@pytest.mark.parametrize("text", ["a = " + "[" * 50_000, "a = " + "{b = " * 9_000, "a = ", "\x00"])
def test_a_toml_file_that_is_none_is_refused(tmp_path, text):
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
        assert all(one.fault or one.problem.strip() for one in read_problems(path))
    except ValueError as error:
        assert str(path) in str(error)
