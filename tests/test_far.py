"""Options for lengths beyond those trained: ids with gaps, and cells of longer operands."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from addgpt.evaluation.exact_match import score
from addgpt.runs.resolve import configure
from addgpt.task import Cell
from addgpt.task_lookup import load_task
from addgpt.training.preflight import check_trainable

pytestmark = pytest.mark.slow


def cols(task, split="train", seed=0, size=200) -> np.ndarray:
    return task.batch(np.random.default_rng(seed), size, split).positions[:, :, 0].astype(int)


@given(st.integers(0, 10), st.integers(0, 1000))
def test_gaps_keep_order_and_equality_of_ids(more, seed):
    plain = load_task("add", {"digits": 4})
    spread = plain.columns() + more
    moved = load_task("add", {"digits": 4, "spread": spread})
    before, after = (cols(task, seed=seed) for task in (plain, moved))
    assert before.shape == after.shape  # the same problems: ids are drawn after them
    assert ((before == 0) == (after == 0)).all() and after.max() <= spread
    for old, new in zip(before, after, strict=True):
        pairs = sorted({*zip(old, new, strict=True)})
        olds, news = zip(*pairs, strict=True)
        assert len(set(olds)) == len(pairs) and list(news) == sorted(set(news))


def test_half_of_the_rows_have_no_gaps_and_all_ids_are_drawn():
    after = cols(load_task("add", {"digits": 3, "spread": 30}), size=2000)
    used = [np.unique(row[row > 0]) for row in after]
    together = [np.ptp(ids) == len(ids) - 1 for ids in used]
    assert 0.45 < np.mean(together) < 0.6
    assert {*np.concatenate(used)} == {*range(1, 31)}


def test_gaps_are_for_training_only():
    plain, moved = (load_task("sub", {"digits": 3} | more) for more in ({}, {"spread": 40}))
    for split in ("val", "test"):
        assert (cols(plain, split) == cols(moved, split)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"spread": 2}, r"spread must be in 5\.\.10000, or 0 for none, not 2"),
        ({"spread": 50, "offset": 3}, "offset and spread exclude each other"),
        ({"far": (3, 20)}, "far must hold different lengths above 3, at most 1000"),
        ({"far": (5, 5)}, "different lengths above 3"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        load_task("add", {"digits": 3} | options)


def test_far_lengths_are_cells_of_problems_that_long():
    task = load_task("add", {"digits": 2, "far": (5, 30)})
    pairs = {(cell.len_a, cell.len_b) for cell in task.cells()}
    assert pairs == {(n, m) for n in (1, 2, 5, 30) for m in (1, 2, 5, 30)}
    batch = task.evaluation_set(np.random.default_rng(0), 20, "test", Cell("+", 30, 5))
    for row in batch.tokens:
        a, b = task.decode(row).partition("=")[0].split("+")
        assert (len(a), len(b)) == (30, 5)


def test_the_calculator_scores_each_operation_beyond_what_it_is_trained_on():
    task = load_task("calc", {"digits": 2, "sum_digits": 4, "far": (3, 7)})
    lengths = {op: {c.len_a for c in task.cells() if c.op == op} for op in "+-*/"}
    assert lengths["+"] == lengths["-"] == {1, 2, 3, 4, 7}
    assert lengths["*"] == lengths["/"] == {1, 2, 3, 7}
    scored = {
        text: task.in_eval_range(task.parse(text))
        for text in ("12345+1", "1/1234", "1234567+1", "999*1234567", "12345678-1", "1/12345678")
    }
    assert [text for text, found in scored.items() if found] == ["1234567+1", "999*1234567"]
    assert not any(task.in_train_range(task.parse(text)) for text in scored)
    with pytest.raises(ValueError, match="far must hold different lengths above 2, at most 1000"):
        load_task("calc", {"digits": 2, "sum_digits": 4, "far": (2,)})


def test_ids_beyond_a_table_are_its_last_but_an_index_beyond_is_refused(toy_model):
    task = load_task("add", {"digits": 2})
    batch = task.evaluation_set(np.random.default_rng(0), 4, "test", Cell("+", 9, 9))
    model = toy_model(levels=task.levels, context=task.longest(), vocab=len(task.alphabet))
    assert len(score(model, task, batch).answer_correct) == 4
    short = toy_model(
        levels=task.levels, context=task.longest(), vocab=len(task.alphabet), position="learned"
    )
    with pytest.raises(ValueError, match="problems of 30 tokens: the model reads at most 10"):
        score(short, task, batch)


@pytest.mark.parametrize("position", ["learned", "sinusoidal"])
def test_far_lengths_beyond_a_table_are_refused_before_training(tmp_path, position):
    words = ["train", "--task", "add", "--digits", "2", "--out", str(tmp_path / "run")]
    words += ["--set", "far=9,5", "--set", f"position={position}"]
    for more, most in (([], 10), (["--set", "random_index=20"], 20)):
        result = CliRunner().invoke(main, [*words, *more])
        line = result.stderr.strip()
        assert result.exit_code == 2 and "\n" not in line
        assert f"9+9 digits take 30 tokens, a model with position={position} reads at" in line
        assert f"at most {most}; set another position" in line
        assert not (tmp_path / "run").exists()


def test_a_trace_may_be_longest_elsewhere_than_at_the_longest_operands():
    settings = {"digits": "3", "far": "5,7", "position": "sinusoidal", "random_index": "120"}
    with pytest.raises(ValueError, match="a model with position=sinusoidal reads at most 120"):
        check_trainable(configure("div", settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"far": "9", "position": "learned", "random_index": "30"},
        {"far": "9", "position": "rotary"},
        {"position": "learned"},
    ],
)
def test_far_lengths_within_reach_may_be_trained_for(settings):
    check_trainable(configure("add", {"digits": "2"} | settings))
