"""Every command of the pages is run, on tiny runs, or stands in a list that says why it is not.

What a page trains is trained for two steps, and its next lines then score that run. What a page
scores without training it (`results/mul-4`) is a tiny run, made once. Before it is made tiny, the
real config of each training is built, so a setting that is gone or refused is found as well.
"""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from addgpt import task_lookup
from addgpt.cli.main import main
from addgpt.config import architectures
from addgpt.evaluation.suites import load_suite
from addgpt.runs.resolve import configure, parse_pairs
from addgpt.runs.run import SHIPPED, Run
from addgpt.sweep.grid import grid_names
from addgpt.task_lookup import load_task
from analysis.studies import STUDIES
from tasks.common import sources
from tests.helpers.pages import OURS, PAGES, ROOT, blocks, commands, python_of, shell_lines

pytestmark = pytest.mark.slow

TINY = {
    "width": 16,
    "heads": 2,
    "layers": 1,
    "batch_size": 4,
    "micro_batch": 0,
    "eval_size": 8,
    "steps": 2,
    "threads": 1,
    "ema": 0,
    "far": "",
}
FIXED = ("width", "heads", "layers")  # by the run that another starts from
RUNS = {
    "add-3": "add --digits 3",
    "add-3-s1": "add --digits 3 --seed 1",
    "mul-4": "mul --digits 4",
    "smallest/one": "add --digits 2",
}
TEXTS = ("big.txt", "english.txt", "tinyshakespeare.txt")
PLACEHOLDER = re.compile(r"\b([A-Z]{2,}|GRID)\b|…|\.\.\.")

# Commands that are only parsed, by how they begin, with the reason.
NOT_RUN = {
    "serve": "serves until it is stopped: tests/test_serve.py",
    "export calculator --to onnx": "needs onnx; tests/test_export.py has it",
    "eval hf:": "needs a model of transformers; tests/test_external_models.py makes one",
    "eval api:": "needs an endpoint; tests/test_external_api.py starts one",
    "eval answers:": "needs answers of a model; tests/test_external_models.py has some",
    "figures results/gpt2-": "what eval hf: leaves; tests/test_external_models.py",
    "eval results/nanogpt-s0": "reads Shakespeare; tests/test_text_tasks.py has the rulers",
    "certify": "half a minute; tests/test_certificate.py and tests/test_proving.py run it",
    "eval calculator": "a minute; test_the_suite_that_the_pages_show runs that model",
    "eval addgpt/pretrained/calculator": "a minute and a half; the same model",
    "study english": "reads Debian packages; tests/test_english.py has small ones",
    "improve": "minutes; tests/test_self_improvement.py has small rounds",
    "study pretraining": "reads the command line of each run; tests/test_pretraining.py",
    "inspect addgpt/pretrained/smallest-31 --plane": "tests/test_explained_31.py draws it",
    "study smallest": "reads a sweep; tests/test_smallest.py has a small one",
    "sweep formats --engine ray": "needs a cluster; tests/test_sweep_ray.py starts one",
}
# Lines of a shell that are not addgpt's, by how they begin, with the reason.
NOT_OURS = {
    "python3 -m venv": "before there is a Python to test",
    "pip install -e .": "the installation that runs these tests",
    "pip install 'addgpt[": "needs the network",
    "addgpt serve": "serves until it is stopped: test_serve.py",
    "pip install 'lm_eval": "needs the network",
    "lm_eval": "tests/test_export.py asks it where it is installed",
    'eval "$(_ADDGPT': "completion in a shell: tests/test_habits.py",
    "_ADDGPT_COMPLETE": "completion in a shell: tests/test_habits.py",
    "apt install": "needs the network",
    "ray start": "needs a cluster",
    "export HEAD=": "Slurm",
    "python verify.py": "the board's own",
}
SYNTAX = re.compile(r"#.*|\w+=\S*|\w+=\"[^\"]*\"|for \w+ in .*; do|done")
# Blocks that are neither Python nor shell, by how they begin, and what keeps them right.
SHOWN = {
    "128+367=594#": "test_the_row_that_the_pages_show",
    "tokens      1 2 8": "test_the_row_that_the_pages_show",
    "12*34=": "test_the_row_that_the_pages_show",
    "addgpt/": "test_trees_name_what_is_there",
    "cli > sweep": "test_trees_name_what_is_there",
    "tasks/add.py ": "test_trees_name_what_is_there",
    "[project.entry-points": "test_the_groups_of_entry_points",
    "from transformers import": "test_the_exported_calculator_of_the_page",
    "import adder": "test_the_adder_of_the_page",
    "from transformer_lens": "test_the_look_by_transformer_lens",
}


def tiny(words: list[str]) -> list[str]:
    """A training of a page with few and small steps; what it asks for besides is kept."""
    context = main.get_command(click.Context(main), "train").make_context("train", words[1:])
    given = context.params
    real = parse_pairs(given["pairs"])
    real |= {key: str(given[key]) for key in ("digits", "stop_at") if given[key]}
    out = Path("results") / (given["out"] or default_folder(given)).name
    if given["out"] and given["out"].is_relative_to("results"):
        out = given["out"]  # results/gelu/s0
    built = configure(given["task"], real, given["seed"] or 0)
    fewer = {key: value for key, value in TINY.items() if key in known(built)}
    pairs = real | fewer
    if given["init_from"]:
        pairs = {key: value for key, value in pairs.items() if key not in FIXED}
    chosen = [f"--set={key}={value}" for key, value in pairs.items()]
    named = ["--init-from", given["init_from"]] if given["init_from"] else []
    seed = ["--seed", str(given["seed"])] if given["seed"] else []
    shutil.rmtree(out, ignore_errors=True)
    return ["train", "--task", given["task"], "--out", str(out), *named, *seed, *chosen]


def known(config) -> set[str]:
    """The settings that a config of this model and this task has."""
    return set(vars(config.model)) | set(vars(config.train)) | set(config.options)


def default_folder(given: dict) -> Path:
    seed = f"-s{given['seed']}" if given["seed"] else ""
    digits = f"-{given['digits']}" if given["digits"] else ""
    return Path("results") / f"{Path(given['task']).stem}{digits}{seed}"


def invoke(words: list[str]) -> None:
    done = CliRunner().invoke(main, words)
    wrong = words[0] == "calc" and "--model" in words  # answers of a run that has learned nothing
    assert done.exit_code in (0, wrong), (words, done.output, done.exception)
    assert done.output, words


def word(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture(scope="module")
def done() -> set[str]:
    """The commands that other pages have run already, but trainings, whose runs are replaced."""
    return set()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a reader has it after a day with the pages: texts, own tasks, tiny runs."""
    place = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("ADDGPT_DATA", str(place))
        patch.setattr(sources, "_checked", lambda file, _: file)
        for name in TEXTS:
            Path(name).write_text("".join(f"ROMEO:\nTo be, or {word(n)}.\n" for n in range(2000)))
        for code in python_of(ROOT / "docs/own_task.md"):
            Path(re.search("class (.*?)[(]", code)[1].lower() + ".py").write_text(code)
        Path("my.csv").write_text("problem,answer\n12+34,46\n")
        pairs = [{"problem": f"{a}+{b}", "answer": a + b} for a in range(20) for b in range(20)]
        Path("mine.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
        Path("docs").mkdir()
        shutil.copytree(ROOT / "results/reference", "results/reference")
        for name in ("adder", "smallest", "smallest-proved", "smallest-31"):
            shutil.copytree(ROOT / "addgpt/pretrained" / name, f"addgpt/pretrained/{name}")
        for name, words in RUNS.items():
            invoke(tiny(["train", "--task", *words.split(), "--out", f"results/{name}"]))
        yield place


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=map(page_name, PAGES))
def test_its_commands_run(page, folder, done):
    for words in commands(page):
        if not words or len(words) == 1:
            continue  # the name of a command, in running text
        line = " ".join(words)
        if reason(line, NOT_RUN) or "double" in line:  # tests/test_check_task.py runs the latter
            check_parses(words)
        elif words[0] != "calc" and PLACEHOLDER.search(line.replace("ROMEO", "")):
            check_names(words)
        elif words[0] == "train":
            invoke(tiny(words)) if "--task" in words else check_parses(words)
        elif words[0] == "study" and len(words) == 2:
            assert words[1] in (*STUDIES, "english")
        elif words[0] == "study" and (sweep := missing(words)):
            assert sweep in (*grid_names(), "pretraining"), words  # analysis/studies have tests
            check_parses(words)
        elif line not in done:
            done.add(line)
            invoke(quick(words))


def quick(words: list[str]) -> list[str]:
    """The same command with less to do."""
    if "--suite" in words:
        load_suite(words[words.index("--suite") + 1])
        words = words[:2]
    if words[0] == "eval" and not {"--problems", "--stored", "--per-cell"} & set(words):
        config = next(Path().glob(f"{words[1]}/**/config.json"))
        is_text = json.loads(config.read_text())["task"] in ("shakespeare", "lines")
        return words if is_text else [*words, "--per-cell", "2"]
    if words[0] == "study" and "--png" in words:  # the tests of analysis draw it
        at = words.index("--png")
        return words[:at] + words[at + 2 :]
    if words[0] == "sweep" and "--dry-run" not in words:
        return [*words, "--dry-run"]
    return words


def missing(words: list[str]) -> str | None:
    """The sweep that a study reads and nobody has run here."""
    found = [word for word in words if word.startswith("results/") and not Path(word).exists()]
    return Path(found[0]).name if found else None


def reason(line: str, reasons: dict[str, str]) -> str | None:
    return next((why for begin, why in reasons.items() if line.startswith(begin)), None)


def check_parses(words: list[str]) -> None:
    if words[-1] == "--help":
        return invoke(words)
    command = main.get_command(click.Context(main), words[0])
    if words[0] == "train":
        words = [word for word in words if word not in ("TASK", "SEED")]
    command.make_context(words[0], words[1:])


def check_names(words: list[str]) -> None:
    """RUN, SETTING=VALUE stand for something; names of options must still be right."""
    command = main.get_command(click.Context(main), words[0])
    options = {name for option in command.params for name in option.opts}
    for word in words[1:]:
        assert not word.startswith("--") or word in options, words


@pytest.mark.parametrize("page", PAGES, ids=map(page_name, PAGES))
def test_each_line_and_block_is_accounted_for(page):
    for line in shell_lines(page):
        if not (OURS.match(line.split("#")[0]) or SYNTAX.fullmatch(line)):
            assert reason(line, NOT_OURS) or check_other(line), (page, line)
    for block in blocks(page):
        if block.language not in ("python", "sh", "console"):
            assert reason(block.code, SHOWN) in globals(), str(block)
    for code in re.findall(r"`((?:python -m|make) [^`]+)`", page.read_text(encoding="utf-8")):
        check_other(" ".join(code.split()))


def check_other(line: str) -> bool:
    """Whether it is `make` of one of our targets or `python -m` of one of our modules."""
    words = line.split("#")[0].split()
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in words[1:]), line
    elif words[:2] == ["python", "-m"]:
        code = (ROOT / f"{words[2].replace('.', '/')}.py").read_text(encoding="utf-8")
        assert all(f'"{word}"' in code for word in words[3:] if word.startswith("--")), line
    else:
        return False
    return True


def shown(begin: str) -> list[str]:
    """The lines of the blocks that begin so."""
    found = [b.code for page in PAGES for b in blocks(page) if b.code.startswith(begin)]
    return [line for code in found for line in code.splitlines()]


def test_the_row_that_the_pages_show():
    task = load_task("add", {"digits": 3})
    row = task.reference(task.encode("128+367=")[None])
    text = "".join(task.texts(row)[0])
    scored = "".join(".^"[int(is_scored)] for is_scored in row.scored[0])
    assert [line[:12] for line in shown("128+367=")] == [text, scored]
    tokens, marks, *ids = (line[12:35].split() for line in shown("tokens      1 2 8"))
    assert ("".join(tokens), "".join(marks)) == (text, scored.replace("^", "x"))
    assert [list(map(int, level)) for level in ids] == row.positions[0].T.tolist()
    product = load_task("mul", {"digits": 4})
    row = product.reference(product.encode("12*34=")[None])
    assert shown("12*34=") == ["".join(product.texts(row)[0])]


def test_the_adder_of_the_page(tmp_path, monkeypatch, capsys):
    run = ROOT / "addgpt/pretrained/smallest-31"
    invoke(["export", str(run), "--to", "adderboard", "--out", str(tmp_path / "adder.py")])
    capsys.readouterr()
    monkeypatch.syspath_prepend(tmp_path)
    code = "\n".join(shown("import adder"))
    exec(code, {})
    assert capsys.readouterr().out.strip() == code.rpartition("#")[2].strip() == "31 495"


def test_the_exported_calculator_of_the_page(folder, capsys):
    pytest.importorskip("transformers")
    invoke(["export", "calculator", "--to", "hf", "--out", "exported/of-the-page"])
    code = "\n".join(shown("from transformers import"))
    exec(code.replace("exported/calculator", "exported/of-the-page"), {})
    task = Run(SHIPPED).task()
    reference = task.texts(task.reference(task.encode("17/5=")[None]))[0]
    assert "".join(reference) in capsys.readouterr().out


def test_the_look_by_transformer_lens():
    """It reads as Python; tests/test_export.py does the same where TransformerLens is installed."""
    code = "\n".join(shown("from transformer_lens"))
    compile(code, "docs/export.md", "exec")
    for name in re.findall(r"\.(boot_transformers|run_with_cache|add_tokens)", code):
        assert f".{name}" in (ROOT / "tests/test_export.py").read_text()


def test_the_groups_of_entry_points():
    groups = re.findall('entry-points."(.*?)"', "\n".join(shown("[project.entry-points")))
    assert groups == [task_lookup.TASKS, architectures.ARCHITECTURES]


def test_trees_name_what_is_there():
    inside, files = "addgpt", 0
    for line in shown("addgpt/"):
        for name in re.findall(r"^ *((?:[\w.]+/?)+(?:  (?:[\w]+/)+)?)", line)[0].split():
            folder = ROOT / inside if line.startswith("  ") else ROOT
            assert (folder / name).exists(), line
            files += 1
    assert files > 20
    packages = re.findall(r"\w+", " ".join(shown("cli > sweep")))
    assert all(importlib.util.find_spec(f"addgpt.{name}") for name in packages)
    for line in shown("tasks/add.py "):
        path = line.split()[0]
        assert (ROOT / path).exists() or (ROOT / "addgpt" / path).exists(), line
