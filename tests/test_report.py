"""The page of `addgpt report`: its numbers, and what it survives."""

from __future__ import annotations

import csv
import json
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.evaluation.intervals import wilson
from addgpt.evaluation.schema import ERROR_KINDS
from analysis import report
from analysis.report import data as report_data
from analysis.report import examples as report_examples
from tests.helpers.report import (
    HOSTILE,
    REFERENCE,
    ROOT,
    Reader,
    page,
    plain,
    write_findings,
    write_hostile,
    write_results,
    write_run,
)

pytestmark = pytest.mark.slow


def cells(path: Path) -> list[dict]:
    with open(path / "eval.csv", newline="") as file:
        whole = ("len_a", "len_b", "n", "answer_correct")
        return [row | {name: int(row[name]) for name in whole} for row in csv.DictReader(file)]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


# Numbers.


def test_the_headline_is_the_counts_of_eval_csv(tmp_path: Path) -> None:
    for run in ("add-3", "add-3-s1", "add-3-s2"):
        shutil.copytree(REFERENCE / run, tmp_path / run)
    counted = []
    for run in sorted(tmp_path.iterdir()):
        held_out = [cell for cell in cells(run) if cell["seen"] == "False"]
        right = sum(cell["answer_correct"] for cell in held_out)
        counted.append((right, sum(cell["n"] for cell in held_out)))
    (right, n), (middle, of) = min(counted), sorted(counted)[1]
    low, high = (100 * float(end) for end in wilson(right, n))
    (median, worst), *_ = page(tmp_path).rows("Configuration").values()
    share = "100" if right == n else f"{100 * right / n:.2f}"
    assert worst.startswith(f"{share} % {right:,} of {n:,} ")
    ends = [float(end) for end in worst.rpartition(" ")[2].split("–")]
    assert ends == pytest.approx([low, high], abs=0.011)
    assert f"{middle:,} of {of:,}" in median


@pytest.mark.parametrize("seeds", [2, 4])
def test_the_median_is_that_of_addgpt_eval(tmp_path: Path, seeds: int) -> None:
    wrong = (7, 2, 21, 4)[:seeds]
    runs = [write_run(tmp_path / f"seed{seed}", seed, wrong[seed]) for seed in range(seeds)]
    for run in runs:  # lengths trained on alone
        lines = (run / "eval.csv").read_text().splitlines(keepends=True)
        near = [line for line in lines if not re.search(r"\+,(3,\d|\d,3),", line)]
        (run / "eval.csv").write_text("".join(near))
    told = CliRunner().invoke(main, ["eval", *map(str, runs), "--stored"]).stdout
    said = re.search(r"median ([\d.]+) %, worst ([\d.]+) % of 650 held-out", plain(told))
    right = statistics.median(649 - count for count in wrong)
    assert float(said[1]) == pytest.approx(100 * right / 650, abs=0.1)
    ((median, worst),) = page(tmp_path).rows("Configuration").values()
    assert median.startswith(f"{said[1]} % {right:g} of 650 ")
    assert worst.startswith(f"{said[2]} % {649 - max(wrong)} of 650 ")


def test_each_kind_of_problem_has_its_own_row(results: Path) -> None:
    rows = page(results).rows("Worst cell")
    assert {name.partition("  ")[0].rpartition(" ")[0].rpartition(" ")[0] for name in rows} == {
        "all held out",
        "a + b held out",
        "a + b held out, longer than trained on",
        "a + b special problems, held out",
        "a + b none held out",
    }
    plain = rows["a + b held out 3 cells"]
    assert plain[0].startswith("98.8 % 593 of 600")  # seed 0, with 7 wrong
    assert plain[1].startswith("96.5 % 579 of 600")  # seed 2, with 21
    assert plain[2] == "89.5 % 179 of 200 2+2 digits"
    assert rows["a + b held out, longer than trained on 5 cells"][0].startswith(
        "25.0 % 250 of 1,000"
    )
    assert rows["a + b none held out 1 cell"][1] == "100 % 100 of 100 all there are"
    assert rows["all held out 4 cells"][1].startswith("96.6 % 628 of 650")


def test_seeds_are_grouped_and_other_settings_apart(results: Path) -> None:
    shown = page(results)
    names = list(shown.rows("Configuration"))
    assert len(names) == 2
    assert names[0].startswith("add, digits=2, lr=0.01 ") and "3 runs" in names[0]
    assert names[1].startswith("add, digits=2, lr=0.001 ") and "1 run" in names[1]
    assert shown.rows("Configuration")[names[1]][1] == "one run"


def test_options_are_told_where_they_are_not_the_usual_ones(results: Path) -> None:
    config = json.loads((results / "seed0/config.json").read_text())
    config["options"] = {"digits": 3, "hints": False, "begin": True, "newer": False}
    (results / "seed0/config.json").write_text(json.dumps(config))
    assert "Optionsdigits=3, begin=true, newer=falseModel" in page(results).text


def test_the_data_module_names_a_difference_once(results: Path) -> None:
    runs, _ = report_data.read(results, lambda items, total, what: items)
    assert [len(one.runs) for one in report_data.group(runs)] == [3, 1]


def test_strata_and_first_reachings(results: Path) -> None:
    shown = page(results)
    assert shown.rows("Stratum")["nines"][1:3] == ["98.0 %", "49 of 50"]
    reached = shown.rows("Examples seen")
    assert reached["90 %"] == ["3 of 3", "2,000", "21 s"]  # seeds take 20, 21 and 22 s
    assert reached["100 %"] == ["3 of 3", "3,000", "31 s"]


def test_mistakes_are_counted_and_shown(results: Path) -> None:
    shown = page(results)
    rows = shown.rows("Most at")
    explained = ERROR_KINDS
    assert rows[f"carry {explained['carry']}"] == ["7", "70.0 %", "digit 1 (6)"]
    assert rows[f"unterminated {explained['unterminated']}"] == ["3", "30.0 %", "line 1 (3)"]
    assert shown.marked == ["3", "1"]
    assert "First wrong: token 2: 3 instead of 4." in shown.text
    assert "First wrong: token 3, in line 1 of the work: 1 instead of #." in shown.text
    assert "0 of 650 were in training." in shown.text and "Contaminated" not in shown.text
    assert "10+10 = 20" in plain(shown.text)


def test_contamination_is_said_loudly(results: Path) -> None:
    facts = json.loads((results / "seed0/eval.json").read_text())
    facts["contamination"] |= {"summary": "1 of 650 was in training", "met": 1}
    (results / "seed0/eval.json").write_text(json.dumps(facts))
    text = page(results).text
    assert "Contaminated, the scores do not count: 1 of 650 was in training." in text


@pytest.mark.parametrize(
    ("target", "written"),
    [("802;=802#", "802;=812#"), ("12#", "12"), ("1", "123456789"), ("", "7"), ("1234567", "")],
)
def test_pieces_hold_both_texts_and_mark_the_first_difference(target: str, written: str) -> None:
    row = {"problem": "p", "truth": "t", "answer": "", "target": target, "written": written}
    example = report_examples._example("run", row)
    for column, text in enumerate((target, written)):
        pieces = [pair[column] for pair in example.rows]
        joined = "".join(p.before + p.first + p.after for p in pieces)
        assert joined.replace(report_examples.NOTHING, "") == text
        before = "".join(p.before for p in pieces)
        assert before == target[: example.place] == written[: example.place]
        assert len([p for p in pieces if p.first]) == 1


def test_all_that_was_run_is_stated(results: Path) -> None:
    text = plain(page(results).text)
    for fact in ("addgpt train --seed 2", "addgpt eval results/a", "abacus", "4,321", "2.9"):
        assert fact in text
    assert "2031-02-03T04:05:06+00:00" in text


def test_a_heat_map_has_every_cell_and_the_trained_lengths(results: Path) -> None:
    shown = page(results / "seed0")
    (table,) = (table for table in shown.tables if table[0][0] == "digits of a, b")
    rows = {row[0]: row[1:] for row in table[1:]}
    assert table[0][1].split() == ["1", "2", "3"]
    assert {length: row[0].split() for length, row in rows.items()} == {
        "1": ["100", "100", "25.0"], "2": ["100", "96.5", "25.0"], "3": ["25.0"] * 3,
    }  # fmt: skip
    heat = re.search(r'<svg class="map".*?</svg>', report.build(results / "seed0").html)[0]
    texts = re.findall(r">([^<>]+)</text>", heat)
    assert texts.count("25.0") == 5 and texts.count("100") == 3 and texts.count("96.5") == 1
    outline = re.findall(r'd="(M[^"]*)"', heat)[-1]  # two of three lengths
    sides = re.fullmatch(r"M\S+ \S+h(\d+)v-(\d+)h-(\d+)z", outline).groups()
    wide = 200 * (3.6 - 0.66 - 0.12)  # of a map 3.6 inches wide, without its margins
    assert [int(side) for side in sides] == pytest.approx([2 / 3 * wide] * 3, abs=1)


def test_a_grid_of_scattered_lengths_is_drawn_by_its_lengths(tmp_path: Path) -> None:
    path = write_run(tmp_path / "far")
    text = (path / "eval.csv").read_text()
    (path / "eval.csv").write_text(text.replace(",3,3,all", ",3000000,3000000,all"))
    assert len(report.build(path).html) < 100_000


def test_a_long_log_is_thinned(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run")
    look = json.loads((path / "metrics.jsonl").read_text().splitlines()[0])
    lines = [json.dumps(look | {"examples": i, "val_exact": i % 2}) for i in range(9999)]
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    shown = page(path)
    assert max(len(a.get("d", "")) for _, a in shown.tags) < 5000
    assert "9,998" in shown.rows("Loss on val")  # the last point is kept


def test_many_runs_make_no_large_page(tmp_path: Path) -> None:
    """Fifty runs stay below a megabyte: ten take less than a fifth, with what all pages have."""
    for number in range(10):
        write_findings(write_run(tmp_path / f"run{number}", lr=0.01 * (1 + number)))
        log = tmp_path / f"run{number}/metrics.jsonl"
        first, *_ = map(json.loads, log.read_text().splitlines())
        lines = [first | {"step": i, "examples": i, "val_exact": i % 7 / 7} for i in range(50)]
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(report.build(tmp_path).html) < 130_000


def test_a_drawing_is_small_and_in_the_colours_of_the_page(results: Path) -> None:
    html = report.build(results).html
    charts = re.findall(r'<svg class="chart".*?</svg>', html)
    assert charts and max(map(len, charts)) < 4000
    assert not any("#" in chart.replace('href="#', "") for chart in charts)
    style = html.partition("<style>")[2].partition("</style>")[0]
    looks = re.findall(r"^\.l\d+\{(.*)\}$", style, re.M)
    assert looks and not any("#" in look for look in looks)  # variables alone
    named = set(re.findall(r"var\(--(\w+)\)", style))
    dark, light = (set(re.findall(r"--([\w-]+): #", part)) for part in style.split(":root {")[1:3])
    assert named - {"on", "share"} <= light | dark and light == dark


# Strangers' folders.


def test_nothing_in_a_folder_can_become_markup(tmp_path: Path) -> None:
    path = write_hostile(tmp_path)
    for name in ("seed1", "seed2"):  # beside it, so that titles and keys name it, too
        shutil.copytree(path, tmp_path / name)
    (tmp_path / "seed2/metrics.jsonl").write_text(f"{HOSTILE}\n")
    shown = page(tmp_path)
    assert shown.text.count("<script>alert(1)</script>") > 30
    assert_nothing_foreign(shown)
    assert "b" in {tag for tag, _ in shown.tags} and "<b> of a and b" in plain(shown.text)


def assert_nothing_foreign(shown: Reader) -> None:
    tags = {tag for tag, _ in shown.tags}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "base", "image"}
    for tag, attributes in shown.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        assert tag != "meta" or attributes.get("http-equiv", "").lower() != "refresh"


def test_the_page_refers_to_nothing_outside(results: Path) -> None:
    html = report.build(results).html
    assert_nothing_foreign(Reader(html))
    assert not re.search(r"https?:|url\((?!#)|@import", html)
    assert "default-src 'none'" in html  # a browser would load nothing even so


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"task": "add"}'),
        ("config.json", '{"task": "add", "seed": 1, "options": [1]}'),
        ("config.json", '{"task": "add", "seed": 1, "train": 3}'),
        ("config.json", "[" * 100_000),
        ("metrics.jsonl", "7\n8\n"),
        ("metrics.jsonl", '{"step": "three"}\n'),
        ("metrics.jsonl", '{"step": 1, "val_exact": [1]}\n'),
        ("eval.csv", "op,n\n+,3\n"),
        ("eval.csv", "\0\xff"),
        ("errors.csv", "op,problem\n"),
        ("errors.csv", '"' + "x" * 200_000),
        ("error_counts.csv", "op,kind,n\n+,sign,many\n"),
        ("error_counts.csv", "op,len_a,len_b,stratum,kind,digit,line,n\n+,1,1,all,sign,,,many\n"),
        ("examples.csv", "op,problem,truth,written\n+\n"),
        ("eval.json", "[]"),
        ("eval.json", '{"seconds": '),
    ],
)
def test_damage_is_named_once_and_hides_nothing_else(results, capsys, file, content) -> None:
    (results / "seed0" / file).write_bytes(content.encode("latin-1"))
    out = results.parent / "page.html"
    done = CliRunner().invoke(main, ["report", str(results), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("seed0")
    shown = Reader(out.read_text())
    assert "Could not be read" in shown.text and "seed0" in shown.text
    assert plain(done.stderr)[:200] in plain(shown.text)
    assert "21 of 200" not in shown.text and "179 of 200" in shown.text  # seed 2 is there
    assert len(shown.rows("Configuration")) == 2


def test_a_run_without_scores_does_not_count_as_scored(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        write_run(tmp_path / f"seed{seed}", seed, seed)
    (tmp_path / "seed2/eval.csv").unlink()
    text = page(tmp_path).text
    assert "in the worst of 2 runs" in text and "3 runs, 2 scored" in text
    assert f"Not scored, and in no score below: {tmp_path / 'seed2'}" in text


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e300"])
def test_odd_numbers_in_a_log_are_drawn_or_left_out(tmp_path: Path, value: str) -> None:
    path = write_run(tmp_path / "run")
    log = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(re.sub(r'("\w+"): [0-9.]+', rf"\1: {value}", log))
    html = report.build(path).html
    assert not re.search(r'd="[^"]*(nan|inf)', html)
    Reader(html)


def test_a_run_just_begun_and_a_task_without_answers(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new")
    (new / "eval.csv").unlink()
    (new / "metrics.jsonl").unlink()
    text = write_run(tmp_path / "text", lr=0.1)
    (text / "eval.csv").unlink()
    log = (text / "metrics.jsonl").read_text()
    (text / "metrics.jsonl").write_text(re.sub(r', "val_exact": [0-9.]+', "", log))
    waiting = write_run(tmp_path / "waiting", lr=0.2)
    (waiting / "eval.csv").unlink()
    rows = list(page(tmp_path).rows("Configuration").values())
    assert rows[0] == ["nothing logged yet"]
    assert rows[1] == ["loss on val 0.06667 nats per token"]
    assert rows[2] == [f"not scored yet: addgpt eval {waiting}"]


def test_the_same_files_make_the_same_page(results: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(results, tmp_path / "elsewhere" / "results")
    assert report.build(results).html == report.build(copied).html
    assert report.build(results, date="1 May").html.count("1 May") == 1


# The command.


def test_command_writes_the_page_and_says_so(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["report", str(results), "--out", str(out)])
    assert done.exit_code == 0 and done.stdout.startswith(f"{out}: 4 runs, ")
    assert out.read_text() == report.build(results).html
    assert [file.name for file in tmp_path.glob("*page*")] == ["page.html"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], 2, "there is no folder nowhere"),
        (["."], 2, "holds no run"),
        (["a file"], 2, "a file is a file, not a folder"),
        (["run", "--out", "missing/page.html"], 1, "cannot write missing/page.html"),
        (["run", "--out", "run"], 1, "cannot write run: that is a folder"),
        (["run", "--out", ""], 2, "--out takes a file, such as report.html"),
    ],
)
def test_what_a_user_can_mend_is_one_line(tmp_path, monkeypatch, words, code, says) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    if "run" in words:
        write_run(tmp_path / "run")
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == code
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("**/*.html"))


def test_no_torch_is_loaded(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from addgpt.cli.main import main\n"
        f"try: main(['report', {str(results)!r}, '--out', {str(tmp_path / 'o.html')!r}])\n"
        "finally: print({'torch'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stderr


def test_progress_is_told_how_much_there_is(results: Path) -> None:
    told = []

    def progress(items, total: int, what: str):
        told.append((what, total))
        return items

    report.build(results, progress)
    assert told == [("reading", 4), ("drawing", 2)]
