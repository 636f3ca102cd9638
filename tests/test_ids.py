"""Which ids digits have: abacus ids, and index hints, which write the columns out."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.solver import Calculator
from addgpt.task import Answer, Problem
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.common.ids import moved as move

pytestmark = pytest.mark.slow

# Abacus ids.


@given(st.lists(st.integers(0, 9999), min_size=6, max_size=6), st.sampled_from(["plain", "padded"]))
def test_abacus_ids_count_each_number_from_its_first_digit(numbers, form):
    from tasks.common import digits

    task = load_task("add", {"digits": 4, "format": form, "ids": "abacus"})
    a, b = (np.array([digits.from_int(n, 4) for n in side]) for side in (numbers[:3], numbers[3:]))
    sheet = task.write(a, b, digits.length(a), digits.length(b))
    batch = sheet.batch()
    for tokens, ids in zip(batch.tokens, batch.positions[:, :, 0], strict=True):
        text, run = task.decode(tokens).rstrip("#"), 0
        slots = len(text.partition("=")[0]) + 1 if form == "plain" else len(text)
        for place in range(slots):  # a plain sum may leave out its first slot
            run = run + 1 if text[place].isdigit() else 0
            assert ids[place] == run


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_abacus_ids_fit_their_level_and_decoding_sees_those_of_training(name):
    task = load_task(name, {"digits": 4, "ids": "abacus", "offset": 5})
    coupled = load_task(name, {"digits": 4})
    for split, most in (("train", 5), ("val", 0)):
        batch = task.batch(np.random.default_rng(0), 64, split)
        col = batch.positions[:, :, 0]
        assert col.max() < task.levels[0]
        other = coupled.batch(np.random.default_rng(0), 64, split)
        assert (batch.tokens == other.tokens).all()
        assert (batch.positions[:, :, 1:] == other.positions[:, :, 1:]).all()
        if not most:
            for row in range(8):
                size = int(batch.scored[row].argmax())
                told = task.positions(batch.tokens[row : row + 1, :size], 40)[0]
                n = min(len(told), batch.positions.shape[1])
                assert (told[:n] == batch.positions[row, :n]).all()


def test_an_abacus_run_trains(toy_run):
    run = toy_run(ids="abacus", offset=3, steps=4)
    assert train(run).step == 4
    assert run.model().config.levels[0] == run.task().levels[0]


# Index hints.


def hints_of(number: str) -> list[str]:
    """Pairs of a hint and a digit, as they are written."""
    assert len(number) % 2 == 0, number
    return [number[i : i + 2] for i in range(0, len(number), 2)]


@given(
    st.integers(0, 10**6 - 1),
    st.integers(0, 10**6 - 1),
    st.sampled_from(["plain", "reverse", "padded"]),
    st.sampled_from([{}, {"offset": 9}, {"spread": 30}]),
    st.integers(0, 99),
)
def test_hints_name_the_column_of_each_digit(matrices, a, b, form, moved, seed):
    task = load_task("add", {"digits": 6, "format": form, "hints": True, **moved})
    batch = task._written(*matrices([(a, b)]))
    if moved:
        move(batch, np.random.default_rng(seed), task.offset, task.spread)
    text = task.decode(batch.tokens[0]).partition("#")[0]
    first, second, total = map(hints_of, re.fullmatch("(.+)[+](.+)=(.+)", text).groups())
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnop"
    used = [pair[0] for pair in (total if form != "plain" else total[::-1])]
    places = [letters.index(letter) for letter in used]
    assert places == sorted(set(places))
    if not moved:
        assert places == list(range(len(places)))
    for number, pairs in ((a, first), (b, second)):
        assert "".join(pair[1] for pair in pairs) == str(number)
        assert [pair[0] for pair in pairs] == used[: len(pairs)][::-1]
    digits = "".join(pair[1] for pair in total)
    assert int(digits if form == "plain" else digits[::-1]) == a + b
    if form != "plain":  # the ids of what is written are those that hints name
        for char, col in zip(text, batch.positions[0, :, 0], strict=False):
            assert not char.isalpha() or letters.index(char) == col - 1


@given(st.integers(0, 10**45 - 1), st.integers(0, 10**45 - 1))
def test_hinted_problems_are_asked_and_answered_as_any(a, b):
    task, plain = (
        load_task("add", {"digits": 3, "far": (45,), "hints": hints}) for hints in (True, False)
    )
    problem = Problem("+", (a, b))
    prompt = task.prompt(problem)
    assert re.sub("[^0-9+=]", "", prompt) == f"{a}+{b}="
    assert task.decode(task.encode(prompt)) == prompt
    ids, known = (
        t.positions(t.encode(t.prompt(problem))[None], 100)[0, :, 0] for t in (task, plain)
    )
    digit = [char.isdigit() for char in prompt]
    assert ids[: len(prompt)][digit].tolist() == known[known > 0][: sum(digit)].tolist()
    assert ids.max() == known.max()
    assert task.read(problem, "A0B1#") == Answer(10)
    assert task.answer_digits(problem, "A0B1#") == [3, 1]


def test_a_hinted_run_trains_and_calculates(toy_run):
    run = toy_run(
        hints="true", offset=3, steps=4, position="rotary", level_position="none,none,none"
    )
    assert train(run).step == 4
    (solution,) = Calculator(run.model(), run.task()).solve_many(["12+34"])
    assert solution.truth == "46" and solution.error is None
    (step,) = solution.steps
    assert len(step.probabilities) == len(step.completion) > 0
    assert set(step.completion) <= set("0123456789+-*/=#r,;")
    with pytest.raises(ValueError, match="hints for 6 columns, the operand 7 digits"):
        run.task().prompt(Problem("+", (1234567, 1)))


@pytest.mark.parametrize("options", [{"offset": 40}, {"spread": 40}, {"hints": True, "offset": 40}])
def test_an_exam_is_written_as_a_person_s_problem_is(options):
    task = load_task("add", {"digits": 3, **options})
    for cell in task.cells():
        batch = task.evaluation_set(
            np.random.default_rng(0), 9, "train" if task.seen(cell) else "val", cell
        )
        rows = zip(batch.problems, batch.tokens, batch.scored, batch.positions, strict=True)
        for problem, tokens, scored, known in rows:
            start = int(scored.argmax())
            prompt = task.decode(tokens[:start])
            assert prompt == task.prompt(problem)
            told = task.positions(tokens[None, :start], 30)[0, : len(known)]
            assert (told == known[: len(told)]).all()
