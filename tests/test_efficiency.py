"""Sample efficiency and scratchpads compared: tables, figures, notebooks, the sweep's grid."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs.resolve import configure
from addgpt.sweep.grid import load_grid
from addgpt.task_lookup import load_task
from analysis import load
from analysis.studies import common, efficiency, traces
from tests.helpers.notebooks import check_notebook

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
IDS = ["rotary", "none", "learned"]
OPTIONS = {
    "plain": {"trace": "none", "format": "plain"},
    "reverse": {"trace": "none", "format": "reverse"},
    "simplified scratchpad": {"trace": "carry", "format": "plain"},
    "detailed scratchpad": {"trace": "detailed", "format": "plain"},
    "reverse, with position ids": {"trace": "none", "format": "reverse"},
}
SIZES = (500, 2000, 10000)


def share(name: str, size: int, seed: int) -> float:
    """A made-up accuracy: later formats need fewer problems, later seeds are a little worse."""
    need = 8000 / 2 ** list(OPTIONS).index(name)
    return round(size / (size + 0.01 * need) - 0.02 * seed, 3) if size >= need else 0.1


def write_runs(folder: Path, seeds=(0, 1, 2)) -> Path:
    """A sweep's run folders: 1+1 (seen), 3+2, 3+3 and a stratum of 3+3 each."""
    for name, options in OPTIONS.items():
        for size in SIZES:
            for seed in seeds:
                path = folder / f"{name.split()[0]}{len(name)}-{size}-s{seed}"
                path.mkdir(parents=True)
                model = {"level_position": IDS if "ids" in name else ["none"] * 3}
                config = {"task": "add", "seed": seed, "model": model}
                config["options"] = options | {"digits": 3, "pool": size}
                (path / "config.json").write_text(json.dumps(config))
                write_eval(path, seed, share(name, size, seed))
    return folder


def write_eval(path: Path, seed: int, right: float) -> None:
    same = {"run": path.name, "task": "add", "seed": seed, "params": 10**5, "step": 600}
    same |= {"examples": 38400, "seconds": 9.5, "split": "test", "op": "+", "unterminated": 0}
    cells = [(1, 1, "all", True, 100, 1.0), (3, 2, "all", False, 1000, 1.0)]
    cells += [(3, 3, "all", False, 2000, right), (3, 3, "nines", False, 500, 0.0)]
    with open(path / "eval.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, load.EVAL_COLUMNS)
        writer.writeheader()
        for len_a, len_b, stratum, seen, n, part in cells:
            row = {"len_a": len_a, "len_b": len_b, "stratum": stratum, "seen": seen, "n": n}
            counts = {"answer_correct": round(n * part), "trace_correct": 0}
            writer.writerow(same | row | counts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return write_runs(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def table(runs) -> pd.DataFrame:
    return load.with_accuracy(efficiency.collect(runs))


def test_collect_names_formats_by_their_settings_and_keeps_every_cell(table):
    assert list(table)[: len(efficiency.COLUMNS)] == efficiency.COLUMNS
    assert len(table) == 5 * 3 * 3 * 4
    assert list(dict.fromkeys(table["format"])) == list(OPTIONS)
    per_format = table.groupby("format")["n_pool"].apply(
        lambda sizes: sizes.is_monotonic_increasing
    )
    assert per_format.all()


def test_held_out_leaves_out_seen_cells_and_strata(table):
    full, every = efficiency.held_out(table, (3, 3)), efficiency.held_out(table)
    assert len(full) == len(every) == 45
    assert set(full["n"]) == {2000} and set(every["n"]) == {3000}
    one = full[(full["format"] == "plain") & (full["n_pool"] == 10000) & (full["seed"] == 1)]
    assert one["accuracy"].item() == pytest.approx(share("plain", 10000, 1), abs=1e-3)


def test_summary_is_median_worst_and_best_of_the_seeds(table):
    curve = efficiency.summary(efficiency.held_out(table, (3, 3)))
    assert set(curve["seeds"]) == {3} and len(curve) == 15
    for row in curve.itertuples():
        scores = sorted(share(row.format, row.n_pool, seed) for seed in range(3))
        assert (row.worst, row.median, row.best) == pytest.approx(scores, abs=1e-3)


def test_needed_is_where_a_curve_stays_above_the_goal():
    curve = pd.DataFrame(
        [("a", 1, 0.99), ("a", 2, 0.5), ("a", 3, 0.9), ("a", 4, 1.0), ("b", 1, 0.2), ("c", 7, 1.0)],
        columns=["format", "n_pool", "median"],
    )
    assert efficiency.needed(curve, 0.9) == {"a": 3, "b": np.inf, "c": 7}


def test_published_numbers_are_those_of_the_paper():
    theirs = efficiency.published().set_index(["format", "n_pool"])["accuracy"]
    assert theirs["plain", 5000] == pytest.approx(0.811, abs=5e-4)
    assert theirs["plain", 10000] == pytest.approx(0.874, abs=5e-4)
    assert theirs["reverse", 4000] == pytest.approx(0.982, abs=5e-4)
    assert theirs["reverse", 5000] == pytest.approx(0.9983, abs=5e-5)
    assert theirs["simplified scratchpad", 2000] == pytest.approx(0.997, abs=5e-4)
    assert theirs["detailed scratchpad", 1000] == pytest.approx(0.998, abs=5e-4)


def test_the_figure_has_their_curves_and_ours_with_bands(table):
    left, right = efficiency.draw(table).axes
    assert (len(left.lines), len(right.lines), len(right.collections)) == (4, 5, 5)
    assert right.get_xscale() == "log" and right.get_xlabel() == "training problems"
    assert right.lines[1].get_xdata().tolist() == list(SIZES)
    shown = [100 * share("reverse", size, 1) if size >= 4000 else 10 for size in SIZES]
    assert right.lines[1].get_ydata() == pytest.approx(shown, abs=0.1)
    band = right.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(100 * share("reverse", 10000, 0), abs=0.1)
    assert band[:, 1].min() == pytest.approx(10, abs=0.1)


def study(*words):
    return CliRunner().invoke(main, ["study", *map(str, words)])


def test_the_command_writes_table_and_figure_and_prints_a_table(runs, table, tmp_path):
    files = tmp_path / "t.csv", tmp_path / "f.png"
    done = study("efficiency", runs, "--csv", files[0], "--png", files[1])
    assert done.exit_code == 0, done.output
    again = load.with_accuracy(efficiency.collect(files[0]))
    pd.testing.assert_frame_equal(again, table)
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert done.stderr.splitlines() == [f"written: {file}" for file in files]
    out = done.stdout.splitlines()
    assert out[0] == "| format | 500 | 2,000 | 10,000 |" and len(out) == 2 * 7 + 1
    low, high = (100 * share("plain", 10000, seed) for seed in (2, 1))
    assert out[2] == f"| plain | 10.0 (10.0) | 10.0 (10.0) | {high:.1f} ({low:.1f}) |"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": 0}, "without a pool"),
        ({"trace": "carry", "format": "padded"}, "a format that is not compared"),
    ],
)
def test_other_runs_are_refused_in_one_line(tmp_path, change, message):
    path = write_runs(tmp_path, seeds=(0,)) / "plain5-500-s0" / "config.json"
    config = json.loads(path.read_text())
    config["options"] |= change
    path.write_text(json.dumps(config))
    done = study("efficiency", tmp_path)
    assert done.exit_code == 2
    error = done.stderr
    assert message in error and "plain5-500-s0" in error and error.count("\n") == 1


def test_1999_of_2000_is_not_100_percent():
    runs = pd.DataFrame(
        {"format": "a", "n_pool": 5, "n": 2000, "answer_correct": [1999, 2000, 1999]}
    )
    curve = common.over_seeds(load.with_accuracy(runs), ["format", "n_pool"])
    assert common.shares(curve, "n_pool", [5, 6]) == ["99.95 (99.95)", ""]
    even = common.over_seeds(load.with_accuracy(runs[1:]), ["format", "n_pool"])
    assert even["median"].item() == statistics.median([1, 0.9995])
    assert common.shares(even, "n_pool", [5]) == ["99.97 (99.95)"]


def test_the_page_shows_the_committed_table():
    page = (ROOT / "docs/sample_efficiency.md").read_text()
    table = efficiency.collect(ROOT / "results/reference/sample_efficiency.csv")
    for row in efficiency.describe(table).splitlines():
        if row.startswith("| ") and "format" not in row and "---" not in row:
            assert row in page.replace("**", ""), row
    assert "100.0" not in page


@pytest.mark.parametrize("read", [efficiency.collect, traces.collect])
@pytest.mark.parametrize(
    ("text", "message"), [(None, "cannot be read|there is no folder"), ("a,b\n1,2\n", "no column")]
)
def test_a_damaged_table_is_one_line(tmp_path, read, text, message):
    file = tmp_path / "table.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read(file)


def test_the_committed_table_is_whole():
    table = efficiency.collect(ROOT / "results/reference/sample_efficiency.csv")
    runs = efficiency.held_out(table, (3, 3))
    grid = load_grid("sample-efficiency")
    assert len(runs) == len(grid.combinations) * len(grid.seeds)
    assert set(runs["n"]) == {2000} and set(table["split"]) == {"test", "train"}
    assert (table["split"].eq("train") == table["seen"]).all()
    assert set(efficiency.summary(runs)["seeds"]) == {3}


def test_the_grid_trains_each_format_on_the_same_problems():
    grid = load_grid("sample-efficiency")
    pools: dict[str, set] = {}
    for one in grid.combinations:
        config = configure(grid.task, grid.common | one.settings)
        task = load_task("add", config.options)
        name = efficiency._format(one.name, flat(config))
        assert one.name == f"{one.name.rpartition('-')[0]}-{task.pool}"
        pools.setdefault(name, set()).add(task.pool)
        assert (task.full, task.carry, task.edges) == (0.75, 0.3, 0)
        bare = name != efficiency.WITH_IDS
        assert (config.model.position == "learned") == bare
        assert config.model.next_ids != bare
    assert list(pools) == list(OPTIONS)
    assert all(sizes == {500, 1000, 2000, 4000, 5000, 10000} for sizes in pools.values())


def flat(config) -> pd.Series:
    return pd.Series(
        {f"options.{key}": value for key, value in config.options.items()}
        | {"model.level_position": config.model.level_position}
    )


def trace_table(tmp_path: Path) -> Path:
    rows = [
        f"{task},{design},4,0,100,30.5,999,20,2026-11-22,{a},{b},500,{right}"
        for task, design, right in (("mul", "rows", 490), ("mul", "none", 100), ("div", "x", 7))
        for a, b in ((4, 1), (4, 4))
    ]
    file = tmp_path / "reference" / "traces.csv"
    file.parent.mkdir(exist_ok=True)
    head = "task,design,digits,seed,steps,cpu_seconds,tokens,longest,date,len_a,len_b,n,"
    file.write_text("\n".join([head + "answer_correct", *rows]) + "\n")
    return file


def test_the_comparison_of_traces_has_a_panel_for_each_task(tmp_path):
    figure = traces.draw(traces.collect(trace_table(tmp_path)))
    first, second = figure.axes
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["4 * 1", "4 * 4"]
    assert len(first.containers) == 2 and len(second.containers) == 1
    assert first.containers[0].lines[0].get_ydata().tolist() == [98, 98]
    assert "mul, to 4 digits" in first.get_title()
    figure.draw_without_rendering()
    for axis in (first, second):  # no point is behind the key
        assert axis.get_legend().get_window_extent().x0 >= axis.bbox.x1
    with pytest.raises(ValueError, match="nothing to draw"):
        traces.draw(traces.collect(trace_table(tmp_path)).iloc[:0])


@pytest.mark.parametrize(
    ("name", "tables", "pictures"),
    [("sample_efficiency", 4, 1), ("traces", 2, 1), ("first_steps", 2, 2)],
)
def test_notebooks_are_stored_with_their_outputs_and_run(
    runs, tmp_path, monkeypatch, name, tables, pictures
):
    pytest.importorskip("nbclient")
    trace_table(tmp_path)
    rows = efficiency.collect(runs)
    rows.to_csv(tmp_path / "reference/sample_efficiency.csv", index=False)
    monkeypatch.setenv("ADDGPT_RESULTS", str(tmp_path))
    monkeypatch.setenv("ADDGPT_STEPS", "8")
    code = check_notebook(name)
    kinds = [set(out.get("data", {})) for one in code for out in one.outputs]
    assert sum("text/html" in kind for kind in kinds) == tables
    assert sum("image/png" in kind for kind in kinds) == pictures
