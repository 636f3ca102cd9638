"""Sums of more than two numbers in the calculator: whose they are, asked, drawn, scored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.solver import Calculator
from addgpt.evaluation.check_task import check_task
from addgpt.evaluation.exact_match import evaluation_problems
from addgpt.task import Cell, Problem, UsageError
from addgpt.task_lookup import load_task
from tests.helpers.calculators import oracle

pytestmark = pytest.mark.slow

TASK = load_task("calc", {"far": (6, 12)})
PAIRS = load_task("calc", {"shares": (0.2, 0.2, 0.3, 0.3)})
NUMBERS = st.lists(st.integers(0, 10**7), min_size=3, max_size=9)


@given(NUMBERS)
def test_a_sum_of_many_is_asked_written_and_read_as_in_the_task_sum(numbers):
    problem, alone = Problem("+", tuple(numbers)), load_task("sum")
    prompt = TASK.encode(TASK.prompt(problem))[None]
    batch, other = TASK.reference(prompt), alone.reference(prompt)
    np.testing.assert_array_equal(batch.tokens, other.tokens)
    np.testing.assert_array_equal(batch.positions, other.positions)
    text = TASK.decode(batch.tokens[0, prompt.shape[1] : batch.lengths[0]])
    assert TASK.read(problem, text) == TASK.truth(problem) == (sum(numbers), 0)
    assert TASK.parse(f"{' + '.join(map(str, numbers))} =") == problem
    longest = len(str(max(numbers)))
    assert TASK.cell_of(problem) == Cell("+", longest, longest, f"sum:{len(numbers)}")


def test_the_mixture_keeps_the_contract_of_tasks(monkeypatch):
    monkeypatch.setattr("addgpt.evaluation.check_task.MAX_CELLS", 15)
    assert not [fault for _, found in check_task(TASK) for fault in found]


def test_a_sum_of_two_is_what_it_was():
    prompt = TASK.encode("12+345=")[None]
    assert TASK.cell_of(Problem("+", (12, 345))) == Cell("+", 2, 3)
    np.testing.assert_array_equal(TASK.reference(prompt).tokens, PAIRS.reference(prompt).tokens)


def test_prompts_of_all_parts_in_one_batch_get_their_own_ids():
    texts = ["1+2+3+4=", "12+3456=", "12-3456=", "12*3456=", "12/3456="]
    prompts = np.stack([TASK.encode(text) for text in texts])
    together, work = TASK.positions(prompts, 60), TASK.reference(prompts)
    for row, prompt in enumerate(prompts):
        np.testing.assert_array_equal(together[row], TASK.positions(prompt[None], 60)[0])
        alone = TASK.reference(prompt[None]).tokens[0]
        np.testing.assert_array_equal(work.tokens[row, : len(alone)], alone)


def test_training_draws_sums_of_three_and_four_as_often_as_it_is_told():
    batch = TASK.batch(np.random.default_rng(0), 4000, "train")
    counts = [len(problem.operands) for problem in batch.problems]
    assert {*counts} == {2, 3, 4}
    assert 0.08 < np.mean(np.array(counts) > 2) < 0.12
    assert all(TASK.in_train(problem) for problem in batch.problems)
    pairs = PAIRS.batch(np.random.default_rng(0), 1000, "train").problems
    assert {len(problem.operands) for problem in pairs} == {2}


@pytest.mark.parametrize("count", [4, 6, 12])
def test_cells_hold_what_they_say(count):
    cells = [cell for cell in TASK.cells() if cell.stratum.startswith(f"sum:{count}")]
    assert [cell.stratum for cell in cells] == [f"sum:{count}", f"sum:{count}:mixed"]
    for cell in cells:
        batch, split = evaluation_problems(TASK, cell, 30)
        assert (len(batch), split) == (30, "test")
        for problem in batch.problems:
            lengths = [len(str(number)) for number in problem.operands]
            assert len(lengths) == count and max(lengths) == cell.len_a == cell.len_b
            assert "mixed" in cell.stratum or {*lengths} == {cell.len_a}
            assert not TASK.in_train(problem)


def test_the_calculator_writes_a_chain_of_sums_in_one_go():
    calculator = Calculator(None, TASK, write=oracle(TASK))
    solution = calculator.solve("2*(10+20+30)-4")
    assert [str(step.problem) for step in solution.steps] == ["10+20+30", "2*60", "120-4"]
    assert solution.answer == "116" and solution.correct
    pairs = Calculator(None, PAIRS, write=oracle(PAIRS)).solve("10+20+30")
    assert [str(step.problem) for step in pairs.steps] == ["10+20", "30+30"]


def test_without_their_share_there_are_no_sums_of_many():
    with pytest.raises(UsageError, match="this model takes 2 operands, not 3"):
        PAIRS.prompt(Problem("+", (1, 2, 3)))
    with pytest.raises(UsageError, match="takes 2 operands, not 3"):
        TASK.prompt(Problem("-", (1, 2, 3)))
    with pytest.raises(UsageError, match=r"this model does \+ - \* /, not %"):
        TASK.prompt(Problem("%", (1, 2)))
    with pytest.raises(UsageError, match=r"four shares of \+ - \* /, or five"):
        load_task("calc", {"shares": (1.0, 1.0)})
