"""Shares as a person reads them: never rounded up to what they are not."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from rich.console import Console

from addgpt.evaluation.compare.statistics import Marks, Scored, compare
from addgpt.evaluation.compare.tables import headline, print_spread
from addgpt.evaluation.intervals import percent, share
from addgpt.evaluation.tables import console, loss_table, print_eval, print_mistakes, suite_table
from addgpt.task import Cell


@pytest.mark.parametrize(
    ("right", "n", "text"),
    [(3, 3, "100"), (9999, 10_000, "99.99"), (99_999, 100_000, "99.99"), (998, 1000, "99.80"),
     (1, 2, "50.0"), (0, 7, "0.0"), (0, 0, "-"), (9896, 10_000, "98.9"), (1999, 2000, "99.95"),
     (10**15 - 1, 10**15, "99.99"), (0.9995, 1, "99.95"), (29, 100, "29.0")],
)  # fmt: skip
def test_percent_is_100_only_where_all_are_right(right, n, text):
    assert percent(right, n) == text


def test_share_has_its_interval_rounded_down():
    assert share(998, 1000) == "99.80 % (99.27-99.94)"
    assert share(10_000, 10_000) == "100 % (99.96-100)"


def row(**values) -> dict:
    usual = {"op": "+", "len_a": 3, "len_b": 3, "stratum": "all", "seen": False, "split": "test",
             "n": 1000, "answer_correct": 998}  # fmt: skip
    return usual | values


def test_a_narrow_terminal_cuts_no_number():
    shown = io.StringIO()
    narrow = Console(file=shown, width=40)
    rows = [row(len_a=a, len_b=b) for a in range(1, 4) for b in range(1, 4)]
    print_eval(narrow, [*rows, row(stratum="carry:3", n=1000, answer_correct=987)])
    runs = [Scored(f"results/add-3-s{seed}", seed, rows) for seed in range(2)]
    print_spread(narrow, runs)
    assert "…" not in shown.getvalue() and "987" in shown.getvalue()


def test_a_table_in_a_pipe_is_whole(monkeypatch, capsys):
    """On 80 columns, intervals of eight operand lengths would be cut short."""
    monkeypatch.setenv("COLUMNS", "80")
    rows = [row(len_a=a, len_b=b) for a in range(1, 9) for b in range(1, 9)]
    print_eval(console(), rows)
    assert capsys.readouterr().out.count("99.27-99.94") >= 64


def test_square_brackets_in_names_are_shown(capsys):
    part = {"part": "[bold]a[/bold]", "published": None, "n": 2, "answer_correct": 1}
    part |= {"held_out_n": 1, "held_out_answer_correct": 1, "seen_n": 1, "seen_answer_correct": 0}
    console().print(suite_table("the [/red] suite", [part]))
    loss = {
        "split": "val",
        "ruler": "blocks",
        "context": 0,
        "half": None,
        "n": 9,
        "nats": 1.0,
        "bits": 1.4,
        "perplexity": 2.7,
    }
    console().print(loss_table([loss | {"run": "a[/b]c"}]))
    print_eval(console(), [row(stratum="[x]"), row(op="[/o]")])
    printed = capsys.readouterr().out
    for text in ("[bold]a[/bold]", "the [/red] suite", "a[/b]c", "[x]", "[/o] of a and b"):
        assert text in printed


def test_what_is_longer_than_trained_on_is_counted_apart(capsys):
    rows = [row(), row(len_b=30, answer_correct=10), row(op="*", answer_correct=500)]
    print_eval(console(), rows, {"digits": 2, "sum_digits": 3})
    printed = capsys.readouterr().out
    assert "held out, all cells: 998 of 1,000 right" in printed
    assert "longer than trained on: 510 of 2,000 right" in printed


@pytest.mark.parametrize("options", [{"digits": (2, 3)}, {"digits": "few", "operands": "reversed"}])
def test_options_of_these_names_may_mean_something_else(options, capsys):
    print_eval(console(), [row()], options)
    printed = capsys.readouterr().out
    assert "held out, all cells: 998 of 1,000 right" in printed and "longer" not in printed


def test_so_it_is_for_several_runs_and_in_a_comparison():
    near, far = Cell("+", 3, 3, "all"), Cell("+", 3, 30, "all")

    def scored(seed: int, right: dict[Cell, int]) -> Scored:
        marks = {cell: Marks(np.arange(100) < n, "") for cell, n in right.items()}
        rows = [row(**cell._asdict(), n=100, answer_correct=n) for cell, n in right.items()]
        return Scored("run", seed, rows, marks, longer=frozenset([far]))

    runs = [scored(0, {near: 98, far: 10}), scored(1, {near: 96, far: 30})]
    assert headline(runs) == (
        "median 97.0 %, worst 96.0 % of 100 held-out problems, 2 runs (seeds 0, 1); "
        "median 20.0 %, worst 10.0 % of 100 longer than trained on"
    )
    found = compare(runs[:1], runs[1:])
    assert (found.overall.cells, found.longer.cells, found.special) == (1, 1, None)
    assert found.longer.difference == pytest.approx(-0.2)


def test_a_narrow_terminal_shows_all_of_a_table():
    console = Console(width=40, file=io.StringIO(), force_terminal=True, color_system=None)
    cells = [row(len_a=a, len_b=b) for a in (1, 2, 3) for b in (1, 2, 3)]
    print_eval(console, [*cells, row(stratum="carry:3")])
    shown = console.file.getvalue()
    assert "…" not in shown and "carry:3" in shown and max(map(len, shown.splitlines())) <= 40


def test_problems_of_one_operand_are_written_so():
    console = Console(width=80, file=io.StringIO())
    rows = [row(op="parity", len_a=12, len_b=0), row(op="parity", len_a=9, len_b=0)]
    print_eval(console, rows)
    assert "12: 998/1000" in console.file.getvalue()
    print_spread(console, [Scored("a", 0, rows), Scored("b", 1, rows)])
    shown = console.file.getvalue()
    assert "parity of a: exact match" in shown
    assert re.search("parity of a +any problem", re.sub("[^\\w ]", " ", shown))
    assert "of a and b" not in shown


def test_sums_of_many_are_told_by_how_many_there_are(capsys):
    options = {"digits": 2, "operands": 5}
    cells = [row(len_a=count, len_b=size) for count in (2, 5) for size in (1, 2)]
    print_eval(console(), [*cells, row(len_a=5, len_b=2, stratum="mixed")], options)
    printed = capsys.readouterr().out
    assert "a + b + …" in printed and "operands: 5" in printed and "digits: 2" in printed
    assert "5 × 2" in printed and "longer" not in printed
    print_eval(console(), [*cells, row(len_a=30, len_b=2)], options)
    rows = [re.findall(r"[\w,.]+", line)[:3] for line in capsys.readouterr().out.splitlines()]
    assert ["1", "2", "2,000"] in rows and ["2", "3", "3,000"] in rows  # by length, not count


def test_wrong_answers_of_nearly_one_kind_are_not_all_of_it(capsys):
    one = row(kind="carry", digit="0", line="", n=2999)
    facts = {"n": 9000, "answer_correct": 6000, "trace_correct": 6000}
    print_mistakes(console(), [one, one | {"kind": "digit", "n": 1}],
                   facts | {"contamination": {"summary": ""}})  # fmt: skip
    printed = capsys.readouterr().out
    assert "99.96 %" in printed and "100" not in printed
