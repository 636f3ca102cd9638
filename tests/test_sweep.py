"""Sweeps come out as single runs do, whatever happens."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.sweep.engines import LocalEngine
from addgpt.sweep.grid import load_grid
from addgpt.sweep.plan import plan_sweep
from addgpt.sweep.worker import LOG, MOST_READ, MOST_TOLD, RunProcess, why
from addgpt.training.loop import train
from analysis import load, sweeps
from tests.helpers.sweeps import (
    LEAKING,
    QUITTING,
    SMALL,
    SweepProcess,
    holder,
    refused,
    sweep,
    tensors,
    trained,
    until,
    write_grid,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory):
    """Writes the file of a sweep of tiny runs; its path."""
    return lambda text="", **common: write_grid(tmp_path_factory.mktemp("sweep"), text, **common)


@pytest.fixture
def plain(tmp_path):
    """Trains the same without a sweep; the weights."""

    def weights(seed: int = 0, **settings) -> dict:
        texts = {key: str(value) for key, value in (SMALL | settings).items()}
        folder = tmp_path / f"plain{len(list(tmp_path.glob('plain*')))}"
        run = Run.create(folder, configure("add", texts, seed))
        train(run)
        return tensors(run.path)

    return weights


def todo(file: Path) -> list[str]:
    """What --dry-run says is left to do of each run."""
    return [line.split()[0] for line in sweep(file, "--dry-run").stdout.splitlines()]


def rows_of(file: Path) -> dict[str, dict]:
    data = json.loads((file.parent / "runs" / "sweep.json").read_text())
    return {row["run"]: row for row in data["runs"]}


def ages(folder: Path) -> dict[str, int]:
    files = [file for file in folder.rglob("*") if file.is_file() and file.name[0] != "."]
    return {str(f): f.stat().st_mtime_ns for f in files if f.name != "sweep.json"}


# Sharing the machine


def test_runs_have_a_thread_for_each_of_their_cores_and_stop_where_signals_are_blocked(grid_file):
    text = grid_file("eval = false", threads=0, steps=1_000_000)
    (job,) = plan_sweep(load_grid(str(text)))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        with LocalEngine([job], 2, None) as engine:
            assert engine.workers == 1
            run = engine.start(job)
            until(lambda: trained(job.path) and holder(job.path))
            environment = Path(f"/proc/{holder(job.path)}/environ").read_text().split("\0")
            assert "OMP_NUM_THREADS=2" in environment
            until(lambda: Run(job.path).started)
            assert Run(job.path).progress()["threads"] == 2
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert "stopped at step" in run.poll()


def test_runs_import_nothing_from_the_current_folder_and_no_program(grid_file, plain, tmp_path):
    """The program has no guard: whoever imports it starts the sweep again."""
    settings = {"steps": 4, "threads": 2}
    file = grid_file("eval = false", **settings)
    for name in ("addgpt", "tasks", "json", "socket"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')")
    code = f"import sys; sys.path[:] = {sys.path!r}; from addgpt.cli.main import main; main()"
    (file.parent / "program").write_text(code)
    words = [sys.executable, str(file.parent / "program"), "sweep", str(file)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split("  ")[1] for line in done.stderr.splitlines()][-1] == "done"
    assert tensors(file.parent / "runs" / "seed=0") == plain(**settings)


def test_more_threads_than_there_are_cores_for_are_refused(grid_file):
    planned = plan_sweep(load_grid(str(grid_file("seeds = [0, 1, 2]", threads=2))))
    with pytest.raises(ValueError, match=r"3 workers with threads=2 .* 4 cores .* --workers 1..2"):
        LocalEngine(planned, 4, 3)
    LocalEngine(planned, 4, 2)


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


def test_a_text_that_is_not_scored_has_no_exact_match(tmp_path):
    (tmp_path / "names.txt").write_text("".join(f"name{n}\n" for n in range(300)))
    settings = {"corpus": str(tmp_path / "names.txt"), "layers": 1, "width": 16, "heads": 2}
    file = write_grid(tmp_path, "eval = false", **settings)
    lines = [line for line in file.read_text().splitlines() if not line.startswith("digits")]
    file.write_text("\n".join(lines).replace('"add"', '"lines"').replace("per_cell = 20", ""))
    result = sweep(file)
    assert result.exit_code == 0, result.output
    row = rows_of(file)["seed=0"]
    assert (row["state"], row["step"], row["val_exact"]) == ("done", 12, None)
    assert "no run of this sweep is finished and scored" in (
        CliRunner().invoke(main, ["figures", str(tmp_path / "runs")]).stderr
    )


def test_one_picture_compares_the_cases(swept, tmp_path):
    scores = shutil.ignore_patterns("*.csv")  # of which each run has figures of its own
    folder = shutil.copytree(swept[0].parent / "runs", tmp_path / "runs", ignore=scores)
    done = CliRunner().invoke(main, ["figures", str(folder)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0] == str(folder / "sweep.png")
    figure = sweeps.compare(sweeps.table(folder), load.metrics(folder))
    scores, curves = figure.axes
    assert [tick.get_text() for tick in scores.get_yticklabels()] == [
        "format=plain",
        "format=reverse",
    ]
    rows = rows_of(swept[0])
    for line, median in zip(scores.lines[::2], scores.lines[1::2], strict=True):
        shares = sorted(line.get_xdata())
        case = scores.get_yticklabels()[int(line.get_ydata()[0])].get_text()
        mine = [row for row in rows.values() if row["combination"] == case]
        assert shares == sorted(100 * row["answer_correct"] / row["n"] for row in mine)
        assert median.get_xdata()[0] == pytest.approx(sum(shares) / 2)
    assert len(curves.lines) == 4
    for run in rows:
        shutil.rmtree(folder / run)
    (folder / "sweep.json").write_text("{}")
    assert "is damaged" in CliRunner().invoke(main, ["figures", str(folder)]).stderr


def test_progress_is_plain_lines_where_there_is_no_terminal(swept):
    lines = swept[1].stderr.splitlines()
    for seed in (0, 1):
        mine = [
            line.split("  ")[1] for line in lines if line.startswith(f"format=plain,seed={seed}")
        ]
        assert mine == ["running", "done"]
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
    assert todo(file) == ["score", "done"]  # more problems a cell than are wanted are enough
    file.write_text(file.read_text().replace("per_cell = 10", "per_cell = 30"))
    assert todo(file) == ["score"] * 2
    file.write_text(file.read_text().replace("save_every = 4", "save_every = 6"))
    assert todo(file) == ["score"] * 2  # it is the same recipe
    file.write_text(file.read_text().replace("steps = 12", "steps = 20"))
    line = refused(sweep(file))
    assert "format=plain,seed=0 was made with steps=12, now 20; give the grid another" in line


def test_a_dry_run_writes_nothing(grid_file):
    file = grid_file("seeds = [0, 1]")
    listed = [line.split() for line in sweep(file, "--dry-run").stdout.splitlines()]
    assert listed == [["train", str(file.parent / "runs" / f"seed={seed}")] for seed in (0, 1)]
    assert not (file.parent / "runs").exists()


def test_a_folder_that_is_no_run_is_not_written_into(grid_file):
    file = grid_file()
    (file.parent / "runs" / "seed=0").mkdir(parents=True)
    (file.parent / "runs" / "seed=0" / "notes.txt").write_text("mine")
    assert "seed=0 is not a run" in refused(sweep(file), 1)


def test_a_run_whose_scores_do_not_count_has_failed_each_time_it_is_swept(
    grid_file, monkeypatch, tmp_path
):
    file = grid_file()
    (tmp_path / "sitecustomize.py").write_text(LEAKING)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        for left in ("train", "score"):
            assert todo(file) == [left]
            assert sweep(file).exit_code == 1
            found = rows_of(file)["seed=0"]
            assert found["state"] == "failed"
            assert found["error"].startswith("CONTAMINATED, the scores do not count: ")
            log = (file.parent / "runs" / "seed=0" / LOG).read_text().splitlines()
            last = [*filter(None, log[: log.index("scoring")])][-1:]  # of what training has said
            assert not last if left == "score" else "addgpt figures" in last[0]
    assert todo(file) == ["score"]
    assert sweep(file).exit_code == 0
    assert rows_of(file)["seed=0"]["state"] == "done" and todo(file) == ["done"]


def test_runs_that_fail_or_are_killed_are_told_of_and_the_rest_goes_on(grid_file, plain):
    cases = {
        "wild": "lr = 1e38, muon_lr = 1e38, warmup = 0",
        "quits": "width = 8",
        "long": "steps = 1000000",
        "good": "",
    }
    text = "".join(f"[[case]]\nname = '{name}'\nset = {{{cases[name]}}}\n" for name in cases)
    file = grid_file(f"eval = false\n{text}")
    runs = file.parent / "runs"
    (file.parent / "sitecustomize.py").write_text(QUITTING)
    with SweepProcess(file, "--workers", "1", place=(str(file.parent),)) as process:
        until(lambda: trained(runs / "long-s0") and holder(runs / "long-s0"))
        os.kill(holder(runs / "long-s0"), signal.SIGKILL)
        code, told = process.end()
    assert code == 1
    rows = rows_of(file)
    assert {name: row["state"] for name, row in rows.items()} == {
        "wild-s0": "failed",
        "quits-s0": "failed",
        "long-s0": "failed",
        "good-s0": "done",
    }
    assert "try a lower rate" in rows["wild-s0"]["error"]
    assert rows["quits-s0"]["error"] == "it has ended and does not say why"  # its status is 0
    assert rows["long-s0"]["error"] == "killed by SIGKILL (out of memory?)"
    failed = [f"failed: {name}: {rows[name]['error']}" for name in list(rows)[:3]]
    assert told.strip().splitlines()[-3:] == failed
    assert rows["good-s0"]["n"] == 0 and not (runs / "good-s0" / "eval.csv").exists()
    assert tensors(runs / "good-s0") == plain()
    assert (runs / "wild-s0" / "sweep.log").exists() and not (
        runs / "good-s0" / "sweep.log"
    ).exists()


def test_a_sweep_that_is_stopped_saves_and_goes_on_where_it_was(grid_file, plain):
    settings = {"steps": 300, "eval_every": 10, "save_every": 1000}
    settings |= {"dropout": 0.3, "ema": 0.9}  # each has a state of its own
    file = grid_file("eval = false", **settings)
    run = file.parent / "runs" / "seed=0"
    with SweepProcess(file) as process:
        until(lambda: trained(run) and holder(run))
        worker = holder(run)
        os.kill(worker, signal.SIGSTOP)  # it waits for us
        assert "another process is running the sweep" in refused(sweep(file), 1)
        os.killpg(process.pid, signal.SIGTERM)  # to all processes, as `timeout` sends it
        time.sleep(0.5)
        assert "stopped" not in process.errors.read_text()  # before the run has saved
        os.kill(worker, signal.SIGCONT)
        code, told = process.end()
    assert code == 130
    assert told.strip().splitlines()[-1].startswith("error: stopped: 1 interrupted;")
    assert rows_of(file)["seed=0"]["state"] == "interrupted"
    assert 10 <= Run(run).progress()["step"] < 300
    assert todo(file) == ["resume"]
    assert sweep(file).exit_code == 0
    assert tensors(run) == plain(**settings)


def test_a_second_ctrl_c_stops_at_once(grid_file):
    file = grid_file(steps=1_000_000)
    run = file.parent / "runs" / "seed=0"
    with SweepProcess(file) as process:
        until(lambda: (run / "state.safetensors").exists() and holder(run))
        os.kill(holder(run), signal.SIGSTOP)  # it cannot save
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        code, told = process.end(60)
    assert code == 130 and told.strip().splitlines()[-1] == "error: stopped"
    assert holder(run) is None and todo(file) == ["resume"]


def test_runs_save_and_stop_when_the_sweep_is_gone(grid_file):
    file = grid_file(steps=1_000_000, save_every=1_000_000)
    run = file.parent / "runs" / "seed=0"
    with SweepProcess(file):
        until(lambda: trained(run) and holder(run))
    until(lambda: holder(run) is None)
    assert Run(run).progress()["step"] > 0
    assert todo(file) == ["resume"]


def test_why_a_run_failed_is_one_short_line_of_plain_text(tmp_path):
    log = tmp_path / LOG
    log.write_text("x" * MOST_READ + "\nerror: \0\x1b[31m[b]late\r\n")
    assert why(tmp_path) == "[31m[b]late"
    log.write_text("error: " + "y" * 2 * MOST_READ)
    assert why(tmp_path) == "y" * MOST_TOLD
    log.write_text("")
    assert "does not say why" in why(tmp_path)
    run = object.__new__(RunProcess)
    run.process = SimpleNamespace(poll=lambda: -40)  # of a signal without a name
    assert run.poll() == "killed by signal 40"
