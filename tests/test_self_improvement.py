"""Rounds of training on one's own answers: votes, lengths, files, and going on where it stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.task import Cell
from addgpt.task_lookup import load_task
from addgpt.training import self_improvement
from addgpt.training.self_improvement import long_enough, majority

SMALL = "steps=4 width=8 heads=2 layers=1 batch_size=8 eval_size=8 position=none threads=1".split()
WORDS = ["improve", "--task", "add", "--digits", "2", "--rounds", "1", "--models", "2"]
WORDS += ["--count", "150", "--first", "200", "--steps", "2", *(f"--set={pair}" for pair in SMALL)]


@pytest.mark.parametrize(
    ("answers", "agree", "wanted"),
    [
        ("aab", 0.6, "a"),
        ("aabbc", 0.6, None),
        ("aaabb", 0.6, "a"),
        ("abc", 0.34, None),
        ("a", 1.0, "a"),
        ("aaaab", 0.8, "a"),
        ("aaabb", 0.8, None),
    ],
)
def test_the_answer_that_enough_agree_on(answers, agree, wanted):
    assert majority(list(answers), agree) == wanted


def test_what_is_much_shorter_than_others_goes():
    found = {"12+34=": "64", "99+99=": "891", "11+11=": "2", "1+1=": "2", "2+2=": ""}
    assert long_enough(found, 1) == {k: v for k, v in found.items() if k != "11+11="}
    assert set(long_enough(found, 0)) == {"99+99=", "1+1="}


def test_a_round_goes_on_where_it_was_stopped_and_knows_what_is_right(tmp_path):
    words = [*WORDS, "--set", "curriculum=0:digits=1;1:digits=2", "--out", str(tmp_path / "a")]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    configs = [
        json.loads((tmp_path / f"a/round-0{n}/model-0/config.json").read_text()) for n in (0, 1)
    ]
    assert [one["train"]["curriculum"] for one in configs] == [
        "0:train_up_to=4;1:train_up_to=0",
        "",
    ]
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        f"round {n}, 2 models" for n in (0, 1)
    ]
    page = (Path(__file__).parents[1] / "docs/recipes.md").read_text(encoding="utf-8")
    shown = [line for line in page.splitlines() if line.startswith("round ")]
    said = done.stdout.replace(
        "no answer was added: too few models agreed", shown[1].partition(": ")[2].partition(";")[0]
    )
    told, wanted = (
        [re.sub(r"\d[\d.,]*", "0", x) for x in some] for some in (shown, said.splitlines())
    )
    assert told == wanted
    first, own = (
        [json.loads(line) for line in (tmp_path / f"a/round-0{n}/problems.jsonl").open()]
        for n in (0, 1)
    )
    assert 150 < len(first) <= 200  # of which some are drawn twice
    for row in first:
        a, b = map(int, row["problem"].rstrip("=").split("+"))
        assert row["answer"] == str(a + b)[::-1]
    assert own[: len(first)] == first
    right = 0
    for row in own[len(first) :]:
        a, b = map(int, row["problem"].rstrip("=").split("+"))
        assert max(len(str(a)), len(str(b))) == 3 and row["round"] == 1
        right += row["answer"] != "" and int(row["answer"][::-1]) == a + b
    scores = json.loads((tmp_path / "a/round-01/scores.json").read_text())
    assert {row["digits"] for row in scores} == {3, 4} and len(scores) == 4
    assert all(row["added"] == len(own) - len(first) for row in scores)
    assert all(row["added_right"] == right for row in scores)
    model = tmp_path / "a/round-01/model-1/model.safetensors"
    weights, when = model.read_bytes(), model.stat().st_mtime_ns
    for file in ("round-01/scores.json", "round-01/problems.jsonl"):
        (tmp_path / "a" / file).rename(tmp_path / file.replace("/", "-"))
    again = CliRunner().invoke(main, [*words, "--json"])
    assert json.loads(again.stdout)[-4:] == scores
    assert (tmp_path / "round-01-problems.jsonl").read_bytes() == (
        tmp_path / "a/round-01/problems.jsonl"
    ).read_bytes()
    assert model.read_bytes() == weights and model.stat().st_mtime_ns == when
    other = CliRunner().invoke(main, [*words, "--agree", "0.9"])
    assert other.exit_code == 2 and "other settings (agree)" in other.stderr
    fewer = [*words, "--rounds", "0"]
    assert CliRunner().invoke(main, fewer).stdout == done.stdout.splitlines(keepends=True)[0]
    refuses_damaged_files(tmp_path / "a", words)


def refuses_damaged_files(folder, words):
    for file in ("plan.json", "round-00/scores.json", "round-00/problems.jsonl"):
        path = folder / file
        whole = path.read_bytes()
        path.write_bytes(whole[:-9])
        if file.endswith("problems.jsonl"):  # read where a further round needs it
            (folder / "round-01/problems.jsonl").unlink()
        broken = CliRunner().invoke(main, words)
        assert broken.exit_code == 1 and f"{path} is damaged" in broken.stderr, broken.output
        path.write_bytes(whole)


def test_what_cannot_be_trained_leaves_no_folder(tmp_path):
    out = tmp_path / "a"
    done = CliRunner().invoke(main, [*WORDS, "--set", "aux=1", "--out", str(out)])
    assert done.exit_code == 2 and "has no auxiliary loss" in done.stderr and not out.exists()


@pytest.mark.parametrize("way", [1, -1])
def test_what_is_agreed_on_is_learned_right_or_wrong_and_what_is_right_is_counted(
    tmp_path, monkeypatch, way
):
    """Three models that add right; two of them forget what a sum has beyond 999."""

    def total_of(prompt):
        return sum(int(number[::way]) for number in prompt.rstrip("=").split("+"))

    def answered(run, prompts, limit):
        short = run.path.name != "model-0"
        sums = map(total_of, prompts)
        return [str(total % 1000 if short else total)[::-1] for total in sums]

    monkeypatch.setattr(self_improvement, "_answered", answered)
    out = tmp_path / "a"
    words = ["--models", "3", "--json", "--out", str(out), "--set", f"reverse_operands={way < 0}"]
    done = CliRunner().invoke(main, WORDS + words)
    assert done.exit_code == 0, done.output
    own = [json.loads(line) for line in (out / "round-01/problems.jsonl").open()]
    own, right = [row for row in own if row["round"] == 1], 0
    for row in own:
        total = total_of(row["problem"])
        assert row["answer"] == str(total % 1000)[::-1] and len(row["answer"]) > 1
        right += total < 1000
    assert 0 < right < len(own)
    rows = [row for row in json.loads(done.stdout) if row["round"] == 1]
    assert {(row["added"], row["added_right"]) for row in rows} == {(len(own), right)}
    assert all(row["right"] == row["n"] for row in rows if row["model"] == 0)
    assert all(row["right"] < row["n"] for row in rows if row["model"] > 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--agree", "0.5"], "holds rounds with other settings ("),
        (["--agree", "nan"], "agree must be above 0, and at most 1, not nan"),
        (["--set", "widht=3"], "unknown setting 'widht'"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(tmp_path, words, message):
    (tmp_path / "plan.json").write_text("{}\n")
    done = CliRunner().invoke(main, [*WORDS, "--out", str(tmp_path), *words])
    assert done.exit_code == 2 and message in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("position=learned", "position=learned cannot read longer problems"),
        ("width=7", "heads=4 does not divide width=7"),
        ("curriculum=0:carry=0.5", "the curriculum of rounds changes digits alone"),
    ],
)
def test_models_that_cannot_be_or_cannot_grow_leave_no_folder(tmp_path, pair, message):
    words = ["improve", "--task", "add", "--digits", "2", "--count", "100", "--set", pair]
    done = CliRunner().invoke(main, [*words, "--out", str(tmp_path / "a")])
    assert done.exit_code == 2 and message in done.stderr, done.output
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("task", ["shakespeare", "modular", "file", "sum", "calc"])
def test_problems_must_be_one_operation_on_two_numbers_to_make_longer(tmp_path, task):
    done = CliRunner().invoke(main, ["improve", "--task", task, "--out", str(tmp_path / "a")])
    assert done.exit_code == 2 and "to make longer" in done.stderr, done.output


def test_ids_that_text_does_not_have_are_refused_unless_the_recipe_has_them(tmp_path):
    out = str(tmp_path / "rounds")
    asked = [*WORDS, "--out", out, "--set", "level_position=learned,none,none"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2 and "level_position" in done.stderr
    (line,) = done.stderr.splitlines()
    assert not (tmp_path / "rounds").exists()
    of_recipe = ["--recipe", "mcleish2024-abacus", *WORDS[3:], "--out", out, "--rounds=0"]
    done = CliRunner().invoke(main, ["improve", *of_recipe])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("task", ["add", "mul", "div"])
def test_the_longest_work_of_what_is_asked_may_be_written(task):
    problems = load_task(task, {"digits": 3})
    asked, limit = self_improvement._longer(problems, np.random.default_rng(0), 4, 200)
    batch = problems.batch(
        np.random.default_rng(1), 200, "train", Cell(problems.cells()[0].op, 4, 4)
    )
    assert len(asked) > 100 and limit >= max(len(work) for _, work in problems.texts(batch))
