"""The calculator with a perfect model in place of a trained one, so that what it does is exact."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.calculator.numbers import Rules
from addgpt.calculator.questions import apply
from addgpt.calculator.solver import Calculator, Solution
from addgpt.generation.decode import EXTRA_TOKENS
from addgpt.model.build import build
from addgpt.runs.resolve import configure
from addgpt.task import Answer, Cell, Graded, Recipe, Task
from addgpt.task_lookup import load_task
from tests.helpers.calculators import oracle, perfect


@pytest.fixture(scope="module")
def calculator() -> Calculator:
    """Division with a remainder; `test_typed` has decimals."""
    return remaindering()


def remaindering(**changes) -> Calculator:
    calculator = perfect(**changes)
    calculator.rules = Rules("remainder")
    return calculator


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12+34", "46"),
        ("12*(34-5)/2", "174"),
        ("12*(34-5)/(2)", "174"),
        ("17/5", "3 remainder 2"),
        ("-17/5", "-3 remainder -2"),
        ("17/-5", "-3 remainder 2"),
        ("-17/-5", "3 remainder -2"),
        ("(17/5)", "3 remainder 2"),
        ("-(17/5)", "-3 remainder -2"),
        ("3-10", "-7"),
        ("-3+5", "2"),
        ("-3-5", "-8"),
        ("-3*4", "-12"),
        ("0*-5", "0"),
        ("5", "5"),
        ("-(5)", "-5"),
        ("5/17", "0 remainder 5"),
        ("0/7", "0"),
        ("12345*99", "1222155"),
    ],
)
def test_answers(calculator, text, answer):
    solution = calculator.solve(text)
    assert (solution.answer, solution.correct, solution.truth) == (answer, True, answer)
    assert solution.error is None and solution.stuck is None


def test_steps_tell_what_was_asked(calculator):
    steps = calculator.solve("(-3+5)*-(20-6)").steps
    assert [step.reduction for step in steps] == ["-3 + 5", "20 - 6", "2 * (-14)"]
    assert [str(step.problem) for step in steps] == ["5-3", "20-6", "2*14"]
    assert [str(step.result) for step in steps] == ["2", "14", "-28"]
    assert [str(step.answer) for step in steps] == ["2", "14", "28"]
    for step in steps:
        assert step.correct and step.finished and step.covered and step.answer == step.truth
        assert len(step.probabilities) == len(step.completion)
        assert step.completion.endswith("#")


@given(st.integers(-9999, 9999), st.sampled_from("+-*/"), st.integers(-9999, 9999))
def test_every_combination_of_signs(a, op, b):
    if op == "/" and b == 0:
        return
    solution = remaindering().solve(f"{a}{op}({b})")
    assert solution.answer == str(apply(op, a, b)) and solution.correct
    assert all(min(step.problem.operands) >= 0 for step in solution.steps)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1/0", "division by zero"),
        ("5*(1/(3-3))", "division by zero"),
        ("7/2*2", "must be exact"),
        ("1.5.2", "more than one point"),
        ("", "empty"),
        ("9" * 400 + "*" + "9" * 50, "400 digits . 50 digits takes more than 17,1"),
        ("9" * 450 + "/7777777", r"too much work: 450 digits / 7 digits takes more than 17,143"),
        ("9" * 1000 + "+1-1", "an intermediate result has more than 1,000 digits"),
    ],
)
def test_errors_are_values_in_solve_many_and_raised_by_solve(calculator, text, words):
    calculator._asker._together.batches.clear()
    good, bad, also_good = calculator.solve_many(["1+1", text, "2+2"])
    assert (good.answer, also_good.answer) == ("2", "4")
    assert re.search(words, bad.error) and "\n" not in bad.error
    assert bad.correct is None and bad.answer == ""
    with pytest.raises(ValueError, match=words):
        calculator.solve(text)


def test_local_attention_bears_longer_work_for_each_token_takes_as_long(toy_model):
    options = {"digits": 3, "trace": "carry"}
    task, text = load_task("div", options), "7" * 150 + "/" + "3" * 75
    for attention, solved in (("reads", True), ("full", False)):
        config = configure("div", options | {"attention": attention, "width": "16"}).model
        model = toy_model(**vars(config))
        (solution,) = Calculator(model, task, write=oracle(task)).solve_many([text])
        assert solution.correct is (True if solved else None)
        assert solved or "work: 150 digits / 75 digits takes" in solution.error
    huge = "7" * 600 + "/" + "3" * 300
    (solution,) = Calculator(build(replace(config, attention="full")), task).solve_many([huge])
    assert "600 digits / 300 digits takes more than 17,143 tokens" in solution.error


def test_the_model_is_not_asked_for_what_has_no_answer(calculator):
    calculator._asker._together.batches.clear()
    calculator.solve_many(["1+2/0", "2*3+7/2-1", "(1+2", "3^400"])  # 96 by 96 digits, at last
    assert calculator._asker._together.batches == []


def test_lengths_that_are_scored_are_covered_and_gaps_between_them_are_not():
    far = perfect(options={"digits": 2, "sum_digits": 3, "far": (4, 6)})
    texts = ("999+1", "9999+1", "123456*2", "12345*2", "1234567-1")
    covered = [solution.covered for solution in far.solve_many(texts)]
    assert covered == [True, True, True, False, False]


def test_beyond_the_trained_lengths(calculator):
    short, long, big = calculator.solve_many(["999999+1", "1000000+1", "12345*6"])
    assert short.covered and not long.covered and not big.covered
    assert long.answer == "1000001" and big.answer == "74070"


def expressions(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)

    def number() -> str:
        return str(rng.randrange(10 ** rng.randint(1, 3)))

    shapes = ["{a}+{b}", "{a}*({b}-{c})", "-{a}*{b}+{c}", "{a}/{b}", "({a}-{b})*({c}+{a})"]
    shapes += ["{a}*", "{a}"]
    return [rng.choice(shapes).format(a=number(), b=number(), c=number()) for _ in range(count)]


def test_solve_many_is_solve_one_by_one_in_order():
    texts = expressions(150)
    calculator = perfect()
    together = calculator.solve_many(texts)
    assert [solution.text for solution in together] == texts
    assert together == [calculator.solve_many([text])[0] for text in texts]
    assert any(s.error for s in together) and any(s.correct for s in together)


def test_operations_are_batched_over_expressions():
    calculator = perfect()
    calculator.solve_many([f"{a}*{b}+{a}" for a in range(10, 30) for b in range(10, 20)])
    # 200 products with prompts of one length, then sums of few prompt lengths
    assert calculator._asker._together.batches[0] == 200
    assert len(calculator._asker._together.batches) < 6


def test_equal_problems_are_asked_once():
    calculator = perfect()
    solutions = calculator.solve_many(["1+1"] * 500)
    assert calculator._asker._together.batches == [1]
    assert {solution.answer for solution in solutions} == {"2"}


def test_batches_are_bounded(monkeypatch):
    monkeypatch.setattr("addgpt.calculator.ask.TOKENS_AT_ONCE", 200)
    calculator = perfect()
    texts = [f"{a}*{a + 1}" for a in range(10, 60)]
    solutions = calculator.solve_many(texts)
    assert [s.answer for s in solutions] == [str(a * (a + 1)) for a in range(10, 60)]
    assert max(calculator._asker._together.batches) < 10


def test_a_short_problem_is_not_laid_out_as_long_as_the_longest(monkeypatch):
    """The limits are those that all slots at once would give."""
    asker, laid = perfect()._asker, []
    task, positions = asker.task, type(asker.task).positions

    def noted(self, tokens, slots):
        laid.append(tokens.size + len(tokens) * slots)
        return positions(self, tokens, slots)

    monkeypatch.setattr(type(task), "positions", noted)
    for text in ("12345+6", "12345678*87654321", f"{10**30}/7", "99-5", "1234*5678"):
        problem = task.parse(text)
        prompt = task.encode(task.prompt(problem))[None]
        slots = asker._slots(problem, prompt.shape[1])
        laid.clear()
        limit = asker._limit(problem, prompt)
        total = sum(laid)
        end = np.flatnonzero(task.positions(prompt, slots)[0].any(1))[-1] + 1
        assert limit == end - prompt.shape[1] + EXTRA_TOKENS
        assert total < 20 * (end + 64)
    prompts = np.stack([task.encode(f"{a}*{b}=") for a, b in ((1, 10**9), (10**4, 10**5))])
    both = asker._limits(prompts, 120_000).tolist()
    assert both == [int(asker._limits(prompt[None], 120_000)[0]) for prompt in prompts]
    assert both[0] < both[1]


def test_a_wrong_answer_goes_into_the_next_operation():
    def spoil(prompt, completion):
        return "0050#" if prompt == "12+34=" else completion

    solution = perfect(spoil=spoil).solve("(12+34)*2")
    assert (solution.answer, solution.truth, solution.correct) == ("100", "92", False)
    first, second = solution.steps
    assert (first.answer, first.truth, first.correct) == (Answer(50), Answer(46), False)
    assert (str(second.problem), second.truth, second.correct) == ("50*2", Answer(100), True)


@pytest.mark.parametrize("text", ["840,63", "#", "999", "r#", "=#", "12+34#", "3r2#", "4" * 9000])
def test_unreadable_writing_is_shown_and_marked_wrong(text):
    calculator = perfect(spoil=lambda prompt, completion: text)
    for problem in ("12+34", "12*34", "34-12", "34/5", "-34/5+1-1/1"):
        solution = calculator.solve_many([problem])[0]
        if solution.error:  # 34/5 leaves a rest
            continue
        assert solution.correct is False
        if solution.stuck:
            assert solution.answer == "" and solution.steps[-1].answer is None
            assert solution.steps[-1].completion.startswith(text[:5])
        assert all(calculator.explain(step) for step in solution.steps)


def test_a_model_that_goes_wrong_may_get_stuck_but_the_person_is_not_blamed():
    def spoil(prompt, completion):
        quotient = "000,000,000,000000+000000+000000+000000+0,0000;=10r1#"
        return {"12-5=": "0000+00#", "20/10=": quotient}.get(prompt, completion)

    by_zero, inexact = remaindering(spoil=spoil).solve_many(["70/(12-5)", "1+20/10"])
    for solution, words in ((by_zero, "division by zero"), (inexact, "must be exact")):
        assert solution.error is None and solution.correct is False
        assert words in solution.stuck
        assert solution.truth in ("10", "3")


def test_what_ends_too_late_does_not_depend_on_its_batch():
    """A row that runs on past its own limit counts as unfinished, however long its batch goes."""
    late = "5" * 30 + "#"
    calculator = perfect(spoil=lambda prompt, text: late if prompt == "1+2345=" else text)
    alone = calculator.solve("1+2345")
    assert not alone.steps[0].finished and alone.stuck
    together = calculator.solve_many(["1+2345", "12*345"])
    assert together[0] == alone and together[1].correct


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_models_of_one_operation(name):
    op = {"add": "+", "sub": "-", "mul": "*", "div": "/"}[name]
    calculator = perfect(name)
    assert calculator.operators == op
    assert calculator.solve(f"84{op}7").correct
    other = "*" if op != "*" else "+"
    with pytest.raises(ValueError, match=f"this model does .{op}?, not"):
        calculator.solve(f"8{other}4")


def test_a_language_model_is_no_calculator():
    class Prose(Task):
        alphabet: ClassVar[str] = "abc"

        def batch(self, rng, size, split, cell=None):
            raise NotImplementedError

        def longest(self):
            return 8

        def recipe(self):
            return Recipe({}, {})

    class Double(Plain):
        def truth(self, problem):
            a, b = problem.operands
            return Answer(2 * a + b)

    with pytest.raises(ValueError, match="not a calculator"):
        Calculator(None, Prose(), "prose", write=lambda prompts, limit: None)
    with pytest.raises(ValueError, match="double is not a calculator: its task"):
        Calculator(None, Double(), "double", write=lambda prompts, limit: None)
    with pytest.raises(ValueError, match="needs a model"):
        Calculator(None, load_task("add"))


@dataclass(frozen=True)
class Plain(Graded):
    """A task so simple that ten thousand expressions take no time."""

    alphabet: ClassVar[str] = "0123456789+-*/=# remainder"

    def batch(self, rng, size, split, cell=None):
        raise NotImplementedError

    def longest(self):
        return 40

    def recipe(self):
        return Recipe({}, {})

    def cells(self):
        return [Cell(op, 1, 1) for op in "+-*/"]

    def prompt(self, problem):
        return f"{problem}="

    def truth(self, problem):
        return apply(problem.op, *problem.operands)

    def read(self, problem, completion):
        whole, _, rest = completion.removesuffix("#").partition(" remainder ")
        return Answer(int(whole), int(rest or 0))


@pytest.fixture(scope="module", params=["none", "learned", "rotary"])
def random_model(request):
    import torch

    from addgpt.config.architectures import GPTConfig
    from addgpt.model.build import build

    task = load_task("calc", {"digits": 2, "sum_digits": 2})
    model = build(
        GPTConfig(
            vocab=len(task.alphabet),
            context=task.longest(),
            levels=task.levels,
            layers=1,
            width=16,
            heads=2,
            position=request.param,
        )
    )
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(0))
    return Calculator(model, task, "untrained", rules=Rules("remainder"))


def test_an_untrained_model_is_wrong_but_never_breaks(random_model):
    texts = [*expressions(60), "9" * 30 + "+1", "12345*678", "12345678/3", "1/0"]
    together = random_model.solve_many(texts)
    assert [solution.text for solution in together] == texts
    assert any(solution.correct is False for solution in together)
    for text, solution in zip(texts[-8:], together[-8:], strict=True):
        alone = random_model.solve_many([text])[0]
        assert without_chances(alone) == without_chances(solution)


def without_chances(solution: Solution) -> Solution:
    """Probabilities may differ in the last bit between batches."""
    return replace(
        solution, steps=tuple(replace(step, probabilities=()) for step in solution.steps)
    )
