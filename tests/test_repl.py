"""The REPL as a person uses it, in a pseudo-terminal; piped lines; answers and notes as text."""

from __future__ import annotations

import io
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from addgpt.calculator.repl import history_file, styled_answer
from addgpt.calculator.show import heading, notes, run_lines, show
from tests.helpers.calculators import perfect
from tests.helpers.session import Terminal

pytestmark = pytest.mark.slow


@pytest.fixture
def terminal(tmp_path):
    session = Terminal(tmp_path)
    yield session
    session.close()


def test_a_session(terminal):
    terminal.type("12*(34-5)/2", "174")
    terminal.type("17/5", "3.*4")
    terminal.type("1/3", "≈")
    terminal.type(":exact", "exact values are shown")
    terminal.type("1/3*3", "≈.*exactly 1")
    terminal.type(":digits 3", "digits: 3")
    terminal.type("2/3", "≈.*exactly 2/3")
    terminal.type(":digits x", "error: digits must be a whole number, not 'x'")
    terminal.type(":division half", "unknown division 'half'; valid: decimal, remainder, fraction")
    terminal.type(":division remainder", "division: remainder")
    terminal.type("17/5", "3.*remainder")
    terminal.type("6+7", "wrong: the right answer is 13")
    terminal.type("1000000+1", "of lengths never trained or scored: 1000000.1")
    terminal.type("1.5.2", "error: '1.5.2' has more than one point")
    terminal.type("(1", "error: unbalanced")
    terminal.type(":steps", "steps are shown")
    assert "*  34" in terminal.type("12*34", "=====")
    terminal.type(":steps", "steps are not shown")
    terminal.type(":help", ":quit +leave")
    terminal.type("help", ":quit +leave")
    terminal.type(
        ":nonsense", "unknown command ':nonsense'; valid: :steps :exact :division :digits"
    )
    terminal.type(":model", "trained on . - of up to 6 digits, . / of up to 4")
    terminal.type(":model nowhere", "error: nowhere is not a run")
    terminal.type(":model other", r"trained on \+ of up to")
    terminal.type("2*3", r"error: this model does \+, not \*")
    terminal.leave()


def test_another_model_divides_as_it_can_unless_the_person_said_how(tmp_path, terminal):
    terminal.type(":model div", "division: remainder")
    terminal.type("2/3", "0.*remainder.*2")
    terminal.type(":division", "division: remainder")  # asked, not said
    terminal.type(":model other", "division: decimal")
    terminal.type(":division fraction", "division: fraction")
    terminal.type(":model div", "trained on / of up to")
    terminal.type("4/6", r"2.*/.*3")
    terminal.leave()
    session = Terminal(tmp_path, DIVISION="decimal")  # --division decimal
    session.type(":model div", "trained on / of up to")
    session.type("2/3", "error: this model does /, not")
    session.leave()


def test_names(terminal):
    terminal.type(":vars", "no names yet")
    terminal.type("width = 12*3", "36")
    terminal.type("ans+1", "37")
    terminal.type("2width - ans", "35")
    assert "ans = 35" in terminal.type(":vars", "ans = 35")
    terminal.type("witdh*2", "did you mean width")
    terminal.type("steps = 4", "4")
    terminal.type("steps", "4")  # a name now, and no command
    terminal.child.send("wid")
    terminal.child.expect("width ")
    terminal.child.send("\t")
    terminal.child.expect(r"th\x1b\[0m")
    terminal.type("*2", "72")
    terminal.child.send(":division fr")
    terminal.child.expect("fraction ")
    terminal.child.send("\t")
    terminal.child.expect(r"action\x1b\[0m")
    terminal.type("", "division: fraction")
    terminal.type("1/3+1/6", "1/2")
    terminal.leave()


def test_colours_follow_confidence(terminal):
    terminal.child.send("128+367\r")  # the oracle's first tokens have probability 0.50, 0.51, ...
    terminal.child.expect("\x1b\\[0;31;1m495")
    terminal.child.expect("not sure")  # the legend, once
    terminal.ready()
    terminal.leave()


def test_without_colours_doubt_is_said_in_words(tmp_path):
    session = Terminal(tmp_path, NO_COLOR="1")
    seen = session.type("128+367", "least certain digit: 0.5")
    assert "495" in seen and not re.search(r"\x1b\[[0-9;]*3[1-6]m", session.child.before)
    session.leave()


def test_forty_columns_are_enough(tmp_path):
    session = Terminal(tmp_path, columns=40)
    session.type(":steps", "steps are shown")
    session.type("1234567890123456789012345678901234567*12", "…")  # long work is folded
    help_text = session.type(":help", "Ctrl-C")
    lines = [line.rstrip("\r") for line in help_text.split("\n")]
    assert max(map(len, lines[1:])) <= 40
    session.leave()


def test_editing_and_completion(terminal):
    terminal.type("12+35\x7f4", "46")
    terminal.type("2*2\x01100-", "96")  # Ctrl-A: to the start of the line
    for start, menu, rest in ((":st", ":steps ", "eps"), (":model tas", "tasks/ ", "ks")):
        terminal.child.send(start)
        terminal.child.expect(menu)
        terminal.child.send("\t")
        terminal.child.expect(rf"{rest}\x1b\[0m")  # in the line, not only in the menu
        terminal.type("", "steps are shown|error: tasks is not a run")
    terminal.child.send("quit\r")  # with or without the colon
    terminal.child.expect("goodbye")


def test_control_c_cancels_the_line_and_control_d_leaves(terminal):
    terminal.child.send("999999*")
    terminal.child.send("\x03")
    terminal.child.expect("cancelled")
    terminal.ready()
    terminal.type("1+1", "\x1b\\[[0-9;]*m2")
    terminal.leave()


def test_control_c_interrupts_a_computation(terminal):
    terminal.child.send("77*77\r")
    terminal.child.expect("at work")
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.child.expect("cancelled")
    terminal.ready()
    terminal.type("2+3", "5")
    terminal.leave()


def test_history_is_kept_across_sessions(tmp_path):
    first = Terminal(tmp_path)
    first.type("41+1", "42")
    first.leave()
    assert "+41+1" in (tmp_path / "addgpt" / "history").read_text()
    second = Terminal(tmp_path)
    second.child.send("\x1b[A")  # the last line of the session before
    second.type("", "42")
    second.leave()


def test_a_history_that_cannot_be_written_does_not_matter(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", Path("/proc/nowhere")):
        session = Terminal(tmp_path, XDG_STATE_HOME=str(place))
        session.type("41+1", "42")
        session.leave()
    (tmp_path / "addgpt" / "history").mkdir(parents=True)  # neither readable nor writable as a file
    session = Terminal(tmp_path)
    session.type("41+1", "42")
    session.leave()


def test_history_file(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert history_file() == tmp_path / "addgpt" / "history"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert history_file() == tmp_path / ".local" / "state" / "addgpt" / "history"


def test_piped_lines_give_one_line_each_in_order(monkeypatch):
    monkeypatch.setattr("addgpt.calculator.show.CHUNK", 7)
    lines = ["12+34\n", "17/5\n", "\n", "1/0\n", "1.5.2\n", "-3*4", "9999999+1\r\n", "6+7\n", "é\n"]
    lines *= 3
    calculator = perfect(spoil=lambda prompt, text: "9020#" if prompt == "6+7=" else text)
    out = io.StringIO()
    notes = []
    tally = run_lines(calculator, lines, out, notes.append)
    assert notes == [f"line {n}: wrong: the right answer is 13" for n in (8, 17, 26)]
    answers = out.getvalue().split("\n")
    assert answers.pop() == ""
    assert answers[:9] == answers[9:18] == answers[18:]
    assert answers[:2] == ["46", "3.4"]
    assert [text[:7] for text in answers[2:5]] == ["error: "] * 3
    assert answers[5:8] == ["-12", "10000000", "29"] and answers[8].startswith("error: ")
    assert (tally.lines, tally.errors, tally.wrong, tally.uncovered) == (27, 12, 3, 3)


def test_a_model_that_writes_no_answer_is_an_error_line():
    calculator = perfect(spoil=lambda prompt, text: "0" * 99 if "*" in prompt else text)
    out = io.StringIO()
    tally = run_lines(calculator, ["12*34", "1+1"], out)
    assert out.getvalue() == "error: the model did not come to an end with 12*34\n2\n"
    assert (tally.errors, tally.stuck, tally.wrong) == (1, 1, 0)
    solution = calculator.solve("12*34")
    assert show(calculator, solution) == "" and solution.answer == ""
    assert "000" not in show(calculator, solution, steps=True).split("\n")[-1]
    assert notes(solution) == [
        "the model did not come to an end with 12*34; the right answer is 408"
    ]
    assert styled_answer(calculator, solution)[0][0] == "class:bad"


def test_no_lines():
    out = io.StringIO()
    assert run_lines(perfect(), [], out).lines == 0
    assert out.getvalue() == ""


def test_show():
    calculator = perfect()
    solution = calculator.solve("-3+5*2")
    assert show(calculator, solution) == "7"
    assert show(calculator, solution, steps=True).split("\n") == [
        "5 * 2 = 10   least certain token: 0.50",
        "       5",
        "    *  2",
        "    ----",
        "      10   5 * 2, carries 1",
        "    ====",
        "      10",
        "",
        "-3 + 10 = 7   by 10-3   least certain token: 0.50",
        "      1    borrowed",
        "      10",
        "    -  3",
        "    ----",
        "       7",
        "",
        "7",
    ]


def test_notes():
    calculator = perfect(spoil=lambda prompt, text: "9020#" if prompt == "6+7=" else text)
    assert notes(calculator.solve("1+1")) == []
    assert notes(calculator.solve("6+7")) == ["wrong: the right answer is 13"]
    assert notes(calculator.solve("0*(6+7)")) == [
        "the answer is right, although a step on the way is wrong"
    ]
    assert notes(calculator.solve("1234567+1+1")) == [
        "of lengths never trained or scored: 1234567+1+1"
    ]
    assert "wrong: 6+7 is 13" in heading(calculator.solve("6+7").steps[0])


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("add", {}, "128+367"),
        ("add", {"format": "plain"}, "128+367"),
        ("add", {"format": "padded"}, "128+367"),
        ("add", {"trace": "carry"}, "128+367"),
        ("add", {"trace": "carry", "format": "plain"}, "128+367"),
        ("add", {"trace": "detailed"}, "128+367"),
        ("add", {"hints": True}, "128+367"),
        ("sub", {}, "345-12"),
        ("sub", {}, "12-345"),
        ("sub", {"trace": "borrow"}, "12-345"),
        ("sub", {"trace": "none"}, "12-345"),
        ("mul", {}, "12*34"),
        ("mul", {"trace": "rows"}, "12*34"),
        ("div", {}, "9876/54"),
        ("div", {}, "9877/83"),
        ("div", {"trace": "doubling"}, "9876/54"),
        ("div", {"trace": "none"}, "84/2"),
    ],
)
def test_each_digit_has_its_own_probability(name, options, problem):
    """The oracle's probabilities tell places apart: the digits found there must be the answer's."""
    calculator = perfect(name, {"digits": 4} | options)
    step = calculator.solve(problem).steps[0]
    numbered = replace(step, probabilities=tuple(range(len(step.completion))))
    places = calculator.digit_probabilities(numbered)
    found = "".join(step.completion[int(place)] for place in places)
    assert found == "".join(char for char in str(step.answer) if char.isdigit())
