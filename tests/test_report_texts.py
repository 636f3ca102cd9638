"""The report on runs of texts: held-out loss in place of exact match."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from analysis import load
from analysis.report import build, data, figures, numbers
from analysis.report.svg import Drawings

pytestmark = pytest.mark.slow

N = 111_540


def write_run(path: Path, seed: int = 0, nats: float = 1.5, layers: int = 2, scored=True) -> Path:
    """A run on a text that ends with this loss on val and, overlapping, a hundredth less."""
    path.mkdir(parents=True)
    config = {"task": "shakespeare", "seed": seed, "options": {}, "model": {"layers": layers}}
    (path / "config.json").write_text(json.dumps(config))
    with open(path / "metrics.jsonl", "w") as file:
        for i, loss in enumerate((4.1, 2.2, nats), 1):
            look = {"step": i, "examples": 10 * i, "tokens": 640 * i, "seconds": 2.0 * i}
            file.write(json.dumps(look | {"loss": loss, "val_loss": loss}) + "\n")
    if scored:
        (path / "loss.json").write_text(json.dumps(rows(path.name, seed, nats)))
    return path


def rows(name: str, seed: int, nats: float) -> list[dict]:
    """As `addgpt.evaluation.perplexity` writes them."""
    facts = {"run": name, "task": "shakespeare", "seed": seed, "params": 54321, "step": 3}
    facts |= {"examples": 30, "seconds": 6.0, "split": "val"}
    return [
        facts | {"context": context, "n": n, "nats": loss}
        | {"bits": loss / math.log(2), "perplexity": math.exp(loss)}
        for context, n, loss in ((0, N, nats), (32, N - 32, nats - 0.01))
    ]  # fmt: skip


def text_of(html: str) -> str:
    """What a reader sees, each run of tags and spaces as one space."""
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S).split())


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for seed, nats in enumerate((1.50, 1.70, 1.55)):
        write_run(tmp_path / f"a{seed}", seed, nats)
    write_run(tmp_path / "deep", nats=1.4, layers=9)
    write_run(tmp_path / "waiting", nats=1.9, layers=3, scored=False)
    return tmp_path


def read(folder: Path) -> list[data.Group]:
    runs, faults = data.read(folder, lambda items, total, what: items)
    assert not faults
    return data.group(runs)


def test_the_table_of_losses_is_that_of_the_files(results):
    table = load.losses(results)
    assert table.groupby("run").size().to_dict() == {"a0": 2, "a1": 2, "a2": 2, "deep": 2}
    row = table[(table["run"] == "a1") & (table["context"] == 32)].iloc[0]
    assert (row["nats"], row["n"], row["split"], row["params"]) == (1.69, N - 32, "val", 54321)
    assert load.losses(results / "waiting").empty and "nats" in load.losses(results / "waiting")


def test_median_and_worst_seed_of_each_way_of_scoring(results):
    group = next(one for one in read(results) if len(one.runs) == 3)
    longest, blocks = numbers.losses(group)
    assert (longest.context, longest.n, longest.median, longest.worst) == (32, N - 32, 1.54, 1.69)
    assert (blocks.context, blocks.n, blocks.median, blocks.worst) == (0, N, 1.55, 1.70)


def test_the_overview_states_the_loss_with_its_n(results):
    page = build(results)
    text = text_of(page.html)
    assert not page.faults and "Loss on held-out text" in text
    assert "Exact match" not in text.split("How these numbers are made")[0]
    overview = text.split("Under each")[0]
    assert f"1.5400 {1.54 / math.log(2):.4g} bits, perplexity {math.exp(1.54):.4g}" in overview
    assert f"1.6900 {1.69 / math.log(2):.4g} bits" in overview  # the worst seed
    assert "111,508 characters of val, each but the first ones after 32 or more" in overview
    assert "54,321 parameters" in overview
    assert "loss on val 1.9 nats per token" in overview  # of the run that is not scored
    assert "1.6900 nats a character in the worst of 3 runs" in text
    assert "111,540 characters of val 1.5500" in text


def test_problems_and_texts_stand_side_by_side(results, tmp_path):
    path = write_run(tmp_path / "sums")
    config = {"task": "add", "seed": 0, "options": {"digits": 1}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "loss.json").unlink()
    cells = dict.fromkeys(load.EVAL_COLUMNS, "1") | {"op": "+", "stratum": "all", "seen": "False"}
    lines = [",".join(load.EVAL_COLUMNS), ",".join(cells[name] for name in load.EVAL_COLUMNS)]
    (path / "eval.csv").write_text("\n".join(lines) + "\n")
    text = text_of(build(tmp_path).html)
    assert "Exact match on held-out problems, loss on held-out text" in text
    assert "100 % 1 of 1" in text and "1.5400" in text


def test_curves_show_the_loss_against_examples_and_seconds(results):
    group = next(one for one in read(results) if len(one.runs) == 3)
    drawings = Drawings()
    drawn = figures.draw(group, drawings).training
    assert [panel.title for panel, _ in drawn] == [
        "loss on val (nats per token) by examples seen",
        "loss on val (nats per token) by training time (s)",
    ]
    upright = re.search(r'href="#(\w+)"', drawn[0][1])[1]  # the axis that comes first
    side = drawings.definitions.partition(f"<g id='{upright}'>")[2].partition("<g id=")[0]
    marks = re.findall(r">([\d.]+)</text>", side)
    assert marks == ["1.5", "2.0", "2.5", "3.0", "3.5", "4.0"]  # no powers of ten
    assert numbers.course(group)[-1][0] == 30 and numbers.course(group)[-1][3] == 1.55


def test_of_many_configurations_those_of_least_loss_are_drawn(tmp_path):
    for layers in range(1, 12):
        write_run(tmp_path / f"run{layers}", nats=1 + 0.1 * (7 * layers % 11), layers=layers)
    ((task, count, key, drawn),) = figures.compared(read(tmp_path), Drawings())
    assert (task, count, len(drawn)) == ("shakespeare", 11, 2)
    best = sorted(range(1, 12), key=lambda layers: 7 * layers % 11)[:8]
    assert [name for _, name in key] == [f"shakespeare, layers={layers}" for layers in best]


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[3]",
        '[{"nats": 1}]',
        "[" * 100_000,
        json.dumps(rows("a0", 0, math.nan)),
        json.dumps(rows("a0", 0, -5)),
        json.dumps([rows("a0", 0, 2)[0] | {"n": "many"}]),
    ],
)
def test_damage_is_named_once_and_hides_nothing_else(results, content):
    (results / "a0" / "loss.json").write_text(content)
    page = build(results)
    (fault,) = page.faults
    assert fault.startswith("a0: ") and "loss.json is damaged" in fault
    assert "1.7000" in page.html and len(page.html) < 200_000


def test_what_a_stranger_writes_stays_text(results):
    row = rows("a0", 0, 2)[0] | {"split": "<script>alert(1)</script>"}
    (results / "a0" / "loss.json").write_text(json.dumps([row]))
    html = build(results).html
    assert "<script" not in html and "&lt;script&gt;" in html
