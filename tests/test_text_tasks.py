"""Tasks on texts: windows from their split alone, every character scored once, lines kept apart."""

import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.evaluation.perplexity import sample_text, score_text
from addgpt.evaluation.schema import RULERS
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task import SPLITS
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.common import corpus
from tasks.common.splits import split_of_text
from tests.helpers.texts import TINY, run_of

pytestmark = pytest.mark.slow

LENGTH = 997  # characters of a text in which none comes up twice, so that each tells its place
NAMES = [f"{a}{b}{c}" for a in "abcdefgh" for b in "aeiou" for c in "lmnrst"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ADDGPT_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("ADDGPT_DATA", raising=False)
    corpus._load.cache_clear()


@pytest.fixture
def places(tmp_path):
    """A text whose k-th character is the k-th of its alphabet: a token is its own place."""
    (tmp_path / "places.txt").write_text(
        "".join(chr(0x4E00 + k) for k in range(LENGTH)), encoding="utf-8"
    )
    return lambda **options: load_task(
        "shakespeare", {"corpus": str(tmp_path / "places.txt"), "block": 16} | options
    )


@pytest.fixture
def prose(tmp_path):
    """The path of some words in a row."""
    words = np.random.default_rng(0).choice(["to", "be", "or", "not", "that", "is"], 2000)
    (tmp_path / "prose.txt").write_text(" ".join(words) + ".\n")
    return tmp_path / "prose.txt"


@pytest.fixture
def names(tmp_path):
    """The path of a list of names, with blank lines, spaces and names that come up again."""
    lines = [*NAMES, "", "  ", NAMES[0], f" {NAMES[5]}\r", *reversed(NAMES)]
    (tmp_path / "names.txt").write_bytes("\n".join(lines).encode())
    return tmp_path / "names.txt"


def test_windows_are_runs_of_their_split_and_reach_all_of_it(places):
    border = int(LENGTH * 0.9)
    for split, wanted in (("train", range(border)), ("val", range(border, LENGTH))):
        batch = places().batch(np.random.default_rng(0), 20_000, split)
        assert batch.tokens.dtype == np.uint16 and batch.tokens.shape == (20_000, 17)
        assert (np.diff(batch.tokens.astype(int)) == 1).all()
        assert set(batch.tokens.ravel().tolist()) == set(wanted)
        starts = np.bincount(batch.tokens[:, 0] - wanted[0])
        expected = 20_000 / len(starts)
        assert len(starts) == len(wanted) - 16
        assert abs(starts - expected).max() < 6 * math.sqrt(expected), "some places come up more"


def test_a_batch_keeps_its_contract(places):
    task = places(block=20)
    batch = task.batch(np.random.default_rng(1), 7, "val")
    assert not batch.scored[:, 0].any() and batch.scored[:, 1:].all()
    assert batch.positions.shape == (7, 21, 0) and batch.positions.dtype == np.int16
    assert batch.tokens.shape[1] == batch.lengths.max() == task.longest()
    assert task.cells() == [] and task.levels == ()
    assert load_task("shakespeare", {"characters": "ab"}).encode("ba").dtype == np.uint8


@pytest.mark.parametrize("name", ["shakespeare", "lines"])
def test_a_batch_is_a_function_of_the_generator_alone(name, names, same_global_randomness):
    task = load_task(name, {"corpus": str(names), "block": 8})
    for split in SPLITS:
        one, again, other = (
            task.batch(np.random.default_rng((seed, 3, 0)), 50, split).tokens for seed in (1, 1, 2)
        )
        assert (one == again).all() and one.tolist() != other.tolist()


@pytest.mark.parametrize("block", [1, 2, 5, 16, 50, 98])
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_the_whole_text_scores_each_character_but_the_first_once(places, block, share):
    task, context = places(block=block), int(block * share)
    val = range(int(LENGTH * 0.9), LENGTH)
    scored = []
    for batch in task.whole("val", context):
        assert batch.tokens.shape[1] <= block + 1
        assert (np.diff(batch.tokens.astype(int)) == 1).all()
        for row, marks in zip(batch.tokens, batch.scored, strict=True):
            before = np.flatnonzero(marks)
            assert (row[0] == val[0] and before[0] == 1) or before[0] == context + 1
            scored += row[marks].tolist()
    assert scored == list(val[1:])


def test_the_whole_text_comes_in_batches_of_bounded_size(tmp_path):
    (tmp_path / "long.txt").write_text("abc" * 100_000)
    task = load_task("shakespeare", {"corpus": str(tmp_path / "long.txt"), "block": 64})
    sizes = [batch.tokens.size for batch in task.whole("train")]
    assert len(sizes) > 10 and max(sizes) <= 1 << 15 and sum(sizes) > 270_000 - 65


def naive_loss(model, tokens: list[int], block: int, context: int) -> float:
    """Mean loss of every token but the first, each predicted by a pass of its own."""
    losses = []
    for k in range(1, len(tokens)):
        step = block - context
        start = max(0, math.ceil((k - block) / step)) * step  # the first block that reaches k
        before = torch.tensor([tokens[start:k]])
        logits = model(before, torch.zeros(1, before.shape[1] + 1, 0).long())[0, -1]
        losses.append(-float(logits.log_softmax(-1)[tokens[k]]))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("context", [0, 8, 15])
@torch.no_grad()
def test_the_loss_equals_that_of_a_pass_for_each_character(prose, toy_model, context):
    task = load_task("shakespeare", {"corpus": str(prose), "block": 16})
    model = toy_model(vocab=len(task.alphabet), context=17, levels=(), position="learned")
    text = prose.read_text()
    val = [sorted(set(text)).index(char) for char in text[int(len(text) * 0.9) :]]
    passed = []

    def show(batches, total, what, size):
        assert (total, what) == (len(val) - 1, f"scoring {len(val) - 1} characters")
        for batch in batches:
            passed.append(size(batch))
            yield batch

    score = score_text(model, task, "val", context, show)
    assert sum(passed) == len(val) - 1
    assert score.n == len(val) - 1 == task.num_tokens("val")
    assert score.nats == pytest.approx(naive_loss(model, val, 16, context), abs=1e-5)
    assert score.bits == pytest.approx(score.nats / math.log(2))
    assert score.perplexity == pytest.approx(math.exp(score.nats))


@torch.no_grad()
def test_random_batches_are_those_of_the_seed_and_their_spread_is_told(prose, toy_model):
    task = load_task("shakespeare", {"corpus": str(prose), "block": 16}).resolved()
    model = toy_model(vocab=len(task.alphabet), context=16, levels=(), position="rotary", width=32)
    val = task.text.part("val").astype(np.int64)
    rng, losses = np.random.default_rng(3), []
    for _ in range(200):
        starts = rng.integers(0, len(val) - 16, 12)
        rows = torch.from_numpy(np.stack([val[start : start + 17] for start in starts]))
        logits = model(rows[:, :-1], torch.zeros(12, 17, 0).long())
        losses.append(float(torch.nn.functional.cross_entropy(logits.mT, rows[:, 1:])))
    score = sample_text(model, task, "val", seed=3)
    assert (score.ruler, score.n) == ("random", 200 * 12 * 16)
    assert score.nats == pytest.approx(np.mean(losses), abs=1e-5)
    assert score.half == pytest.approx(1.96 * np.std(losses, ddof=1) / 200**0.5, rel=1e-3)


@torch.no_grad()
def test_the_loss_of_lines_is_that_of_each_line_by_itself(names, toy_model):
    task = load_task("lines", {"corpus": str(names)}).resolved()
    model = toy_model(vocab=len(task.alphabet), context=6, levels=(), position="rotary", width=32)
    losses = []
    for line in (name for name in NAMES if split_of_text(name) == "test"):
        tokens = torch.tensor([[task.alphabet.index(char) for char in f"\n{line}\n"]])
        logits = model(tokens[:, :-1], torch.zeros(1, tokens.shape[1], 0).long())[0]
        losses += [-float(row[t]) for row, t in zip(logits.log_softmax(-1), tokens[0, 1:])]  # noqa: B905
    score = score_text(model, task, "test")
    assert score.n == task.num_tokens("test")
    assert (score.n, score.nats) == (len(losses), pytest.approx(np.mean(losses), abs=1e-5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": 0}, "block must be at least 1, not 0"),
        ({"block": 100}, r"the val part of corpus .* has 100 characters, block \+ 1 is 101"),
        ({"characters": "aa"}, "characters has one more than once"),
        ({"sha256": "0" * 64}, "has changed since the run began"),
        ({"corpus": "nothing"}, "no file matches"),
    ],
)
def test_a_wrong_option_is_refused_in_words(places, options, message):
    with pytest.raises(ValueError, match=message):
        places(**options).batch(np.random.default_rng(0), 4, "val")


def test_training_refuses_what_it_cannot_learn_from_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"short.txt": b"abc" * 20, "bad.txt": b"abc\xff", "empty.txt": b"", "dir": None}
    for name, content in files.items():
        (tmp_path / name).mkdir() if content is None else (tmp_path / name).write_bytes(content)
    for name, says in {
        "short.txt": "the train part of corpus short.txt has 54 characters, block + 1 is 129",
        "bad.txt": "bad.txt is not UTF-8: byte 3 is 0xff",
        "empty.txt": "empty.txt is empty",
        "dir": "dir is a folder",
        "no-*.txt": "no file matches corpus 'no-*.txt'",
    }.items():
        words = ["train", "--task", "shakespeare", "--set", f"corpus={name}", "--out", "run"]
        result = CliRunner().invoke(main, words)
        assert (result.exit_code, result.stdout) == (2, ""), result.output
        assert says in result.stderr and result.stderr.count("\n") == 1
    (tmp_path / "good.txt").write_bytes(b"abc" * 1000)
    words = ["train", "--task", "shakespeare", "--set", "corpus=good.txt", "--stop-at", "0.9"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and "stop_at is a share of exact match" in result.stderr
    assert {file.name for file in tmp_path.iterdir()} == {*files, "good.txt"}


def test_characters_that_are_not_the_corpus_s_are_refused(places):
    with pytest.raises(ValueError, match="characters is not the alphabet of corpus"):
        places(characters="ab").resolved()


@pytest.mark.parametrize("name", ["shakespeare", "lines"])
def test_a_settled_task_needs_its_corpus_no_more_to_be_used(name, names, tmp_path):
    task = load_task(name, {"corpus": str(names), "block": 3})
    config = configure(name, TINY | {"corpus": str(names), "block": "3"})
    assert config.model.vocab == len(task.alphabet)
    assert (config.model.context, config.model.levels) == (task.longest(), ())
    names.unlink()
    settled = load_task(config.task, json.loads(json.dumps(config.options)))
    text = "tel" if name == "lines" else "tel\n"
    assert settled.decode(settled.encode(text)) == text and settled.longest() == task.longest()
    with pytest.raises(ValueError, match="no file matches"):
        settled.batch(np.random.default_rng(0), 4, "val")


def test_lines_of_a_list_are_in_one_split_each(names):
    task = load_task("lines", {"corpus": str(names)}).resolved()
    assert task.alphabet == "".join(sorted(set("".join(NAMES)) | {"\n"})) and task.block == 3
    drawn = {}
    for split in SPLITS:
        batch = task.batch(np.random.default_rng(0), 4000, split)
        drawn[split] = {task.decode(row) for row in batch.tokens}
        whole = [task.decode(row) for batch in task.whole(split) for row in batch.tokens]
        assert len(whole) == len(set(whole)) and set(whole) == drawn[split]
        for text in whole:
            assert task.membership(text.strip("\n")) == split
    assert sorted(text for some in drawn.values() for text in some) == sorted(
        f"\n{name}\n" for name in NAMES
    )
    assert [len(drawn[split]) for split in SPLITS] == [
        sum(split_of_text(name) == split for name in NAMES) for split in SPLITS
    ]
    assert [task.membership(text) for text in ("xyz", "", "ab", NAMES[0] + "\n")] == ["new"] * 4


def test_the_split_of_a_line_stays_what_it_is():
    """Written down: with another hash, old runs would be scored on what they learned."""
    known = {"train": ("emma", "naïve", "mia"), "val": ("isabella", "zoe"), "test": ("luna",)}
    for split, some in known.items():
        assert {split_of_text(line) for line in some} == {split}
    share = [split_of_text(str(number)) for number in range(20_000)]
    for split, wanted in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert abs(share.count(split) / 20_000 - wanted) < 0.01


def test_rows_of_lines_are_scored_up_to_the_end_mark(tmp_path):
    lines = ["a", "bb" * 3, "c" * 20] + [f"{n:o}" for n in range(200)]
    (tmp_path / "odd.txt").write_text("\n".join(lines))
    task = load_task("lines", {"corpus": str(tmp_path / "odd.txt")}).resolved()
    batch = task.batch(np.random.default_rng(0), 300, "train")
    assert batch.tokens.shape[1] == batch.lengths.max() <= task.longest() == 22
    for row, marks, length in zip(batch.tokens, batch.scored, batch.lengths, strict=True):
        text = task.decode(row)
        line = text.strip("\n")
        assert line in lines and text == f"\n{line}\n".ljust(len(row), "\n")
        assert length == len(line) + 2
        assert np.flatnonzero(marks).tolist() == list(range(1, length))
    assert task.begin("bb") == "\nbb"
    with pytest.raises(ValueError, match="a line has no newline in it"):
        task.begin("a\nb")


def test_longer_lines_than_asked_for_are_left_out(names):
    task = load_task("lines", {"corpus": str(names), "block": 2})
    with pytest.raises(ValueError, match="no lines for train.* of at most 2 characters"):
        task.batch(np.random.default_rng(0), 4, "train")


def test_the_default_list_is_the_words_of_tinyshakespeare(tmp_path, monkeypatch):
    text = "ROMEO:\nWherefore art thou Romeo? 'Tis thy name; o'er-past,\n" + " ".join(NAMES)
    (tmp_path / "tinyshakespeare.txt").write_text(text)
    monkeypatch.setenv("ADDGPT_DATA", str(tmp_path))
    monkeypatch.setattr(corpus.sources, "_checked", lambda file, sha256: file)
    task = load_task("lines")
    found = [
        task.decode(row).strip("\n") for s in SPLITS for b in task.whole(s) for row in b.tokens
    ]
    wanted = ["romeo", "wherefore", "art", "thou", "tis", "thy", "name", "o'er", "past", *NAMES]
    assert sorted(found) == sorted(wanted)


@pytest.mark.parametrize("name", ["shakespeare", "lines"])
def test_training_lowers_the_loss_and_logs_no_exact_match(name, names, tmp_path):
    run = run_of(name, names, tmp_path / "run", block="4", steps="40", lr="0.01")
    rows = run.metrics()
    assert all("val_exact" not in row and row["val_loss"] > 0 for row in rows)
    assert rows[-1]["val_loss"] < 0.8 * math.log(run.config.model.vocab)


def test_an_interrupted_training_ends_as_an_uninterrupted_one(prose, tmp_path):
    whole = run_of("shakespeare", prose, tmp_path / "whole", block="8", schedule="constant")
    half = run_of(
        "shakespeare", prose, tmp_path / "half", block="8", schedule="constant", steps="10"
    )
    half.reconfigure(whole.config)
    train(half)
    for one, other in zip(whole.model().parameters(), half.model().parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_is_not_scored_on_another_text(prose, tmp_path):
    run_of("shakespeare", prose, tmp_path / "run", block="8")
    prose.write_text(prose.read_text() + "more")
    result = CliRunner().invoke(main, ["eval", str(tmp_path / "run")])
    assert result.exit_code == 2 and "has changed since the run began" in result.stderr


@pytest.mark.parametrize(
    ("name", "split", "rows"), [("shakespeare", "val", 2), ("lines", "test", 1)]
)
def test_eval_writes_the_loss_of_the_whole_held_out_part(name, split, rows, names, tmp_path):
    run = run_of(name, names, tmp_path / "run", block="4")
    result = CliRunner().invoke(main, ["eval", str(tmp_path / "run"), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found == json.loads((tmp_path / "run" / "loss.json").read_text())
    assert [(row["split"], row["context"]) for row in found] == [(split, 0), (split, 2)][:rows]
    first = score_text(run.model(), run.task(), split)
    assert (found[0]["n"], found[0]["nats"]) == (first.n, pytest.approx(first.nats))
    text = CliRunner().invoke(main, ["eval", str(tmp_path / "run")])
    assert f"{first.nats:.4f}" in text.stdout and "loss.json" in text.stderr
    refused = CliRunner().invoke(main, ["eval", str(tmp_path / "run"), "--per-cell", "5"])
    assert refused.exit_code == 2 and "a text is scored as a whole" in refused.stderr


def test_training_may_begin_with_the_weights_of_another_text(tmp_path, prose, names):
    run_of("shakespeare", names, tmp_path / "old", block="4")
    words = ["--set", "steps=4", "--set", "eval_every=2", "--set", "eval_size=8"]
    words += ["--set", f"corpus={prose}", "--set", "block=4", "--out", str(tmp_path / "new")]
    start = ["train", "--task", "shakespeare", "--init-from", str(tmp_path / "old")]
    result = CliRunner().invoke(main, [*start, *words])
    assert result.exit_code == 0, result.output
    assert "val loss" in result.stdout and "exact" not in result.stdout
    assert "note:" not in result.stderr
    other = ["--set", "block=2", "--set", "steps=1", "--set", f"corpus={prose}"]
    told = CliRunner().invoke(main, [*start, *other, "--out", str(tmp_path / "asked")]).stderr
    assert "note:" not in told
    told = CliRunner().invoke(main, [*start, *other[2:], "--out", str(tmp_path / "not")]).stderr
    assert "note: block=128, not 4 as in that run; --set block=4 keeps it" in told
    shapes = [Run(tmp_path / name).config.model for name in ("old", "new")]
    assert {(shape.layers, shape.width, shape.heads, shape.position) for shape in shapes} == {
        (shapes[0].layers, shapes[0].width, shapes[0].heads, shapes[0].position)
    }
    assert shapes[0].width != 128  # that of the recipe
    first = Run(tmp_path / "new").metrics()
    assert [a["step"] < b["step"] for a, b in pairwise(first)] == [True] * (len(first) - 1)


def test_rulers_are_chosen_by_name(prose, names, tmp_path):
    (option,) = (one for one in main.get_command(None, "eval").params if one.name == "ruler")
    assert tuple(option.type.choices) == RULERS
    for name, text in (("shakespeare", prose), ("lines", names)):
        block = {"block": "8"} if name == "shakespeare" else {}
        run = Run.create(tmp_path / name, configure(name, TINY | block | {"corpus": str(text)}))
        train(run)
        words = ["eval", str(run.path), "--ruler", "random", "--ruler", "blocks", "--json"]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        assert [row["ruler"] for row in found] == ["random", "blocks"]
        assert json.loads((run.path / "loss-random-blocks.json").read_text()) == found
        assert not (run.path / "loss.json").exists()
    done = CliRunner().invoke(main, ["eval", str(run.path), "--ruler", "overlap"])
    assert done.exit_code == 2 and "valid for this task: blocks, random" in done.stderr
    done = CliRunner().invoke(main, ["eval", "calculator", "--ruler", "random"])
    assert done.exit_code == 2 and "--ruler is for texts" in done.stderr
    done = CliRunner().invoke(main, ["eval", str(run.path), "calculator"])
    assert done.exit_code == 2 and "scored apart from problems" in done.stderr
    done = CliRunner().invoke(main, ["eval", str(run.path), "--predictions", f"{tmp_path}/p.csv"])
    assert done.exit_code == 2 and "or --predictions" in done.stderr
