"""Our models elsewhere: the exported model is the model, for transformers, ONNX and lm-eval."""

import ast
import glob
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.errors import UsageError
from addgpt.evaluation.schema import EVAL_COLUMNS, csv_text
from addgpt.export.harness import export_harness
from addgpt.export.huggingface import _card, _digit_order, some_rows
from addgpt.export.vendoring import bundled
from addgpt.runs.files import RunError, write_checked
from addgpt.runs.run import SHIPPED, Run
from addgpt.task_lookup import load_task
from tests.helpers.exports import exported, loaded, same_text, saved

pytestmark = pytest.mark.slow

FULL = {"attention": "full"}
RECIPES = {  # of every way in which positions enter; some have tables that are no weights
    "window": ("add", {}),
    "reads": ("mul", {"digits": 2}),
    "rotary": ("add", FULL | {"level_position": "rotary2,none,learned", "position": "sinusoidal"}),
    "alibi": ("sub", FULL | {"position": "alibi", "norm_place": "both", "loops": 2}),
    "prefix": ("div", FULL | {"prefix": "true", "digits": 2}),
    "hints": ("add", FULL | {"hints": "true", "format": "plain"}),
    "no ids": ("add", FULL | {"level_position": "none,none,none", "position": "rotary"}),
    "gru": ("add", {"architecture": "gru", "width": 16}),
    "mlp": ("add", {"architecture": "mlp", "width": 8}),
    "bigram": ("add", {"architecture": "bigram"}),
}
NONE = {"attention": "full", "level_position": "none,none,none", "qk_norm": "false"}
STOCK = {
    "gpt2": ("GPT-2", NONE | {"norm": "layer", "activation": "gelu", "position": "learned"}),
    "gpt2 none": ("GPT-2", NONE | {"norm": "layer", "activation": "relu2", "position": "none"}),
    "gpt2 tied": (
        "GPT-2",
        NONE | {"norm": "layer", "activation": "relu", "tied": "true", "position": "learned"},
    ),
    "llama": ("Llama", NONE | {"norm": "rms", "activation": "swiglu", "position": "rotary"}),
    "llama plain": (
        "Llama",
        NONE | {"norm": "plain", "activation": "geglu", "position": "rotary", "kv_heads": "1"},
    ),
}
HALF = {"digits": "3", "layers": "1", "width": "32", "heads": "2"}  # the model `half_trained`


@pytest.fixture
def random_run(tmp_path):
    """A run whose weights are all random: every part of the model shows in its logits."""

    def create(task, settings):
        small = {"digits": "3", "layers": "2", "width": "32", "heads": "2"}
        if "architecture" in settings:
            small = {"digits": "3"}
        run = saved(tmp_path / "run", task, small | {k: str(v) for k, v in settings.items()})
        model = run.model()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
        run.save(model, {}, {"step": 1, "examples": 1, "seconds": 1.0})
        return run

    return create


@pytest.mark.parametrize("name", RECIPES)
def test_a_model_that_brings_its_code_is_the_model(name, random_run, tmp_path):
    run = random_run(*RECIPES[name])
    found = exported(run, tmp_path / "out")
    assert found["stock"] == "" and found["difference"] < 1e-5, found
    same_text(run, tmp_path / "out", True)


@pytest.mark.parametrize("name", STOCK)
def test_a_plain_gpt_is_a_stock_architecture(name, random_run, tmp_path):
    stock, settings = STOCK[name]
    run = random_run("add", settings)
    found = exported(run, tmp_path / "out")
    assert found["stock"] == stock and found["difference"] < 1e-4, found
    assert not list((tmp_path / "out").glob("*.py"))
    same_text(run, tmp_path / "out", False)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_stock_export_is_what_transformer_lens_looks_into(name, random_run, tmp_path):
    lens = pytest.importorskip("transformer_lens.model_bridge", exc_type=ImportError)
    from addgpt.generation.decode import batch_within_tables
    from addgpt.model.forward import tensors

    run = random_run("add", STOCK[name][1])
    exported(run, tmp_path / "out")
    _, tokenizer = loaded(tmp_path / "out", remote=False)
    tokenizer.add_tokens("a")  # TransformerLens tries it, and ours refuses what it does not know
    boot = lens.TransformerBridge.boot_transformers
    bridge = boot(str(tmp_path / "out"), tokenizer=tokenizer, device="cpu")
    batch, model = some_rows(run.task()), run.model()
    tokens, ids, _ = tensors(batch_within_tables(batch, model.config), torch.device("cpu"))
    with torch.inference_mode():
        ours = model(tokens, ids)
        theirs, seen = bridge.run_with_cache(tokens)
    real = torch.arange(tokens.shape[1]) < torch.from_numpy(batch.lengths - 1)[:, None]
    assert float((ours - theirs).abs()[real].max()) < 1e-3
    rows, length = tokens.shape
    assert seen["blocks.1.attn.hook_pattern"].shape == (rows, 2, length, length)
    assert bridge.to_str_tokens("12+34=")[-6:] == list("12+34=")


def test_the_shipped_calculator_is_exported_from_the_command_line(tmp_path):
    """One row of each operation, written by the exported model alone, read back by the task."""
    pytest.importorskip("transformers")
    folder = tmp_path / "calculator"
    result = CliRunner().invoke(main, ["export", "calculator", "--to", "hf", "--out", str(folder)])
    assert result.exit_code == 0, result.output
    assert "largest difference of logits 0 on 64" in result.output
    model, tokenizer = loaded(folder)
    task = Run(SHIPPED).task()
    for text, answer in (("128+367", "495"), ("5-17", "-12"), ("12*34", "408"), ("17/5", "3 r 2")):
        problem = task.parse(text)
        read = tokenizer(task.prompt(problem), return_tensors="pt")["input_ids"]
        out = model.generate(read, max_new_tokens=150, do_sample=False, use_cache=True)  # ignored
        written = tokenizer.decode(out[0, read.shape[1] :])
        assert str(task.read(problem, written)) == answer.replace("r", "remainder")
    with pytest.raises(ValueError, match="equals sign"):
        model(tokenizer("12+3", return_tensors="pt")["input_ids"])
    with pytest.raises(Exception):  # noqa: B017, the error is that of the tokenizers library
        tokenizer("12 + 3=")
    card = (folder / "README.md").read_text()
    assert "lowest digit first: answers of `+`, `-`, `*`, remainders. So" in card
    assert f"{model.num_parameters():,} parameters" in card and "trust_remote_code=True" in card
    again = CliRunner().invoke(main, ["export", "calculator", "--to", "hf", "--out", str(folder)])
    assert again.exit_code == 1 and "is not empty" in again.output


def test_the_card_has_scores_of_the_exported_weights_alone(random_run):
    run = random_run("add", {})
    row = dict.fromkeys(EVAL_COLUMNS, 7) | {"stratum": "all", "op": "+", "seen": False}
    for step, told in ((1, True), (0, False)):
        write_checked(run.path, {"eval.csv": csv_text(EVAL_COLUMNS, [row | {"step": step}])})
        model, progress = run.load()
        found = {"stock": "", "checked": 1, "difference": 0.0}
        assert ("| + | 7, 7 | 7 | 7 |" in _card(run, run.task(), model, progress, found)) == told


@pytest.mark.parametrize(("task", "options", "names"), [
    ("add", {}, "answers"),
    ("add", {"reverse_operands": True, "pad": "4", "begin": True}, "answers, operands"),
    ("sub", {"trace": "none"}, "answers"),
    ("mul", {"trace": "none", "reverse_operands": True}, "answers, operands"),
    ("add", {"format": "plain"}, ""), ("modular", {}, ""),
])  # fmt: skip
def test_the_card_says_what_is_written_lowest_digit_first(task, options, names):
    task = load_task(task, options | ({} if task == "modular" else {"digits": 3}))
    told = _digit_order(task, some_rows(task))
    assert bool(told) == bool(names)
    if told:
        found = re.fullmatch(
            rf"Written lowest digit first: {names}. So `(\d+)(.)(\d+)` is read as "
            r"`\$?(\d+).(\d+)=`, and all that is to be written for (-?\d+) is `-?(\d+)#`\.",
            told,
        )
        a, op, b, first, second, answer, digits = found.groups()
        turn = slice(None, None, -1 if "operands" in names else 1)
        assert (int(first[turn]), int(second[turn])) == (int(a), int(b))
        right = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[op]
        assert int(answer) == right and int(digits[::-1]) == abs(right)


def test_the_code_beside_an_exported_model_needs_no_addgpt():
    files = bundled("from addgpt.model.build import build\nfrom tasks.calc import Calc\n", "1")
    assert {"addgpt_model_gpt.py", "tasks_common_sheet.py", ""} <= set(files)
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                assert f"{node.module}.py" in files, name
            elif isinstance(node, ast.ImportFrom):
                assert node.module.split(".")[0] not in ("addgpt", "tasks"), name
            elif isinstance(node, ast.Import):
                names = {alias.name.split(".")[0] for alias in node.names}
                assert not names & {"addgpt", "tasks"}, name


@pytest.mark.slow
def test_an_exported_model_runs_where_addgpt_is_not(tmp_path):
    exported(Run(SHIPPED), tmp_path / "calculator")
    program = """
import sys
sys.modules["addgpt"] = sys.modules["tasks"] = None  # an import of either fails
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], trust_remote_code=True)
read = tokenizer("128+367=", return_tensors="pt")["input_ids"]
print(tokenizer.decode(model.generate(read, max_new_tokens=30, do_sample=False)[0]))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "calculator")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.startswith("128+367=5") and done.stdout.strip().endswith("#"), done.stderr


def test_an_exported_model_asked_as_one_of_others_gets_its_own_score(
    half_trained, tmp_path, monkeypatch
):
    """`addgpt eval hf:` with the rule `trace`, cell by cell; its code only if that is allowed."""
    pytest.importorskip("transformers")
    from addgpt.evaluation.exact_match import evaluate

    monkeypatch.chdir(tmp_path)
    task, model = half_trained
    saved(tmp_path / "half", "sub", HALF, model)
    command = ["export", "half", "--to", "hf", "--out", "hf"]
    assert CliRunner().invoke(main, command).exit_code == 0
    command = ["eval", "hf:hf", "--task", "sub", "--digits", "3", "--per-cell", "5", "--json"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2 and "--trust-remote-code" in refused.output
    command += ["--answer", "trace", "--trust-remote-code"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    wanted = list(evaluate(model, task, task.cells(), per_cell=5))
    for name in ("answer_correct", "trace_correct", "n"):
        assert [row[name] for row in json.loads(result.stdout)] == [row[name] for row in wanted]


def test_a_task_of_ones_own_is_exported_with_its_file(tmp_path):
    file = tmp_path / "twice.py"
    file.write_text(
        "from dataclasses import dataclass\nfrom tasks.add import Add\n\n\n"
        "@dataclass(frozen=True)\nclass Twice(Add):\n    pass\n"
    )
    run = saved(tmp_path / "run", file, {"digits": "2", "width": "16"})
    assert exported(run, tmp_path / "out")["difference"] == 0
    assert (tmp_path / "out" / "own_task.py").is_file()


BIASES = {  # position-only attention in a window, and full attention whose heads are all that is
    "visible biases": (
        "add",
        {"level_position": "relative,none,none", "content": "false", "alphabet": "used",
         "attention": "window", "biases": "visible", "norm": "none", "tied": "true", "layers": 1},
    ),
    "plain": ("add", FULL | {"position": "alibi", "width": 16, "layers": 1}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["window", "rotary", "gru", "mlp", *BIASES])
def test_onnx_has_our_logits_at_any_size(name, random_run, tmp_path):
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    from addgpt.export.onnx import export_onnx, inputs

    run = random_run(*(RECIPES | BIASES)[name])
    found = export_onnx(run, tmp_path / "out")
    assert found["difference"] < 1e-4 and 0 < found["largest"] < 100
    task, model = run.task(), run.model()
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx")
    for rows, cell in ((1, (1, 1)), (5, (3, 2))):
        from addgpt.task import Cell

        batch = task.batch(np.random.default_rng(2), rows, "train", Cell(task.op, *cell))
        given = inputs(model, batch)
        (theirs,) = session.run(None, {name: x.numpy() for name, x in given.items()})
        with torch.inference_mode():
            ours = model(given["tokens"], given["ids"]).numpy()
        assert np.abs(ours - theirs).max() < 1e-4


def test_what_onnxruntime_refuses_is_one_line_and_leaves_nothing(random_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from addgpt.export import onnx

    monkeypatch.setattr(onnx, "_write", lambda model, given, path: path.write_text("no model"))
    with pytest.raises(UsageError, match="^onnxruntime cannot run what torch exported: [^\n]+$"):
        onnx.export_onnx(random_run("add", {}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_fails_leaves_nothing(random_run, tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from addgpt.export import huggingface

    def fails(*about):
        raise RunError("the disk is full")

    monkeypatch.setattr(huggingface, "_difference", fails)
    run, _ = random_run("add", {}), (tmp_path / "there").mkdir()
    for name in ("new", "there"):
        with pytest.raises(RunError, match="disk is full"):
            huggingface.export_huggingface(run, tmp_path / name)
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "there").iterdir()) == []


def test_held_out_problems_become_a_task_of_the_harness(random_run, tmp_path):
    run = random_run("add", {})
    found = export_harness(run, tmp_path / "out", per_cell=5)
    settings = json.loads((tmp_path / "out" / "task.yaml").read_text())
    file = settings["dataset_kwargs"]["data_files"]["test"]
    rows = [json.loads(line) for line in open(file)]
    assert found["n"] == len(rows) and found["task"] == settings["task"]
    task = run.task()
    for row in rows:
        problem = task.parse(row["problem"])
        assert row["prompt"] == task.prompt(problem)
        assert task.read(problem, row["completion"] + "#") == task.truth(problem)
        assert row["seen"] or not task.in_train(problem)
    with pytest.raises(RunError, match="not empty"):
        export_harness(run, tmp_path / "out", per_cell=5)


def test_a_task_of_the_harness_has_a_name_that_it_takes(random_run, tmp_path, monkeypatch):
    named = random_run("add", {}).path.rename(tmp_path / "my run, 1*2")
    monkeypatch.setattr("addgpt.runs.run.build", None)  # no model is made
    assert export_harness(Run(named), tmp_path / "out", 1)["task"] == "addgpt_my_run__1_2"
    export_harness(Run(named), tmp_path / "[a]", 1)
    settings = json.loads((tmp_path / "[a]" / "task.yaml").read_text())
    (found,) = glob.glob(settings["dataset_kwargs"]["data_files"]["test"])  # as it looks for it
    assert Path(found).parent == tmp_path / "[a]"
    (named / "model.safetensors").unlink()
    with pytest.raises(RunError, match="is missing"):
        export_harness(Run(named), tmp_path / "other", 1)
    assert not (tmp_path / "other").exists()


@pytest.mark.slow
def test_lm_evaluation_harness_finds_our_own_score(half_trained, tmp_path, monkeypatch):
    """The real evaluator on the real exported model; its own loader needs accelerate besides."""
    lm_eval = pytest.importorskip("lm_eval")
    pytest.importorskip("transformers")
    from lm_eval.api.model import LM
    from lm_eval.tasks import TaskManager

    from addgpt.evaluation.exact_match import evaluate

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    task, model = half_trained
    run = saved(tmp_path / "half", "sub", HALF, model)
    exported(run, tmp_path / "hf")
    found = export_harness(run, tmp_path / "task", per_cell=10)
    try:
        import accelerate  # noqa: F401

        asked = {"model": "hf", "batch_size": 8, "device": "cpu"}
        asked["model_args"] = {"pretrained": str(tmp_path / "hf"), "trust_remote_code": True}
    except ImportError:

        class Exported(LM):
            """Asks the exported model as the loader of the harness does, one prompt at a time."""

            def generate_until(self, requests):
                other, tokenizer = loaded(tmp_path / "hf")
                for request in requests:
                    prompt, how = request.args
                    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
                    most = how["max_gen_toks"]
                    out = other.generate(ids, max_new_tokens=most, do_sample=False)
                    text = tokenizer.decode(out[0, ids.shape[1] :])
                    yield text.split(how["until"][0])[0]

            def loglikelihood(self, requests):
                raise NotImplementedError

            loglikelihood_rolling = loglikelihood

        asked = {"model": Exported()}
    manager = TaskManager(include_path=str(tmp_path / "task"), include_defaults=False)
    result = lm_eval.simple_evaluate(tasks=[found["task"]], task_manager=manager, **asked)
    theirs = result["results"][found["task"]]["exact_match,none"]
    rows = list(evaluate(model, task, task.cells(), per_cell=10))
    ours = sum(row["trace_correct"] for row in rows) / sum(row["n"] for row in rows)
    assert 0 < ours < 1 and theirs == pytest.approx(ours)


def test_what_cannot_be_exported_is_said(tmp_path, random_run):
    result = CliRunner().invoke(
        main, ["export", str(tmp_path), "--to", "hf", "--out", str(tmp_path / "x")]
    )
    assert result.exit_code == 1 and "not a run" in result.output
    with pytest.raises(UsageError, match="cannot be exported"):
        bundled("import addgpt.model\n", "1")
