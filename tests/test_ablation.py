"""Cases of sweeps against `default`: synthetic folders whose differences are known."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from analysis import load
from analysis.studies import ablation

pytestmark = pytest.mark.slow

T2 = 4.302653  # 97.5 % quantile of Student's t with 2 degrees of freedom, as tables have it
T1 = 12.70620  # with 1 degree
NEVER = math.inf


def write_sweep(folder: Path, task: str, cases: dict[str, list[dict]]) -> Path:
    """A sweep's folder: for each case what is to be found out about seeds 0, 1, ..."""
    rows = []
    for case, seeds in cases.items():
        for seed, facts in enumerate(seeds):
            name = f"{case}-s{seed}"
            rows.append({"run": name, "combination": case, "settings": {}, "seed": seed})
            rows[-1]["state"] = facts.get("state", "done")
            write_run(folder / name, task, seed, **facts)
    (folder / "sweep.json").write_text(json.dumps({"grid": "x", "task": task, "runs": rows}))
    return folder


def write_run(
    path: Path, task: str, seed: int, at: float = NEVER, right: int = 0, far: int | None = None,
    nats: float | None = None, state: str = "done",
) -> None:  # fmt: skip
    """A run that is 99 % right from validation `at` on, one every 100 examples and 2 seconds."""
    path.mkdir(parents=True)
    config = {"task": task, "seed": seed, "options": {"digits": 3} if task == "add" else {}}
    (path / "config.json").write_text(json.dumps(config))
    with open(path / "metrics.jsonl", "w") as file:
        for i in range(1, 41):
            look = {"step": i, "examples": 100 * i, "tokens": 900 * i, "seconds": 2 * i}
            judged = {"val_exact": 0.99 if i >= at else 0.98} if nats is None else {}
            file.write(json.dumps(look | {"loss": 1.0, "val_loss": 1.0} | judged) + "\n")
    same = {"run": path.name, "task": task, "seed": seed, "params": 777, "step": 40}
    same |= {"examples": 4000, "seconds": 80.0}
    if nats is not None:
        rows = [(0, 1000, nats + 1), (8, 992, nats)]
        texts = [same | {"split": "val", "context": c, "n": n, "nats": x} for c, n, x in rows]
        (path / "loss.json").write_text(json.dumps(texts))
        return
    cells = [(1, 1, "all", True, 100, 3), (3, 3, "all", False, 1000, right)]
    cells += [(3, 3, "nines", False, 50, 0)]
    cells += [(9, 3, "all", False, 200, far)] if far is not None else []
    with open(path / "eval.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, load.EVAL_COLUMNS)
        writer.writeheader()
        for a, b, stratum, seen, n, count in cells:
            cell = {"op": "+", "len_a": a, "len_b": b, "stratum": stratum, "seen": seen, "n": n}
            cell |= {"answer_correct": count, "trace_correct": count, "unterminated": 0}
            writer.writerow(same | {"split": "test"} | cell)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    cases = {
        "default": [{"at": at, "right": r} for at, r in ((10, 1000), (20, 990), (30, 980))],
        "slow": [{"at": at, "right": r} for at, r in ((12, 900), (23, 880), (34, 890))],
        "even": [{"at": at, "right": r} for at, r in ((9, 1000), (20, 1000), (31, 970))],
        "stuck": [{"at": at, "right": 500} for at in (11, NEVER, NEVER)],
        "broken": [{"at": 8, "right": 1000}, {"at": 18, "right": 1000}, {"state": "failed"}],
        "lost": [{"state": "failed"}] * 3,
    }
    return write_sweep(tmp_path / "sums", "add", cases)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    losses = {"default": (1.50, 1.60, 1.55), "slow": (1.40, 1.49, 1.46), "other": (1.5, 1.7, 1.6)}
    cases = {case: [{"nats": nats} for nats in row] for case, row in losses.items()}
    return write_sweep(tmp_path / "text", "shakespeare", cases)


def found(folder: Path) -> pd.DataFrame:
    return ablation.effects(ablation.collect(folder)).set_index(["measure", "case"])


def test_collect_has_a_row_per_run_with_counts(sums):
    table = ablation.collect(sums)
    assert list(table) == ablation.COLUMNS and len(table) == 18
    slow = table[(table["case"] == "slow") & (table["seed"] == 1)].iloc[0]
    assert (slow["examples_to_99"], slow["seconds_to_99"]) == (2300, 46)
    assert (slow["n"], slow["answer_correct"], slow["params"]) == (1000, 880, 777)
    assert (slow["step"], slow["examples"], slow["seconds"]) == (40, 4000, 80)
    assert np.isnan(slow["far_n"]) and np.isnan(slow["nats"])
    stuck = table[table["case"] == "stuck"]["examples_to_99"].tolist()
    assert stuck == [1100, NEVER, NEVER]
    assert table[table["case"] == "lost"]["n"].isna().all()


def test_differences_are_paired_by_seed_with_students_interval(sums):
    row = found(sums).loc["examples", "slow"]  # 200, 300 and 400 more
    assert (row["median"], row["worst"], row["difference"]) == (2300, 3400, 300)
    half = T2 * 100 / math.sqrt(3)
    assert (row["low"], row["high"]) == pytest.approx((300 - half, 300 + half), rel=1e-5)
    seconds = found(sums).loc["seconds", "slow"]
    assert seconds[["difference", "low", "high"]].tolist() == pytest.approx(
        [6, 6 - half / 50, 6 + half / 50], rel=1e-5
    )
    exact = found(sums).loc["exact", "slow"]  # 10, 11 and 9 points less
    assert (exact["median"], exact["worst"], exact["difference"]) == pytest.approx((89, 88, -10))
    assert exact["low"] == pytest.approx(-10 - T2 / math.sqrt(3), rel=1e-5)


def test_default_differs_from_itself_by_nothing(sums):
    for measure in ("seconds", "examples", "exact"):
        row = found(sums).loc[measure, "default"]
        assert row["low"] <= row["difference"] == 0 <= row["high"]


def test_a_goal_that_was_not_reached_has_no_difference(sums):
    row = found(sums).loc["examples", "stuck"]
    assert (row["seeds"], row["reached"], row["median"]) == (3, 1, NEVER)
    assert row[["difference", "low", "high"]].isna().all()


def test_runs_that_failed_are_counted_and_left_out(sums):
    row = found(sums).loc["examples", "broken"]  # seeds 0 and 1: both 200 less
    assert (row["runs"], row["seeds"], row["difference"]) == (3, 2, -200)
    half = T1 * (100 / math.sqrt(6)) / math.sqrt(2)  # both alike, but looks are 100 apart
    assert (row["low"], row["high"]) == pytest.approx((-200 - half, -200 + half), rel=1e-5)
    assert found(sums).loc["exact", "lost"]["seeds"] == 0


@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3)), min_size=2, max_size=9),
    st.floats(-1e3, 1e3),
)
def test_a_shift_of_all_seeds_shifts_the_interval(pairs, shift) -> None:
    one, base = (np.array(side) for side in zip(*pairs, strict=True))
    here, there = ablation.paired(one, base), ablation.paired(one + shift, base)
    for name in ("difference", "low", "high"):
        assert there[name] - here[name] == pytest.approx(shift, abs=1e-6)
    swapped = ablation.paired(base, one)
    assert (swapped["low"], swapped["high"]) == pytest.approx((-here["high"], -here["low"]))


def test_one_seed_has_a_difference_but_no_interval(tmp_path):
    cases = {"default": [{"at": 5, "right": 900}], "x": [{"at": 4, "right": 950}]}
    folder = write_sweep(tmp_path / "one", "add", cases)
    row = found(folder).loc["exact", "x"]
    assert row["difference"] == pytest.approx(5) and np.isnan(row["low"])
    assert "95.0 (95.0); +5.00 [one seed]" in ablation.describe(ablation.collect(folder))
    assert ablation.draw(ablation.collect(folder)).axes


def test_lengths_beyond_those_of_training_are_a_measure_of_their_own(tmp_path):
    cases = {"default": [{"right": 1000, "far": 20}], "x": [{"right": 1000, "far": 120}]}
    folder = write_sweep(tmp_path / "far", "add", cases)
    rows = found(folder)
    assert rows.loc["far", "x"]["difference"] == pytest.approx(50)
    assert rows.loc["exact", "x"]["difference"] == 0
    (axis,) = ablation.draw(ablation.collect(folder)).axes
    assert "longer than trained on (%)" in axis.get_xlabel()


def test_texts_have_their_loss_alone(text):
    rows = found(text)
    assert set(rows.index.get_level_values("measure")) == {"loss"}
    row = rows.loc["loss", "slow"]  # 0.10, 0.11 and 0.09 less
    assert (row["median"], row["worst"], row["difference"]) == pytest.approx((1.46, 1.49, -0.1))
    assert row["high"] == pytest.approx(-0.1 + T2 * 0.01 / math.sqrt(3), rel=1e-4)


def study(*words):
    return CliRunner().invoke(main, ["study", "ablation", *map(str, words)])


def test_the_table_has_a_column_per_sweep_and_measure(sums, text, tmp_path):
    out, file = tmp_path / "f.png", tmp_path / "t.csv"
    done = study(sums, text, "--png", out, "--csv", file)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    head, *rows = (
        [part.strip() for part in line.strip("|").split("|")] for line in (lines[0], *lines[2:-2])
    )
    cells = {row[0]: dict(zip(head[1:], row[1:], strict=True)) for row in rows}
    examples, exact = "sums: examples to 99 % of val", "sums: exact match (%)"
    loss = "text: held-out loss (nats a character)"
    assert head == ["case", "sums: seconds of training to 99 % of val", examples, exact, loss]
    assert cells["slow"][examples] == "2,300 (3,400); +300 [+52 to +548]"
    assert cells["stuck"][examples] == "reached by 1 of 3"
    assert "-200 [-567 to +167], 2 of 3 seeds" in cells["broken"][examples]
    assert cells["lost"][exact] == "no run finished"
    assert cells["lost"][loss] == ""
    assert cells["default"][exact] == "99.0 (98.0), n = 1,000"
    assert cells["default"][loss] == "1.5500 (1.6000), n = 992"
    assert cells["slow"][loss] == "1.4600 (1.4900); -0.1000 [-0.1248 to -0.0752]"
    assert lines[-1] == ablation.NOTE
    assert out.read_bytes().startswith(b"\x89PNG")
    kept = pd.read_csv(file)
    assert list(kept) == ablation.COLUMNS and len(kept) == 27
    pd.testing.assert_frame_equal(ablation.effects(kept), ablation.effects(
        ablation.collect(sums, text)
    ), check_dtype=False)  # fmt: skip


def test_the_figure_has_a_dot_and_an_interval_per_case(sums, text):
    first, second = ablation.draw(ablation.collect(sums, text)).axes
    names = [label.get_text() for label in first.get_yticklabels()]
    assert names == ["slow", "even", "stuck", "broken", "lost", "other"]
    assert first.get_xlabel().startswith("examples to 99 % of val:\ndifference")
    assert second.get_xlabel().startswith("held-out loss (nats a character):")
    marks = [line for line in first.lines if line.get_marker() in "os"]
    dots = {(line.get_xdata()[0], line.get_ydata()[0]): line for line in marks}
    assert dots[300, 0].get_color() == ablation.LOOKS["worse"]["color"]
    assert dots[0, 1].get_markerfacecolor() == "white"
    assert dots[-200, 3].get_markerfacecolor() == "white"
    half = T2 * 100 / math.sqrt(3)
    (interval,) = first.containers[0].lines[2][0].get_segments()
    assert interval[:, 0] == pytest.approx([300 - half, 300 + half], rel=1e-5)
    assert interval[:, 1].tolist() == [0, 0]
    assert [text.get_text() for text in first.texts] == ["99 % in 1 of 3 seeds", "no run"]
    better = {line.get_ydata()[0]: line.get_color() for line in second.lines}
    assert better[0] == ablation.LOOKS["better"]["color"]  # less loss


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (None, "it has no sweep.json"),
        ("[]", "sweep.json is damaged: not a JSON object"),
        ('{"task": "add", "runs": [1]}', "sweep.json is damaged"),
        ('{"task": "add", "runs": []}', "sweep.json has no run"),
    ],
)
def test_what_is_no_sweep_is_one_line(sums, change, message):
    (sums / "sweep.json").unlink()
    if change is not None:
        (sums / "sweep.json").write_text(change)
    done = study(sums)
    assert done.exit_code == 2 and not done.stdout
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_sweep_without_default_names_its_cases(tmp_path):
    folder = write_sweep(tmp_path / "other", "add", {"x": [{"right": 1}], "y": [{"right": 2}]})
    with pytest.raises(ValueError, match="other has no case default; its cases: x, y"):
        ablation.collect(folder)


def test_two_sweeps_of_one_name_are_refused(sums):
    done = study(sums, sums)
    assert done.exit_code == 2 and "is there twice: " in done.stderr


def test_a_table_stands_for_the_folders_it_was_made_from(sums, tmp_path):
    other = write_sweep(tmp_path / "other", "mul", {"default": [{"right": 5}, {"right": 7}]})
    whole, file = ablation.collect(sums, other), tmp_path / "table.csv"
    ablation.collect(sums).to_csv(file, index=False)
    pd.testing.assert_frame_equal(ablation.collect(file, other), whole)
    assert math.inf in whole["seconds_to_99"].tolist()  # which text keeps, too
    with pytest.raises(ValueError, match="is there twice: "):
        ablation.collect(file, sums)


HEAD, EMPTY = ",".join(ablation.COLUMNS), "," * 14


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a,b\n1,2\n", "not the columns"),
        ("", "No columns"),
        (HEAD + "\n", "not the columns and rows"),
        (HEAD + "\n,add,default,0" + EMPTY, "not the columns and rows"),
        (HEAD + "\nx,add,default,no" + EMPTY, "invalid literal"),
        (HEAD + "\nx,add,default,0.7" + EMPTY, "no table"),
        (HEAD + "\nx,add,default," + EMPTY, "no table"),
        (HEAD + "\nx,add,default,0" + EMPTY + "1,2,3", "no table"),
        (HEAD + "\nx,add,other,0" + EMPTY, "no case default"),
        (HEAD + 2 * ("\nx,add,default,0" + EMPTY), "is there twice"),
        ("\0" * 100, "table.csv"),
    ],
)
def test_a_file_that_is_no_table_is_refused_in_a_line(text, words, tmp_path):
    file = tmp_path / "table.csv"
    file.write_text(text)
    done = study(file)
    assert done.exit_code == 2
    assert words in done.stderr and done.stderr.count("\n") == 1


def test_names_like_numbers_or_nothing_stay_names_and_no_measure_is_no_trouble(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("\n".join([HEAD, f"007,add,default,0{EMPTY}", f"007,add,None,0{EMPTY}"]))
    table = ablation.collect(file)
    assert set(table["sweep"]) == {"007"} and list(table["case"]) == ["default", "None"]
    done = study(file)
    assert done.exit_code == 0 and "None" in done.stdout
