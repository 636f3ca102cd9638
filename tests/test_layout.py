"""How problems stand in the text: reversed, padded, marked, spaced; alone and together."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from addgpt.config.errors import UsageError
from addgpt.evaluation.check_task import check_task
from addgpt.task import Answer, Problem
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.common.layout import Layout, spaced

pytestmark = pytest.mark.slow

FORMATS = [
    {},
    {"format": "padded"},
    {"format": "plain"},
    {"trace": "carry"},
    {"format": "plain", "trace": "carry"},
    {"format": "plain", "trace": "detailed"},
    {"hints": "true"},
    {"ids": "abacus"},
]
LAYOUTS = [
    {"reverse_operands": "true"},
    {"pad": "equal"},
    {"pad": "5"},
    {"begin": "true"},
    {"reverse_operands": "true", "pad": "equal", "begin": "true"},
]
ALL = [written | layout for written, layout in itertools.product(FORMATS, LAYOUTS)]
FEW = LAYOUTS[:-1] + [written | LAYOUTS[-1] for written in FORMATS]


def row(problem: tuple[int, int], options: dict, digits: int = 6) -> str:
    """What the task writes of a problem, up to the end mark."""
    task = load_task("add", options | {"digits": digits})
    prompt = task.prompt(Problem("+", problem))
    return task.decode(task.reference(task.encode(prompt)[None]).tokens[0])


def wanted(a: int, b: int, options: dict) -> str:
    """The same by Python integers."""
    pad = {"none": 0, "equal": max(len(str(a)), len(str(b)))}.get(options.get("pad", "none"))
    longest = max(len(str(a)), len(str(b)), int(options.get("pad", 0)) if pad is None else 0)
    sides = [str(n).zfill(longest if pad is None else pad) for n in (a, b)]
    top = max(map(len, sides)) + 1
    total = str(a + b).zfill(top if options.get("format") == "padded" else 1)[::-1]
    if options.get("reverse_operands"):
        sides = [side[::-1] for side in sides]
    total = total[::-1] if options.get("format") == "plain" else total
    return f"{'$' if options.get('begin') else ''}{sides[0]}+{sides[1]}={total}#"


@given(
    st.integers(0, 10**6 - 1),
    st.integers(0, 10**6 - 1),
    st.sampled_from(LAYOUTS),
    st.sampled_from(["reverse", "plain", "padded"]),
)
def test_rows_are_those_of_python_integers(a, b, layout, form):
    options = layout | {"format": form}
    assert row((a, b), options) == wanted(a, b, options)


@pytest.mark.parametrize("options", FEW, ids=lambda options: "-".join(options.values()))
def test_any_combination_keeps_the_contract(options):
    task = load_task("add", options | {"digits": "2", "offset": "4"})
    assert not [fault for _, found in check_task(task) for fault in found]


@given(st.integers(0, 10**7 - 1), st.integers(0, 10**7 - 1), st.sampled_from(ALL))
def test_what_is_written_is_read_back(a, b, options):
    task = load_task("add", options | {"digits": "7"})
    problem = Problem("+", (a, b))
    prompt = task.prompt(problem)
    (work,) = task.texts(task.reference(task.encode(prompt)[None]))
    assert work[0] == prompt and task.read(problem, work[1]) == Answer(a + b)
    digits = re.sub("[^0-9+]", "", prompt).split("+")
    if options.get("reverse_operands"):
        digits = [side[::-1] for side in digits]
    assert list(map(int, digits)) == [a, b]


def test_digits_of_the_same_place_share_an_id_whichever_way_they_are_written():
    def ids(**options):
        task = load_task("add", {"digits": 4, "format": "padded", **options})
        batch = task.reference(task.encode(task.prompt(Problem("+", (12, 345))))[None])
        return batch.positions[0, :, 0].tolist()

    assert ids() == [2, 1, 0, 3, 2, 1, 0, 1, 2, 3, 4, 5]
    assert ids(reverse_operands=True) == [1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 5]
    assert ids(reverse_operands=True, ids="abacus") == [1, 2, 0, 1, 2, 3, 0, 1, 2, 3, 4, 0]
    assert ids(pad="equal", begin=True) == [0, 3, 2, 1, 0, 3, 2, 1, 0, 1, 2, 3, 4, 5]


@given(st.integers(0, 10**5 - 1), st.integers(0, 10**5 - 1), st.integers(0, 12))
def test_work_is_dropped_from_its_beginning(a, b, count):
    options = {"format": "plain", "trace": "carry"}
    whole = row((a, b), options)
    prompt, work, total = whole.split("=")
    assert row((a, b), options | {"trace_drop": count}) == f"{prompt}={work[count:]}={total}"
    task = load_task("add", options | {"digits": 6, "trace_drop": count})
    assert task.read(Problem("+", (a, b)), f"{work[count:]}={total}") == Answer(a + b)
    for text in (f"0{work[count:]}={total}", f"{work[count:]}{total}", work[count:]):
        with pytest.raises(UsageError, match="not a finished trace"):
            task.read(Problem("+", (a, b)), text)


@pytest.mark.parametrize("more", [{}, {"pad": "4"}, {"reverse_operands": True, "offset": 9}])
def test_ids_of_what_is_left_are_those_it_had(more):
    options = {"digits": 3, "format": "plain", "trace": "carry", **more}
    task, whole = (load_task("add", options | {"trace_drop": n}) for n in (3, 0))
    assert not [fault for _, found in check_task(task) for fault in found]
    prompt = task.encode(task.prompt(Problem("+", (58, 671))))
    left, before = (t.reference(prompt[None]) for t in (task, whole))
    kept = [*range(len(prompt)), *range(len(prompt) + 3, before.tokens.shape[1])]
    assert (left.tokens[0] == before.tokens[0, kept]).all()
    assert (left.positions[0] == before.positions[0, kept]).all()


def test_a_whole_product_is_as_in_the_paper():
    """Deng et al. 2024: the first problem of their test set."""
    text = "9173*9433||17433+067841(132281)+0075111(1397921)+00075111####13945421"
    task = load_task("mul", {"digits": 4, "trace": "whole", "reverse_operands": True})
    prompt = task.encode(task.prompt(Problem("*", (3719, 3349))))
    found = "".join(task.texts(task.reference(prompt[None]))[0])
    ours = text.replace("||", "=").replace("####", "=").translate(str.maketrans("()", ",;"))
    assert found == ours + "#"


@given(
    st.sampled_from(["carry", "rows", "whole"]),
    st.integers(0, 9999), st.integers(0, 9999), st.integers(0, 60),
)  # fmt: skip
def test_the_work_of_a_product_is_left_out_from_its_beginning(trace, a, b, count):
    options = {"digits": 4, "trace": trace, "reverse_operands": True}
    whole, task = (load_task("mul", options | {"trace_drop": n}) for n in (0, count))
    problem = Problem("*", (a, b))
    prompt = task.prompt(problem)
    assert prompt == f"{str(a)[::-1]}*{str(b)[::-1]}="
    rows = [t.texts(t.reference(t.encode(prompt)[None]))[0][1] for t in (whole, task)]
    work, _, product = rows[0].rpartition("=")
    assert rows[1] == f"{work[count:]}={product}"
    assert task.read(problem, rows[1]) == Answer(a * b)
    assert "".join(row.text for row in task.rows(problem, rows[1])) == rows[1]
    assert str(a * b) in task.draw(problem, rows[1])
    for text in (f"0{rows[1]}", rows[1].replace("=", ""), rows[1][1:]):
        with pytest.raises(UsageError, match="not a finished trace"):
            task.read(problem, text)
    assert not task.rules()


def test_only_a_trace_before_the_sum_can_be_dropped():
    for options in ({}, {"trace": "carry"}, {"trace": "detailed", "format": "plain"}):
        with pytest.raises(UsageError, match="^trace_drop needs trace=carry, format=plain"):
            load_task("add", options | {"trace_drop": 1})
    with pytest.raises(UsageError, match="^trace_drop needs a trace, not trace=none"):
        load_task("mul", {"trace": "none", "trace_drop": 1})


def test_blanks_stand_in_prompts_of_training_alone():
    task, plain = (load_task("add", {"digits": 4, "blanks": x, "begin": True}) for x in (0.3, 0.0))
    batches = [t.batch(np.random.default_rng(0), 400, "train") for t in (task, plain)]
    blank, seen = task.alphabet.index(" "), 0
    for (prompt, work), expected in zip(
        task.texts(batches[0]), plain.texts(batches[1]), strict=True
    ):
        assert (prompt.replace(" ", ""), work) == expected
        seen += prompt.count(" ") / len(expected[0])
    assert 0.25 < seen / 400 < 0.35
    spaces = batches[0].tokens == blank
    assert not batches[0].scored[spaces].any() and not batches[0].positions[spaces].any()
    rows = zip(spaces, batches[0].lengths, batches[0].positions, batches[1].positions, strict=True)
    for space, length, ids, before in rows:
        kept = ids[:length][~space[:length]]
        assert (kept == before[: len(kept)]).all()
    assert (batches[0].problems == batches[1].problems).all()
    for split in ("val", "test"):
        assert not (task.batch(np.random.default_rng(0), 100, split).tokens == blank).any()


def test_no_row_with_blanks_is_longer_than_the_longest():
    task = load_task("add", {"digits": 2, "full": 1.0, "blanks": 0.99})
    assert task.batch(np.random.default_rng(0), 500, "train").tokens.shape[1] <= task.longest()
    batch = task.batch(np.random.default_rng(0), 5, "val")
    all_spaced = spaced(batch, np.random.default_rng(0), 1.0, 19, 15)
    assert (all_spaced.tokens == 19).sum(1).tolist() == batch.scored.argmax(1).tolist()


def test_operands_of_equal_length():
    for share in (0.0, 0.5, 1.0):
        task = load_task("add", {"digits": 5, "equal": share})
        lengths = task.lengths(np.random.default_rng(0), 4000)
        same = (lengths[0] == lengths[1]).mean()
        assert abs(same - (share + (1 - share) / 5)) < 0.03


@pytest.mark.parametrize("pad", ["0", "-1", "1001", "both", "٣", "1.5", ""])
def test_a_wrong_pad_is_refused_in_one_line(pad):
    with pytest.raises(UsageError, match="^pad must be none, equal or a number of digits"):
        load_task("add", {"pad": pad})


def test_hints_have_letters_for_what_padding_adds():
    task = load_task("add", {"hints": True, "pad": "9"})
    assert task.prompt(Problem("+", (1, 23))) == "I0H0G0F0E0D0C0B0A1+I0H0G0F0E0D0C0B2A3="
    with pytest.raises(UsageError, match="letters for 237 columns; .* ask for 401"):
        load_task("add", {"hints": True, "pad": "400"})
    most = {"hints": True, "begin": True, "blanks": 0.1, "pad": "234"}
    assert len(load_task("add", most).alphabet) == 256  # tokens are bytes
    with pytest.raises(UsageError, match="letters for 235 columns; .* ask for 236"):
        load_task("add", most | {"pad": "235"})


def test_local_attention_is_of_the_usual_layout():
    assert load_task("add").rules()
    assert not load_task("add", {"reverse_operands": "true"}).rules()


def test_a_padded_reversed_run_trains_and_answers(toy_run):
    run = toy_run(reverse_operands=True, pad="3", begin="true", blanks=0.2, steps=4)
    assert train(run).step == 4
    assert Layout(True, 3, False, "$") == run.task().layout
