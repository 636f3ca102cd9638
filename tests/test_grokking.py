"""What analysis/grokking.py makes of tables of `addgpt inspect`; its notebook, its page."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from addgpt.config.errors import UsageError
from analysis import grokking
from tests.helpers.notebooks import check_notebook

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "results" / "reference" / "grokking"


def test_milestones_are_the_first_kept_steps_of_each_seed(tmp_path):
    head = ",".join(grokking.MEASURES)
    early = f"{head}\n1,0.5,0,4,4,4,4\n10,0.99,0.1,0,9,2,4\n20,1,0.9,0,1,1,4\n30,1,0.4,0,3,1,9\n"
    (tmp_path / "seed2.csv").write_text(early)
    (tmp_path / "seed10.csv").write_text(f"{head}\n7,0.98,0.49,4,6,3.1,4\n")
    table = grokking.measures(tmp_path)
    assert list(table["seed"]) == [2] * 4 + [10]
    found = grokking.milestones(table)
    assert found.loc[2].dropna().to_dict() == {
        "train 99 %": 10,
        "restricted halved": 10,
        "val 10 %": 10,
        "val 50 %": 20,
        "val loss halved": 20,
        "val 90 %": 20,
    }
    assert found.loc[10].dropna().to_dict() == {"val 10 %": 7}
    with pytest.raises(UsageError, match=r"spectrum0\.csv"):
        grokking.spectra(tmp_path)


def test_strong_frequencies_hold_a_twentieth_of_the_power(tmp_path):
    rows = [("embedding", 1, 0.05), ("embedding", 2, 0.049), ("embedding", 3, 0.901)]
    table = pd.DataFrame(rows, columns=grokking.SPECTRUM).assign(seed=4)
    assert grokking.strong(table).loc[4, "embedding"] == "1, 3"


def test_the_stored_tables_are_whole_and_the_page_shows_them():
    steps, spectra = grokking.measures(FOLDER), grokking.spectra(FOLDER)
    assert set(steps["seed"]) == set(spectra["seed"]) == {0, 1, 2}
    assert steps.groupby("seed")["step"].agg(["min", "max"]).eq([1, 2896]).all().all()
    assert spectra.groupby(["seed", "table"])["share"].sum().round(6).eq(1).all()
    found = grokking.milestones(steps).drop(columns="val loss halved")
    shown = (ROOT / "docs" / "grokking.md").read_text()
    assert f"| seed | {' | '.join(found)} |" in shown
    for seed, row in found.iterrows():
        cells = ["not reached" if pd.isna(step) else f"{step:,}" for step in row]
        assert f"| {seed} | {' | '.join(cells)} |" in shown


@pytest.mark.slow
def test_the_notebook_is_stored_with_its_outputs_and_runs(monkeypatch):
    pytest.importorskip("nbclient")
    monkeypatch.delenv("ADDGPT_RESULTS", raising=False)
    code = check_notebook("grokking")
    kinds = [set(out.get("data", {})) for one in code for out in one.outputs]
    assert sum("image/png" in kind for kind in kinds) == 3
    assert sum("text/html" in kind for kind in kinds) == 4
