"""What a sweep shows of itself."""

from __future__ import annotations

import pytest

from addgpt.sweep.table import LiveTable, outcome_table, seconds_left, tally

BLANK = {
    "bits": None, "state": "waiting", "step": 0, "steps": 100, "seconds": 0.0, "error": "",
    "val_exact": None, "n": 0, "answer_correct": 0,
}  # fmt: skip


def row(name: str, **more) -> dict:
    return BLANK | {"run": name, "combination": name} | more


def test_the_time_left_follows_from_the_pace(capsys):
    one, other = row("one", step=20, seconds=4.0), row("other")
    table = LiveTable([one, other])
    assert table.all_left() is None and not table.changed()
    one["state"] = "training"
    assert table.changed() and not table.changed()
    assert seconds_left(one) == pytest.approx(0.2 * 80) and seconds_left(other) is None
    assert table.all_left() == pytest.approx(0.2 * 180)
    other |= {"state": "training", "step": 10, "seconds": 4.0}  # half as fast: it takes longest
    assert table.changed()
    assert table.all_left() == seconds_left(other) == pytest.approx(0.4 * 90)
    assert tally([one, other]) == "2 training"
    one |= {"state": "failed", "error": "killed"}
    assert table.changed()
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "one  training  step 20/100  ETA 0:00:16",
        "other  training  step 10/100  ETA 0:00:36",
        "one  failed  step 20/100  killed",
    ]


def test_a_share_is_never_rounded_up_to_100():
    one = row("one", state="training", step=20, val_exact=0.99999)
    assert list(LiveTable([one]).table().columns[3].cells) == ["99.99 %"]
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
