"""Each command once, end to end, on a tiny model; and what it says to bad input."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from unittest.mock import Mock

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from addgpt.cli.main import main
from tests.helpers.calculators import perfect
from tests.helpers.hostile import edited

TINY = "steps=30 eval_every=10 eval_size=50 save_every=10 width=16 heads=2 batch_size=32".split()


def run(*words: str, stdin: str | None = None):
    return CliRunner().invoke(main, list(words), input=stdin)


def settings(*pairs: str) -> list[str]:
    chosen = dict(pair.split("=") for pair in (*TINY, *pairs))
    return [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The run folder of a tiny adder."""
    folder = tmp_path_factory.mktemp("results") / "tiny"
    result = run("train", "--task", "add", "--digits", "2", "--out", str(folder), *settings())
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def endless(monkeypatch):
    """The calculator is one that comes to no end with products."""
    calculator = perfect(spoil=lambda prompt, text: "0" * 9999 if "*" in prompt else text)
    monkeypatch.setattr("addgpt.cli.calc.load_calculator", lambda name: calculator)


def refused(result, code: int) -> str:
    """The one line of an error."""
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line, result.stderr
    return line


def test_every_command_has_help_with_an_example():
    for command in main.list_commands(None):
        result = run(command, "--help")
        assert result.exit_code == 0
        assert "Example:" in result.output and f"addgpt {command}" in result.output


def test_train_leaves_a_run_and_says_how_good_it_is(trained):
    names = {file.name for file in trained.iterdir()}
    assert {"config.json", "metrics.jsonl", "model.safetensors", "state.safetensors"} <= names
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30]


def test_a_run_that_is_there_is_not_overwritten(trained):
    before = (trained / "model.safetensors").read_bytes()
    line = refused(run("train", "--task", "add", "--out", str(trained)), 1)
    assert "not empty" in line and "--resume" in line
    assert (trained / "model.safetensors").read_bytes() == before


def test_resume_goes_on_with_more_steps(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "more")
    result = run("train", "--resume", "--out", str(folder), "--set", "steps=40")
    assert result.exit_code == 0, result.output
    assert "after 40 steps" in result.output
    line = refused(run("train", "--resume", "--out", str(folder), "--set", "width=32"), 2)
    assert "keeps its task and model" in line


@pytest.mark.slow
def test_a_run_that_reached_its_target_goes_on_to_a_higher_one(tmp_path):
    folder = str(tmp_path / "run")
    words = ["train", "--task", "add", "--digits", "1", "--out", folder, "--stop-at", "0.0001"]
    assert run(*words, *settings("steps=200", "lr=0.02")).exit_code == 0
    first = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    result = run("train", "--resume", "--out", folder, "--stop-at", "1")
    assert f"after {first} steps" not in result.output, result.output


@pytest.mark.parametrize("words", ["eval", "calc 1+2 --model", "train --resume --out"])
def test_a_run_of_a_trace_that_is_gone_is_named(words, toy_run):
    path = str(edited(toy_run(), "options", trace="gone"))
    done = CliRunner().invoke(main, [*words.split(), path])
    assert done.exit_code and done.output.startswith(f"error: {path}: trace must be one of none,")
    assert len(done.output.splitlines()) == 1


def test_resume_takes_no_seed_weights_or_other_optimizer(trained):
    before = (trained / "config.json").read_bytes()
    for words in (["--seed", "3"], ["--init-from", str(trained)], ["--set", "optimizer=adamw"]):
        refused(run("train", "--resume", "--out", str(trained), *words), 2)
    assert (trained / "config.json").read_bytes() == before


def test_a_run_from_other_weights_that_is_cut_before_its_first_step_goes_on(trained, tmp_path):
    """Without --task, it has that of the other run."""
    words = ["train", "--digits", "3", "--init-from", str(trained), *settings("steps=10")]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    with pytest.MonkeyPatch.context() as patch:
        cut_off = Mock(side_effect=RuntimeError("power cut"))
        patch.setattr("addgpt.training.learners.GradientLearner.backward", cut_off)
        assert "power cut" in refused(run(*words, "--out", str(cut)), 1)
    assert run("train", "--resume", "--out", str(cut)).exit_code == 0
    assert run(*words, "--task", "add", "--out", str(whole)).exit_code == 0
    weights = [load_file(path / "model.safetensors") for path in (cut, whole)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[1])


def test_eval_writes_counts_and_prints_json_alone(trained):
    result = run("eval", str(trained), "--per-cell", "20", "--json")
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    assert {(row["len_a"], row["len_b"]) for row in rows} == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert all(0 <= row["answer_correct"] <= row["n"] for row in rows)
    header = (trained / "eval.csv").read_text().splitlines()[0]
    assert header == (
        "run,task,seed,params,step,examples,seconds,split,op,len_a,len_b,stratum,seen,n,"
        "answer_correct,trace_correct,unterminated"
    )


def test_eval_table_names_every_stratum(trained):
    result = run("eval", str(trained), "--per-cell", "5")
    assert result.exit_code == 0, result.output
    assert "exact match" in result.stdout and "carry:2" in result.stdout


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.csv", "problem,answer\n1+2,3\n4+5,\n"),
        ("p.jsonl", '{"problem": "1+2", "answer": 3}\n\n{"problem": "4 + 5"}\n'),
    ],
)
def test_eval_scores_foreign_problems(trained, tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    rows = json.loads(run("eval", str(trained), "--problems", str(file), "--json").stdout)
    assert [row["answer"] for row in rows] == ["3", "9"]
    assert all(row["correct"] == (row["model"] == row["answer"]) for row in rows)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.csv", "problem\n", "holds no problems"),
        ("b.csv", "", "holds no problems"),
        ("c.csv", "problem\nx+y\n", "line 2"),
        ("d.jsonl", "nonsense\n", "line 1"),
        ("e.jsonl", "[1]\n", "line 1"),
        ("g.jsonl", "[" * 100_000, "g.jsonl"),
        ("h.csv", "problem,answer\n1+2,three\n", "line 2"),
        ("i.csv", "problem\n" + "1" * 200_000, "i.csv"),
        ("f.csv", "problem\n\xff\n", "UTF-8"),
    ],
)
def test_bad_problem_files_are_refused_in_one_line(trained, tmp_path, name, text, says):
    file = tmp_path / name
    file.write_bytes(text.encode("latin-1"))
    line = refused(run("eval", str(trained), "--problems", str(file)), 2)
    assert says in line and name in line


def test_calc_answers_and_python_checks(trained):
    result = run("calc", "--model", str(trained), "2+3")
    assert result.stdout.strip()
    assert (result.exit_code == 0) == (result.stdout.strip() == "5")
    if result.exit_code:
        assert "5" in result.stderr


def test_calc_takes_a_leading_minus(trained):
    result = run("calc", "--model", str(trained), "-2-3")
    assert "No such option" not in result.output and result.stdout.strip()


@pytest.mark.parametrize("words", [["--trace"], ["--step", "1+1"], ["1+1", "-x"]])
def test_calc_refuses_options_that_it_does_not_have(words):
    assert "valid: --model, --steps, --division, --digits, --exact, --help" in refused(
        run("calc", *words), 2
    )


def test_what_starts_with_a_minus_is_an_expression(trained):
    for words, problem in ([["-2-3"], "-2-3"], [["--", "-2-3"], "-2-3"], [["--5"], "--5"]):
        result = run("calc", "--model", str(trained), *words)
        assert "no such option" not in result.stderr, problem


def test_calc_shows_no_answer_where_the_model_wrote_none(endless):
    told = run("calc", "1234567890123*2")
    assert (told.exit_code, told.stdout) == (1, "")
    assert "the model did not come to an end" in told.stderr
    assert told.stderr.splitlines()[0].endswith("the right answer is 2469135780246")
    piped = run("calc", stdin="1234567890123*2\n1+1\n")
    assert piped.exit_code == 1
    assert piped.stdout.splitlines() == [
        "error: the model did not come to an end with 1234567890123*2",
        "2",
    ]
    steps = run("calc", "--steps", "1234567890123*2")
    assert steps.exit_code == 1 and steps.stdout.strip().endswith("?")


def test_calc_takes_an_expression_in_pieces_and_shows_the_work_of_no_file(trained):
    whole, pieces = run("calc", "--model", str(trained), "2+3"), ("2", "+", "3")
    assert run("calc", "--model", str(trained), *pieces).stdout == whole.stdout
    assert "--steps is for" in refused(run("calc", "--steps", stdin="1+2\n"), 2)


def test_calc_has_rules_of_division():
    for words, answer in (
        ([], "0.666666666667"),
        (["--digits", "3"], "0.667"),
        (["--exact"], "0.666666666667   exactly 2/3"),
        (["--division", "fraction"], "2/3"),
        (["--division", "remainder"], "0 remainder 2"),
    ):
        result = run("calc", *words, "2/3")
        assert (result.exit_code, result.stdout) == (0, f"{answer}\n")
    assert "valid: decimal, remainder, fraction" in refused(run("calc", "--division", "x", "1"), 2)
    assert "digits must be in 1..300" in refused(run("calc", "--digits", "0", "1/3"), 2)


def test_calc_says_what_the_shell_made_of_a_star(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").touch()
    told = refused(run("calc", "3", "notes.txt", "4"), 2)
    assert "the shell has put names of files in the place of *, such as notes.txt" in told
    assert 'addgpt calc "3 * 4"' in told
    assert "the shell" not in refused(run("calc", "3", "notes.md", "4"), 2)  # is no file


def test_a_folder_is_named_for_its_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for seed, name in (("0", "add-1"), ("2", "add-1-s2"), ("2", "add-1-s2-2")):
        words = "--digits 1 --set steps=1 --set width=16 --set heads=2 --set eval_size=8".split()
        assert f"results/{name}:" in run("train", "--task", "add", "--seed", seed, *words).stdout


def test_answers_of_a_file_are_read_as_numbers(trained, tmp_path):
    file = tmp_path / "p.csv"
    file.write_text("problem,answer\n1+2,03\n4+5,+9\n2+2,5\n")
    result = run("eval", str(trained), "--problems", str(file), "--json")
    assert [row["answer"] for row in json.loads(result.stdout)] == ["3", "9", "5"]
    assert "line 4 answers 5, Python 4" in result.stderr


def test_calc_takes_a_line_for_each_problem(trained):
    result = run("calc", "--model", str(trained), stdin="1+2\nx\n\n3+4\n")
    lines = result.stdout.splitlines()
    assert len(lines) == 4
    wrong = [n for n, right in ((1, "3"), (4, "7")) if lines[n - 1] != right]
    assert result.exit_code == (1 if wrong else 2), result.output
    assert all(f"line {n}: wrong: the right answer is" in result.stderr for n in wrong)
    assert lines[1].startswith("error: ") and lines[2].startswith("error: ")


@pytest.mark.parametrize(
    ("text", "code", "answers"),
    [
        ("\ufeff1+1\n2+3\n", 0, ["2", "5"]),  # a byte order mark
        ("1+1\n1+x\n", 2, ["2", "error: "]),
        ("1+1\n1/0\n", 2, ["2", "error: "]),
        ("\ufeff1,000+2\r\n10/4\r\n", 0, ["1002", "2.5"]),
        ("", 0, []),
    ],
)
def test_calc_says_by_its_exit_code_what_became_of_lines(text, code, answers):
    result = CliRunner().invoke(main, ["calc"], input=text.encode())
    assert result.exit_code == code, result.output
    for line, start in zip(result.stdout.splitlines(), answers, strict=True):
        assert line.startswith(start) and line[:1].isdigit() == start[:1].isdigit()


def test_calc_says_by_its_exit_code_that_an_answer_is_missing(endless):
    result = run("calc", stdin="1+x\n2*3\n")
    assert result.exit_code == 1
    assert [line[:7] for line in result.stdout.splitlines()] == ["error: ", "error: "]


def test_calc_without_stdin_asks_for_an_expression(monkeypatch):
    command = "import sys; from addgpt.cli.main import main; sys.stdin = None; main(['calc'])"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 2 and "stdin is closed; give an expression" in done.stderr
    assert "Traceback" not in done.stderr


def test_calc_names_the_run_whose_task_is_unknown(trained, tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    config = json.loads((trained / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"task": "theirs"}))
    told = refused(run("calc", "--model", str(folder), "1+1"), 2)
    assert f"{folder}: unknown task 'theirs'" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["train", "--task", "nope"],
            "add, calc, div, file, lines, modular, mul, shakespeare, sub, sum",
        ),
        (["train"], "--task"),
        (["train", "--task", "add", "--set", "wdth=3"], "width"),
        (["train", "--task", "add", "--set", "width"], "key=value"),
        (["train", "--task", "add", "--set", "width=x"], "whole number"),
        (["train", "--task", "add", "--set", "format=odd"], "plain, reverse, padded"),
        (["train", "--task", "add", "--set", "activation=odd"], "relu2"),
        (["train", "--task", "add", "--set", "optimizer=odd"], "muon, adamw"),
        (["train", "--task", "add", "--set", "device=odd"], "cuda"),
        (["train", "--task", "add", "--set", "heads=5"], "does not divide"),
        (["train", "--task", "add", "--digits", "2", "--set", "digits=9"], "given twice: 2 and 9"),
        (["cost", "--task", "add", "--digits", "2", "--set", "digits=9"], "given twice: 2 and 9"),
        (["train", "--task", "add", "--set", "lr=1e400"], "lr must be finite, not inf"),
        (["train", "--task", "add", "--digits", "0"], "1..1000"),
        (["train", "--task", "add", "--digits", "-3"], "1..1000"),
        (["train", "--task", "add", "--digits", "100000"], "1..1000"),
        (["train", "--task", "add", "--resume"], "--out"),
        (["train", "--task", "add", "--seed", "-1"], "--seed"),
        (["train", "--task=add", "--set=heads=64", "--set=position=rotary"], "too narrow"),
        (["train", "--task", "add", "--set", "context=5"], "unknown setting"),
        (["train", "--task", "add", "--digits", "x"], "integer"),
        (["trian"], "trian"),
        (["eval"], "RUN"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    assert says in refused(run(*words), 2)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    assert "config.json" in refused(run("eval", str(tmp_path)), 1)
    assert "config.json" in refused(run("calc", "--model", str(tmp_path), "1+1"), 1)


def test_a_damaged_checkpoint_is_refused(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "damaged")
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "damaged" in refused(run("eval", str(folder)), 1)


def test_help_and_tasks_import_no_torch():
    code = (
        "import sys; from click.testing import CliRunner; from addgpt.cli.main import main\n"
        "commands = [[name, '--help'] for name in main.list_commands(None)]\n"
        "for words in (['--help'], ['tasks'], *commands):\n"
        "    assert CliRunner().invoke(main, words).exit_code == 0, words\n"
        "    heavy = {'torch', 'pandas', 'transformers', 'openai', 'starlette', 'matplotlib'}\n"
        "    assert not heavy & set(sys.modules), words"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_eval_scores_a_suite_beside_what_was_published(trained, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        'title = "mine"\n[[part]]\nname = "fixed"\nproblems = ["1+1", "2+2"]\n'
        '[[part]]\nname = "drawn"\nproblem = "{a}{op}{b}"\na = [0, 9]\nb = [0, 9]\nop = ["+"]\n'
        "n = 20\npublished = 50.0\n"
    )
    rows = json.loads(run("eval", str(trained), "--suite", str(file), "--json").stdout)
    found = [(row["part"], row["n"], row["published"]) for row in rows]
    assert found == [("fixed", 2, None), ("drawn", 20, 50.0)]
    header = "part,n,answer_correct,held_out_n,held_out_answer_correct,seen_n,seen_answer_correct"
    assert (trained / "suite-mine.csv").read_text().startswith(header)
    line = refused(run("eval", str(trained), "--suite", "nope"), 2)
    assert "gpt3" in line and "ten-digit" in line
    file.write_text('[[part]]\nname = "x"\nproblem = "{a.__class__}"\na = [0, 1]\nn = 10000000\n')
    assert "1..1000000" in refused(run("eval", str(trained), "--suite", str(file)), 2)
