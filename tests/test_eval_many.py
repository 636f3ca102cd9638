"""`addgpt eval` of several runs, end to end on tiny models: spread, comparison, refusals."""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
from pathlib import Path

import pytest

from addgpt.evaluation import scorecard
from addgpt.evaluation.compare.runs import Marker, check_alike, find_runs
from addgpt.evaluation.exact_match import evaluate_cells, evaluation_problems
from addgpt.runs.run import Run
from tests.helpers.commands import refused, run, train

pytestmark = pytest.mark.slow

PER_CELL = "40"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three runs of one adder, one of another format, and others that are asked other problems."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        train(folder / f"rev-{seed}", "add", "digits=2")
    train(folder / "plain-0", "add", "digits=2", "format=plain")
    (folder / "others").mkdir()
    train(folder / "others" / "three-0", "add", "digits=3", "steps=1")
    train(folder / "others" / "minus-0", "sub", "digits=2", "steps=1")
    return folder


def told(result) -> str:
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def rows_of(folder: Path) -> list[dict]:
    with open(folder / "eval.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_each_run_is_scored_as_if_it_were_alone(folder):
    run("eval", folder / "rev-1", "--per-cell", PER_CELL)
    alone = (folder / "rev-1" / "eval.csv").read_bytes()
    (folder / "rev-1" / "eval.csv").unlink()
    result = run("eval", folder / "rev-0", folder / "rev-1", "--per-cell", PER_CELL)
    text = told(result)
    assert (folder / "rev-1" / "eval.csv").read_bytes() == alone
    assert "exact match in % of 2 runs" in text and "2 runs (seeds 0, 1)" in text
    lines = result.stderr.splitlines()
    assert [line[:7] for line in lines] == ["1 of 2:", "2 of 2:"]
    assert str(folder / "rev-1" / "eval.csv") in lines[1]


def test_the_same_training_twice_is_not_two_seeds(folder, tmp_path):
    copy = shutil.copytree(folder / "rev-0", tmp_path / "copy")
    result = run("eval", folder / "rev-0", folder / "rev-1", copy, "--stored")
    assert f"{copy} repeats {folder / 'rev-0'}, it is not another seed" in result.stderr
    assert "over again" not in run("eval", folder / "rev-0", folder / "rev-1", "--stored").stderr


def test_runs_of_several_recipes_are_not_passed_off_as_seeds_of_one(folder):
    words = "--stored", "--against", folder / "plain-0"
    run("eval", folder, "--per-cell", PER_CELL)
    assert "recipe" not in run("eval", folder / "rev-*", *words).stderr
    result = run("eval", folder / "rev-0", folder / "plain-0", "--stored")
    assert result.exit_code == 0
    named = f"{folder / 'rev-0'}, {folder / 'plain-0'}"
    differ = "options.format reverse and plain, model.attention window and full"
    told = f"not seeds of one recipe ({differ}): {named}"
    assert result.stderr.strip() == told


def test_the_spread_is_that_of_the_files_it_wrote(folder):
    result = run("eval", folder / "rev-*", "--per-cell", PER_CELL, "--json")
    assert set(facts := json.loads(result.stdout)) == {"a"}
    assert [entry["seed"] for entry in facts["a"]["runs"]] == [0, 1]
    shares = []
    for seed in (0, 1):
        fresh = [row for row in rows_of(folder / f"rev-{seed}") if row["seen"] == "False"]
        right, n = (sum(int(row[name]) for row in fresh) for name in ("answer_correct", "n"))
        shares.append(right / n)
    held_out = facts["a"]["held_out"]
    assert held_out["n"] == n
    assert held_out["median"] == pytest.approx(statistics.median(shares))
    assert (held_out["worst"], held_out["best"]) == (min(shares), max(shares))
    assert len(facts["a"]["cells"]) == len(rows_of(folder / "rev-0"))


def test_stored_counts_need_no_model_and_say_the_same(folder, tmp_path):
    fresh = run("eval", folder / "rev-0", folder / "rev-1", "--per-cell", PER_CELL, "--json")
    for seed in (0, 1):
        copy = shutil.copytree(folder / f"rev-{seed}", tmp_path / f"rev-{seed}")
        (copy / "model.safetensors").unlink()
    stored = json.loads(run("eval", tmp_path, "--stored", "--json").stdout)
    wanted = json.loads(fresh.stdout)
    for facts in (stored, wanted):
        del facts["a"]["runs"]
    assert stored == wanted
    rows = json.loads(run("eval", tmp_path / "rev-0", "--stored", "--json").stdout)
    assert [row["n"] for row in rows] == [int(row["n"]) for row in rows_of(folder / "rev-0")]
    assert "eval.csv" in refused("eval", tmp_path / "rev-0", tmp_path / "rev-1", code=1)


def test_a_comparison_is_paired_over_identical_problems(folder):
    result = run(
        "eval", folder / "rev-0", folder / "rev-1", "--against", folder / "plain-*",
        "--per-cell", PER_CELL, "--json",
    )  # fmt: skip
    facts = json.loads(result.stdout)
    assert len(result.stderr.splitlines()) == 3
    cell = next(c for c in facts["difference"]["cells"] if c["stratum"] == "all")

    def share(name: str) -> float:
        (row,) = (
            row for row in rows_of(folder / name) if row["stratum"] == "all"
            and (row["len_a"], row["len_b"]) == ("2", "2")
        )  # fmt: skip
        return int(row["answer_correct"]) / int(row["n"])

    wanted = (share("rev-0") + share("rev-1")) / 2 - share("plain-0")
    assert (cell["len_a"], cell["len_b"]) == (2, 2)
    assert cell["difference"] == pytest.approx(wanted)
    assert facts["difference"]["overall"]["difference"] == pytest.approx(wanted)
    assert facts["difference"]["note"].startswith("B has one run")
    assert cell["low"] <= wanted <= cell["high"]


def test_both_groups_are_given_the_same_prompts(folder):
    """Read off the prompts themselves: of two formats, and of two seeds."""
    asked, digests = [], []
    for name in ("rev-0", "rev-1", "plain-0"):
        opened = Run(folder / name)
        task, marker, texts = opened.task(), Marker(opened.task()), []
        for result in evaluate_cells(opened.model(), task, task.cells(), 15):
            marker.add(result)
            batch, split = evaluation_problems(task, result.cell, 15)
            assert (batch.tokens == result.batch.tokens).all() and split == result.split
            for tokens, scored in zip(batch.tokens, batch.scored, strict=True):
                texts.append(task.decode(tokens[: scored.argmax()]))
        asked.append(texts)
        digests.append({cell: marks.problems for cell, marks in marker.marks.items()})
    assert asked[0] == asked[1] == asked[2] and len(asked[0]) > 60
    assert digests[0] == digests[1] == digests[2]
    assert len(set(digests[0].values())) == len(digests[0])


def test_the_table_of_a_comparison_names_sides_and_doubts(folder):
    text = told(
        run("eval", folder / "rev-0", "--against", folder / "plain-0", "--per-cell", PER_CELL)
    )
    assert f"A: {folder / 'rev-0'}" in text and f"B: {folder / 'plain-0'}" in text
    assert "95 % interval" in text and "each cell weighs the same" in text
    assert "A and B have one run each" in text


def test_names_are_folders_patterns_and_folders_of_runs(folder, monkeypatch):
    names = [path.name for path in (r.path for r in find_runs([str(folder)]))]
    assert names == ["plain-0", "rev-0", "rev-1"]
    monkeypatch.chdir(folder)
    found = find_runs(["rev-1", "rev-*", os.path.join(folder, "rev-0")])
    assert [str(r.path) for r in found] == ["rev-1", "rev-0"]  # each once, as first named


def test_exports_among_runs_are_passed_over(folder, tmp_path):
    for name in ("a-0", "c-0"):
        shutil.copytree(folder / "rev-0", tmp_path / name)
    (tmp_path / "b-export").mkdir()
    (tmp_path / "b-export" / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "notes.txt").write_text("no folder")
    for name in (str(tmp_path), f"{tmp_path}/*"):
        assert [run.path.name for run in find_runs([name])] == ["a-0", "c-0"]
    said = refused("eval", tmp_path / "b-export", code=1)
    assert "not a run, but a model of transformers: addgpt eval hf:" in said


def test_what_differs_is_named(folder):
    three, minus = folder / "others" / "three-0", folder / "others" / "minus-0"
    line = refused("eval", folder / "rev-0", three)
    assert "digits 2 and 3" in line and str(three) in line and "format" not in line
    assert "tasks add and sub" in refused("eval", folder / "rev-0", "--against", minus)
    check_alike([Run(folder / "rev-0"), Run(folder / "plain-0")])


def test_stored_files_of_other_problems_are_refused(folder, tmp_path):
    for seed in (0, 1):
        shutil.copytree(folder / f"rev-{seed}", tmp_path / f"rev-{seed}")
    run("eval", tmp_path / "rev-0", "--per-cell", PER_CELL)
    for words in (["--per-cell", "60"], ["--per-cell", "60", "--seed", "5"]):
        assert run("eval", tmp_path / "rev-1", *words).exit_code == 0
        assert "different problems" in refused("eval", tmp_path, "--stored")


def test_a_suite_is_asked_of_each_run(folder, tmp_path):
    for seed in (0, 1):
        shutil.copytree(folder / f"rev-{seed}", tmp_path / f"rev-{seed}")
    file = tmp_path / "few.toml"
    file.write_text('[[part]]\nname = "fixed"\nproblems = ["1+1", "2+2", "9+9"]\n')
    found = json.loads(run("eval", tmp_path, "--suite", file, "--json").stdout)
    runs = [str(tmp_path / f"rev-{seed}") for seed in (0, 1)]
    assert list(found) == runs
    alone = json.loads(run("eval", tmp_path / "rev-1", "--suite", file, "--json").stdout)
    assert found[runs[1]] == alone and alone[0]["n"] == 3
    said = run("eval", tmp_path, "--suite", file).stdout
    assert "rev-0: " in said.replace("\n", "") and "rev-1: " in said and "parameters" in said
    assert (tmp_path / "rev-0" / "suite-few.csv").exists()


@pytest.mark.parametrize(
    ("words", "says", "code"),
    [
        (["nope-*"], "no run matches nope-*", 2),
        (["rev-0", "--against", "nope-*"], "no run matches nope-*", 2),
        (["rev-0", "nowhere"], "there is no folder nowhere", 1),
        (["rev-0", "empty"], "config.json", 1),
        (["rev-0", "rev-1", "--against", "rev-*"], "rev-0, rev-1: on both sides", 2),
        (["rev-0", "--against", "rev-1", "--suite", "gpt3"], "--suite goes without --against", 2),
        (["rev-0", "rev-1", "--problems", "p.csv"], "one run, not 2", 2),
        (["rev-0", "--stored", "--far", "9"], "--stored goes without --far", 2),
        (["rev-0", "--far", "1"], "far must hold different lengths above 2", 2),
        (["rev-0", "--stored", "--per-cell", "5"], "--stored", 2),
        (["rev-0", "--stored", "--seed", "5"], "--stored", 2),
    ],
)
def test_bad_input_has_one_line(folder, monkeypatch, words, says, code):
    (folder / "empty").mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    assert says in refused("eval", *words, code=code)


def test_a_trained_run_is_scored_further_out(folder, tmp_path):
    copy = shutil.copytree(folder / "rev-0", tmp_path / "far")
    done = run("eval", copy, "--far", "5,7", "--per-cell", PER_CELL, "--json")
    near = run("eval", folder / "rev-0", "--per-cell", PER_CELL, "--json")
    rows = {(r["len_a"], r["len_b"], r["stratum"]): r for r in json.loads(done.stdout)}
    assert {a for a, _, stratum in rows if stratum == "all"} == {1, 2, 5, 7}
    assert rows[7, 5, "all"]["n"] == int(PER_CELL)
    for row in json.loads(near.stdout):  # those trained on are asked and answered as ever
        there = rows[row["len_a"], row["len_b"], row["stratum"]]
        assert there["answer_correct"] == row["answer_correct"]
    assert "longer than trained on" in run("eval", copy, "--stored").stdout
    assert json.loads((copy / "config.json").read_text())["options"]["far"] == []


def test_stored_scores_are_compared_by_their_counts(folder):
    words = folder / "rev-*", "--against", folder / "plain-0"
    fresh = json.loads(run("eval", *words, "--per-cell", PER_CELL, "--json").stdout)["difference"]
    stored = json.loads(run("eval", *words, "--stored", "--json").stdout)["difference"]
    assert "paired" in fresh["method"] and "counted" in stored["method"]
    for name in ("a", "b", "difference", "n"):
        assert stored["overall"][name] == pytest.approx(fresh["overall"][name])
    said = run("eval", *words, "--stored").stdout
    assert "say how many were right, not which; the intervals are wider" in said


@pytest.mark.parametrize("text", ["", "run,task\na,b\n", None])
def test_a_damaged_eval_csv_is_named(folder, tmp_path, text):
    copy = shutil.copytree(folder / "rev-0", tmp_path / "copy")
    run("eval", copy, "--per-cell", PER_CELL)
    good = (copy / "eval.csv").read_text()
    (copy / "SHA256SUMS").unlink()
    lines = good.splitlines()
    lines[1] = ",".join(["-3" if field.isdecimal() else field for field in lines[1].split(",")])
    (copy / "eval.csv").write_text("\n".join(lines) if text is None else text)
    assert "eval.csv is damaged" in refused("eval", copy, folder / "rev-1", "--stored", code=1)


def test_runs_of_one_name_do_not_overwrite_one_another(folder, tmp_path):
    for number in (0, 1):
        shutil.copytree(folder / f"rev-{number}", tmp_path / f"set{number}" / "same")
    told(
        run(
            "eval",
            tmp_path / "set0",
            tmp_path / "set1",
            "--out",
            tmp_path / "o",
            "--per-cell",
            PER_CELL,
        )
    )
    seeds = {row["seed"] for n in (0, 1) for row in rows_of(tmp_path / "o" / f"set{n}-same")}
    assert seeds == {"0", "1"}
    names = [("a-b", "c"), ("a", "b-c"), ("q", "c")]  # of which two are the same, joined
    runs = [Run(shutil.copytree(folder / "rev-0", tmp_path.joinpath("z", *one))) for one in names]
    assert len({*scorecard._names(runs)}) == 3
