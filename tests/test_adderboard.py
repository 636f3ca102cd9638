"""A submission to the AdderBoard: one file, without addgpt, that writes what our model does."""

import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.export.adderboard import export_adderboard, load
from addgpt.generation.decode import EXTRA_TOKENS, write
from addgpt.model.build import build
from addgpt.runs.resolve import configure
from addgpt.runs.run import SHIPPED, Run

SMALLEST = SHIPPED.parent / "smallest"
PLACES = {"content": "false", "level_position": "relative,none,none", "activation": "relu2"}
WINDOW = PLACES | {"attention": "window", "norm": "none", "tied": "true"}
SETTINGS = {
    "proved": WINDOW
    | {"pad": "equal", "alphabet": "used", "biases": "visible", "heads": "1", "width": "3"},
    "arc": WINDOW | {"pad": "equal", "alphabet": "used", "arc": "10", "heads": "1", "width": "3"},
    "few": WINDOW
    | {"pad": "equal", "alphabet": "used", "arc": "10", "heads": "1", "width": "2"}
    | {"biases": "pinned", "share": "vo"},
    "deep": PLACES
    | {"attention": "full", "norm": "plain", "layers": "2", "heads": "4", "kv_heads": "2"}
    | {"width": "8", "activation": "relu", "next_ids": "false"},
    "untied": PLACES
    | {
        "pad": "5",
        "attention": "full",
        "norm": "plain",
        "alphabet": "used",
        "heads": "1",
        "width": "4",
    },
}
LARGEST = 10**10 - 1
ALONE = """
import importlib.util, json, sys
sys.modules["addgpt"] = sys.modules["tasks"] = None  # an import of either fails
spec = importlib.util.spec_from_file_location("submission", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model, about = module.build_model()
sums = [module.add(model, *pair) for pair in json.load(sys.stdin)]
print(json.dumps([about, sums, sum(x.numel() for x in model.parameters())]))
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_the_file_writes_what_the_model_writes(name, tmp_path):
    """With random weights, so that every part of the model shows in what it writes."""
    run = Run.create(tmp_path / "run", configure("add", {"digits": "3"} | SETTINGS[name]))
    model, generator = build(run.config.model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator)
    run.save(model, {}, {"step": 1, "examples": 1, "seconds": 1.0})
    found = export_adderboard(run, tmp_path / "file.py")
    assert found["difference"] < 1e-5 and found["params"] == model.parameter_count()
    module = load(tmp_path / "file.py")
    theirs, _ = module.build_model()
    task, written = run.task(), set()
    for a, b in ((0, 0), (128, 7), (99_999, 1), (31, 86_420)):
        prompt = task.prompt(task.parse(f"{a}+{b}"))
        length = max(len(part) for part in prompt[:-1].split("+"))
        made = write(model, task, task.encode(prompt)[None], length + EXTRA_TOKENS)
        ours = task.decode(made.tokens[0, : made.length[0]])
        asked = []
        module.complete = lambda *words: asked.append(words) or ""  # noqa: B023
        assert module.add(theirs, a, b) == -1
        module = load(tmp_path / "file.py")
        assert asked[0][1] == prompt and module.complete(theirs, *asked[0][1:]) == ours
        written.add(ours)
    assert len(written) > 1


def test_the_shipped_adder_adds_where_addgpt_is_not(tmp_path):
    file = tmp_path / "adder.py"
    words = ["export", str(SMALLEST), "--to", "adderboard", "--out", str(file), "--author", "É. N."]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0 and "184 parameters" in done.output, done.output
    rng = random.Random(3)
    pairs = [(0, 0), (0, LARGEST), (LARGEST, LARGEST), (LARGEST, 1), (5, 5), (10**9, 9)]
    pairs += [(10**30 - 1, 1), (3, 10**20)]
    pairs += [(rng.randrange(10 ** rng.randint(1, 10)), rng.randrange(10**10)) for _ in range(192)]
    command = [sys.executable, "-c", ALONE, str(file)]
    text = json.dumps(pairs)
    out = subprocess.run(command, input=text, capture_output=True, text=True, cwd=tmp_path)
    about, sums, count = json.loads(out.stdout or out.stderr)
    assert sorted(about) == ["architecture", "author", "name", "params", "tricks"]
    assert about["author"] == "É. N." and about["params"] == count == 184
    assert len(sums) == 200
    task, model = Run(SMALLEST).task(), Run(SMALLEST).model()
    for (a, b), theirs in zip(pairs, sums, strict=True):
        problem = task.parse(f"{a}+{b}")
        prompt = task.encode(task.prompt(problem))[None]
        made = write(model, task, prompt, 40)
        ours = task.read(problem, task.decode(made.tokens[0, : made.length[0]]))
        assert theirs == ours.whole == a + b
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1 and "exists" in again.output


def test_the_name_of_a_run_is_text_whatever_it_holds(tmp_path):
    name = 'a""" + wrong \\N é\n'
    shutil.copytree(SMALLEST, tmp_path / name)
    export_adderboard(Run(tmp_path / name), tmp_path / "file.py")
    module = load(tmp_path / "file.py")
    assert module.build_model()[1]["name"] == name and module.__doc__.startswith(name)


def test_what_is_no_number_is_minus_one(tmp_path):
    export_adderboard(Run(SMALLEST), tmp_path / "file.py")
    module = load(tmp_path / "file.py")
    wanted = {"594#": 495, "0#": 0, "5940#": -1, "594": -1, "#": -1, "5+4#": -1, "00#": -1}
    for text, number in wanted.items():
        module.complete = lambda *words, text=text: text
        assert module.add(None, 128, 367) == number, text


@pytest.mark.parametrize(
    ("run", "out", "says"),
    [
        ("calculator", "a.py", "task add alone, not calc"),
        (str(SHIPPED.parent / "adder"), "a.py", "needs content=false, not true"),
        (str(SMALLEST), "a", "ends in .py"),
    ],
)
def test_what_the_file_cannot_say_is_refused(run, out, says, tmp_path):
    words = ["export", run, "--to", "adderboard", "--out", str(tmp_path / out)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and says in done.output and done.output.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "option", "owner"),
    [("hf", "--author", "adderboard"), ("adderboard", "--per-cell", "lm-eval")],
)
def test_an_option_of_another_format_is_refused(form, option, owner, tmp_path):
    words = ["export", str(SMALLEST), "--to", form, "--out", str(tmp_path / "a.py"), option, "3"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and done.stderr == f"error: {option} goes with --to {owner}\n"


def test_other_options_are_refused_by_name(tmp_path):
    run = Run.create(tmp_path / "run", configure("add", PLACES | {"format": "plain"}))
    run.save(build(run.config.model), {}, {"step": 1, "examples": 1, "seconds": 1.0})
    words = ["export", str(run.path), "--to", "adderboard", "--out", str(tmp_path / "a.py")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "needs format=reverse, not plain" in done.output


def test_weights_that_are_not_numbers_are_not_exported(tmp_path):
    shutil.copytree(SMALLEST, tmp_path / "run")
    run = Run(tmp_path / "run")
    model = run.model()
    next(model.parameters()).data.view(-1)[0] = float("nan")
    run.save(model, {}, {"step": 1, "examples": 1, "seconds": 1.0})
    words = ["export", str(run.path), "--to", "adderboard", "--out", str(tmp_path / "a.py")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 1 and done.output.count("\n") == 1, done.output
    assert f"some weights of {run.path} are not numbers" in done.output
    assert not (tmp_path / "a.py").exists()


def test_numbers_are_read_back_to_the_bit(tmp_path):
    export_adderboard(Run(SMALLEST), tmp_path / "file.py")
    numbers = load(tmp_path / "file.py").PARAMETERS["embedding"]
    ours = Run(SMALLEST).model().token.matrix().detach().numpy()
    assert (np.array(numbers, np.float32) == ours).all()
