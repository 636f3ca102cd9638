"""What `addgpt eval` stores, and where: beside other scores, elsewhere, or not at all."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from addgpt.evaluation import scorecard
from addgpt.evaluation.compare.runs import find_runs
from addgpt.evaluation.schema import EVAL_COLUMNS, csv_text, read_eval
from addgpt.runs import files
from addgpt.runs.run import SHIPPED, Run, run_path
from tests.helpers.commands import refused, run, train

pytestmark = pytest.mark.slow

REFERENCE = Path(__file__).parents[1] / "results" / "reference"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs of one adder."""
    folder = tmp_path_factory.mktemp("results")
    for seed in (0, 1):
        train(folder / f"rev-{seed}", "add", "digits=2")
    return folder


def unscored(folder: Path, tmp_path: Path) -> Path:
    """A copy of a run without its scores."""
    scores = shutil.ignore_patterns("eval*", "error*", "example*")
    return shutil.copytree(folder / "rev-0", tmp_path / "copy", ignore=scores)


@pytest.fixture(scope="module")
def scored(folder, tmp_path_factory):
    """A copy of a run with scores on 30 problems a cell."""
    copy = unscored(folder, tmp_path_factory.mktemp("scored"))
    run("eval", copy, "--per-cell", "30")
    return copy


@pytest.fixture
def careful_run(scored, tmp_path):
    """A copy of that, to be scored again."""
    return shutil.copytree(scored, tmp_path / "copy")


def sizes(folder: Path, name: str = "eval.csv") -> set[int]:
    with open(folder / name, newline="") as file:
        return {int(row["n"]) for row in csv.DictReader(file) if row["seen"] == "False"}


def test_a_quick_look_does_not_replace_a_careful_score(careful_run):
    copy = careful_run
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


def test_a_score_of_another_evaluation_seed_stays_beside_the_stored_one(careful_run):
    copy = careful_run
    first = (copy / "eval.csv").read_bytes()
    result = run("eval", copy, "--per-cell", "30", "--seed", "5")
    assert f"{copy / 'eval-seed5.csv'} (the stored score, of --seed 0, stays)" in result.stderr
    assert (copy / "eval.csv").read_bytes() == first
    assert json.loads((copy / "eval-seed5.json").read_text())["evaluation_seed"] == 5
    result = run("eval", copy, "--per-cell", "5", "--seed", "5")
    assert f"{copy / 'eval-seed5-quick.csv'} (a stored score on more" in result.stderr
    assert max(sizes(copy, "eval-seed5.csv")) == 30


def test_the_score_of_a_newer_checkpoint_replaces_a_fuller_one(careful_run, tmp_path):
    """And as long as it is not there, the stored one is said to be of other weights."""
    copy, page = careful_run, tmp_path / "page.html"
    told = "scored at step 30, and its weights are of step 31 now"
    report = "report", copy, "--out", page
    assert told not in run("eval", copy, "--stored").stderr and run(*report).exit_code == 0
    assert told not in page.read_text() and "scores of other weights" not in page.read_text()
    assert run("train", "--resume", "--out", copy, "--set", "steps=31").exit_code == 0
    assert f"{copy}: {told}" in run("eval", copy, "--stored").stderr and run(*report).exit_code == 0
    assert told in page.read_text() and "scores of other weights" in page.read_text()
    result = run("eval", copy, "--per-cell", "5")
    assert "eval-quick" not in result.stderr and max(sizes(copy)) == 5
    assert told not in run("eval", copy, "--stored").stderr
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
