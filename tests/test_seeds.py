"""The spread of seeds: tables against plain Python, what figures show, and the notebook."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis import load, seeds, style
from tests.helpers.notebooks import check_notebook

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results" / "reference"
ADDERS = ["add-3", "add-3-s1", "add-3-s2"]
RIGHT = {0: [100, 40, 10], 1: [100, 35, 9], 2: [100, 50, 8], 3: [100, 20, 10]}  # by seed
CELLS = [(1, 1, "all", 100), (2, 3, "all", 50), (2, 2, "nines", 10)]


@pytest.fixture
def evals() -> pd.DataFrame:
    """Four seeds on three cells, the first of which was seen in training."""
    rows = [
        {"run": f"s{seed}", "seed": float(seed), "op": "+", "len_a": a, "len_b": b, "trained": 3.0}
        | {"stratum": stratum, "seen": a == b == 1, "n": n, "answer_correct": count}
        | {"trace_correct": count, "unterminated": 0, "longer": False, "counted": False}
        for seed, counts in RIGHT.items()
        for (a, b, stratum, n), count in zip(CELLS, counts, strict=True)
    ]
    return load.with_accuracy(pd.DataFrame(rows))


def of(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    return table[table["run"].isin(names)]


def test_recipes_are_runs_that_differ_in_their_seed_alone():
    assert seeds.recipes(load.runs(REFERENCE))["add-3"] == ADDERS
    runs = pd.DataFrame(
        {"run": list("abcd"), "task": "add", "seed": [0, 1, 2, 3], "options.digits": [3, 3, 4, 3],
         "model.levels": [[1, 2]] * 3 + [[1, 3]], "train.lr": [0.1, 0.1, 0.1, np.nan],
         "train.threads": [1, 2, 1, 1], "versions.commit": list("pqrs")}
    )  # fmt: skip
    assert seeds.recipes(runs) == {"a": ["a", "b"], "c": ["c"], "d": ["d"]}


def test_spread_is_that_of_plain_python(evals):
    table = seeds.spread(evals[~evals["seen"]], ["op", "len_a", "len_b", "stratum"])
    assert table["n"].tolist() == [50, 10] and table["runs"].tolist() == [4, 4]
    for (_, row), place in zip(table.iterrows(), (1, 2), strict=True):
        shares = [counts[place] / row["n"] for counts in RIGHT.values()]
        assert row["median"] == pytest.approx(statistics.median(shares))
        assert (row["worst"], row["best"]) == (min(shares), max(shares))
        assert row["deviation"] == pytest.approx(statistics.stdev(shares))
    (whole,) = seeds.spread(evals[~evals["seen"]], ["op"]).to_dict("records")
    shares = [(counts[1] + counts[2]) / 60 for counts in RIGHT.values()]
    assert whole["median"] == pytest.approx(statistics.median(shares)) and whole["n"] == 60


def test_the_reference_adders_spread_as_the_readme_says():
    evals = of(load.evals(REFERENCE), ADDERS)
    (row,) = seeds.spread(evals[~evals["seen"]], ["op"]).to_dict("records")
    assert (row["runs"], row["n"]) == (3, 8972)
    assert row["median"] == 1 and row["worst"] == 1


def test_runs_on_other_problems_do_not_mix(evals):
    fewer = evals.assign(n=evals["n"] + (evals["run"] == "s1"))
    missing = evals.drop(evals.index[-1])
    for table in (fewer, missing):
        with pytest.raises(ValueError, match="same problems"):
            seeds.spread(table, ["op", "len_a", "len_b", "stratum"])


def test_curves_have_a_line_per_seed_their_median_and_a_band():
    metrics = of(load.metrics(REFERENCE), ADDERS)
    figure = seeds.curves(metrics)
    exact, wrong, loss = figure.axes
    assert [len(axis.lines) for axis in figure.axes] == [4, 4, 4]
    last = metrics[metrics["examples"] == metrics["examples"].min()]["val_exact"]
    assert exact.lines[-1].get_ydata()[0] == pytest.approx(100 * last.median())
    band = exact.collections[0].get_paths()[0].vertices
    first = band[band[:, 0] == band[:, 0].min()][:, 1]
    assert (first.min(), first.max()) == pytest.approx((100 * last.min(), 100 * last.max()))
    assert wrong.lines[0].get_ydata()[-1] == 0 and loss.get_yscale() == "log"
    assert "1,000" in exact.get_title()


def test_curves_of_a_task_without_right_answers_are_its_loss():
    metrics = of(load.metrics(REFERENCE), ADDERS).assign(val_exact=np.nan)
    (axis,) = seeds.curves(metrics).axes
    assert "loss" in axis.get_ylabel()


def test_cell_spread_shows_each_seed_and_the_median(evals):
    (axis,) = seeds.cell_spread(evals).axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels == ["2+3 all  n=50", "2+2 nines  n=10"]
    dots = np.concatenate([part.get_offsets() for part in axis.collections[2:]])
    upper = sorted(x for x, y in dots if abs(y) < 0.5)
    assert upper == pytest.approx([40, 70, 80, 100])
    ticks = axis.collections[1].get_offsets()
    assert ticks.tolist() == [[75, 0], [95, 1]]
    assert max(axis.get_xticks()) <= 100


def test_of_many_cells_the_worst_are_drawn(evals):
    base = evals[evals["len_b"] == 3]
    many = pd.concat(
        base.assign(len_a=i, answer_correct=50 - (i % 50), accuracy=np.nan) for i in range(1, 60)
    )
    (axis,) = seeds.cell_spread(load.with_accuracy(many)).axes
    assert len(axis.get_yticklabels()) == seeds.CELLS
    assert "worst 40 of 59" in axis.get_title()


def test_heat_maps_tell_the_median_from_the_worst(evals):
    two = evals[evals["run"].isin(["s0", "s1"])]
    median, worst, _ = seeds.median_and_worst(two).axes
    assert [text.get_text() for text in median.texts] == ["(100)", "75.0"]
    assert [text.get_text() for text in worst.texts] == ["(100)", "70.0"]
    assert "lowest 70" in worst.get_title()


def test_nothing_to_draw_is_a_value_error(evals):
    with pytest.raises(ValueError, match="nothing to draw"):
        seeds.cell_spread(evals[evals["seen"]])
    with pytest.raises(ValueError, match="nothing to draw"):
        seeds.curves(load.metrics(REFERENCE).iloc[:0])
    with pytest.raises(ValueError, match="plain grid"):
        seeds.median_and_worst(evals[evals["stratum"] != "all"])


def test_figures_can_be_saved(evals, tmp_path):
    assert style.save(seeds.median_and_worst(evals), tmp_path / "x.png").stat().st_size > 5000


def test_notebook_is_stored_with_its_outputs_and_runs(monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.delenv("ADDGPT_RESULTS", raising=False)
    code = check_notebook("seeds")
    kinds = [set(out.get("data", {})) for one in code for out in one.outputs]
    assert sum("text/html" in kind for kind in kinds) == 2
    assert sum("image/png" in kind for kind in kinds) == 3
