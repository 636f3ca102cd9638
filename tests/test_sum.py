"""Sums of many numbers: against Python's integers, and the trace against its own rules."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.solver import Calculator
from addgpt.cli.main import main
from addgpt.evaluation.certificate import list_contexts
from addgpt.evaluation.check_task import check_task
from addgpt.evaluation.contexts import met
from addgpt.evaluation.exact_match import answer_of
from addgpt.evaluation.schema import is_longer
from addgpt.locality import LAST
from addgpt.model.local import LocalAttention
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import Cell, Problem, UsageError
from addgpt.training.loop import train
from tasks.add import Add
from tasks.common import audit, splits
from tasks.sum import Sum
from tests.helpers.calculators import oracle

pytestmark = pytest.mark.slow

TASK = Sum(far=(30,))
number = st.integers(0, 9) | st.integers(0, 10**4) | st.integers(0, 10**60)
operands = st.lists(number, min_size=2, max_size=12)
LONG = [Cell("+", 30, 30), Cell("+", 30, 30, "mixed"), Cell("+", 130, 1), Cell("+", 2, 300)]


def work(*numbers: int) -> str:
    """What is to be written, from the definition, by Python's integers."""
    rows, total, largest = [], numbers[0], 10 ** len(str(numbers[0])) - 1
    for number in numbers[1:]:
        largest += 10 ** len(str(number)) - 1
        row, carry = "", 0
        for place in range(len(str(largest))):
            column = total // 10**place % 10 + number // 10**place % 10 + carry
            carry = column // 10
            row += f"{column % 10}{carry}"
        total += number
        rows.append(row)
    return ";".join(rows) + "#"


def asked(numbers) -> str:
    return "+".join(map(str, numbers)) + "="


def reference(*numbers: int) -> str:
    prompt, text = TASK.texts(TASK.reference(TASK.encode(asked(numbers))[None]))[0]
    assert prompt == asked(numbers)
    return text


@given(operands)
def test_what_is_written_is_the_sum(numbers):
    problem, text = Problem("+", tuple(numbers)), reference(*numbers)
    assert text == work(*numbers)
    assert TASK.read(problem, text) == TASK.truth(problem) == (sum(numbers), 0)
    assert TASK.prompt(problem) == asked(numbers) and TASK.parse(str(problem)) == problem
    assert "".join(text[place] for place in TASK.answer_digits(problem, text)) == str(sum(numbers))
    assert "".join(row.text for row in TASK.rows(problem, text)) == text


@given(operands, st.data())
def test_what_is_not_a_finished_trace_is_no_answer(numbers, data):
    problem, text = Problem("+", tuple(numbers)), reference(*numbers)
    place = data.draw(st.integers(0, len(text) - 1))
    for spoiled in (text[:place] + text[place + 1 :], text[:place], text + "0", text[:place] + "+"):
        assert answer_of(TASK, problem, spoiled) is None
        TASK.draw(problem, spoiled)


@given(operands)
def test_running_sums_alone_start_at_zero_and_are_all_as_long(numbers):
    task, width = (
        Sum(trace="sums"),
        len(str(len(numbers) * (10 ** max(map(len, map(str, numbers))) - 1))),
    )
    totals = [0, *itertools.accumulate(numbers)]
    text = ";".join(str(total).zfill(width)[::-1] for total in totals) + "#"
    problem = Problem("+", tuple(numbers))
    prompt = "+".join(str(number).zfill(width) for number in numbers) + "="
    assert task.prompt(problem) == prompt
    assert task.texts(task.reference(task.encode(prompt)[None]))[0] == (prompt, text)
    assert task.read(problem, text) == (sum(numbers), 0)
    assert str(sum(numbers)) in task.draw(problem, text)
    for spoiled in (text[1:], text.replace(";", "", 1), "1" + text[1:]):
        assert answer_of(task, problem, spoiled) is None
        task.draw(problem, spoiled)


def test_both_levels_of_ids_are_moved_in_training_alone():
    moved, still = (Sum(trace="sums", offset=n) for n in (7, 0))
    assert [a - b for a, b in zip(moved.levels, still.levels, strict=True)] == [7, 7, 0]
    batches = [t.batch(np.random.default_rng(0), 300, "train") for t in (moved, still)]
    assert (batches[0].tokens == batches[1].tokens).all()
    apart = batches[0].positions - batches[1].positions
    for level in (0, 1):
        there = batches[1].positions[:, :, level] > 0
        by_row = [
            set(row[some].tolist()) for row, some in zip(apart[:, :, level], there, strict=True)
        ]
        assert all(len(found) == 1 for found in by_row)
        assert set().union(*by_row) == set(range(8)) and not apart[:, :, level][~there].any()
    assert not apart[:, :, 2].any()
    one, other = (t.batch(np.random.default_rng(0), 50, "val") for t in (moved, still))
    assert (one.positions == other.positions).all()


def test_prompts_of_one_length_do_not_mix():
    """Rows of a batch may have other numbers of operands; each is as it is alone."""
    prompts = ["12+345+6=", "1+2+34+5=", "1234+567=", "1+2+3+45="]
    tokens = np.stack([TASK.encode(prompt) for prompt in prompts])
    together, ids = TASK.reference(tokens), TASK.positions(tokens, 90)
    for row, prompt in enumerate(prompts):
        numbers = map(int, prompt[:-1].split("+"))
        assert TASK.texts(together)[row] == (prompt, work(*numbers))
        alone = TASK.positions(tokens[row : row + 1], 90)[0]
        assert (ids[row] == alone).all()
        size = together.positions.shape[1]
        assert (together.positions[row] == alone[:size]).all() and (alone[size:] == 0).all()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"operands": 2},
        {"digits": 1},
        {"operands": 7, "digits": 2, "far": (8, 11)},
        {"trace": "sums", "offset": 5, "far": (6,)},
    ],
)
def test_it_keeps_the_contract_of_tasks(options):
    checks = check_task(Sum(**options))
    assert len(checks) == 11 and not [fault for _, found in checks for fault in found]


@pytest.mark.parametrize("cell", [None, Cell("+", 4, 4), Cell("+", 3, 2, "mixed"), *LONG])
def test_each_token_follows_from_what_its_rule_reads(cell):
    batch = TASK.batch(np.random.default_rng(3), 20, "test", cell)
    rules = TASK.rules()
    for tokens, ids, scored in zip(batch.tokens, batch.positions, batch.scored, strict=True):
        place_of = {tuple(own): place for place, own in enumerate(ids.tolist())}
        for slot in np.flatnonzero(scored):
            col, step, kind = ids[slot].tolist()
            values = []
            for read in rules[kind].reads:
                if read == LAST:
                    values.append(tokens[slot - 1 : slot])
                    continue
                wanted = col - read.col if read.col is not None else 0, step - read.step, read.kind
                there = place_of.get(wanted, slot) if min(wanted) >= 0 else slot
                assert there <= slot
                usable = there < slot and (read.col is None or wanted[0] > 0)
                values.append(tokens[there : there + 1] if usable else None)
            assert np.asarray(rules[kind].token(*values)).item() == tokens[slot]
            assert rules[kind].given is None or rules[kind].given(*values).all()


@pytest.fixture(scope="module")
def listed():
    """The contexts of each look."""
    config = configure("sum", {}).model
    listed = list_contexts(TASK, config)
    assert listed.size < 9
    found = {
        group.look: dict(zip(map(bytes, group.tokens), group.right.tolist(), strict=True))
        for group in listed.groups
    }
    return LocalAttention(config), found


@pytest.mark.parametrize("cell", [None, *LONG], ids=str)
def test_a_slot_sees_four_tokens_at_most_and_what_it_sees_is_listed(listed, cell):
    local, found = listed
    batch = TASK.batch(np.random.default_rng(4), 2 if cell else 50, "test", cell)
    seen = local.seen_keys(torch.from_numpy(batch.positions.astype(np.int64))).numpy()
    assert seen.shape[-1] <= 4
    for row in range(len(batch)):
        for slot in np.flatnonzero(batch.scored[row]):
            look, _, context = met(batch, row, seen[row, slot - 1])
            assert found[look][bytes(context)] == batch.tokens[row, slot]


def test_there_are_few_contexts(listed):
    assert sum(map(len, listed[1].values())) < 2000


@given(operands)
def test_the_split_of_a_sum_is_that_of_any_order_of_it(numbers):
    def split(*some: int) -> int:
        width = max(len(str(x)) for x in some)
        digits = [[int(char) for char in str(x).zfill(width)[::-1]] for x in some]
        absent = [[7] * width]  # a row that does not count
        rows = np.array([digits + absent], np.int8)
        return int(splits.split_of_many(rows, np.array([len(some)]), ord("+"))[0])

    found = split(*numbers)
    assert found == split(*numbers[::-1]) == split(*sorted(numbers))
    if sum(len(str(x)) for x in numbers) > 3:
        assert audit.in_train(numbers, "+", True) == (found == 0)
        assert TASK.in_train(Problem("+", tuple(sorted(numbers)))) == (found == 0)
    a, b = numbers[:2]
    if len(str(a) + str(b)) > 3:
        assert Add(digits=3).in_train(Problem("+", (a, b))) == (split(a, b) == 0)


def test_equivalent_are_all_orders_of_few_and_the_sorted_one_of_many():
    assert len(TASK.equivalent(TASK.parse("1+2+3+4"))) == 24
    assert [*map(str, TASK.equivalent(TASK.parse("1+1+2")))] == ["1+1+2", "1+2+1", "2+1+1"]
    assert [*map(str, TASK.equivalent(TASK.parse("6+5+4+3+2+1")))] == ["6+5+4+3+2+1", "1+2+3+4+5+6"]


def test_training_keeps_to_its_lengths_and_draws_all_of_them():
    task = Sum(operands=3, digits=2)
    batch = task.batch(np.random.default_rng(0), 3000, "train")
    found = [tuple(map(len, prompt[:-1].split("+"))) for prompt, _ in task.texts(batch)]
    shapes = [itertools.product((1, 2), repeat=count) for count in (2, 3)]
    assert {*found} == {*itertools.chain(*shapes)}


def test_problems_like_another():
    rng = np.random.default_rng(0)
    cell = TASK.cell_like("1+22+333=")
    for prompt, _ in TASK.texts(TASK.batch(rng, 50, "train", cell)):
        assert [len(operand) for operand in prompt[:-1].split("+")] == [1, 2, 3]
    for prompt in ("1+1+1+1+1=", "1+55555="):  # training has no such
        assert not len(TASK.batch(rng, 50, "train", TASK.cell_like(prompt)))
        assert len(TASK.batch(rng, 50, "test", TASK.cell_like(prompt))) == 50


def test_cells_are_numbers_of_operands_and_their_length():
    task = Sum(operands=3, digits=2, far=(5,))
    grid = [cell for cell in task.cells() if cell.stratum == "all"]
    assert [cell[1:3] for cell in grid] == [*itertools.product((2, 3, 5), (1, 2, 5))]
    rng = np.random.default_rng(0)
    for cell in task.cells():
        split = "train" if task.seen(cell) else "test"
        batch = task.evaluation_set(rng, 40, split, cell)
        lines = [sorted(prompt[:-1].split("+")) for prompt, _ in task.texts(batch)]
        assert len(lines) == (100 if task.seen(cell) else len({*map(tuple, lines)}))
        assert {len(line) for line in lines} == {cell.len_a}
        lengths = {len(operand) for line in lines for operand in line}
        assert max(lengths) == cell.len_b and (len(lengths) == 1) == (cell.stratum == "all")
    options = {"operands": 3, "digits": 2}
    longer = [is_longer(cell._asdict(), options) for cell in grid]
    assert longer == [5 in cell[1:3] for cell in grid]
    assert task.in_eval_range(Problem("+", (11111, 2, 3)))
    assert not task.in_eval_range(Problem("+", (1111, 2, 3)))
    assert not task.in_eval_range(Problem("+", (1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("12", "not a problem like 12"),
        ("1+2-3", "not a problem like 12"),
        ("1++2", "not a problem like 12"),
        ("+".join(["1"] * 1001), "2 to 1,000 operands, not 1,001"),
        (f"1+2+{10**1000}", "at most 1000 digits"),
        ("1+2+" + "9" * 5000, "not a problem like 12"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(text, says):
    with pytest.raises(UsageError, match=says) as error:
        TASK.parse(text)
    assert "\n" not in str(error.value)


def test_a_long_sum_is_asked_whole():
    numbers = [10**99 + place for place in range(100)]
    problem = TASK.parse(" + ".join(map(str, numbers)))
    assert TASK.read(problem, reference(*numbers)) == TASK.truth(problem) == (sum(numbers), 0)


def test_tasks_of_two_operands_refuse_more():
    with pytest.raises(UsageError, match="takes 2 operands, not 3"):
        Add().prompt(Problem("+", (1, 2, 3)))


def test_the_work_on_paper():
    problem = TASK.parse("97+8+6+123")
    assert TASK.draw(problem, reference(97, 8, 6, 123)).split("\n") == [
        "   97",
        "+   8",
        "-----",
        "  105   carries 11",
        "+   6",
        "-----",
        "  111   carries 1",
        "+ 123",
        "-----",
        "  234",
    ]
    assert TASK.draw(problem, "").count("?") == 3


def test_a_wrong_answer_of_many_is_told_by_its_digit():
    problem = TASK.parse("12+34+56")
    assert TASK.error_type(problem, TASK.truth(problem)._replace(whole=112)) == ("digit", "1")
    assert TASK.error_type(problem, TASK.truth(problem)._replace(whole=1102)) == ("length", "3")


# In the calculator.


def calculator(spoil=lambda prompt, completion: completion) -> Calculator:
    return Calculator(None, TASK, write=oracle(TASK, spoil))


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("1+2+3", ["1+2+3"]),
        ("12+3", ["12+3"]),
        ("(1+2)+30+5", ["1+2+30+5"]),
        ("(1+2)+(30+40)+5", ["30+40", "1+2+70+5"]),  # brackets on the right are a sum of their own
        ("-(1+2+3)", ["1+2+3"]),
        ("-1 + -2 + -3", ["1+2", "3+3"]),  # of signed numbers two at a time
    ],
)
def test_a_chain_of_additions_is_one_problem(text, problems):
    solution = calculator().solve(text)
    assert [str(step.problem) for step in solution.steps] == problems
    assert solution.correct and solution.answer == str(eval(text))
    assert solution.covered == all(len(problem.split("+")) < 5 for problem in problems)


def test_a_wrong_sum_and_what_is_no_sum_are_told():
    wrong = calculator(lambda prompt, completion: completion.replace("6", "7")).solve("1+2+3")
    assert wrong.answer == "7" and wrong.correct is False
    with pytest.raises(UsageError, match="this model does"):
        calculator().solve("1+2+3*4")


def test_two_at_a_time_for_a_model_that_adds_two():
    solution = Calculator(None, Add(), write=oracle(Add())).solve("1+2+3")
    assert [str(step.problem) for step in solution.steps] == ["1+2", "3+3"]


# A run, from the command line.


@pytest.mark.slow
def test_a_run_is_trained_scored_asked_and_not_certified(tmp_path):
    small = {"operands": 3, "digits": 2, "width": 16, "heads": 2, "steps": 20, "batch_size": 16}
    run = Run.create(tmp_path / "run", configure("sum", small | {"eval_every": 20, "threads": 1}))
    train(run)

    def called(*words: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, [*words], catch_exceptions=False)
        assert result.exit_code == code, result.output
        return result.stdout

    called("eval", str(run.path), "--per-cell", "20")
    assert "1 + 2 + 3" in called("calc", "--model", str(run.path), "--steps", "1+2+3", code=1)
    called("certify", str(run.path), code=1)
    certificate = json.loads((run.path / "certificate.json").read_text())
    assert certificate["wrong"] and not certificate["tried"]["unlisted"]
