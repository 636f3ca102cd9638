"""Scores: the fast path, the independence of rows, the counts."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from addgpt.config.architectures import GPTConfig
from addgpt.evaluation import exact_match as module
from addgpt.evaluation.exact_match import CellResult, evaluate, score
from addgpt.evaluation.predictions import predictions
from addgpt.evaluation.schema import EVAL_COLUMNS
from addgpt.generation.decode import EXTRA_TOKENS
from addgpt.model.build import build
from addgpt.model.forward import exact_rows, forward, loss, next_token_loss, tensors
from addgpt.task import Cell, Problem
from addgpt.task_lookup import load_task

FIELDS = ("answer_correct", "trace_correct", "unterminated")


class Scripted(torch.nn.Module):
    """Writes one given text after every prompt, then end marks or, if told, zeros."""

    def __init__(self, task, start: int, text: str, after: str = "#") -> None:
        super().__init__()
        self.config = GPTConfig(
            vocab=len(task.alphabet), context=500, levels=task.levels, width=4, heads=1, layers=1
        )
        self.anything = torch.nn.Parameter(torch.zeros(1))
        self.script = task.encode("0" * start + text + after * 400)

    def forward(self, tokens, ids, cache=None, at=None, prompt=None):
        begin = cache.used if cache is not None else 0
        end = begin + tokens.shape[1]
        if cache is not None:
            cache.used = end
        following = torch.from_numpy(self.script[begin + 1 : end + 1]).long()
        logits = torch.nn.functional.one_hot(following, self.config.vocab).float()
        logits = logits.expand(len(tokens), -1, -1)
        return logits if at is None else logits.take_along_dim(at[:, :, None], 1)


def written(task, matrices, *pairs):
    asked = np.fromiter((Problem(task.op, pair) for pair in pairs), object)
    return replace(task.write(*matrices(pairs)).batch(), problems=asked)


def equal(one, other, rows=slice(None)) -> None:
    for field in FIELDS:
        assert (getattr(one, field)[rows] == getattr(other, field)).all(), field
    index = np.arange(len(one.answer_correct))[rows].tolist()
    assert other.wrong == {new: one.wrong[old] for new, old in enumerate(index) if old in one.wrong}


@pytest.fixture(scope="module")
def scored(half_trained):
    """Problems of all lengths, and how the half-trained model does on them."""
    task, model = half_trained
    batch = task.batch(np.random.default_rng(0), 300, "train")
    outcome = score(model, task, batch)
    assert 0.1 < outcome.answer_correct.mean() < 0.95, outcome.answer_correct.mean()
    return task, model, batch, outcome


def test_the_fast_path_agrees_with_decoding_every_row(scored):
    task, model, batch, outcome = scored
    slow = score(model, task, batch, fast=False)
    equal(outcome, slow)
    assert outcome.wrong == slow.wrong
    assert (exact_rows(model, batch) == slow.trace_correct).all()


def test_outcomes_do_not_depend_on_order(scored):
    task, model, batch, outcome = scored
    order = np.random.default_rng(1).permutation(len(batch))
    equal(outcome, score(model, task, batch.rows(order)), order)


def test_outcomes_do_not_depend_on_the_batch(scored):
    task, model, batch, outcome = scored
    for row in range(0, len(batch), 6):
        one = slice(row, row + 1)
        equal(outcome, score(model, task, batch.rows(one)), one)


@pytest.mark.parametrize("tokens", [1, 50, 333])
def test_outcomes_and_loss_do_not_depend_on_the_size_of_groups(scored, tokens, monkeypatch):
    task, model, batch, outcome = scored
    few = batch.rows(slice(60))
    wanted = loss(model, few)
    monkeypatch.setattr(module, "TOKENS_AT_ONCE", tokens)
    equal(outcome, score(model, task, few), slice(60))
    assert loss(model, few) == pytest.approx(wanted, rel=1e-5)


def test_wrong_rows_come_with_what_the_model_wrote(scored):
    task, _, batch, outcome = scored
    assert sorted(outcome.wrong) == np.flatnonzero(~outcome.answer_correct).tolist()
    for row, text in outcome.wrong.items():
        start = int(batch.scored[row].argmax())
        assert text != task.decode(batch.tokens[row, start : batch.lengths[row]])


@pytest.mark.parametrize(
    ("text", "answer", "trace", "unterminated"),
    [
        ("716161-333#", True, True, False),
        ("716151-333#", True, False, False),  # a slip in the work, the right answer
        ("716161-334#", False, False, False),
        ("716161+333#", False, False, False),
        ("716161-333333#", False, False, False),
        ("716161-333000#", True, False, False),
        ("-r=;,#", False, False, False),
        ("#", False, False, False),
        ("716161-333", False, False, True),
    ],
)
def test_answer_and_trace_are_counted_apart(matrices, text, answer, trace, unterminated):
    task = load_task("sub", {"digits": 3})
    batch = written(task, matrices, (12, 345), (12, 345))
    model = Scripted(task, len("12-345="), text, after="0" if unterminated else "#")
    for fast in (True, False):
        outcome = score(model, task, batch, fast)
        assert [getattr(outcome, f).tolist() for f in FIELDS] == [
            [answer] * 2,
            [trace] * 2,
            [unterminated] * 2,
        ]


def test_each_row_has_its_own_limit(matrices):
    task = load_task("sub", {"digits": 4, "trace": "none"})
    start, own = len("12-123="), len("-111#")
    late = "-111" + "0" * (own + EXTRA_TOKENS - 4) + "#"  # right, but one token past the limit
    model = Scripted(task, start, late)
    alone = score(model, task, written(task, matrices, (12, 123)))
    beside = score(model, task, written(task, matrices, (12, 123), (1, 1234)))
    equal(beside, alone, slice(1))
    assert alone.unterminated.all() and not alone.answer_correct.any()
    model = Scripted(task, start, late.replace("0", "", 1))
    in_time = score(model, task, written(task, matrices, (12, 123)))
    assert in_time.answer_correct.all() and not in_time.unterminated.any()


def test_evaluate_yields_the_counts_of_each_cell(half_trained):
    task, model = half_trained
    rows = list(evaluate(model, task, task.cells(), per_cell=40))
    assert [tuple(row[f] for f in Cell._fields) for row in rows] == [
        cell for cell in task.cells() if cell.stratum == "all" or cell[1:3] == (3, 3)
    ]
    for row in rows:
        assert set(row) <= set(EVAL_COLUMNS)
        counts = {"(1, 1)": 100, "(1, 2)": 900, "(2, 1)": 900}
        seen = str((row["len_a"], row["len_b"])) in counts
        assert row["seen"] == seen
        assert row["split"] == ("train" if seen else "test")
        limit = counts.get(str((row["len_a"], row["len_b"])), 40)
        assert row["n"] == limit if row["stratum"] == "all" else 0 < row["n"] <= 40
        right, exact, lost = (row[f] for f in FIELDS)
        assert 0 <= exact <= right <= row["n"] - lost <= row["n"]
        assert all(type(row[f]) is int for f in (*FIELDS, "n"))


def test_a_cell_is_scored_the_same_whichever_others_are(half_trained):
    task, model = half_trained
    cells = task.cells()[3:8]
    together = list(evaluate(model, task, cells, per_cell=50, split="val", seed=3))
    alone = [next(evaluate(model, task, [c], per_cell=50, split="val", seed=3)) for c in cells]
    assert together == alone


def test_counts_are_those_of_the_exam_s_problems(half_trained):
    task, model = half_trained
    cell = Cell("-", 1, 1)
    row = next(evaluate(model, task, [cell]))
    outcome = score(model, task, task.evaluation_set(np.random.default_rng(0), 5, "train", cell))
    assert row["n"] == 100
    assert row["answer_correct"] == outcome.answer_correct.sum()
    assert row["trace_correct"] == outcome.trace_correct.sum()


def test_a_cell_without_problems_yields_no_row(half_trained, toy_model):
    task = load_task("add", {"digits": 2})
    model = toy_model(levels=task.levels)
    assert not list(evaluate(model, task, [Cell("+", 2, 2, "carry:7")]))


def test_the_loss_of_an_untrained_model_is_that_of_guessing(toy_model):
    task = load_task("mul", {"digits": 2})
    model = toy_model(levels=task.levels, context=task.longest())
    torch.nn.init.zeros_(model.head.weight)
    batch = task.batch(np.random.default_rng(0), 20, "val")
    assert loss(model, batch) == pytest.approx(math.log(len(task.alphabet)), rel=1e-5)


def test_rows_whose_scratchpad_no_longer_fits_the_context_are_unterminated(matrices):
    task = load_task("sub", {"digits": 3})
    batch = written(task, matrices, (12, 345))
    model = Scripted(task, len("12-345="), "", after="0")
    model.config = GPTConfig(
        vocab=19, context=batch.tokens.shape[1], levels=task.levels, width=4, heads=1, layers=1
    )
    assert score(model, task, batch).unterminated.all()


def test_working_out_scored_places_only_changes_no_gradient(toy_model):
    task = load_task("add", {"digits": 3})
    batch = task.batch(np.random.default_rng(0), 40, "train")
    assert batch.scored.sum() < 0.5 * batch.scored.size
    gradients = []
    for read in (forward, every):
        model = toy_model(levels=task.levels, context=task.longest(), layers=2)
        next_token_loss(*read(model, batch)).backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for few, all_ in zip(*gradients, strict=True):
        torch.testing.assert_close(few, all_, rtol=1e-3, atol=1e-4)


def every(model, batch):
    tokens, ids, targets = tensors(batch, torch.device("cpu"))
    return model(tokens, ids), targets


def test_a_model_without_a_longer_table_may_write_the_last_token_all_the_same():
    """It is only written, not read."""
    task = load_task("add", {"digits": 3})
    batch = task.batch(np.random.default_rng(0), 20, "test", Cell("+", 3, 3))
    whole = batch.tokens[batch.lengths == batch.lengths.max()][0]
    model = Scripted(task, 8, task.decode(whole[8:-1]))
    model.config = replace(model.config, position="learned", context=len(whole) - 1)
    assert model.config.longest == len(whole) - 1
    row = batch.rows(np.flatnonzero((batch.tokens == whole).all(1))[:1])
    assert score(model, task, row, fast=False).trace_correct.all()


def test_long_work_that_the_model_doubts_has_no_confidence(toy_run):
    """The probability of so many tokens is zero in floats; its logarithm is not."""
    run = toy_run(digits=400)
    task, model = run.task(), build(run.config.model).eval()
    cell = Cell("+", 400, 400)
    batch = task.batch(np.random.default_rng(0), 2, "test", cell)
    outcome = score(model, task, batch, chances=True)
    assert (outcome.chances < -745).all()
    result = CellResult(cell, "test", False, batch, outcome)
    assert [row["confidence"] for row in predictions(run, result)] == [0, 0]
