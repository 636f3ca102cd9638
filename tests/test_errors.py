"""Kinds and places of wrong answers, against hand-made cases and naive computations."""

from __future__ import annotations

import itertools
import os
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from addgpt.evaluation.mistakes import KINDS, diagnose
from addgpt.task import Problem
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

MIRROR = """
from dataclasses import dataclass
from tasks.common.in_out import InOut

@dataclass(frozen=True)
class Mirror(InOut):
    characters = "abc"

    def draw(self, rng):
        return "".join(rng.choice(list("abc"), 3))

    def answer(self, text):
        return text[::-1]
"""
ENDS = {"add": ";", "sub": "", "mul": ",;", "div": ",;+-"}  # of a line of the trace


@pytest.fixture(scope="session")
def right(matrices):
    """What a task wants to be written after a typed problem."""

    def target(task, problem: str) -> str:
        problem = task.parse(problem)
        part = task.parts[problem.op] if task.name == "calc" else task
        a, b = problem.operands
        text = part.decode(part.write(*matrices([(a, b)])).batch().tokens[0])
        return text.removeprefix(part.prompt(problem))

    return target


def diagnosed(right, name, options, problem, written, terminated=True):
    task = load_task(name, options | {"digits": 3})
    return diagnose(task, task.parse(problem), right(task, problem), written, terminated)


# What is right, for reading the cases:
#     128+367=594#              52-17=5130+53#          12-345=716161-333#
#     12*34=80400,804000;60300,014000;=8040#            12*41=20100,201000;80400,904000;=2940#
#     17/5=01,02,04,1061-1080-1090-6090-0,11;7071-7090-7001+2000+3,20;=03r2#
# without carries:
#     52-17=53+53#              12-345=766-333#
#     12*34=840,630,040;=8040#  12*41=210,840,940;=2940#
#     17/5=01,02,04,16-18-19-69-10;77-79-70+20+23;=03r2#
PLAIN, CARRY = {"format": "plain"}, {"trace": "carry"}
DETAILED = {"format": "plain", "trace": "detailed"}
NONE, AFTER = {"trace": "none"}, {"trace": "none", "sign": "after"}
BORROW, ROWS, DOUBLING = ({"trace": name} for name in ("borrow", "rows", "doubling"))
OTHERS = {"sub_trace": "borrow", "mul_trace": "rows", "div_trace": "doubling", "add_trace": "none"}
TRIES = "01,02,04,1061-1080-1090-6090-0,11;7071-7090-7001+2000+3,20;"
DIVISION = "01,02,04,16-18-19-69-10;77-79-70+20+23;"


def test_a_wrong_word_has_no_wrong_digit(tmp_path):
    (tmp_path / "mirror.py").write_text(MIRROR)
    task = load_task(str(tmp_path / "mirror.py"), {})
    found = diagnose(task, task.parse("abc"), "cba#", "cbc#")
    assert (found.kind, found.digit, found.line, found.place) == ("answer", "", None, 2)


@pytest.mark.parametrize(
    ("name", "options", "problem", "written", "kind", "digit", "line", "place"),
    [
        ("add", {}, "128+367", "584#", "carry", "1", None, 1),  # 485: a carry is lost
        ("add", {}, "128+367", "595#", "carry", "2", None, 2),  # 595: one too many
        ("add", {}, "128+367", "5941#", "carry", "3", None, 3),
        ("add", {}, "128+367", "694#", "digit", "0", None, 0),  # nothing is carried into the ones
        ("add", {}, "128+367", "574#", "digit", "1", None, 1),
        ("add", {}, "128+367", "684#", "digit", "0", None, 0),  # 486: a carry slip, but not only
        ("add", {}, "128+367", "59#", "length", "2", None, 2),
        ("add", {}, "128+367", "5942#", "length", "3", None, 3),
        ("add", {}, "95+7", "291#", "carry", "1", None, 1),
        ("add", {}, "95+7", "29#", "carry", "1", None, 1),
        ("add", {}, "95+7", "2#", "carry", "2", None, 1),
        ("add", {}, "95+7", "2011#", "length", "3", None, 3),
        ("add", {}, "128+367", "#", "unreadable", "", None, 0),
        ("add", {}, "128+367", "5-4#", "unreadable", "", None, 1),
        ("add", PLAIN, "128+367", "485#", "carry", "1", None, 1),
        ("add", PLAIN, "128+367", "0495#", "unreadable", "", None, 0),
        ("add", PLAIN, "128+367", "4095#", "length", "2", None, 1),
        ("add", {"format": "padded"}, "128+367", "5840#", "carry", "1", None, 1),
        ("add", CARRY, "128+367", "508040#", "carry", "1", None, 1),
        ("add", CARRY, "128+367", "519070#", "digit", "2", None, 4),
        ("add", CARRY | PLAIN, "128+367", "519040=475#", "answer", "1", None, 8),
        ("add", CARRY | PLAIN, "128+367", "517040=475#", "trace", "1", 1, 2),
        ("sub", {}, "12-345", "716161+333#", "sign", "", None, 6),
        ("sub", {}, "52-17", "5140+54#", "borrow", "1", 1, 2),
        ("sub", {}, "52-17", "5160+56#", "trace", "1", 1, 2),
        ("sub", {}, "52-17", "5030+54#", "borrow", "1", 1, 1),
        ("sub", {}, "52-17", "5130-54#", "answer", "1", None, 4),
        ("sub", {}, "12-345", "716161#", "unreadable", "", None, 6),
        ("sub", BORROW, "12-345", "766+333#", "sign", "", None, 3),
        ("sub", BORROW, "52-17", "54+54#", "borrow", "1", 1, 1),  # 45: a borrow is lost
        ("sub", BORROW, "52-17", "56+56#", "trace", "1", 1, 1),
        ("sub", BORROW, "52-17", "53-54#", "answer", "1", None, 2),
        ("sub", BORROW, "12-345", "766-433#", "answer", "0", None, 4),
        ("sub", BORROW, "12-345", "766-3333#", "length", "3", None, 7),
        ("sub", BORROW, "12-345", "766#", "unreadable", "", None, 3),
        ("sub", NONE, "12-345", "+333#", "sign", "", None, 0),
        ("sub", NONE, "52-17", "+54#", "borrow", "1", None, 2),
        ("sub", NONE, "52-17", "+59#", "digit", "1", None, 2),
        ("sub", AFTER, "12-345", "333+#", "sign", "", None, 3),
        ("sub", AFTER, "12-345", "373-#", "digit", "1", None, 1),
        ("mul", {}, "12*34", "90400,904000;60300,014000;=9040#", "trace", "0", 1, 0),
        ("mul", {}, "12*34", "81400,804000;60300,014000;=8140#", "trace", "1", 1, 1),
        ("mul", {}, "12*34", "80400,804000;60300,015000;=8050#", "trace", "2", 4, 21),
        ("mul", {}, "12*34", "80400,804000;60300,014000;=8140#", "answer", "1", None, 28),
        ("mul", {}, "12*34", "80400,804000;60300,014000;=80#", "length", "2", None, 29),
        ("mul", {}, "12*41", "10100,201000;80400,904000;=1940#", "copy", "0", 1, 0),
        ("mul", {}, "12*41", "21100,201000;80400,904000;=1940#", "trace", "0", 1, 1),
        ("mul", {}, "12*41", "20100,101000;80400,904000;=1940#", "copy", "0", 2, 6),
        ("mul", {}, "12*41", "20100,211000;80400,904000;=1940#", "trace", "0", 2, 7),
        ("mul", ROWS, "12*34", "940,630,040;=9040#", "trace", "0", 1, 0),
        ("mul", ROWS, "12*34", "840,630,050;=8050#", "trace", "2", 3, 9),
        ("mul", ROWS, "12*34", "840,630,040;=8140#", "answer", "1", None, 14),
        ("mul", ROWS, "12*34", "840,630,040;=80#", "length", "2", None, 15),
        ("mul", ROWS, "12*34", "840,#", "unreadable", "", 2, 4),
        ("mul", ROWS, "12*41", "120,840,850;=1850#", "copy", "0", 1, 0),
        ("mul", ROWS, "12*41", "210,850,950;=2950#", "trace", "2", 2, 5),
        ("mul", NONE, "12*34", "8140#", "digit", "1", None, 1),
        ("mul", NONE, "12*34", "80#", "length", "2", None, 2),
        ("div", {}, "17/5", TRIES + "=03r1#", "answer", "r0", None, 63),
        ("div", {}, "17/5", TRIES + "=04r2#", "answer", "q0", None, 61),
        ("div", {}, "17/5", TRIES + "=13r2#", "length", "q1", None, 60),
        ("div", {}, "17/5", TRIES[:-3] + "30;=03r3#", "copy", "r0", 15, 56),
        ("div", {}, "17/5", TRIES[:-3] + "21;=04r2#", "trace", "q0", 15, 57),
        ("div", {}, "17/5", TRIES[:-5] + "4,20;=04r2#", "trace", "q0", 14, 54),
        ("div", {}, "17/5", TRIES.replace("0,11;", "0,21;") + "=03r3#", "trace", "r0", 9, 31),
        ("div", {}, "17/5", "03," + TRIES[3:] + "=03r3#", "trace", "r0", 1, 1),
        ("div", DOUBLING, "17/5", DIVISION + "=03r1#", "answer", "r0", None, 43),
        ("div", DOUBLING, "17/5", DIVISION + "=04r2#", "answer", "q0", None, 41),
        ("div", DOUBLING, "17/5", DIVISION + "=04r1#", "answer", "q0", None, 41),
        ("div", DOUBLING, "17/5", DIVISION + "=13r2#", "length", "q1", None, 40),
        ("div", DOUBLING, "17/5", DIVISION + "=03r21#", "length", "r1", None, 44),
        ("div", DOUBLING, "17/5", DIVISION + "=r2#", "unreadable", "", None, 40),
        ("div", DOUBLING, "17/5", DIVISION[:-3] + "33;=03r3#", "copy", "r0", 13, 36),
        ("div", DOUBLING, "17/5", DIVISION[:-3] + "24;=04r2#", "trace", "q0", 13, 37),
        ("div", DOUBLING, "17/5", "03," + DIVISION[3:] + "=03r3#", "trace", "r0", 1, 1),
        ("div", NONE, "17/5", "03r1#", "digit", "r0", None, 3),
        ("div", NONE, "17/5", "03r0#", "digit", "r0", None, 3),
        ("div", NONE, "17/5", "3#", "unreadable", "", None, 0),
        ("calc", OTHERS, "128+367", "584#", "carry", "1", None, 1),
        ("calc", OTHERS, "12-345", "766+333#", "sign", "", None, 3),
        ("calc", OTHERS, "12*41", "120,840,850;=1850#", "copy", "0", 1, 0),
        ("calc", OTHERS, "17/5", DIVISION + "=04r2#", "answer", "q0", None, 41),
    ],
)
def test_hand_made_mistakes(right, name, options, problem, written, kind, digit, line, place):
    found = diagnosed(right, name, options, problem, written)
    assert (found.kind, found.digit, found.line, found.place) == (kind, digit, line, place)
    assert bool(found.answer) == (kind != "unreadable")
    task = load_task(name, options)
    assert found.truth == str(task.truth(task.parse(problem)))


@pytest.mark.parametrize("written", ["594594594594", "", "5", "584"])
def test_without_an_end_mark_nothing_is_judged(right, written):
    found = diagnosed(right, "add", {}, "128+367", written, terminated=False)
    common = os.path.commonprefix(["594#", written])
    assert (found.kind, found.answer, found.digit) == ("unterminated", "", "")
    assert (found.line, found.place) == (None, len(common))


def test_a_running_sum_repeats_the_one_before_where_the_product_is_nothing(right):
    target = right(load_task("mul", {"digits": 3}), "12*304")
    assert target == "80400,804000;00000,400000;60300,603000;=84630#"
    for old, new, kind, place in (("40", "50", "copy", 19), ("40", "41", "trace", 20)):
        written = target.replace(f",{old}0000;", f",{new}0000;").replace("=84", "=85")
        found = diagnosed(right, "mul", {}, "12*304", written)
        assert (found.kind, found.line, found.place, found.digit) == (kind, 4, place, "1")
    target = right(load_task("mul", {"digits": 3} | ROWS), "12*304")
    assert target == "840,000,400;630,630;=84630#"
    found = diagnosed(right, "mul", ROWS, "12*304", "840,000,410;630,640;=84640#")
    assert (found.kind, found.line, found.place, found.digit) == ("copy", 3, 9, "3")
    found = diagnosed(right, "mul", ROWS, "12*304", "840,000,400;630,640;=84640#")
    assert (found.kind, found.line, found.place, found.digit) == ("trace", 5, 17, "3")


def test_a_detailed_scratchpad_is_copied_but_for_its_sums(right):
    target = right(load_task("add", DETAILED), "128+367")
    assert target.splitlines() == [target] and "12+36,5,1,2+6+1=09,9,0;" in target
    wrong = target.replace("=495#", "=475#")
    for old, new, kind in [
        ("12+36,", "12+37,", "copy"),
        (",5,1,2+6", ",5,0,2+6", "copy"),
        ("2+6+1=", "2+7+1=", "copy"),
        ("=09,", "=07,", "trace"),
        ("=09,", "=19,", "trace"),
        ("=09,9", "=09,7", "copy"),
    ]:
        assert old in target
        found = diagnosed(right, "add", DETAILED, "128+367", wrong.replace(old, new))
        assert (found.kind, found.line, found.digit) == (kind, 2, "1"), (old, new)
    assert diagnosed(right, "add", DETAILED, "128+367", wrong).kind == "answer"


# Any corruption of any right text, against a second computation that knows the formats.


def with_errors(a: int, op: str, b: int) -> set[int]:
    """Sizes of all sums (or differences) in which carries were lost or invented."""
    high, low, sign = max(a, b), min(a, b), 1 if op == "+" else -1
    width = len(str(high)) + (op == "+")
    sizes = set()
    for carries in itertools.product((0, 1), repeat=width - 1):
        digits = [
            (high // 10**k % 10 + sign * (low // 10**k % 10) + sign * carry) % 10
            for k, carry in enumerate((0, *carries))
        ]
        sizes.add(sum(digit * 10**k for k, digit in enumerate(digits)))
    return sizes


def naive_digit(truth: int, answer: int) -> str:
    places = [k for k in range(60) if (truth // 10**k - answer // 10**k) % 10]
    return str(places[0]) if places else ""


def naive_line(part, target: str, place: int) -> int | None:
    """Lines end with certain characters; the answer starts with = or with a sign."""
    trace = getattr(part, "trace", "none")
    woven = part.name == "add" and trace == "carry" and part.format != "plain"
    if trace == "none" or woven:
        return None
    answer = target.rindex("=") if "=" in target else re.search("[-+]", target).start()
    ends = sum(char in ENDS[part.name] for char in target[:place])
    if trace == "whole":  # a plus ends a line, too, or follows what ends one
        ends = sum(found.end() <= place for found in re.finditer(r";\+|[,;+]", target))
    return ends + 1 if place < answer else None


def naive_answer_kind(op: str, a: int, b: int, answer: str) -> tuple[str, str]:
    """Kind, as far as the answer alone tells, and lowest wrong digit."""
    if op == "/":
        q, _, r = answer.partition(" remainder ")
        pairs = [("q", a // b, int(q)), ("r", a % b, int(r or 0))]
        name, truth, wrong = next(pair for pair in pairs if pair[1] != pair[2])
        kind = "digit" if len(str(truth)) == len(str(wrong)) else "length"
        return kind, name + naive_digit(truth, wrong)
    truth, wrong = {"+": a + b, "-": a - b, "*": a * b}[op], int(answer)
    if answer.lstrip("-") == str(abs(truth)):
        return "sign", ""
    digit = naive_digit(abs(truth), abs(wrong))
    fits = len(answer.lstrip("-")) <= len(str(max(a, b))) + (op == "+")
    if truth != wrong and op in "+-" and (truth < 0) == (wrong < 0) and fits:
        if abs(wrong) in with_errors(a, op, b):
            return {"+": "carry", "-": "borrow"}[op], digit
    return "digit" if len(str(abs(truth))) == len(answer.lstrip("-")) else "length", digit


edits = st.tuples(
    st.sampled_from(["change", "change", "change", "insert", "drop"]),
    st.integers(-6, -1) | st.integers(0, 300),
    st.sampled_from("00112233445566778899+-=r,;#"),
)


def corrupted(target: str, changes) -> str:
    text = target
    for what, where, char in changes:
        where %= len(text)
        text = text[:where] + ("" if what == "drop" else char) + text[where + (what != "insert") :]
        text = text or char
    return text.partition("#")[0] + "#"


@given(
    st.integers(0, 9999),
    st.integers(1, 9999),
    st.sampled_from("+-*/"),
    st.lists(edits, min_size=1, max_size=3),
)
def test_kinds_and_places_agree_with_a_naive_computation(any_task, right, a, b, op, changes):
    part = any_task.parts[op] if any_task.name == "calc" else any_task
    problem = f"{a}{part.op}{b}"
    target = right(any_task, problem)
    written = corrupted(target, changes)
    asked = Problem(part.op, (a, b))
    try:
        answer = str(part.read(asked, written))
    except ValueError:
        answer = ""
    assume(answer != str(any_task.truth(asked)))
    found = diagnose(any_task, asked, target, written)
    assert found.kind in KINDS
    assert found.place == len(os.path.commonprefix([target, written]))
    assert found.line == naive_line(part, target, found.place)
    if not answer:
        assert (found.kind, found.digit, found.answer) == ("unreadable", "", "")
        return
    kind, digit = naive_answer_kind(part.op, a, b, answer)
    assert (found.digit, found.answer) == (digit, answer)
    if kind in ("sign", "carry", "borrow"):
        assert found.kind == kind
    elif found.line is not None:
        assert found.kind in ("copy", "trace")
    elif kind == "length":
        assert found.kind == "length"
    else:
        assert found.kind == ("answer" if len(part.rows(asked, target)) > 1 else "digit")
