"""Published recipes: each is read, writes its paper's row, draws batches and trains."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import addgpt
from addgpt.cli.main import main
from addgpt.cli.recipes import COLUMNS
from addgpt.config.errors import UsageError
from addgpt.runs import published
from addgpt.runs.published import load_recipe, recipe_names, with_recipe
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.sweep.grid import load_grid
from addgpt.task_lookup import load_task, task_names
from addgpt.training.loop import train

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
MEASURED = ROOT / "results" / "reference" / "recipes.csv"
SMALL = {"steps": 1, "batch_size": 4, "eval_size": 8, "threads": 1}
NAMES = recipe_names()
PAPERS = {  # rows as the papers print them, spaces left out, up to the end mark
    "cho2024-coupling": "$653+049=2070$",
    "lee2023-plain": "128+367=495",
    "lee2023-reverse": "$128+367=594$",
    "mcleish2024-abacus": "98282+3859172=2787472",
}


def run_command(*words: str):
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def settings(tmp_path):
    """The settings of a recipe; a text of one's own stands in for one that is downloaded."""

    def of(name: str) -> dict:
        recipe = load_recipe(name)
        if recipe.task != "shakespeare":
            return recipe.settings
        (tmp_path / "text.txt").write_text("To be, or not to be, that is the question:\n" * 200)
        return recipe.settings | {"corpus": str(tmp_path / "text.txt")}

    return of


@pytest.mark.parametrize("name", NAMES)
def test_each_says_where_it_is_from_and_what_differs(name):
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.task in task_names()
    for text in (recipe.about, recipe.paper, recipe.reports, recipe.differs):
        assert text == " ".join(text.split()) and "|" not in text and len(text) < 400
    if re.match("[a-z]+20[0-9][0-9]-", name):
        author, year = re.match("([a-z]+)(20[0-9][0-9])-", name).groups()
        assert re.search(rf"(?i)^{author}\b.* {year}, arXiv:\d{{4}}\.\d{{5}}$", recipe.paper)


@pytest.mark.parametrize("name", [n for n in NAMES if load_recipe(n).example])
def test_each_writes_its_example_and_draws_rows_like_it(name):
    recipe = load_recipe(name)
    config = configure(recipe.task, recipe.settings)
    task = load_task(config.task, config.options)
    prompt = task.prompt(task.parse(recipe.example.problem))
    (work,) = task.texts(task.reference(task.encode(prompt)[None]))
    assert "".join(work) == recipe.example.here
    shape = re.escape(re.sub("[0-9]+", "0", re.sub("[A-Z](?=[0-9])", "", recipe.example.here)))
    if recipe.task == "add" and "trace" not in recipe.options:
        batch = task.batch(np.random.default_rng(0), 50, "train")
        for start, rest in task.texts(batch):
            plain = re.sub("[^-0-9+*/=#$]", "", start + rest)
            assert re.fullmatch(shape.replace("0", "[0-9]+"), plain)
    if name in PAPERS:
        assert recipe.example.paper == PAPERS[name]
        assert recipe.example.here.strip("$#") == PAPERS[name].strip("$")


@pytest.mark.parametrize("name", NAMES)
def test_each_takes_a_step(name, settings, tmp_path):
    config = configure(load_recipe(name).task, settings(name) | SMALL)
    run = Run.create(tmp_path / "run", config)
    state = train(run)
    assert state.step == 1 and state.loss == state.loss


def test_the_list_has_a_line_for_each():
    done = run_command("recipes")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == NAMES
    assert "arXiv:2405.17399" in lines[NAMES.index("mcleish2024-abacus")]


def test_one_is_shown_whole():
    done = run_command("recipes", "cho2024-coupling")
    recipe = load_recipe("cho2024-coupling")
    shown = " ".join(done.stdout.split())
    for text in (recipe.paper, recipe.reports, recipe.differs, recipe.example.here):
        assert text in shown
    for key, value in recipe.settings.items():
        assert f"{key}=" in shown, (key, value)
    assert "level_position=learned,none,none" in shown and "begin=true" in shown
    assert max(map(len, done.stdout.splitlines())) <= 100 or "level_position" in shown


def test_json_is_all_of_them():
    told = json.loads(run_command("recipes", "--json").stdout)
    assert [recipe["name"] for recipe in told] == NAMES
    one = json.loads(run_command("recipes", "--json", "window").stdout)
    assert one["model"] == {"attention": "window"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"recipe,seed\n", "no column params, seconds"),
        (b"recipe,\xff\n", "not UTF-8 text"),
        (
            (",".join(COLUMNS) + "\n" + "a," * 9 + "a\n").encode(),
            "line 2: invalid literal for int()",
        ),
    ],
)
def test_a_damaged_measurement_is_an_error_of_one_line(content, message, tmp_path):
    (tmp_path / "runs.csv").write_bytes(content)
    done = run_command("recipes", "--markdown", "--measured", str(tmp_path / "runs.csv"))
    assert done.exit_code == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {tmp_path}/runs.csv is damaged: {message}")


def test_a_recipe_is_trained_with_settings_on_top(tmp_path):
    few = [f"--set={key}={value}" for key, value in (SMALL | {"width": 16}).items()]
    out = tmp_path / "run"
    words = ["train", "--recipe", "mcleish2024-abacus", "--digits", "3", "--out", str(out)]
    done = run_command(*words, *few)
    assert done.exit_code == 0, done.output
    config = Run(out).config
    assert (config.task, config.options["reverse_operands"], config.options["ids"]) == (
        "add", True, "abacus",
    )  # fmt: skip
    assert (config.options["digits"], config.model.width, config.train.steps) == (3, 16, 1)
    assert (config.model.layers, config.train.label_smoothing) == (2, 0.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--recipe", "mcleish"], "unknown recipe 'mcleish'; valid: bai2025-auxiliary"),
        (["train", "--recipe", "window", "--task", "mul"], "is of task add, not mul"),
        (["train", "--recipe", "window", "--set", "widht=3"], "unknown setting 'widht'"),
        (["recipes", "nope"], "unknown recipe 'nope'"),
        (["recipes", "--measured", str(ROOT / "setup.cfg")], "--measured goes with --markdown"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, message):
    done = run_command(*words)
    assert done.exit_code == 2 and message in done.stderr
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr


def test_the_same_command_starts_and_resumes(tmp_path):
    few = [f"--set={key}={value}" for key, value in (SMALL | {"width": 16}).items()]
    words = ["train", "--resume", "--recipe", "cho2024-coupling", "--out", str(tmp_path / "run")]
    assert run_command(*words, *few).exit_code == 0
    done = run_command(*words, *few, "--set=steps=1")
    assert done.exit_code == 0 and Run(tmp_path / "run").progress()["step"] == 1
    done = run_command(*words[:2], "--recipe", "window", *words[4:])
    assert done.exit_code == 2 and "keeps its task and model" in done.stderr


@pytest.mark.parametrize("text", ["about = 3", "task = 'add'\nfoo = 1", "model = 3", "about = '"])
def test_a_damaged_file_is_an_error_of_one_line(text, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "FOLDER", tmp_path)
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(UsageError, match="^mine.toml: ") as error:
        load_recipe("mine")
    assert "\n" not in str(error.value)


def test_settings_of_a_person_come_last():
    task, settings = with_recipe("window", None, {"attention": "full"})
    assert (task, settings) == ("add", {"digits": 3, "attention": "full"})


def test_the_page_holds_the_table_of_the_files_and_of_what_was_measured():
    table = run_command("recipes", "--markdown", "--measured", str(MEASURED)).stdout.strip()
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    told = f"addgpt recipes --markdown --measured {MEASURED.relative_to(ROOT)}"
    assert table in page, f"put the output of `{told}` into docs/recipes.md"


def test_a_sweep_has_recipes_for_cases(tmp_path):
    grid = load_grid("recipes")
    assert grid.task == "add" and len(grid.combinations) == 13
    for one in grid.combinations:
        config = configure("add", grid.common | one.settings)
        own = load_recipe(one.name).settings
        far = {8: (10, 12, 15), 10: (12, 15, 20, 30)}.get(own["digits"], (6, 8, 10, 15))
        far = (12, 15) if one.name in ("zhou2023-hints", "hou2024-turing") else far
        assert config == configure("add", own | {"far": far, "threads": 1})
    file = tmp_path / "mine.toml"
    file.write_text("task = 'add'\n[[case]]\nname = 'a'\nrecipe = 'window'\nset = {digits = 4}\n")
    (one,) = load_grid(str(file)).combinations
    assert one.settings == {"digits": "4", "attention": "window"}
    for task, name, message in (
        ("mul", "window", "is of task add"),
        ("add", "w", "unknown recipe"),
    ):
        file.write_text(f"task = '{task}'\n[[case]]\nname = 'a'\nrecipe = '{name}'\n")
        with pytest.raises(UsageError, match=message):
            load_grid(str(file))


def test_python_trains_a_recipe(tmp_path):
    small = SMALL | {"width": 16, "out": tmp_path / "run", "quiet": True}
    run = addgpt.train("add", recipe="press2022-alibi", **small)
    assert (run.config.model.position, run.config.model.width) == ("alibi", 16)
    assert run.task().reverse_operands
    with pytest.raises(UsageError, match="is of task add, not mul"):
        addgpt.train("mul", recipe="press2022-alibi", out=tmp_path / "other")
