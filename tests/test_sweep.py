"""Sweeps: which runs a grid makes, and that they come out as single runs do, whatever happens."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli import main
from addgpt.cores import shares, usable_cores
from addgpt.runs import Run
from addgpt.settings import configure
from addgpt.sweep import local_engine, plan_sweep
from addgpt.sweep_grid import grid_names, load_grid
from addgpt.sweep_local import run_here
from addgpt.sweep_table import Board, outcome_table, tally
from addgpt.train import train

SMALL = {
    "digits": 2, "layers": 1, "width": 16, "heads": 2, "steps": 12, "batch_size": 16,
    "eval_every": 4, "eval_size": 32, "save_every": 4, "warmup": 2, "threads": 1,
}  # fmt: skip
KEYS = st.sampled_from(["width", "steps", "lr", "norm", "trace"])
VALUES = st.lists(st.integers(0, 99) | st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)
ONE_CORE = [usable_cores()[-1:]]


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory):
    """Writes the file of a sweep of tiny runs; its path."""

    def write(text: str = "", name: str = "tiny", **common) -> Path:
        folder = tmp_path_factory.mktemp("sweep")
        file = folder / f"{name}.toml"
        settings = "\n".join(f"{k} = {json.dumps(v)}" for k, v in (SMALL | common).items())
        head = f'task = "add"\nper_cell = 20\nout = "{folder / "runs"}"\n'
        file.write_text(f"{head}{text}\n[set]\n{settings}\n")
        return file

    return write


@pytest.fixture
def plain(tmp_path):
    """Trains the same without a sweep; the weights."""

    def weights(seed: int = 0, **settings) -> dict:
        texts = {key: str(value) for key, value in (SMALL | settings).items()}
        run = Run.create(tmp_path / f"plain{seed}", configure("add", texts, seed))
        train(run)
        return tensors(run.path)

    return weights


def tensors(path: Path) -> dict[str, bytes]:
    return {name: t.numpy().tobytes() for name, t in Run(path).state()[0].items()}


def sweep(*words: object):
    return CliRunner().invoke(main, ["sweep", *map(str, words)])


def todo(file: Path) -> list[str]:
    """What --dry-run says is left to do of each run."""
    return [line.split()[0] for line in sweep(file, "--dry-run").stdout.splitlines()]


def rows_of(file: Path) -> dict[str, dict]:
    data = json.loads((file.parent / "runs" / "sweep.json").read_text())
    return {row["run"]: row for row in data["runs"]}


def refused(result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    line = result.stderr.strip()
    assert line.startswith("error: ") and "\n" not in line, result.stderr
    return line


def ages(folder: Path) -> dict[str, int]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
    return {str(f): f.stat().st_mtime_ns for f in files if f.name != "sweep.json"}


def as_toml(grid: dict, tmp: Path, seeds: list[int] = [0]) -> Path:  # noqa: B006
    file = tmp / "grid.toml"
    lines = [f"{key} = {json.dumps(values)}" for key, values in grid.items()]
    file.write_text(f'task = "add"\nseeds = {seeds}\n[grid]\n' + "\n".join(lines))
    return file


# Which runs a grid makes


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_a_grid_is_every_combination(tmp_path_factory, grid):
    found = load_grid(str(as_toml(grid, tmp_path_factory.mktemp("g")))).combinations
    wanted = itertools.product(*([(key, str(v)) for v in values] for key, values in grid.items()))
    assert sorted(sorted(one.settings.items()) for one in found) == sorted(map(sorted, wanted))
    assert len({one.stem for one in found}) == len(found)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), st.randoms())
def test_folders_keep_their_names_when_a_grid_grows(tmp_path_factory, grid, random):
    tmp = tmp_path_factory.mktemp("g")

    def folders(grid: dict) -> set:
        found = load_grid(str(as_toml(grid, tmp))).combinations
        return {(one.stem, *one.settings.items()) for one in found}

    keys = random.sample(list(grid), len(grid))
    grown = {key: random.sample([*grid[key], "new"], len(grid[key]) + 1) for key in keys}
    assert folders(grid) < folders(grown)


def test_cases_come_besides_the_grid_and_go_on_top_of_set(grid_file):
    text = (
        '[grid]\nwidth = [16, 32]\n[[case]]\nname = "plain-8"\nset = {format = "plain", width = 8}'
    )
    planned = plan_sweep(load_grid(str(grid_file("seeds = [3, 1]\n" + text))))
    names = [[f"width=16,seed={n}", f"width=32,seed={n}", f"plain-8-s{n}"] for n in (3, 1)]
    assert [one.name for one in planned] == sum(names, [])
    assert [one.config.model.width for one in planned] == [16, 32, 8] * 2
    assert [one.config.seed for one in planned] == [3] * 3 + [1] * 3
    assert [one.config.options["format"] for one in planned][:3] == ["reverse", "reverse", "plain"]


def test_without_grid_and_cases_the_seeds_are_the_runs(grid_file):
    planned = plan_sweep(load_grid(str(grid_file("seeds = [0, 7]"))))
    assert [(one.name, one.config.seed) for one in planned] == [("seed=0", 0), ("seed=7", 7)]


def test_values_are_written_as_set_takes_them(grid_file):
    levels = (("learned", "none", "rotary"), ("rotary",) * 3)
    text = f"[grid]\nlevel_position = {json.dumps(levels)}\nqk_norm = [true, false]\nlr = [1e-3]"
    planned = plan_sweep(load_grid(str(grid_file(text))))
    found = {(one.config.model.level_position, one.config.model.qk_norm) for one in planned}
    assert found == set(itertools.product(levels, (True, False)))
    assert {one.config.train.lr for one in planned} == {1e-3}


@pytest.mark.parametrize("name", grid_names())
def test_the_grids_that_come_along_can_be_run(name):
    grid = load_grid(name)
    planned = plan_sweep(grid)
    assert len(planned) == 3 * len(grid.combinations) and len(grid.seeds) == 3
    assert {one.path.parent for one in planned} == {Path("results") / name}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("sedes = [1]", "unknown key 'sedes' in the file; valid: task, seeds, out,"),
        ("seeds = []", "seeds must be a list of different whole numbers from 0, not []"),
        ("seeds = [1, 1]", "different"),
        ("seeds = [-1]", "from 0"),
        ("seeds = [true]", "whole numbers"),
        ("seeds = 3", "must be a list"),
        ("per_cell = 0", "per_cell must be a whole number from 1"),
        ("eval = 1", "eval must be true or false, not 1"),
        ("[grid]\nwidth = []", "width in [grid] must be a list of values, not []"),
        ("[grid]\nwidth = 32", "must be a list"),
        ("[grid]\nwidth = [16, 16]", "'width=16' is there twice"),
        ("[grid]\nlr = [1e-3, 0.0010]", "there twice"),
        ("[grid]\nwidth = [17]", "width=17: heads=2 does not divide width=17"),
        ("[grid]\nwidht = [16]", "unknown setting 'widht'; valid:"),
        ("[grid]\nnorm = ['rms', 'x']", "norm=x: norm must be one of rms,"),
        ("[grid]\nsteps = ['many']", "steps must be a whole number, not 'many'"),
        ("[grid]\nsteps = [2026-01-01]", "must be a text, a number"),
        ("[grid]\ndigits = [0]", "digits=0: digits must be"),
        ("[grid]\ndevice = ['cuda']", "this machine has no cuda"),
        (f"[grid]\nwidth = {list(range(101))}\nsteps = {list(range(100))}", "more than 10,000"),
        (f"[grid]\nformat = ['{'x' * 300}']", "too long for a folder; make it a [[case]]"),
        ("[[case]]\nset = {}", "a [[case]] needs a name of letters"),
        ("[[case]]\nname = '../x'", "a [[case]] needs a name of letters"),
        ("[[case]]\nname = 'a'\nsett = {}", "unknown key 'sett' in a [[case]]; valid: name, set"),
        ("[[case]]\nname = 'a'\n[[case]]\nname = 'A'\nset = {width = 32}", "'A' is there twice"),
        (
            "[[case]]\nname = 'a'\n[[case]]\nname = 'b'\nset = {trace = 'none'}",
            "a and b are the same",
        ),
        ("case = 3", "case must be written [[case]], not 3"),
        ("x", "Expected"),
    ],
)
def test_a_bad_grid_is_refused_in_one_line_before_anything_is_written(grid_file, text, says):
    if "device" in text and os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has the device")
    file = grid_file()
    lines = file.read_text().splitlines(keepends=True)
    if text.startswith("per_cell"):
        lines = [line for line in lines if "per_cell" not in line]
    file.write_text(
        f"{text}\n{''.join(lines)}" if "[" not in text[:2] else f"{''.join(lines)}{text}"
    )
    line = refused(sweep(file))
    assert says in line and "tiny" in line
    assert not (file.parent / "runs").exists()


def test_unknown_grids_tasks_and_options_are_refused(tmp_path):
    line = refused(sweep("nosuch"))
    assert "valid: " + ", ".join(grid_names()) in line
    (tmp_path / "g.toml").write_text("seeds = [0]")
    assert "task is missing" in refused(sweep(tmp_path / "g.toml"))
    (tmp_path / "g.toml").write_text('task = "ad"')
    assert "unknown task 'ad'; valid: add," in refused(sweep(tmp_path / "g.toml"))
    assert "--ray-address goes with --engine ray" in refused(sweep("formats", "--ray-address", "x"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(sweep("formats", "--engine", "ray"))
    assert line == "error: --engine ray needs Ray: pip install 'addgpt[ray]'"


# Sharing the machine


@given(st.integers(1, 20), st.sets(st.integers(0, 200), min_size=1, max_size=64))
def test_workers_share_the_cores_without_overlap(workers, cores):
    places = shares(workers, sorted(cores))
    used = [core for place in places for core in place]
    assert len(places) == workers and set(used) <= cores and all(places)
    if workers <= len(cores):
        assert len(used) == len(set(used)) and len(cores) - len(used) < workers
        assert len({len(place) for place in places}) == 1


def test_a_worker_pins_itself_before_torch_starts_threads():
    code = (
        "import os, sys; os.sched_setaffinity = lambda pid, cores: "
        "print(pid, sorted(cores), 'torch' in sys.modules, file=sys.stderr);"
        "sys.argv = ['worker', '5,3']; from addgpt.sweep_worker import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], input="", capture_output=True, text=True)
    assert done.stderr == "0 [3, 5] False\n" and not done.stdout


def test_more_threads_than_there_are_cores_for_are_refused(grid_file):
    planned = plan_sweep(load_grid(str(grid_file("seeds = [0, 1, 2]", threads=2))))
    with pytest.raises(ValueError, match=r"3 workers with threads=2 .* 4 cores .* --workers 1..2"):
        local_engine(planned, [0, 1, 2, 3], 3)
    local_engine(planned, [0, 1, 2, 3], 2)


def test_a_run_that_is_resumed_keeps_its_threads_where_it_can(grid_file):
    def threads(file: Path, share: int) -> int:
        (planned,) = plan_sweep(load_grid(str(file)))
        return planned.open(share).config.train.threads

    free = grid_file(threads=0)
    assert [threads(free, share) for share in (3, 4, 2, 3)] == [3, 3, 2, 2]
    fixed = grid_file(threads=2)
    assert [threads(fixed, share) for share in (1, 3)] == [2, 2]


# Carrying it out


@pytest.fixture(scope="module")
def swept(grid_file):
    """A finished sweep of two combinations with two seeds; its file and what was printed."""
    file = grid_file('seeds = [0, 1]\n[grid]\nformat = ["plain", "reverse"]')
    result = sweep(file)
    assert result.exit_code == 0, result.output
    return file, result


def test_runs_come_out_as_single_runs_do(swept, plain):
    file, _ = swept
    for seed in (0, 1):
        run = file.parent / "runs" / f"format=plain,seed={seed}"
        assert tensors(run) == plain(seed, format="plain")


def test_each_run_is_scored_as_eval_does(swept):
    run = swept[0].parent / "runs" / "format=reverse,seed=1"
    found = (run / "eval.csv").read_bytes()
    (run / "eval.csv").unlink()
    assert CliRunner().invoke(main, ["eval", str(run), "--per-cell", "20"]).exit_code == 0
    assert (run / "eval.csv").read_bytes() == found


def test_sweep_json_says_how_each_run_stands(swept):
    rows = rows_of(swept[0])
    assert list(rows) == [f"format={f},seed={s}" for s in (0, 1) for f in ("plain", "reverse")]
    for name, row in rows.items():
        path = swept[0].parent / "runs" / name
        assert row["state"] == "done" and row["step"] == 12 and row["error"] == ""
        assert row["val_exact"] == Run(path).metrics()[-1]["val_exact"]
        assert (row["settings"], row["seed"]) == ({"format": name[7:-7]}, int(name[-1]))
        with open(path / "eval.csv", newline="") as handle:
            held_out = [cell for cell in csv.DictReader(handle) if cell["seen"] == "False"]
        assert row["n"] == sum(int(cell["n"]) for cell in held_out) > 0
        assert row["answer_correct"] == sum(int(cell["answer_correct"]) for cell in held_out)


def test_progress_is_plain_lines_where_there_is_no_terminal(swept):
    lines = swept[1].stderr.splitlines()
    for seed in (0, 1):
        mine = [
            line.split("  ")[1] for line in lines if line.startswith(f"format=plain,seed={seed}")
        ]
        assert mine == ["training", "scoring", "done"]
    assert "\x1b" not in swept[1].output and "4 done" in swept[1].stdout


def test_a_finished_sweep_has_nothing_left_to_do(swept):
    folder = swept[0].parent / "runs"
    before = ages(folder)
    result = sweep(swept[0])
    assert result.exit_code == 0 and result.stdout == swept[1].stdout and not result.stderr
    assert ages(folder) == before
    assert todo(swept[0]) == ["done"] * 4


def test_a_grid_that_has_grown_runs_only_what_is_new(swept, grid_file):
    file = grid_file('seeds = [0]\n[grid]\nformat = ["plain", "padded"]')
    shutil.copytree(swept[0].parent / "runs", file.parent / "runs")
    before = ages(file.parent / "runs")
    assert todo(file) == ["done", "train"]
    assert sweep(file).exit_code == 0
    after = ages(file.parent / "runs")
    assert {name: after[name] for name in before} == before
    assert {Path(name).parent.name for name in set(after) - set(before)} == {"format=padded,seed=0"}

    with open(file.parent / "runs" / "format=plain,seed=0" / "eval.csv", "a") as handle:
        handle.write("damage")
    assert todo(file) == ["score", "done"]
    file.write_text(file.read_text().replace("per_cell = 20", "per_cell = 10"))
    assert todo(file) == ["score"] * 2
    file.write_text(file.read_text().replace("steps = 12", "steps = 20"))
    line = refused(sweep(file))
    assert "format=plain,seed=0 was made with steps=12, now 20; give the grid another" in line


def test_a_dry_run_writes_nothing(grid_file):
    file = grid_file("seeds = [0, 1]")
    listed = sweep(file, "--dry-run").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["train", str(file.parent / "runs" / f"seed={seed}")] for seed in (0, 1)
    ]
    assert not (file.parent / "runs").exists()


def test_a_folder_that_is_no_run_is_not_written_into(grid_file):
    file = grid_file()
    (file.parent / "runs" / "seed=0").mkdir(parents=True)
    (file.parent / "runs" / "seed=0" / "notes.txt").write_text("mine")
    assert "seed=0 is not a run" in refused(sweep(file), 1)


def test_a_run_that_fails_is_told_of_and_the_rest_goes_on(grid_file):
    text = "eval = false\n[[case]]\nname = 'wild'\nset = {lr = 1e38, muon_lr = 1e38, warmup = 0}\n"
    file = grid_file(text + "[[case]]\nname = 'good'\nset = {}")
    result = sweep(file, "--workers", 1)
    assert result.exit_code == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("failed: wild-s0: ") and "try a lower rate" in last
    rows = rows_of(file)
    assert rows["wild-s0"]["state"] == "failed" and "try a lower" in rows["wild-s0"]["error"]
    assert rows["good-s0"]["state"] == "done" and rows["good-s0"]["n"] == 0
    assert not (file.parent / "runs" / "good-s0" / "eval.csv").exists()


def test_a_worker_that_is_killed_fails_its_run_alone(grid_file, plain):
    text = (
        "eval = false\n[[case]]\nname = 'long'\nset = {steps = 1000000}\n[[case]]\nname = 'short'"
    )
    planned = plan_sweep(load_grid(str(grid_file(text))))
    events = []
    for name, event in run_here(planned, ONE_CORE, 0, lambda: 0):
        events.append((name, event))
        if name == "long-s0" and "pid" in event:
            victim = event["pid"]
        if name == "long-s0" and event.get("step"):
            os.kill(victim, signal.SIGKILL)
    ends = {name: event for name, event in events}
    assert ends["long-s0"] == {"state": "failed", "error": "killed by SIGKILL (out of memory?)"}
    assert ends["short-s0"] == {"state": "done"}
    assert tensors(planned[1].path) == plain()


def test_a_sweep_that_is_stopped_saves_and_goes_on_where_it_was(grid_file, plain):
    file = grid_file("eval = false", steps=250, eval_every=25, save_every=1000)
    words = [sys.executable, "-m", "addgpt", "sweep", str(file)]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True)
    run = file.parent / "runs" / "seed=0"
    try:
        until(lambda: (run / "metrics.jsonl").exists() and (run / "metrics.jsonl").read_text())
        worker = rows_of(file)["seed=0"]["pid"]
        os.kill(worker, signal.SIGSTOP)  # it waits for us
        assert "another process is at the sweep" in refused(sweep(file), 1)
        os.killpg(process.pid, signal.SIGINT)  # as Ctrl-C does
        time.sleep(0.5)
        os.kill(worker, signal.SIGCONT)
        _, told = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    assert told.strip().splitlines()[-1].startswith("error: stopped: 1 interrupted;")
    assert rows_of(file)["seed=0"]["state"] == "interrupted"
    assert 25 <= Run(run).progress()["step"] < 250
    assert todo(file) == ["resume"]
    assert sweep(file).exit_code == 0
    assert tensors(run) == plain(steps=250, eval_every=25, save_every=1000)


def test_a_worker_saves_and_ends_when_the_sweep_is_gone(grid_file):
    (one,) = plan_sweep(load_grid(str(grid_file(steps=1_000_000, save_every=1_000_000))))
    order = {"folder": str(one.open(1).path), "score": False, "per_cell": None}
    words = [sys.executable, "-m", "addgpt.sweep_worker", str(ONE_CORE[0][0])]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    assert json.loads(process.stdout.readline())["state"] == "training"
    assert json.loads(process.stdout.readline())["step"] > 0
    process.stdout.close()
    assert process.wait(timeout=120) == -signal.SIGTERM
    assert Run(one.path).progress()["step"] > 0
    process.stdin.close()


def until(condition, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


# What is shown


def row(name: str, **more) -> dict:
    blank = {
        "bits": None,
        "combination": name,
        "state": "waiting",
        "step": 0,
        "steps": 100,
        "seconds": 0.0,
    }
    return blank | {"run": name, "error": "", "val_exact": None, "n": 0, "answer_correct": 0} | more


def test_the_time_left_follows_from_the_pace(monkeypatch):
    clock = iter([10.0, 12.0, 12.0])
    monkeypatch.setattr("addgpt.sweep_table.time.monotonic", lambda: next(clock))
    one, other = row("one", state="training", step=20), row("other")
    board = Board([one, other])
    board(one, "training")
    assert board.left(one) is None and board.all_left() is None
    one["step"] = 30
    board(one, "training")
    assert board.left(one) == pytest.approx(0.2 * 70)
    assert board.all_left() == pytest.approx(0.2 * 170)
    assert tally([one, other]) == "1 waiting, 1 training"


def test_outcomes_are_median_and_worst_of_the_finished_seeds():
    rows = [
        row(f"a{seed}", combination="a", state="done", n=1000, answer_correct=right, seconds=4.0)
        for seed, right in enumerate((1000, 900, 990))
    ]
    rows += [row("b0", combination="b", state="failed")]
    table = outcome_table("t", rows)
    cells = [list(column.cells) for column in table.columns]
    assert [column[0] for column in cells] == ["a", "3", "99.0", "90.0", "4"]
    assert [column[1] for column in cells] == ["b", "0", "-", "-", "-"]


def test_a_text_has_bits_of_which_the_most_are_the_worst():
    rows = [row(f"a{n}", combination="a", state="done", bits=2.0 + n / 8) for n in range(3)]
    table = outcome_table("t", rows)
    assert table.columns[2].header == "held-out bits a character, median"
    assert [column._cells[0] for column in table.columns[2:4]] == ["2.1250", "2.2500"]
