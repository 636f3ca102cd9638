"""Every task: each line of each written row against Python integers, and the task contract."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from addgpt.task import SPLITS, Cell, load_task, task_names

LONG = 70  # digits: far beyond 64 bits


class Reader:
    """Reads a row's work from left to right, as a person checking it would."""

    def __init__(self, work: str) -> None:
        self.rest = work

    def take(self, pattern: str) -> str:
        match = re.match(pattern, self.rest)
        assert match, f"expected {pattern} before {self.rest[:40]!r}"
        self.rest = self.rest[match.end() :]
        return match[0]

    def low_first(self, size: int) -> int:
        """A number of `size` digits, least significant first."""
        return int(self.take(rf"[0-9]{{{size}}}")[::-1])


def check_add(task, a: int, b: int, read: Reader) -> None:
    if task.trace == "detailed":
        check_detailed(a, b, read)
    body = read.take("[0-9]+")
    if task.trace == "carry":
        body, carries = body[0::2], body[1::2]
        tens = [10 ** (k + 1) for k in range(len(body))]
        assert [int(c) for c in carries] == [(a % t + b % t) // t for t in tens]
        if task.format == "plain":
            size = max(len(str(a)), len(str(b)))
            assert body[::-1] == str((a + b) % 10**size).zfill(size)
            read.take("=")
            body = read.take("[0-9]+")
    total = body if task.format == "plain" else body[::-1]
    size = max(len(str(a)), len(str(b))) + 1
    assert total == (str(a + b).zfill(size) if task.format == "padded" else str(a + b))


def check_detailed(a: int, b: int, read: Reader) -> None:
    """The lines of the detailed scratchpad, digits from the operands' texts."""
    size = max(len(str(a)), len(str(b)))
    for k in range(size + 1):
        left = [str(number)[: max(0, len(str(number)) - k)] for number in (a, b)]
        settled = str((a + b) % 10**k).zfill(k) if k else ""
        carry = (a % 10**k + b % 10**k) // 10**k
        read.take(re.escape(f"{left[0]}+{left[1]},{settled},{carry}"))
        if k < size:
            x, y = (int(text[-1:] or 0) for text in left)
            total = f"{x + y + carry:02}"
            read.take(re.escape(f",{x}+{y}+{carry}={total},{total[1]},{total[0]};"))
    read.take("=")


def check_sub(task, a: int, b: int, read: Reader) -> None:
    size = max(len(str(a)), len(str(b)))
    if task.trace == "borrow":
        assert read.low_first(size) == (a - b) % 10**size
    if task.trace == "borrow" or task.sign == "before":
        assert read.take("[-+]") == "-+"[a >= b]
    assert read.low_first(size) == abs(a - b)
    if task.trace == "none" and task.sign == "after":
        assert read.take("[-+]") == "-+"[a >= b]


def check_mul(task, a: int, b: int, read: Reader) -> None:
    size, count = len(str(a)), len(str(b))
    for k, digit in enumerate(map(int, str(b)[::-1])):
        settled = a * (b % 10**k) // 10**k  # what earlier rows add to this one
        if task.trace == "rows":
            assert read.low_first(size + 1) == a * digit
            read.take(",")
            if k:
                assert read.low_first(size + 1) == a * digit + settled
                read.take(";")
        elif task.trace == "carry":
            for place in range(1, size + 1):
                part = (a % 10**place) * digit + settled % 10**place
                assert int(read.take("[0-9]")) == part // 10 ** (place - 1) % 10
                assert int(read.take("[0-9]")) == part // 10**place
            read.take(";")
    if task.trace != "none":
        read.take("=")
    assert read.low_first(size + count) == a * b


def check_div(task, a: int, b: int, read: Reader) -> None:
    size = len(str(b))
    count = max(len(str(a)) - size + 1, 0)
    if task.trace == "doubling":
        for multiple in (2, 4, 8):
            assert read.low_first(size + 1) == multiple * b
            read.take(",")
    for step in range(count if task.trace != "none" else 0):
        check_division_step(task.trace, a // 10 ** (count - 1 - step), b, read)
    if task.trace != "none":
        read.take("=")
    assert read.take("[0-9]+") == str(a // b).zfill(max(count, 1))
    read.take("r")
    assert read.low_first(min(len(str(a)), size)) == a % b


def check_division_step(trace: str, prefix: int, b: int, read: Reader) -> None:
    """One digit of the quotient: `prefix` is the dividend down to the digit brought down."""
    size = len(str(b))
    value = 10 * (prefix // 10 % b) + prefix % 10

    def signed_row() -> None:
        assert read.low_first(size + 1) == value % 10 ** (size + 1)
        assert read.take("[-+]") == ("-" if value < 0 else "+")

    if trace == "doubling":
        for multiple in (8, 4, 2, 1):
            value += -multiple * b if value >= 0 else multiple * b
            signed_row()
    else:
        guess = int(read.take("[0-9]"))
        assert guess - value // b in (0, 1)
        assert read.low_first(size + 1) == guess * b
        read.take(",")
        value -= guess * b
        signed_row()
    assert read.low_first(size) == prefix % b
    assert int(read.take("[0-9]")) == prefix // b % 10
    read.take(";")


CHECKS = {"+": check_add, "-": check_sub, "*": check_mul, "/": check_div}


def answer(op: str, a: int, b: int) -> str:
    """The right answer as a person reads it."""
    if op == "/":
        return f"{a // b} remainder {a % b}" if a % b else str(a // b)
    return str({"+": a + b, "-": a - b, "*": a * b}[op])


def part(task, op: str):
    """The task of one operation: a mixture's part, or the task itself."""
    return task.parts[op] if hasattr(task, "parts") else task


def check(task, a: int, op: str, b: int, work: str) -> None:
    """A row's work, line by line, and the answer read from it."""
    read = Reader(work)
    CHECKS[op](part(task, op), a, b, read)
    assert not read.rest, f"{read.rest!r} left over in {a}{op}{b}={work}"
    assert task.answer(work + "#") == answer(op, a, b) == task.truth(f"{a}{op}{b}")


def operands(digits: int):
    """Numbers of 1 to `digits` digits, lengths as likely as one another, edge cases often."""
    lengths = st.integers(1, digits)
    plain = lengths.flatmap(lambda n: st.integers(10 ** (n - 1) if n > 1 else 0, 10**n - 1))
    edge = lengths.map(lambda n: 10**n - 1) | lengths.map(lambda n: 10 ** (n - 1))
    return plain | edge


@settings(max_examples=25)
@given(st.lists(st.tuples(operands(9), operands(9)), min_size=1, max_size=6))
def test_every_line_of_every_row_is_right(binary, matrices, read_rows, some):
    check_written(binary(digits=9), matrices, read_rows, some)


@pytest.mark.parametrize("first", [LONG, LONG // 2])
def test_numbers_far_beyond_64_bits(binary, matrices, read_rows, first):
    rng = np.random.default_rng(first)
    sizes = [(first, LONG), (LONG, LONG // 2), (LONG, 1), (1, LONG), (LONG, LONG)]
    some = [tuple(long_number(rng, n) for n in pair) for pair in sizes]
    check_written(binary(digits=LONG), matrices, read_rows, [*some, (10**LONG - 1,) * 2])


def long_number(rng, digits: int) -> int:
    return int("".join(map(str, [rng.integers(1, 10), *rng.integers(0, 10, digits - 1)])))


def check_written(task, matrices, read_rows, some) -> None:
    if task.op == "/":
        some = [(a, b or 1) for a, b in some]
    a, b, len_a, len_b = matrices(some)
    batch = task.write(a, b, len_a, len_b).batch(np.zeros(len(some), np.int32))
    rows = read_rows(task, batch)
    assert [(a, b) for a, _, b, _ in rows] == some
    for row in rows:
        check(task, *row)


@pytest.mark.parametrize("split", SPLITS)
def test_every_drawn_row_is_right(any_task, read_rows, split):
    for row in read_rows(any_task, any_task.batch(np.random.default_rng(0), 300, split)):
        check(any_task, *row)


def test_a_drawn_cell_has_its_lengths(any_task, read_rows):
    for cell in (cell for cell in any_task.cells() if cell.stratum == "all"):
        split = "train" if any_task.seen(cell) else "val"
        rows = read_rows(any_task, any_task.batch(np.random.default_rng(1), 8, split, cell))
        assert {(op, len(str(a)), len(str(b))) for a, op, b, _ in rows} == {cell[:3]}


def test_training_reaches_all_lengths_and_operations(any_task, read_rows):
    rows = read_rows(any_task, any_task.batch(np.random.default_rng(2), 4000, "train"))
    found = {(op, len(str(a)), len(str(b))) for a, op, b, _ in rows}
    assert found >= {cell[:3] for cell in any_task.cells() if cell.len_a >= cell.len_b}


@pytest.mark.parametrize("options", [{"digits": 1}, {"digits": 3, "edges": 1.0}, {"carry": 1.0}])
@pytest.mark.parametrize("split", SPLITS)
def test_division_by_zero_is_never_drawn(read_rows, options, split):
    task = load_task("div", options)
    batches = [task.batch(np.random.default_rng(3), 5000, split)]
    batches += [task.exam(np.random.default_rng(4), 30, split, c) for c in task.cells()]
    assert min(b for batch in batches for _, _, b, _ in read_rows(task, batch)) == 1


def test_differences_of_both_signs_and_zero_are_drawn(read_rows):
    task = load_task("sub", {"digits": 3})
    rows = read_rows(task, task.batch(np.random.default_rng(5), 1000, "train"))
    assert {np.sign(a - b) for a, _, b, _ in rows} == {-1, 0, 1}


def test_a_batch_keeps_its_contract(any_task):
    for split in SPLITS:
        batch = any_task.batch(np.random.default_rng(6), 200, split)
        rows, size = batch.tokens.shape
        assert (rows, batch.tokens.dtype, len(batch)) == (200, np.uint8, 200)
        assert batch.scored.shape == (rows, size) and batch.scored.dtype == bool
        assert batch.positions.shape == (rows, size, len(any_task.levels))
        assert batch.positions.dtype == np.int16 and batch.cell.shape == (rows,)
        assert batch.positions.min() >= 0
        assert (batch.positions.max((0, 1)) < any_task.levels).all()
        assert size == batch.lengths.max() <= any_task.longest()


def test_scored_runs_from_the_equals_sign_to_the_end_mark_and_no_further(any_task):
    batch = any_task.batch(np.random.default_rng(7), 200, "train")
    for tokens, scored, length in zip(batch.tokens, batch.scored, batch.lengths, strict=True):
        text = any_task.decode(tokens)
        first, last = text.index("=") + 1, text.index("#")
        assert np.flatnonzero(scored).tolist() == list(range(first, last + 1))
        assert length == last + 1


def test_longest_is_reached_and_not_passed(binary):
    task = binary(digits=3)
    slots = []
    for cell in task.cells():
        if cell.stratum == "all":
            zeros = np.zeros((1, 3), np.int8)
            sheet = task.write(zeros, zeros + 1, *(np.array([n]) for n in cell[1:3]))
            slots.append(sheet.positions().shape[1])
    assert max(slots) == task.longest()


def test_a_cell_index_names_the_cell(any_task, read_rows):
    cells = any_task.cells()
    for batch in (
        any_task.batch(np.random.default_rng(8), 200, "train"),
        *(any_task.exam(np.random.default_rng(8), 5, "test", cell) for cell in cells[10::7]),
    ):
        for row, index in zip(read_rows(any_task, batch), batch.cell, strict=True):
            named = cells[index][:3]
            assert index == -1 or named == (row[1], len(str(row[0])), len(str(row[2])))


def rows_apart(task, batch):
    """(prompt, work, its ids) of each row: prompts differ in length."""
    starts = batch.scored.argmax(1)
    for row, start in enumerate(starts):
        tokens = batch.tokens[row : row + 1]
        yield tokens[:, :start], tokens[:, start:], batch.positions[row : row + 1]


@pytest.mark.parametrize("split", ["val", "test"])
def test_decoding_sees_the_positions_that_training_sees(any_task, split):
    batch = any_task.batch(np.random.default_rng(9), 60, split)
    for prompt, work, ids in rows_apart(any_task, batch):
        slots = any_task.decode(work[0]).index("#") + 1
        found = any_task.positions(prompt, slots)
        assert 1 <= found.shape[1] - prompt.shape[1] <= slots
        assert (found == ids[:, : found.shape[1]]).all()


@settings(max_examples=20)
@given(st.data())
def test_ids_of_a_slot_depend_on_the_tokens_before_it_alone(any_task, data):
    batch = any_task.batch(np.random.default_rng(data.draw(st.integers(0, 999))), 1, "train")
    start = int(batch.scored[0].argmax())
    tokens = st.integers(0, len(any_task.alphabet) - 1)
    shared, one, other = (data.draw(st.lists(tokens, max_size=12)) for _ in range(3))
    shared = [*batch.tokens[0, :start], *shared]
    k = len(shared)
    first, second = (
        any_task.positions(np.array([[*shared, *rest]], np.uint8), 1) for rest in (one, other)
    )
    assert first.shape[1] == k + len(one) + 1
    assert (first[:, : k + 1] == second[:, : k + 1]).all()
    assert (any_task.positions(np.array([shared], np.uint8), 1) == first[:, : k + 1]).all()


def test_ids_follow_from_the_operand_lengths_alone(any_task, read_rows):
    rng = np.random.default_rng(10)
    for cell in any_task.cells()[9::5]:
        batch = any_task.exam(rng, 20, "test", cell)
        ids = [ids[:, : prompt.shape[1] + 4] for prompt, _, ids in rows_apart(any_task, batch)]
        assert all((one == other).all() for one, other in pairwise(ids))


def test_ids_of_a_row_do_not_depend_on_its_batch(any_task):
    batch = any_task.batch(np.random.default_rng(11), 200, "val")
    starts = batch.scored.argmax(1)
    for start in np.unique(starts):
        prompts = batch.tokens[starts == start, :start]
        together = any_task.positions(prompts, 12)
        for prompt, ids in zip(prompts, together, strict=True):
            assert (any_task.positions(prompt[None], 12) == ids).all()


def test_the_offset_shifts_column_ids_in_training_only():
    task = load_task("add", {"digits": 3, "offset": 20})
    plain = load_task("add", {"digits": 3})
    rng = [np.random.default_rng(12) for _ in range(2)]
    shifted, still = (t.batch(r, 500, "train") for t, r in zip((task, plain), rng, strict=True))
    assert (shifted.tokens == still.tokens).all()
    change = shifted.positions - still.positions
    assert (change[..., 1:] == 0).all()
    marked = still.positions[..., 0] > 0
    assert (change[..., 0][~marked] == 0).all()
    per_row = [set(row[on].tolist()) for row, on in zip(change[..., 0], marked, strict=True)]
    assert all(len(shifts) == 1 for shifts in per_row)
    assert set.union(*per_row) == set(range(21))
    assert shifted.positions[..., 0].max() == task.levels[0] - 1
    for prompt, work, ids in rows_apart(task, task.batch(np.random.default_rng(13), 20, "val")):
        assert (task.positions(prompt, work.shape[1]) == ids).all()


@pytest.mark.parametrize("split", SPLITS)
def test_a_batch_is_a_function_of_the_generator_alone(any_task, split, same_global_randomness):
    batches = [any_task.batch(np.random.default_rng(seed), 100, split) for seed in (1, 1, 2)]
    exams = [any_task.exam(np.random.default_rng(1), 9, split, any_task.cells()[9]) for _ in "ab"]
    for one, other in (batches[:2], exams):
        for field in ("tokens", "scored", "positions", "cell"):
            assert (getattr(one, field) == getattr(other, field)).all()
    same_shape = batches[0].tokens.shape == batches[2].tokens.shape
    assert not (same_shape and (batches[0].tokens == batches[2].tokens).all())


def test_shares_of_the_mixture_are_kept(read_rows):
    task = load_task("calc", {"digits": 2, "sum_digits": 3, "shares": [1, 2, 3, 4], "full": 0.5})
    rows = read_rows(task, task.batch(np.random.default_rng(14), 5000, "train"))
    found = [sum(op == row[1] for row in rows) / 5000 for op in "+-*/"]
    assert abs(np.array(found) - [0.1, 0.2, 0.3, 0.4]).max() < 0.03
    sums = [(len(str(a)), len(str(b))) for a, op, b, _ in rows if op == "+"]
    assert 0.5 < np.mean([pair == (3, 3) for pair in sums]) < 0.62  # 0.5 + 0.5 / 9


def test_the_mixture_has_one_operation_where_the_other_shares_are_zero(read_rows):
    task = load_task("calc", {"shares": [0, 0, 1, 0]})
    rows = read_rows(task, task.batch(np.random.default_rng(15), 50, "train"))
    assert {op for _, op, _, _ in rows} == {"*"}


@pytest.mark.parametrize("text", ["12{0}3", " 12 {0} 3 ", "12{0}3=", "012{0}03"])
def test_prompt_and_truth_of_what_a_person_types(any_task, text):
    for op in {cell.op for cell in any_task.cells()}:
        assert any_task.prompt(text.format(op)) == f"12{op}3="
        assert any_task.truth(text.format(op)) == answer(op, 12, 3)
        assert any_task.trained_on(text.format(op))


@settings(max_examples=20)
@given(operands(LONG), operands(LONG))
def test_truth_is_python_s(any_task, a, b):
    for op in {cell.op for cell in any_task.cells()}:
        if b or op != "/":
            assert any_task.truth(f"{a} {op} {b}") == answer(op, a, b)
            most = part(any_task, op).digits
            trained = max(len(str(a)), len(str(b))) <= most
            assert any_task.trained_on(f"{a}{op}{b}") == trained


@pytest.mark.parametrize(
    "text", ["", "+", "1+", "1", "a+b", "1.5+2", "1e5+2", "1++2", "-1+2", "١+٢", "1+2+3", "2**3"]
)
def test_what_is_not_a_problem_is_refused_by_name(any_task, text):
    for ask in (any_task.prompt, any_task.truth):
        with pytest.raises(ValueError, match="is not a problem like|this model does"):
            ask(text)


@pytest.mark.parametrize("name", ["div", "calc"])
def test_division_by_zero_is_refused(name):
    task = load_task(name)
    for ask in (task.prompt, task.truth):
        with pytest.raises(ValueError, match="division by zero"):
            ask("5/00")


def test_operands_longer_than_can_be_written_are_refused():
    with pytest.raises(ValueError, match="at most 1000 digits"):
        load_task("add").prompt("1" * 1001 + "+1")


@settings(max_examples=25)
@given(st.text(alphabet="0123456789+-*/=#r,;", max_size=30))
def test_an_unfinished_work_has_no_right_answer_or_a_clear_error(any_task, text):
    try:
        assert isinstance(any_task.answer(text), str)
    except ValueError as error:
        assert "is not a finished" in str(error)


def test_encode_and_decode_are_inverse(any_task):
    text = any_task.alphabet[::-1]
    assert any_task.decode(any_task.encode(text)) == text
    with pytest.raises(ValueError, match="'x' is not in the alphabet"):
        any_task.encode("1x")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ad", {}, "unknown task 'ad'; valid: .*add.*"),
        ("add", {"colour": 1}, "unknown key 'colour' in Add; valid keys: .*digits"),
        ("add", {"digits": 0}, r"digits must be in 1\.\.1000, not 0"),
        ("add", {"digits": "-3"}, r"digits must be in 1\.\.1000, not -3"),
        ("add", {"digits": 10**9}, r"digits must be in 1\.\.1000"),
        ("add", {"digits": "three"}, "digits must be a whole number, not 'three'"),
        ("add", {"digits": 2.5}, "digits must be of type int"),
        ("add", {"digits": True}, "digits must be of type int"),
        ("add", {"carry": 1.5}, r"carry must be in \[0, 1\]"),
        ("add", {"edges": "nan"}, r"edges must be in \[0, 1\]"),
        ("add", {"offset": -1}, r"offset must be in 0\.\.10000"),
        ("add", {"format": "forward"}, "format must be one of plain, reverse, padded"),
        ("add", {"trace": "long"}, "trace must be one of none, carry, detailed, not 'long'"),
        ("add", {"full": 1.5}, r"full must be in \[0, 1\], not 1.5"),
        ("add", {"pool": -1}, r"pool must be in 0\.\.100000 at digits=3, not -1"),
        ("mul", {"digits": 1, "pool": 26}, r"pool must be in 0\.\.25 at digits=1, not 26"),
        ("sub", {"digits": 9, "pool": 10**7}, r"pool must be in 0\.\.100000 at digits=9"),
        ("sub", {"trace": "rows"}, "trace must be one of borrow, none"),
        ("mul", {"trace": "rose"}, "trace must be one of rows, carry, none, not 'rose'"),
        ("div", {"trace": "guess"}, "trace must be one of doubling, estimate, none"),
        ("calc", {"shares": (1, 1)}, r"four shares of \+ - \* /"),
        ("calc", {"shares": "0,0,0,0"}, r"four shares of \+ - \* /"),
        ("calc", {"shares": "a,b,c,d"}, "shares must be a number, not 'a'"),
        ("calc", {"full": 2}, r"full must be in \[0, 1\]"),
        ("calc", {"sum_digits": 0}, r"sum_digits must be in 1\.\.1000"),
        ("calc", {"mul_trace": "rose"}, "trace must be one of rows, carry, none"),
    ],
)
def test_a_wrong_option_says_what_is_valid(name, options, message):
    with pytest.raises(ValueError, match=message):
        load_task(name, options)


def test_every_task_loads_with_text_options_and_documents_them():
    assert {"add", "sub", "mul", "div", "calc"} <= set(task_names())
    for name in task_names():
        task = load_task(name)
        assert task.name == name
        assert all(field.metadata["help"] for field in task.options().values())
        recipe = task.recipe()
        assert recipe.model and recipe.train


def test_text_options_are_parsed_by_type():
    task = load_task("calc", {"digits": "2", "shares": "1,0,0,1", "full": "0.5"})
    assert (task.digits, task.shares, task.full) == (2, (1.0, 0.0, 0.0, 1.0), 0.5)


def test_cells_cover_the_grid_once(binary):
    cells = binary(digits=3).cells()
    assert len(set(cells)) == len(cells)
    assert [c[1:3] for c in cells if c.stratum == "all"] == [
        (n, m) for n in (1, 2, 3) for m in (1, 2, 3)
    ]
    assert Cell(cells[0].op, 3, 3, "zeros") in cells or cells[0].op == "/"
