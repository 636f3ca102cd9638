"""No layout comes after two quiet sizes: the premises of the proof in docs/certificate.md."""

import itertools
import math

import pytest

from addgpt.evaluation.certificate import _all_layouts, list_contexts
from addgpt.evaluation.contexts import Lister
from addgpt.runs.resolve import configure
from addgpt.task_lookup import load_task
from tasks.common.sheet import Kind

pytestmark = pytest.mark.slow

FORMATS = {  # the caps within which columns and steps decide what can stand in a slot
    "add": ("add", {}, (2, 0)),
    "add, carries": ("add", {"trace": "carry", "attention": "reads"}, (2, 0)),
    "sub": ("sub", {}, (1, 0)),
    "mul": ("mul", {}, (2, 2)),
    "div": ("div", {}, (2, 3)),
}
FURTHER = 3  # how much larger the caps are that decide a layout


def ends(op: str, a: int, b: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What the columns of a problem with operands of these lengths are compared with, and what its
    steps are."""
    if op == "*":
        return (a,), (b,)
    if op == "/" and a >= b:
        return (b,), (a - b + 1,)
    return (a, b), ()


def capped(place: int, others: tuple[int, ...], cap: int) -> tuple[int, ...]:
    """All differences of a place, its ends and 0, as far as the cap."""
    pairs = itertools.combinations((0, place, *others), 2)
    return tuple(max(-cap, min(cap, two - one)) for one, two in pairs)


def lengths(op: str, columns: int, steps: int):
    """Lengths of operands with which every combination of differences is met, of columns and of
    steps, each as far as its cap: where those beyond it are shrunk to it, no end is further away
    than the cap times the number of ends and the place itself."""
    if op == "*":
        yield from itertools.product(range(1, 2 * columns + 1), range(1, 2 * steps + 1))
    elif op == "/":
        for b, count in itertools.product(range(1, 2 * columns + 1), range(1, 2 * steps + 1)):
            yield b + count - 1, b
        yield from itertools.combinations(range(1, 3 * columns + 1), 2)  # 0 at once
    else:
        yield from itertools.product(range(1, 3 * columns + 1), repeat=2)


@pytest.mark.parametrize("name", FORMATS)
def test_what_can_stand_in_a_slot_follows_from_capped_differences(name):
    task, options, (near, early) = FORMATS[name]
    config = configure(task, options)
    task = load_task(task, config.options)
    lister, found = Lister(task, config.model), {}
    for a, b in lengths(task.op, near + 2, early + 2):
        _, values, ids = task.sheet(a, b)
        own, (columns, steps) = [tuple(some) for some in ids.tolist()], ends(task.op, a, b)
        _, possible = lister.followed(own, values)
        for (col, step, kind), some in list(zip(own, possible, strict=True))[len(values) :]:
            where = kind, capped(col, columns, near), capped(step, steps, early), len(steps)
            assert found.setdefault(where, some) == some, (a, b, col, step)
    assert len(found) > 20


LONG = [(40, 40), (40, 37), (40, 13), (40, 2), (9, 40)]  # lengths far beyond all others here


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_near_a_slot_follows_from_differences_cut_off_at_3(name):
    """Which reads of its rule a slot finds, and what stands just before and after it."""
    task, options, _ = FORMATS[name]
    config = configure(task, options)
    task = load_task(task, config.options)
    lister, found = Lister(task, config.model), {}
    for a, b in (*lengths(task.op, 3, 3), *LONG):
        _, values, ids = task.sheet(a, b)
        own, (columns, steps) = [tuple(some) for some in ids.tolist()], ends(task.op, a, b)
        reads, _ = lister.followed(own, values)
        for slot in range(len(values), len(own)):
            col, step, kind = own[slot]
            there = [place is not None for place in reads[slot]]
            beside = []
            for other in own[slot - 1 : slot + 2]:
                apart = (
                    max(-3, min(3, x - y)) if x and y else None
                    for x, y in zip(other[:-1], (col, step), strict=True)
                )
                beside.append((other[-1], *apart))
            where = kind, capped(col, columns, 3), capped(step, steps, 3), len(steps)
            assert found.setdefault(where, (there, beside)) == (there, beside), (a, b, col, step)
    assert len(found) > 20


@pytest.mark.parametrize("name", FORMATS)
def test_two_quiet_sizes_are_the_end(name):
    task, options, (near, early) = FORMATS[name]
    config = configure(task, options)
    task = load_task(task, config.options)
    lister = Lister(task, config.model)
    found, size = _all_layouts(lister)
    tried = [*lengths(task.op, max(5, near + FURTHER), early + FURTHER)]
    assert max(map(max, tried)) > size
    for a, b in tried:
        for layout, _ in lister._of_sheet(*task.sheet(a, b)):
            assert layout in found


def test_sums_of_many_are_listed_with_all_values():
    """A slot of a sum of many sees an operand's digit, the running sum's and a carry, or some of
    them; each such look is listed with all values, so no longer sum has others."""
    config = configure("sum", {})
    groups = list_contexts(load_task("sum", config.options), config.model).groups
    looks = {False: 0, True: 0}
    for group in groups:
        kinds = [kind for kind, _, _ in group.look[1]]
        ends = group.kind == Kind.STOP
        looks[ends] += 1
        if ends:
            assert len(group.tokens) == 1 and group.tokens[0, -1] == 0
            continue
        seen = kinds[:-1] if group.kind == Kind.SUBTOTAL_CARRY or kinds[-1] == Kind.STOP else kinds
        every = {Kind.B: 10, Kind.SUBTOTAL: 10, Kind.SUBTOTAL_CARRY: 2}
        assert len(group.tokens) == math.prod(every[kind] for kind in seen)
    assert looks == {False: 2 * (4 + 6), True: 2 * 3}  # 4 in the first column; ends at 2, 3, more
