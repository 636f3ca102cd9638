"""What `addgpt inspect` shows of a model: the page, the command."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import addgpt
from addgpt.cli.inspect import _table
from addgpt.cli.main import main
from addgpt.interpret import activations
from addgpt.interpret.page import attention_page_data, page
from addgpt.task_lookup import load_task
from analysis import inside

pytestmark = pytest.mark.slow

ADDER = str(Path(addgpt.__file__).parent / "pretrained" / "adder")
CHROMIUM, QUIET = "/usr/bin/chromium", ["--no-sandbox", "--disable-gpu"]


def test_the_page_holds_all_that_was_looked_at():
    data = attention_page_data(ADDER, "128+367")
    assert (data["answer"], data["right"]) == ("495", True)
    found = activations(ADDER, "128+367")
    assert "".join(token["char"] for token in data["tokens"]) == found.text
    for slot in data["slots"]:
        for head, looks in enumerate(slot["looks"][0]):
            row = found["weights.0"][head, slot["token"] - 1]
            assert dict(map(tuple, looks)) == pytest.approx(
                {key: round(float(row[key]), 3) for key in np.flatnonzero(row >= 0.01)}
            )
        lead = sum(value for _, value in slot["parts"])
        logits = found["logits"][slot["token"] - 1]
        letters = [found.alphabet.index(c) for c in (found.text[slot["token"]], slot["against"])]
        assert lead == pytest.approx(float(logits[letters[0]] - logits[letters[1]]), abs=0.02)
    text = page(data)
    stored = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert json.loads(stored[1].replace("\\u003c", "<")) == data
    assert "drawAttention(" in text and not re.search(r'(src|href)="http', text)


def test_the_picture_has_a_panel_for_each_head_of_each_block(toy_model):
    task = load_task("modular")
    model = toy_model(vocab=len(task.alphabet), levels=task.levels, layers=2)
    axes = inside.draw_attention(attention_page_data(model, "12+34", task)).axes
    heads = [f"head {block}.{head}" for block in range(2) for head in range(model.config.heads)]
    assert [axis.get_title().partition("\n")[0] for axis in axes] == heads


def test_a_share_that_is_nearly_all_is_not_shown_as_all():
    rows = [{"place": "mid.0", "accuracy": accuracy} for accuracy in (0.9996, 1.0, 0.5004)]
    assert _table(rows).split()[3::2] == ["0.999", "1.000", "0.500"]


def test_a_page_of_text_from_a_corpus_cannot_end_its_script():
    data = attention_page_data(ADDER, "1+2") | {"problem": "</script><b>"}
    text = page(data)
    assert "</script><b>" not in text and "<b>" not in text


@pytest.mark.parametrize("width", [1100, 380])
def test_a_long_sum_fits_the_screen_and_the_chosen_digit_is_seen(tmp_path, width):
    sync = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium")
    file = tmp_path / "a.html"
    file.write_text(page(attention_page_data(ADDER, "9" * 40 + "+" + "1" * 40)))
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        shown = browser.new_page(viewport={"width": width, "height": 800})
        shown.goto(file.as_uri())
        for key in ("End", "Home", "ArrowRight"):
            shown.focus(".attn .now")
            shown.keyboard.press(key)
            chosen = shown.locator(".attn .now").bounding_box()
            assert 0 <= chosen["x"] and chosen["x"] + chosen["width"] <= width
        assert shown.evaluate("document.documentElement.scrollWidth") <= width
        shown.reload()  # before anything is chosen, it is the first digit, on the right
        assert 0 < shown.locator(".attn .now").bounding_box()["x"] < width
        browser.close()


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "calc", "sum"])
def test_each_token_has_a_place_of_its_own_on_paper(name):
    task = load_task(name, {"digits": 3})
    batch = task.batch(np.random.default_rng(0), 8, "train")
    for row in range(8):
        text = task.decode(batch.tokens[row, : batch.lengths[row]])
        places = task.placed(text, batch.positions[row, : len(text)])
        assert len(set(places)) == len(text)
        rows = [place.row for place in places]
        assert rows == sorted(rows)


def test_commands_print_and_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["inspect", ADDER, *words], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    shown = run("128+367", "--out", "a.html", "--out", "a.png", "--out", "a.npz")
    assert "128+367 = 495" in shown and "head 0.1" in shown
    assert json.loads(run("128+367", "--json"))["answer"] == "495"
    shown = run("--ablate", "--examples", "20", "--out", "b.csv", "--out", "b.png")
    assert shown.splitlines()[1].split() == ["none", "none", "all", "20", "20"]
    shown = run("--ablate", "--cascades", "--examples", "4", "--out", "f.csv", "--out", "f.png")
    assert "+ idle:2" in shown.splitlines()[0] and shown.splitlines()[1].startswith("problems")
    assert "carried" in run("--patch", "--examples", "10", "--out", "c.png")
    assert "accuracy" in run("--probe", "carry", "--examples", "110", "--out", "d.png")
    assert "frequency" in run("--fourier", "--out", "e.csv", "--out", "e.png")
    for file in tmp_path.iterdir():
        assert file.stat().st_size > 200, file


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "none is given"),
        (["1+2", "--ablate"], "not PROBLEM and --ablate"),
        (["1+2", "--out", "a.txt"], ".html or .png or .npz"),
        (["--probe", "tens"], "unknown probe 'tens'; valid: carry, borrow, sum"),
        (["12*34"], "12+34"),
        (["--patch", "--cascades"], "--cascades goes with --ablate"),
        (["--probe", "borrow", "--examples", "20"], "carry, sum, not borrow"),
    ],
)
def test_wrong_commands_are_answered_in_one_line(words, message):
    done = CliRunner().invoke(main, ["inspect", ADDER, *words])
    assert done.exit_code == 2
    assert message in done.stderr and done.stderr.count("\n") == 1


def test_a_folder_in_place_of_a_file_is_found_before_the_work(tmp_path):
    (tmp_path / "a.html").mkdir()
    done = CliRunner().invoke(main, ["inspect", ADDER, "1+2", "--out", str(tmp_path / "a.html")])
    assert done.exit_code == 1 and "that is a folder" in done.stderr and not done.stdout
