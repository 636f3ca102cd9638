"""What a sweep shows of itself."""

from __future__ import annotations

import time

import pytest
from rich.console import Console

from addgpt.sweep import table as module
from addgpt.sweep.run import NOTHING
from addgpt.sweep.table import LiveTable, outcome_table, tally
from addgpt.sweep.worker import LOG


def row(name: str, **more) -> dict:
    return {"run": name, "combination": name} | NOTHING | more


@pytest.fixture
def log(tmp_path):
    """Writes what a run prints."""

    def write(name: str, text: str) -> None:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / LOG).write_text(text)

    return write


def test_runs_are_told_of_when_their_state_changes_and_now_and_then(
    tmp_path, log, capsys, monkeypatch
):
    one, other = row("one"), row("other")
    table = LiveTable(tmp_path, [one, other])
    dumb = {"TERM": "dumb"}  # a terminal that cannot draw a line again
    table.console = Console(stderr=True, force_terminal=True, _environ=dumb)
    assert not table.changed()
    log("one", "step 0/100\nstep 20/100  loss 1.5000\n")
    one["state"] = other["state"] = "running"
    assert table.changed() and not table.changed()
    monkeypatch.setattr(module, "PLAIN_SECONDS", 0.0)
    log("one", "step 40/100  loss 1.2500\n")
    (tmp_path / "other" / LOG).mkdir(parents=True)  # cannot be read
    time.sleep(0.01)
    assert not table.changed()
    other["state"] = "waiting"
    monkeypatch.setattr(module, "PLAIN_SECONDS", 30.0)
    assert table.changed()
    one |= {"state": "failed", "error": "killed"}
    assert table.changed() and tally([one, other]) == "1 waiting, 1 failed"
    assert capsys.readouterr().err.splitlines() == [
        "one  running  step 20/100  loss 1.5000",
        "other  running",
        "one  running  step 40/100  loss 1.2500",
        "other  running",
        "other  waiting",
        "one  failed  killed",
    ]


def test_the_table_shows_what_runs_say_and_the_time_left(tmp_path, log):
    rows = [row("done", state="done"), row("[b]"), row("long")]
    table = LiveTable(tmp_path, rows)
    assert table.table().caption == "1 done, 2 waiting"
    log("long", "step 20/100  ETA 0:00:16\n")
    rows[2]["state"] = "running"
    cells = [list(column.cells) for column in table.table().columns]
    assert cells[0] == ["long", r"\[b]", "done"]
    assert cells[2] == ["step 20/100  ETA 0:00:16", "", ""]
    table.began -= 10.5
    rows[1]["state"] = "failed"
    assert table.changed()
    assert table.table().caption == "1 done, 1 failed, 1 running; ETA 0:00:10"
    table.began -= 3  # as if 3 seconds had passed since
    table.told[1] = "failed", table.told[1][1] - 3
    assert table.table().caption == "1 done, 1 failed, 1 running; ETA 0:00:07"


@pytest.mark.parametrize("width, height, said", [
    (60, 20, "step 2345/500"), (80, 24, "step 2345/5000  loss"), (200, 20, "loss 1.0000"),
])  # fmt: skip
def test_a_long_name_leaves_room_for_what_a_run_says(tmp_path, log, width, height, said):
    names = ["x" * 143 + f"seed={number:02}" for number in range(1, 30)]
    log(names[0], "step 2345/5000  loss 1.0000\n")
    table = LiveTable(tmp_path, [row(name, state="running") for name in names])
    table.console = Console(width=width, height=height)
    with table.console.capture() as shown:
        table.console.print(table.table())
    lines = shown.get().splitlines()
    assert len(lines) <= height and lines[-1].split() == ["29", "running"]
    assert lines[3].rstrip(" │").endswith(said)


def test_what_a_run_says_fits_if_characters_are_wide(tmp_path, log):
    log("one", "error: 日本" + "日本" * 200)
    table = LiveTable(tmp_path, [row("one", state="running")])
    table.console = Console(width=60, height=20)
    with table.console.capture() as shown:
        table.console.print(table.table())
    assert len(shown.get().splitlines()) == 6


def test_a_share_is_never_rounded_up_to_100():
    done = row("one", state="done", n=2000, answer_correct=1999)
    assert list(outcome_table("t", [done]).columns[2].cells) == ["99.95"]


def test_outcomes_are_median_and_worst_of_the_finished_seeds():
    rows = [
        row(f"a{seed}", combination="a", state="done", n=1000, answer_correct=right, seconds=4.0)
        for seed, right in enumerate((1000, 900, 990))
    ]
    table = outcome_table("t", [*rows, row("b0", combination="b", state="failed")])
    cells = [list(column.cells) for column in table.columns]
    assert [column[0] for column in cells] == ["a", "3", "99.0", "90.0", "4"]
    assert [column[1] for column in cells] == ["b", "0", "-", "-", "-"]


def test_a_text_has_bits_of_which_the_most_are_the_worst():
    rows = [row(f"a{n}", combination="a", state="done", bits=2.0 + n / 8) for n in range(3)]
    table = outcome_table("t", rows)
    assert table.columns[2].header == "held-out bits a character, median"
    assert [column._cells[0] for column in table.columns[2:4]] == ["2.1250", "2.2500"]
