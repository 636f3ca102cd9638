"""The tables and figures of synthetic run folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from addgpt.cli.main import main
from addgpt.evaluation.intervals import wilson
from addgpt.evaluation.schema import trained_length
from analysis import figures, load, style
from tests.helpers.notebooks import check_notebook
from tests.helpers.run_folders import cell, grid, special, write_run

ROOT = Path(__file__).resolve().parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture()
def results(tmp_path: Path) -> Path:
    """Two seeds of addition up to 3 digits, evaluated up to 5, and a run without evaluation."""
    for seed in (0, 1):
        cells = grid("+", 5, 3, seed) + special("+", 3, 3)
        write_run(tmp_path / f"add/seed{seed}", {"digits": 3}, seed=seed, cells=cells)
    write_run(tmp_path / "text", {}, task="shakespeare", judged=False)
    return tmp_path


def draw_all(folder: Path):
    """What `addgpt figures` says of a folder."""
    return CliRunner().invoke(main, ["figures", str(folder)])


def written(axis) -> list[str]:
    return [text.get_text() for text in axis.texts]


# Wilson intervals.


@given(st.integers(1, 5000), st.floats(0, 1), st.sampled_from([1.0, 1.96, 2.5758]))
def test_wilson_ends_solve_the_quadratic(n: int, share: float, z: float) -> None:
    """The ends are the roots p of (s / n - p)^2 = z^2 p (1 - p) / n, found without the formula."""
    s = round(share * n)
    roots = np.roots([n * n + n * z * z, -2 * s * n - n * z * z, s * s])
    low, high = wilson(s, n, z)
    assert np.allclose([low, high], sorted(roots.real), atol=1e-7)


def test_wilson_published_values() -> None:
    """Newcombe 1998, doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E."""
    low, high = wilson(np.array([81, 15, 0, 1]), np.array([263, 148, 20, 29]))
    assert np.round(low, 4).tolist() == [0.2553, 0.0624, 0.0, 0.0061]
    assert np.round(high, 4).tolist() == [0.3662, 0.1605, 0.1611, 0.1718]


def test_wilson_edges() -> None:
    assert wilson(0, 0) == (0, 1)
    assert wilson(10, 10)[1] == 1 and load.wilson(0, 10)[0] == 0
    with pytest.raises(ValueError, match="0..n"):
        wilson([3, 11], 10)


# Tables.


def test_runs_has_one_row_per_run(results: Path) -> None:
    frame = load.runs(results)
    assert frame["run"].tolist() == ["add/seed0", "add/seed1", "text"]
    assert frame["task"].tolist() == ["add", "add", "shakespeare"]
    assert frame["options.digits"].tolist()[:2] == [3, 3]
    assert frame["train.lr"].tolist() == [0.01] * 3
    assert frame["step"].tolist() == [50] * 3
    assert frame["val_exact"].iloc[0] == pytest.approx(1 - 0.9**5)
    assert np.isnan(frame["val_exact"].iloc[2])


def test_metrics_has_one_row_per_logged_step(results: Path) -> None:
    frame = load.metrics(results)
    assert frame.groupby("run").size().to_dict() == {"add/seed0": 5, "add/seed1": 5, "text": 5}
    row = frame[(frame["run"] == "add/seed1") & (frame["step"] == 20)].iloc[0]
    assert (row["examples"], row["seconds"], row["seed"], row["val_n"]) == (2560, 3.0, 1, 500)
    assert row["val_exact"] == pytest.approx(1 - 0.9**3)


def test_evals_adds_accuracy_interval_and_trained_length(results: Path) -> None:
    frame = load.evals(results)
    assert set(frame["run"]) == {"add/seed0", "add/seed1"}
    here = (frame["len_a"] == 4) & (frame["len_b"] == 2) & (frame["run"] == "add/seed1")
    row = frame[here].iloc[0]
    assert (row["n"], row["answer_correct"], row["accuracy"]) == (1000, 498, 0.498)
    assert (row["low"], row["high"]) == tuple(float(end) for end in wilson(498, 1000))
    assert not row["seen"] and row["trained"] == 3
    assert frame["seen"].sum() == 2


def test_a_run_folder_and_its_results_folder_agree(results: Path) -> None:
    one, all_runs = load.evals(results / "add/seed0"), load.evals(results)
    assert set(one["run"]) == {"seed0"}
    mine = all_runs[all_runs["run"] == "add/seed0"].reset_index(drop=True)
    pd.testing.assert_frame_equal(one.drop(columns="run"), mine.drop(columns="run"))


def test_a_run_in_a_run_of_its_name_hides_neither(tmp_path: Path) -> None:
    outer, inner = write_run(tmp_path / "add", {"digits": 3}), tmp_path / "add/add"
    assert load.find(outer) == {"add": outer}
    assert load.find(write_run(inner, {"digits": 4}).parent) == {"add": outer, "add/add": inner}


def test_trained_length_of_a_mixture() -> None:
    config = {"options": {"digits": 4, "sum_digits": 8}}
    assert [trained_length(config["options"], op) for op in "+-*/"] == [8, 8, 4, 4]
    assert np.isnan(trained_length({}, "+"))


def test_pool_adds_counts(results: Path) -> None:
    frame = load.evals(results)
    pooled = load.pool(frame[frame["stratum"] == "all"], ["op", "len_a", "len_b"])
    row = pooled[(pooled["len_a"] == 3) & (pooled["len_b"] == 3)].iloc[0]
    assert (row["n"], row["answer_correct"], row["worst"]) == (2000, 1997, 0.998)
    assert row["low"] == wilson(1997, 2000)[0]


def test_tables_of_a_run_just_begun_are_empty_with_columns(tmp_path: Path) -> None:
    write_run(tmp_path / "new", {"digits": 3}, looks=0)
    assert load.metrics(tmp_path).empty and "val_exact" in load.metrics(tmp_path)
    assert load.evals(tmp_path).empty and "accuracy" in load.evals(tmp_path)
    assert len(load.runs(tmp_path)) == 1


def test_a_line_being_written_is_left_out(results: Path) -> None:
    with open(results / "add/seed0/metrics.jsonl", "a") as file:
        file.write('{"step": 60, "exam')
    assert len(load.metrics(results / "add/seed0")) == 5


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", "[]", "config.json is damaged: not a JSON object"),
        ("config.json", '{"task": 5, "seed": 0}', "config.json is damaged: task is not a name"),
        ("metrics.jsonl", '{"step": 1}\n7\n{"step": 2}\n', "metrics.jsonl is damaged: line 2"),
        ("eval.csv", "op,n\n+,3\n", "eval.csv is damaged: no column run"),
        ("eval.csv", "last line,5\n", "eval.csv is damaged: line 35"),
        ("eval.csv", "right", "eval.csv is damaged: line 2: counts"),
        ("eval.csv", "a,b\xff", "eval.csv is damaged: not UTF-8"),
    ],
)
def test_damage_is_one_line_naming_the_file(results, file, text, message) -> None:
    path = results / "add/seed0" / file
    if text.startswith("last"):
        text = path.read_text() + text
    if text == "right":
        text = path.read_text().replace(",100,100,100,0", ",100,101,100,0")
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        load.runs(results), load.metrics(results), load.evals(results)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    for other in ("eval.csv", "metrics.jsonl"):
        (results / "add/seed1" / other).unlink()
    done = draw_all(results / "add")
    assert done.exit_code == 1
    errors = done.stderr.splitlines()
    assert message in errors[0] and errors[1:] == ["seed1: nothing to draw yet"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_bad_path_is_one_line_and_exit_code_2(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=name):
        load.runs(tmp_path / name)
    done = draw_all(tmp_path / name)
    assert done.exit_code == 2 and not done.stdout
    assert name in done.stderr and done.stderr.count("\n") == 1


def test_exports_for_transformers_are_no_runs(results: Path) -> None:
    before = list(load.find(results))
    (results / "exported").mkdir()
    (results / "exported" / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 19}')
    assert list(load.find(results)) == before and len(load.runs(results)) == len(before)
    with pytest.raises(ValueError, match="no run, but a model of transformers: addgpt eval hf:"):
        load.find(results / "exported")


def test_missing_results_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train a run first .addgpt train"):
        load.find(tmp_path / "results")
    with pytest.raises(ValueError, match="a clone of the repository has its tables"):
        load.read_table(tmp_path / "traces.csv", ())
    for file in sorted((ROOT / "analysis").glob("*.ipynb")):
        first, code = json.loads(file.read_text())["cells"][:2]
        reads = 'root / "results"' in "".join(code["source"])
        assert reads == ("in a clone" in "".join(first["source"])), file.name


# Figures.


def test_training_curve_has_a_line_per_run(results: Path) -> None:
    metrics = load.metrics(results / "add")
    exact, seconds, loss = figures.training_curve(metrics).axes
    assert (exact.get_xlabel(), exact.get_ylabel()) == ("examples seen", "exact match on val (%)")
    assert seconds.get_xlabel() == "training time (s)"
    assert loss.get_ylabel() == "loss on val (nats per token)"
    assert [line.get_label() for line in exact.lines] == ["seed0", "seed1"]
    first = metrics[metrics["run"] == "seed0"]
    assert exact.lines[0].get_ydata().tolist() == (100 * first["val_exact"]).tolist()
    assert seconds.lines[0].get_xdata().tolist() == first["seconds"].tolist()


def test_training_curve_of_a_language_model_is_its_loss(results: Path) -> None:
    axes = figures.training_curve(load.metrics(results / "text")).axes
    assert [axis.get_ylabel() for axis in axes] == ["loss on val (nats per token)"] * 2


def test_accuracy_grid_states_every_cell(results: Path) -> None:
    figure = figures.accuracy_grid(load.evals(results / "add/seed0"))
    axis, bar = figure.axes
    assert axis.get_xlabel() == "length of b (digits)"
    assert axis.get_ylabel() == "length of a (digits)"
    assert bar.get_ylabel() == "exact match (%)"
    assert len(written(axis)) == 25
    assert written(axis)[:5] == ["100", "100", "100", "50.0", "24.9"]
    assert written(axis)[12] == "99.90"  # 999 of 1,000
    corners = [patch for patch in axis.patches if len(patch.get_path().vertices) == 4]
    assert len(corners) == 1  # the one cell that was seen
    outline = next(patch for patch in axis.patches if hasattr(patch, "get_width"))
    assert (outline.get_width(), outline.get_height()) == (3, 3)
    assert "100 to 1,000" in axis.get_title()
    assert "lowest 24.9 % at 1 × 5" in axis.get_title()


def test_accuracy_grid_of_a_mixture_has_a_panel_per_op(tmp_path: Path) -> None:
    cells = grid("+", 12, 11) + grid("-", 12, 11) + grid("*", 4, 4) + grid("/", 4, 4)
    path = write_run(tmp_path / "c", {"digits": 4, "sum_digits": 11}, task="calc", cells=cells)
    plus, minus, times, over, _ = figures.accuracy_grid(load.evals(path)).axes
    assert [axis.get_title()[:5] for axis in (plus, minus, times, over)] == [
        "a + b", "a - b", "a * b", "a / b",
    ]  # fmt: skip
    assert not written(plus) and len(written(times)) == 16
    dots = [len(dots.get_offsets()) for dots in plus.collections[1:]]
    assert sum(dots) == 24  # one in each cell that is not all right
    sizes = [
        next(p for p in x.patches if hasattr(p, "get_width")).get_width() for x in (plus, over)
    ]
    assert sizes == [11, 4]


def test_accuracy_grid_refuses_several_runs(results: Path) -> None:
    with pytest.raises(ValueError, match="one run, not 2"):
        figures.accuracy_grid(load.evals(results))


def test_accuracy_by_length_when_all_is_seen_and_right(tmp_path: Path) -> None:
    path = write_run(tmp_path / "tiny", {"digits": 1}, cells=[cell("+", 1, 1, 100, 100)])
    (axis,) = figures.accuracy_by_length(load.evals(path)).axes
    assert axis.get_ylim()[0] == 99


def test_accuracy_by_length_draws_equal_lengths_with_intervals(results: Path) -> None:
    evals = load.evals(results)
    (axis,) = figures.accuracy_by_length(evals).axes
    assert axis.get_xlabel() == "length of both operands (digits)"
    assert axis.get_ylabel() == "exact match (%)"
    first, second, limit = (line for line in axis.lines if line.get_linestyle() != "None")
    assert first.get_xdata().tolist() == [1, 2, 3, 4, 5]
    assert second.get_ydata() == pytest.approx([100, 100, 99.8, 49.8, 24.8])
    assert set(limit.get_xdata()) == {3}
    band = axis.collections[0].get_paths()[0].vertices
    assert 1 not in band[:, 0]  # exhaustively evaluated: no interval
    at_four = band[band[:, 0] == 4][:, 1]
    assert [at_four.min(), at_four.max()] == pytest.approx(100 * np.array(wilson(499, 1000)))


def test_strata_has_a_dot_per_stratum_and_the_plain_cell(results: Path) -> None:
    (axis,) = figures.strata(load.evals(results / "add/seed0")).axes
    labels = [label.get_text() for label in axis.get_yticklabels()]
    assert labels[:3] == ["all 3+3", "zeros 3+3", "equal 3+3"] and len(labels) == 9
    assert axis.get_xlabel() == "exact match (%)"
    dots = axis.lines[0]
    assert dots.get_xdata() == pytest.approx([99.9, *(100 - 0.3 * i for i in range(8))])


@pytest.mark.parametrize(
    "draw", [figures.training_curve, figures.accuracy_grid, figures.accuracy_by_length]
)
def test_nothing_to_draw_is_a_value_error(tmp_path: Path, draw) -> None:
    write_run(tmp_path / "new", {"digits": 3}, looks=0)
    table = load.metrics if draw is figures.training_curve else load.evals
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(table(tmp_path))


def test_a_cell_with_one_wrong_is_not_rounded_up_to_100(tmp_path: Path) -> None:
    path = write_run(tmp_path / "near", {"digits": 2}, cells=[cell("+", 2, 2, 1999, 2000)])
    axis = figures.accuracy_grid(load.evals(path)).axes[0]
    assert written(axis) == ["99.95"] and "lowest 99.95 %" in axis.get_title()
    shades = axis.collections[0]
    assert tuple(shades.get_facecolor()[0]) != to_rgba(style.SHADES[-1])  # that of 100 % alone


def test_a_very_large_figure_has_fewer_pixels_and_colours(tmp_path: Path) -> None:
    for width, height in ((4, 3), (8, 48)):
        file = style.save(Figure(figsize=(width, height)), tmp_path / "one.png")
        image = Image.open(file)
        large = width * height * style.DPI**2 > style.MOST_PIXELS
        assert (image.mode == "P") == large
        assert image.size[0] * image.size[1] <= style.MOST_PIXELS
        assert large or image.size == (width * style.DPI, height * style.DPI)


def test_forty_lines_can_be_told_apart() -> None:
    looks = [tuple(style.line(number).values()) for number in range(figures.MOST_RUNS)]
    assert len(set(looks)) == figures.MOST_RUNS == 40


def test_command_draws_what_applies_and_prints_the_paths(results: Path) -> None:
    write_run(results / "zero", {"digits": 3}, looks=0)
    (results / "add/seed1/eval.csv").unlink()
    done = draw_all(results)
    assert done.exit_code == 0
    names = ["training_curve", "accuracy_grid", "accuracy_by_length", "strata"]
    expected = [results / f"add/seed0/{name}.png" for name in names]
    expected += [results / run / "training_curve.png" for run in ("add/seed1", "text")]
    assert done.stdout.splitlines() == [str(path) for path in expected]
    assert done.stderr == "zero: nothing to draw yet\n"
    assert {path.name for path in results.rglob("*.png*")} == {f"{n}.png" for n in names}
    assert expected[0].read_bytes().startswith(b"\x89PNG")


def test_a_config_without_settings_of_training_is_drawn(results: Path) -> None:
    config = results / "text/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"train": None}))
    done = draw_all(results)
    assert done.exit_code == 0 and "text/training_curve.png" in done.stdout


def test_dollars_in_a_name_are_no_formula(results: Path) -> None:
    named = (results / "text").rename(results / "a$^$")
    done = draw_all(named)
    assert done.exit_code == 0 and (named / "training_curve.png").stat().st_size > 5000


def test_a_folder_that_cannot_be_written_is_reported(results: Path, monkeypatch) -> None:
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "x.png")

    monkeypatch.setattr("os.replace", refuse)
    done = draw_all(results / "text")
    assert done.exit_code == 1 and "Permission denied" in done.stderr
    assert not list(results.rglob("*.png*"))  # not even a temporary file


# The notebook.


def test_notebook_is_stored_with_its_outputs_and_runs(results: Path, monkeypatch) -> None:
    pytest.importorskip("nbclient")
    monkeypatch.setenv("ADDGPT_RESULTS", str(results))
    code = check_notebook("accuracy_by_length")
    kinds = [set(out.get("data", {})) for one in code for out in one.outputs]
    assert sum("text/html" in kind for kind in kinds) == 2
    assert sum("image/png" in kind for kind in kinds) == 3
