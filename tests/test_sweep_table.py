"""What a sweep shows of itself."""

from __future__ import annotations

import pytest

from addgpt.sweep.table import Board, outcome_table, tally


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
    monkeypatch.setattr("addgpt.sweep.table.time.monotonic", lambda: next(clock))
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
