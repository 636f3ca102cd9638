"""What the tests share: every task in every format, toy models, toy runs, a half-trained model."""

from __future__ import annotations

import gc
import os
import re
from collections import Counter

import numpy as np
import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from addgpt.config.architectures import GPTConfig
from addgpt.evaluation import contamination
from addgpt.model.build import build
from addgpt.model.gpt import GPT
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.loop import train


def pytest_collection_finish():
    """What is loaded by now stays: the garbage collector need not look at it after each test."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def pytest_collection_modifyitems(items):
    """Files of slow tests come first, those with the fewest (and longest) before the others, then
    files with the most tests, so that no core is left alone with a long file at the end."""
    tests = Counter(item.path for item in items)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))

    def place(item) -> tuple:
        count, mixed = tests[item.path], slow[item.path] < tests[item.path]
        return mixed, -count if mixed else count, item.path

    items.sort(key=place)


# The same examples each time; `pytest --hypothesis-profile thorough` looks for others.
SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("addgpt", derandomize=True, max_examples=25, **SLOW)
settings.register_profile("thorough", max_examples=500, **SLOW)
settings.load_profile("addgpt")

FORMATS = {
    "add": [
        {},
        {"format": "plain"},
        {"format": "padded"},
        {"trace": "carry"},
        {"format": "padded", "trace": "carry"},
        {"format": "plain", "trace": "carry"},
        {"trace": "detailed"},
        {"format": "plain", "trace": "detailed"},
        {"format": "padded", "trace": "detailed"},
        {"format": "plain", "trace": "turing"},
        {"hints": True},
        {"hints": True, "format": "plain", "trace": "carry"},
    ],
    "sub": [{}, {"trace": "borrow"}, {"trace": "none"}, {"trace": "none", "sign": "after"}],
    "mul": [{}, {"trace": "rows"}, {"trace": "whole"}, {"trace": "none"}],
    "div": [{}, {"trace": "doubling"}, {"trace": "none"}],
}
BINARY = [(name, options) for name, formats in FORMATS.items() for options in formats]
OTHER_TRACES = {
    "add_trace": "none",
    "sub_trace": "borrow",
    "mul_trace": "rows",
    "div_trace": "doubling",
}
PAIRS = {"shares": (0.15, 0.2, 0.3, 0.35)}  # sums of more than two numbers: see test_many.py
MIXTURES = [("calc", PAIRS), ("calc", OTHER_TRACES | PAIRS)]
ROW = re.compile(r"([0-9]+)([-+*/])([0-9]+)=(.*)")
HINT = re.compile(r"[^-0-9+*/=#r,;]")


def _label(variant: tuple[str, dict]) -> str:
    name, options = variant
    return "-".join([name, *(str(value) for key, value in options.items() if key != "shares")])


@pytest.fixture(scope="session", params=BINARY + MIXTURES, ids=_label)
def variant(request) -> tuple[str, dict]:
    """The name and options of every task in every format."""
    return request.param


@pytest.fixture(scope="session")
def any_task(variant):
    """Every task in every format, with operands of up to 4 digits."""
    return load_task(variant[0], variant[1] | {"digits": 4})


@pytest.fixture(scope="session", params=BINARY, ids=_label)
def binary(request):
    """Every task of one operation in every format, as a function of its other options."""
    name, options = request.param
    return lambda **more: load_task(name, options | more)


@pytest.fixture(scope="session")
def read_rows():
    """Takes a batch back apart: (a, operation, b, work up to the end mark) of each row."""

    def read(task, batch) -> list[tuple[int, str, int, str]]:
        rows = []
        for tokens in batch.tokens:
            whole = task.decode(tokens)
            text, _, padding = (HINT.sub("", whole) if task.hidden else whole).partition("#")
            assert set(padding) <= {"#"}, text
            a, op, b, work = ROW.fullmatch(text).groups()
            assert (a, b) == (str(int(a)), str(int(b))), f"leading zeros in {text}"
            rows.append((int(a), op, int(b), work))
        return rows

    return read


@pytest.fixture(scope="session")
def matrices():
    """Turns pairs of Python integers into what `write` takes: a, b, len_a, len_b."""

    def convert(pairs) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        width = max(len(str(number)) for pair in pairs for number in pair)
        sides = []
        for side in zip(*pairs, strict=True):
            rows = [[int(char) for char in str(n).zfill(width)[::-1]] for n in side]
            sides.append(np.array(rows, np.int8))
        lengths = [np.array([len(str(n)) for n in side]) for side in zip(*pairs, strict=True)]
        return *sides, *lengths

    return convert


@pytest.fixture(scope="session")
def carry_chain():
    """The longest carry (or borrow) chain of two integers, from the definition, as text."""

    def longest(a: int, b: int, borrow: bool) -> int:
        width = max(len(str(a)), len(str(b)))
        columns = zip(str(a).zfill(width)[::-1], str(b).zfill(width)[::-1], strict=True)
        totals = [int(x) - int(y) if borrow else int(x) + int(y) for x, y in columns]
        marks = "".join(
            "s" if (t < 0 if borrow else t > 9) else "p" if t == (0 if borrow else 9) else "."
            for t in totals
        )
        return max((len(run) for run in re.findall("sp*", marks)), default=0)

    return longest


@pytest.fixture(scope="session", autouse=True)
def quick_writes():
    """No test waits for the disk, but for those of what happens to processes of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def few_drawn():
    """Scoring compares with few problems of training, but for tests that say how many."""
    draw = contamination.drawn_in_training
    assert contamination.DRAWN == 100_000  # as the pages say

    def fewer(task, seed: int, count: int) -> set:
        return draw(task, seed, 2000 if count == contamination.DRAWN else count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "drawn_in_training", fewer)
        yield


@pytest.fixture
def same_global_randomness():
    """Fails the test if it moves numpy's or torch's global random state."""
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    yield
    assert (np.random.get_state()[1] == before[0]).all()
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.fixture(scope="session")
def toy_model():
    """Builds a small model whose weights are all random, none left at its starting zero."""

    def toy(seed: int = 0, spread: float = 0.3, **config) -> GPT:
        small = {"vocab": 19, "context": 40, "layers": 2, "width": 16, "heads": 2, "mlp_ratio": 2}
        model = build(GPTConfig(**small | config))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=spread, generator=generator)
        return model.eval()

    return toy


@pytest.fixture
def toy_run(tmp_path):
    """Starts a run of a one-layer model that trains in well under a second."""

    def create(name: str = "run", task: str = "add", seed: int = 0, **settings) -> Run:
        small = {
            "digits": 2,
            "layers": 1,
            "width": 16,
            "heads": 2,
            "steps": 12,
            "batch_size": 16,
            "eval_every": 4,
            "eval_size": 32,
            "save_every": 4,
            "warmup": 2,
            "threads": 1,
        }
        texts = {key: str(value) for key, value in (small | settings).items()}
        return Run.create(tmp_path / name, configure(task, texts, seed))

    return create


@pytest.fixture(scope="session")
def half_trained(tmp_path_factory):
    """A subtraction task and a model that gets some of its problems right, but not all."""
    settings = {
        "digits": "3",
        "layers": "1",
        "width": "32",
        "heads": "2",
        "steps": "200",
        "batch_size": "64",
        "eval_size": "200",
        "threads": "1",
    }
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # trained once for all workers
        folder = folder.parent
    with FileLock(folder / "half.lock"):
        if not (folder / "half" / "trained").exists():
            train(Run.create(folder / "half", configure("sub", settings)))
            (folder / "half" / "trained").touch()
    run = Run(folder / "half")
    return run.task(), run.model()


@pytest.fixture
def trained(toy_run):
    """A toy run of two steps."""
    run = toy_run(steps=2)
    train(run)
    return run
