"""`addgpt eval` of several runs, end to end on tiny models: spread, comparison, refusals."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import statistics
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.evaluation import scorecard
from addgpt.evaluation.compare.runs import Marker, check_alike, find_runs
from addgpt.evaluation.exact_match import evaluate_cells, evaluation_problems
from addgpt.evaluation.schema import EVAL_COLUMNS, csv_text, read_eval
from addgpt.runs import files
from addgpt.runs.run import SHIPPED, Run, run_path

pytestmark = pytest.mark.slow

TINY = "steps=30 eval_every=10 eval_size=50 save_every=30 width=16 heads=2 batch_size=32".split()
PER_CELL = "40"
REFERENCE = Path(__file__).parents[1] / "results" / "reference"


def run(*words: object):
    return CliRunner().invoke(main, [str(word) for word in words])


def train(folder: Path, task: str, *options: str) -> None:
    chosen = dict(pair.split("=") for pair in (*TINY, *options))
    settings = [word for key, value in chosen.items() for word in ("--set", f"{key}={value}")]
    seed = folder.name.rpartition("-")[2]
    result = run("train", "--task", task, "--seed", seed, "--out", folder, *settings)
    assert result.exit_code == 0, result.output


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


def refused(*words: object, code: int = 2) -> str:
    """The one line of an error."""
    result = run(*words)
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line, result.stderr
    return line


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
    assert f"{copy} is {folder / 'rev-0'} over again, not another seed" in result.stderr
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
        (["rev-0", "nowhere"], "nowhere is not a run", 1),
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


# What is stored, and where.


def unscored(folder: Path, tmp_path: Path) -> Path:
    """A copy of a run without its scores."""
    scores = shutil.ignore_patterns("eval*", "error*", "example*")
    return shutil.copytree(folder / "rev-0", tmp_path / "copy", ignore=scores)


def sizes(folder: Path, name: str = "eval.csv") -> set[int]:
    with open(folder / name, newline="") as file:
        return {int(row["n"]) for row in csv.DictReader(file) if row["seen"] == "False"}


def test_a_quick_look_does_not_replace_a_careful_score(folder, tmp_path):
    copy = unscored(folder, tmp_path)
    run("eval", copy, "--per-cell", "30")
    careful = (copy / "eval.csv").read_bytes(), (copy / "errors.csv").read_bytes()
    result = run("eval", copy, "--per-cell", "5", "--json")
    assert max(row["n"] for row in json.loads(result.stdout) if not row["seen"]) == 5
    assert ((copy / "eval.csv").read_bytes(), (copy / "errors.csv").read_bytes()) == careful
    assert f"{copy / 'eval-quick.csv'} (a stored score on more problems stays)" in result.stderr
    assert max(sizes(copy, "eval-quick.csv")) == 5
    assert json.loads((copy / "eval.json").read_text())["per_cell"] == 30
    sums = (copy / files.SUMS).read_text()
    again = run("eval", copy, "--per-cell", "40")  # more problems: replaced
    assert "eval-quick" not in again.stderr and (copy / "eval.csv").read_bytes() != careful[0]
    assert "-quick" in sums and "-quick" not in (copy / files.SUMS).read_text()
    assert not list(copy.glob("*-quick.*"))


def test_a_score_of_another_evaluation_seed_stays_beside_the_stored_one(folder, tmp_path):
    copy = unscored(folder, tmp_path)
    run("eval", copy, "--per-cell", "30")
    first = (copy / "eval.csv").read_bytes()
    result = run("eval", copy, "--per-cell", "30", "--seed", "5")
    assert f"{copy / 'eval-seed5.csv'} (the stored score, of --seed 0, stays)" in result.stderr
    assert (copy / "eval.csv").read_bytes() == first
    assert json.loads((copy / "eval-seed5.json").read_text())["evaluation_seed"] == 5
    result = run("eval", copy, "--per-cell", "5", "--seed", "5")
    assert f"{copy / 'eval-seed5-quick.csv'} (a stored score on more" in result.stderr
    assert max(sizes(copy, "eval-seed5.csv")) == 30


def test_the_score_of_a_newer_checkpoint_replaces_a_fuller_one(folder, tmp_path):
    copy = unscored(folder, tmp_path)
    run("eval", copy, "--per-cell", "30")
    assert run("train", "--resume", "--out", copy, "--set", "steps=31").exit_code == 0
    result = run("eval", copy, "--per-cell", "5")
    assert "eval-quick" not in result.stderr and max(sizes(copy)) == 5
    assert "eval.csv (in place of a score on more problems, of step 30)" in result.stderr


def test_scores_go_to_another_folder(folder, tmp_path):
    before = sorted((folder / "rev-0").iterdir())
    run("eval", folder / "rev-0", "--per-cell", "5", "--out", tmp_path / "one")
    assert {"eval.csv", "eval.json"} <= {file.name for file in (tmp_path / "one").iterdir()}
    run("eval", folder / "rev-0", folder / "rev-1", "--per-cell", "5", "--out", tmp_path / "two")
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["rev-0", "rev-1"]
    assert sorted((folder / "rev-0").iterdir()) == before
    assert "without" in refused("eval", folder / "rev-0", "--stored", "--out", tmp_path)


def test_an_unwritable_folder_is_told_before_the_work_and_the_scores_are_shown(
    folder, tmp_path, monkeypatch
):
    copy, order = unscored(folder, tmp_path), []

    def refuse(**how):
        order.append("tried")
        raise PermissionError(13, os.strerror(13))

    real = scorecard.score_run
    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(
        "addgpt.evaluation.compare.runs.score_run",
        lambda *a, **how: order.append("scored") or real(*a, **how),
    )
    before = sorted(copy.iterdir())
    result = run("eval", copy, "--per-cell", "5")
    assert result.exit_code == 0 and order == ["tried", "scored"]
    assert f"cannot write {copy}: Permission denied; scores are shown" in result.stderr
    assert "exact match" in result.stdout and sorted(copy.iterdir()) == before


def test_scores_that_cannot_be_written_after_all_are_shown_all_the_same(
    folder, tmp_path, monkeypatch
):
    copy = unscored(folder, tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = run("eval", copy, "--per-cell", "5")
    assert result.exit_code == 1 and "held out, all cells:" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("error: cannot write ")


def test_scores_of_the_shipped_run_stay_out_of_the_package(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = scorecard.Store([Run(SHIPPED)], None, print)
    store.put(Run(SHIPPED), lambda folder: (folder / "eval.csv").resolve())
    assert store.folders == {SHIPPED: Path("results/calculator")}


def test_scores_of_the_shipped_run_are_read_and_drawn_where_they_were_written(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for words in ("eval calculator --stored", "figures calculator", "report calculator"):
        result = run(*words.split())
        assert result.exit_code in (1, 2) and "addgpt eval" in result.stderr, words
    rows = read_eval(REFERENCE / "calculator" / "eval.csv")
    store = scorecard.Store([Run(SHIPPED)], None, print)
    scores = {"eval.csv": csv_text(EVAL_COLUMNS, rows)}
    store.put(Run(SHIPPED), lambda folder: files.write_checked(folder, scores) or folder)
    stored = run("eval", "calculator", "--stored")
    assert stored.exit_code == 0 and " right, 100 %" in stored.stdout
    assert "results/calculator/accuracy" in run("figures", "calculator").stdout
    assert run("report", "calculator").stdout.startswith("report.html: 1 run, ")
    assert [run.path for run in find_runs(["results"])] == [SHIPPED]
    assert run_path("results/calculator") == SHIPPED


def test_scores_of_the_shipped_run_are_not_put_into_another_run(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder / "rev-0", "results/calculator")
    told = []
    store = scorecard.Store([Run(SHIPPED)], None, told.append)
    assert store.folders == {} and "holds another run" in told[0]
    assert run_path("results/calculator") == Path("results/calculator")
