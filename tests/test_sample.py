"""Text as it is written: `stream` against `generate` and the plain loop, and `addgpt sample`."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.generation.decode import generate, stream
from addgpt.generation.sample import Writer
from addgpt.runs.resolve import configure
from addgpt.runs.run import Run
from addgpt.task_lookup import load_task
from addgpt.training.loop import train
from tasks.common import corpus

pytestmark = pytest.mark.slow

TINY = {
    "layers": "1", "width": "16", "heads": "2", "steps": "30", "batch_size": "8", "threads": "1",
    "eval_every": "30", "eval_size": "16", "block": "8", "lr": "0.02",
}  # fmt: skip
VERSE = "ROMEO: to be\nor not to be\n"
WINDOW, VOCAB = 9, 7


def nothing(tokens: np.ndarray, slots: int) -> np.ndarray:
    """The position ids of a task that has none."""
    return np.zeros((len(tokens), tokens.shape[1] + slots, 0), np.int16)


@pytest.fixture(params=["none", "learned", "rotary"])
def model(request, toy_model):
    context = WINDOW + 1
    return toy_model(3, vocab=VOCAB, context=context, levels=(), position=request.param, width=32)


@torch.inference_mode()
def naive(model, prompt: list[int], limit: int) -> list[int]:
    """nanoGPT's loop, greedy: the last window is read again for each token."""
    tokens = list(prompt)
    for _ in range(limit):
        last = torch.tensor([tokens[-WINDOW:]])
        tokens.append(int(model(last, torch.zeros(1, last.shape[1] + 1, 0).long())[0, -1].argmax()))
    return tokens[len(prompt) :]


def streamed(*words, **how) -> list[int]:
    """The tokens of a stream."""
    return [token for token, _ in stream(*words, **how)]


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_greedy_text_equals_the_plain_loop_far_beyond_the_window(model, length):
    prompt = np.random.default_rng(length).integers(0, VOCAB, length).astype(np.uint8)
    found = streamed(model, nothing, prompt, 40, window=WINDOW)
    assert found == naive(model, prompt.tolist(), 40)


def test_the_text_changes_with_what_leaves_the_window(model):
    """Else the test above would show nothing: a longer view writes something else."""
    if model.config.longest is None:
        prompt = np.arange(5, dtype=np.uint8)
        short, long = (streamed(model, nothing, prompt, 60, window=w) for w in (WINDOW, None))
        assert short[: WINDOW - 5] == long[: WINDOW - 5] and short != long


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0}, {"temperature": 2.0, "top_k": 3}])
def test_streaming_writes_what_generation_does(toy_model, how):
    task = load_task("add", {"digits": 3})
    model = toy_model(1, context=80, levels=task.levels)
    end = task.alphabet.index(task.end)
    model.head.weight.data[end] *= 2  # so that some rows end early
    batch = task.batch(np.random.default_rng(0), 20, "val")
    lengths = set()
    starts = batch.scored.argmax(1)
    for seed, (row, start) in enumerate(zip(batch.tokens, starts, strict=True)):
        first, second = (torch.Generator().manual_seed(seed) for _ in range(2))
        whole = generate(model, task.positions, row[None, :start], 9, end, rng=first, **how)
        found = streamed(model, task.positions, row[:start], 9, end, rng=second, **how)
        assert found == whole.tokens[0, : whole.length[0]].tolist()
        lengths.add(len(found))
    assert len(lengths) > 1, "all end at once: the test shows nothing"


def test_a_large_alphabet_is_generated_and_streamed(toy_model):
    model = toy_model(1, vocab=600, context=10, levels=(), position="rotary", width=32)
    prompt = np.array([599, 300, 256], np.uint16)
    out = generate(model, nothing, prompt[None], 6, end=599, temperature=0)
    assert out.tokens.dtype == np.uint16
    assert streamed(model, nothing, prompt, 6, end=599) == out.tokens[0, : out.length[0]].tolist()
    assert out.tokens[0, : out.length[0]].max() > 255


def test_each_token_is_given_out_before_the_next_is_worked_out(toy_model, monkeypatch):
    model = toy_model(vocab=VOCAB, context=10, levels=())
    calls = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    tokens = stream(model, nothing, np.zeros(2, np.uint8), 20)
    for count in range(1, 6):
        next(tokens)
        assert len(calls) == count


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of tiny models, whose corpora are gone."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADDGPT_CACHE", str(folder / "cache"))
        patch.delenv("ADDGPT_DATA", raising=False)
        corpus._load.cache_clear()
        (folder / "verse.txt").write_text(VERSE * 30)
        (folder / "list.txt").write_text("\n".join(f"{n:o}" for n in range(300)))
        for task, file in (("shakespeare", "verse.txt"), ("lines", "list.txt")):
            settings = TINY | {"corpus": str(folder / file)}
            train(Run.create(folder / task, configure(task, settings)))
        (folder / "verse.txt").unlink()
        settings = {key: value for key, value in TINY.items() if key != "block"}
        train(Run.create(folder / "add", configure("add", settings | {"digits": "2"})))
        yield folder
        corpus._load.cache_clear()


@pytest.fixture(autouse=True)
def same_cache(runs, monkeypatch):
    monkeypatch.setenv("ADDGPT_CACHE", str(runs / "cache"))
    monkeypatch.delenv("ADDGPT_DATA", raising=False)


def sample(*words: object):
    return CliRunner().invoke(main, ["sample", *map(str, words)])


def written(*words: object) -> str:
    result = sample(*words)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_prompt_and_so_many_characters_are_printed_without_the_corpus(runs):
    for prompt, size in (("ROMEO:", 100), ("be", 1), ("to be\nor not to be\n" * 5, 20)):
        text = written(runs / "shakespeare", "--prompt", prompt, "--tokens", size)
        assert text.startswith(prompt)
        assert text.removesuffix("\n") == text or len(text) - 1 <= len(prompt) + size <= len(text)
        assert set(text) <= set(VERSE)
    assert 100 <= len(written(runs / "shakespeare", "--tokens", 100)) <= 101


def test_the_text_is_a_function_of_the_seed(runs):
    def text(seed, *words):
        return written(runs / "shakespeare", "--seed", seed, "--tokens", 60, *words)

    assert text(1) == text(1) != text(2)
    assert text(1, "--temperature", 0) == text(2, "--temperature", 0)
    assert text(1, "--top-k", 1) == text(2, "--temperature", 0)


def test_a_temperature_too_small_for_float32_takes_the_likeliest(runs):
    likeliest = written(runs / "shakespeare", "--tokens", 20, "--temperature", 0)
    assert written(runs / "shakespeare", "--tokens", 20, "--temperature", 1e-40) == likeliest


def test_running_text_stops_after_so_many_lines(runs):
    text = written(runs / "shakespeare", "--prompt", "to", "--lines", 3, "--tokens", 2000)
    assert text.count("\n") == 3 and text.endswith("\n")


def test_the_first_of_the_text_is_the_likeliest_by_the_model(runs):
    run = Run(runs / "shakespeare")
    model, task = run.model(), run.task()
    tokens = torch.tensor([[sorted(set(VERSE)).index(char) for char in "ROMEO"]])
    with torch.no_grad():
        best = int(model(tokens, torch.zeros(1, 6, 0).long())[0, -1].argmax())
    text = written(runs / "shakespeare", "--prompt", "ROMEO", "--tokens", 1, "--temperature", 0)
    assert text[5] == task.alphabet[best]
    writer = Writer(model, task, temperature=0)
    assert next(writer.stream("ROMEO", 5, torch.Generator())) == task.alphabet[best]


def test_lines_are_marked_by_where_they_are_from(runs):
    result = sample(runs / "lines", "--lines", 40, "--temperature", 1.5)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert len(rows) == 40
    known = {f"{n:o}" for n in range(300)}
    for text, origin in rows:
        assert (origin == "new") == (text not in known)
    counts = [f"{sum(o == name for _, o in rows)} {name}" for name in {o for _, o in rows}]
    assert all(count in result.stderr for count in counts) and "40 samples" in result.stderr
    assert len({origin for _, origin in rows}) > 1, "all of one kind: the test shows nothing"
    assert all(
        row.startswith("12") for row in written(runs / "lines", "--prompt", "12").splitlines()
    )


def test_lines_are_written_without_marks_where_the_list_is_gone(runs, monkeypatch, tmp_path):
    (runs / "list.txt").rename(tmp_path / "list.txt")
    corpus._load.cache_clear()
    result = sample(runs / "lines", "--lines", 5)
    (tmp_path / "list.txt").rename(runs / "list.txt")
    assert (
        result.exit_code == 0 and "\t" not in result.stdout and len(result.stdout.split("\n")) == 6
    )


def test_a_problem_is_worked_out_to_its_end_mark(runs):
    once = written(runs / "add", "--prompt", "12+34=", "--temperature", 0)
    assert once == written(runs / "add", "--prompt", " 12 + 34", "--temperature", 0)
    assert once.startswith("12+34=") and len(once) <= load_task("add", {"digits": 2}).longest() + 1
    many = written(runs / "add", "--prompt", "12+34=", "--lines", 3).splitlines()
    assert len(many) == 3 and all(row.startswith("12+34=") for row in many)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["shakespeare", "--prompt", "ROMEO€"], 2, "'€' is not in the alphabet of shakespeare"),
        (["lines", "--prompt", "x"], 2, "'x' is not in the alphabet of lines"),
        (["lines", "--prompt", "1\n2"], 2, "a line has no newline in it"),
        (["lines", "--prompt", "1" * 50], 2, "leaves no room"),
        (["shakespeare", "--prompt", ""], 2, "the prompt is empty"),
        (["add", "--prompt", "12x34"], 2, "is not a problem like 12+34"),
        (["add"], 2, 'a model of add needs a problem: --prompt "12+34="'),
        (["add", "--prompt", ""], 2, "is not a problem like 12+34"),
        (["add", "--prompt", f"{10**60}+1="], 2, "leaves no room"),
        (["shakespeare", "--temperature", "-1"], 2, "temperature"),
        (["shakespeare", "--temperature", "nan"], 2, "'nan' is not a finite number"),
        (["shakespeare", "--seed", str(2**63)], 2, "seed"),
        (["shakespeare", "--tokens", "0"], 2, "tokens"),
        (["."], 1, "is not a run"),
    ],
)
def test_what_cannot_be_written_is_refused_in_one_line(runs, words, code, message):
    result = sample(runs / words[0], *words[1:])
    assert result.exit_code == code and message in result.stderr, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not result.stdout


def test_a_reader_that_leaves_is_no_error(runs):
    words = [
        sys.executable,
        "-m",
        "addgpt",
        "sample",
        str(runs / "shakespeare"),
        "--tokens",
        "3000",
    ]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        other.stdout.read(1)
        other.stdout.close()
        assert b"Traceback" not in other.stderr.read()
