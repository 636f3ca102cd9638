"""The study of published recipes: what it gathers, what it draws, and what it leaves out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from addgpt.config.errors import UsageError
from addgpt.runs.published import recipe_names
from analysis import load
from analysis.studies import recipes

ROOT = Path(__file__).resolve().parents[1]


def table() -> pd.DataFrame:
    rows = [("window", seed, 3, digits, 100, 100) for seed in (0, 1) for digits in (2, 3, 6, 30)]
    rows += [("cho2024-coupling", 0, 5, 5, 100, 99), ("cho2024-coupling", 0, 5, 10, 100, 40)]
    rows += [("li2023-fire", 0, 3, 3, 100, 60), ("li2023-fire", 0, 3, 6, 100, 0)]
    return pd.DataFrame(rows, columns=recipes.COLUMNS)


@pytest.mark.parametrize(
    ("run", "recipe"),
    [
        ("mcleish2024-abacus-s1", "mcleish2024-abacus"),
        ("runs/smallest-proved--s0", "smallest-proved"),
        ("smallest-s0", "smallest"),
        ("add-3", None),
    ],
)
def test_a_run_is_of_the_recipe_that_its_name_begins_with(run, recipe):
    assert recipes.recipe_of(run) == recipe


def test_what_papers_report_is_of_recipes_and_beyond_training():
    for name, (trained, digits, share) in recipes.REPORTED.items():
        assert name in recipe_names() and trained < digits and 0.9 < share < 1


def test_the_figure_has_a_line_for_each_recipe_that_learned_its_task():
    figure = recipes.draw(table())
    (axis,) = figure.axes
    drawn = {len(line.get_xdata()): line for line in axis.lines}
    assert sorted(drawn) == [1, 2, 4]  # stars, cho2024-coupling, window
    assert list(drawn[4].get_xdata()) == [2 / 3, 1, 2, 10]
    assert list(drawn[2].get_ydata()) == [99, 40]
    assert drawn[4].get_linewidth() > drawn[2].get_linewidth()  # one on the other stays seen
    labels = [text.get_text() for text in figure.legends[0].texts]
    assert not any("li2023-fire" in label for label in labels)
    assert len(labels) == 2 + len(recipes.REPORTED)
    with pytest.raises(UsageError, match="no recipe is right"):
        recipes.draw(table()[-2:])


def test_a_recipe_that_ends_at_its_trained_length_is_named_apart():
    """Shorter sums that are right are not beyond the trained length."""
    rows = [
        ("li2023-fire", 0, 3, digits, 100, right) for digits, right in ((2, 100), (3, 100), (6, 2))
    ]
    figure = recipes.draw(pd.DataFrame(rows, columns=recipes.COLUMNS))
    assert "under 5 % beyond their training: li2023-fire" in figure.legends[0].texts[0].get_text()
    (axis,) = figure.axes
    ends = [x for line in axis.lines for x in line.get_xdata()]  # what papers report, too
    assert max(ends) > 2 and axis.get_xlim() == (min(ends), max(ends))


def test_the_table_says_what_did_not_learn():
    text = recipes.describe(table())
    assert "| `li2023-fire` | 3 | no | 1 | 100 | 3: 60.0, 6: 0.0 |" in text
    assert "| `window` | 3 | yes | 2 | 100 | 2: 100 (100), 3: 100 (100)" in text


def test_rows_are_of_scored_runs_with_operands_of_one_length(monkeypatch, tmp_path):
    row = {"stratum": "all", "seed": 1, "trained": 3, "n": 50, "answer_correct": 49}
    evals = pd.DataFrame(
        [
            row | {"run": "window-s1", "len_a": 3, "len_b": 3},
            row | {"run": "window-s1", "len_a": 3, "len_b": 2},
            row | {"run": "window-s1", "len_a": 3, "len_b": 3, "stratum": "nines"},
            row | {"run": "other", "len_a": 3, "len_b": 3},
        ]
    )
    monkeypatch.setattr(load, "evals", lambda folder: evals)
    assert recipes.collect(tmp_path).to_numpy().tolist() == [["window", 1, 3, 3, 50, 49]]
    monkeypatch.setattr(load, "evals", lambda folder: evals[3:])
    with pytest.raises(UsageError, match="no scored run named for a recipe"):
        recipes.collect(tmp_path)
    file = tmp_path / "rows.csv"
    table().to_csv(file, index=False)
    assert recipes.collect(file).equals(table())


def test_the_page_holds_the_table_of_what_was_measured():
    measured = recipes.describe(recipes.collect(ROOT / "results/reference/recipes-lengths.csv"))
    assert measured in (ROOT / "docs/length.md").read_text(encoding="utf-8")
