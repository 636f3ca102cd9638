"""The table and figure of length generalisation, from run folders made by hand."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from analysis import load
from analysis.studies import lengths

HEAD = ",".join(load.EVAL_COLUMNS)
RELATIVE = {"model.level_position": ["relative"]}


def a_run(folder, name, right, seed=0, **settings):
    """A run folder with sums of 2+2, 9+9 and 9+2 scored: `right` of 10 each."""
    path = folder / name
    path.mkdir(parents=True)
    model = {"position": "none", "level_position": ["rotary2", "none", "learned"]}
    model |= settings.pop("model", {})
    config = {"task": "add", "seed": seed, "options": {"digits": 3} | settings, "model": model}
    (path / "config.json").write_text(json.dumps(config))
    facts = {name: "0" for name in load.EVAL_COLUMNS}
    facts |= {"run": name, "task": "add", "op": "+", "stratum": "all", "seen": "False"}
    rows = [HEAD]
    for (a, b), count in right.items():
        row = facts | {"len_a": a, "len_b": b, "n": 10, "answer_correct": count, "seed": seed}
        rows.append(",".join(str(row[name]) for name in load.EVAL_COLUMNS))
    (path / "eval.csv").write_text("\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path):
    for seed, far in enumerate((9, 4, 7)):
        a_run(tmp_path, f"x{seed}", {(2, 2): 10, (9, 9): far, (9, 2): 1}, seed, spread=40)
    a_run(tmp_path, "y", {(2, 2): 10, (9, 9): 0}, model={"level_position": [], "position": "alibi"})
    return tmp_path


def test_seeds_of_a_scheme_make_one_curve_over_equal_lengths(folder):
    found = lengths.curves(lengths.collect(folder)).set_index(["scheme", "len_a"])
    far = found.loc[("rotary ids, two slots and gaps", 9)]
    assert (far["median"], far["worst"], far["best"], far["seeds"], far["n"]) == (
        0.7,
        0.4,
        0.9,
        3,
        10,
    )
    assert found.loc[("ALiBi", 9)]["median"] == 0 and len(found) == 4


def test_different_runs_are_not_taken_for_seeds_of_one(folder):
    a_run(folder, "wider", {(2, 2): 10, (9, 9): 9}, seed=1, spread=40)
    outcome = CliRunner().invoke(main, ["study", "lengths", str(folder)])
    message = "two runs of seed 1 would be one line: rotary ids, two slots and gaps, 2"
    assert outcome.exit_code == 2 and message in outcome.output


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"model.level_position": ["rotary", "none"]}, "rotary ids"),
        ({"model.level_position": ["rotary2"], "options.spread": 0}, "rotary ids, two slots"),
        ({"model.level_position": ["learned"], "options.ids": "abacus"}, "abacus ids"),
        ({"model.level_position": ["learned"], "options.ids": "coupled"}, "coupled ids"),
        ({"model.level_position": ["none"], "model.position": "none"}, "no positions"),
        ({"options.hints": True, "model.level_position": ["none"]}, "index hints"),
        (RELATIVE, "relative ids"),
        (RELATIVE | {"model.log_scale": True}, "relative ids, log-scaled"),
        (RELATIVE | {"model.content": False}, "relative ids alone"),
    ],
)
def test_schemes_are_named_by_their_settings(settings, name):
    assert lengths.scheme(pd.Series(settings)) == name


def test_the_command_writes_table_and_figure(folder, tmp_path):
    table, figure = tmp_path / "out" / "l.csv", tmp_path / "out" / "l.png"
    table.parent.mkdir()
    words = [str(folder), "--csv", str(table), "--png", str(figure)]
    done = CliRunner().invoke(main, ["study", "lengths", *words])
    assert done.exit_code == 0
    assert "| rotary ids, two slots and gaps | 3 | 100 (100) | 70.0 (40.0) |" in done.stdout
    assert len(pd.read_csv(table)) == 11 and figure.read_bytes().startswith(b"\x89PNG")
    done = CliRunner().invoke(main, ["study", "lengths", str(tmp_path / "nowhere")])
    assert done.exit_code == 2 and "there is no folder" in done.stderr


def test_no_operands_of_equal_length_are_no_empty_table(folder):
    found = lengths.collect(folder)
    for what in (lengths.draw, lengths.describe):
        with pytest.raises(ValueError, match="no operands of equal length were scored"):
            what(found[found["len_a"] != found["len_b"]])


def test_the_figure_shades_what_was_trained_and_draws_the_medians(folder):
    (axis,) = lengths.draw(lengths.collect(folder)).axes
    assert [list(line.get_ydata()) for line in axis.lines] == [[100, 70], [100, 0]]
    shaded = axis.patches[0].get_bbox()
    assert (shaded.x0, shaded.x1) == (0, 3)
