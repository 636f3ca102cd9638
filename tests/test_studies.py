"""`addgpt study`: what there is, and what it says where it cannot go on."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from analysis.studies import STUDIES, attention

REFERENCE = Path(__file__).resolve().parent.parent / "results" / "reference"


def study(*words: str):
    return CliRunner().invoke(main, ["study", *words])


def test_without_a_name_the_studies_are_listed():
    done = study()
    assert done.exit_code == 0
    assert done.stdout.count(" reads ") == done.stdout.count(" draws ") == len(STUDIES)
    assert all(f"{name} " in done.stdout for name in STUDIES)


@pytest.mark.parametrize("name", STUDIES)
def test_each_is_a_module_of_three_functions_and_asks_for_places(name):
    module = importlib.import_module(f"analysis.studies.{name}")
    assert all(callable(getattr(module, word)) for word in ("collect", "draw", "describe"))
    done = study(name)
    assert done.exit_code == 2 and STUDIES[name][0] in done.stderr


def test_an_unknown_name_lists_the_valid_ones():
    done = study("nonsense", ".")
    assert done.exit_code == 2 and done.stderr.count("\n") == 1
    assert all(name in done.stderr for name in STUDIES)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--csv", "x.csv"], "without a NAME takes no --csv"),
        (["lengths", "runs", "--out", "x.txt"], "study lengths takes no --out"),
        (["english", "runs", "--out", "x.txt", "--png", "x.png"], "takes no PATHS or --png"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words, said):
    done = study(*words)
    assert done.exit_code == 2 and said in done.stderr and done.stderr.count("\n") == 1


def test_every_pattern_of_attention_is_in_the_key_whatever_its_seeds():
    table = attention.collect(REFERENCE / "attention.csv")
    first = table["seed"] == table["seed"].min()
    figure = attention.draw(table[~(first & (table["attention"] == "reads"))])
    (key,) = figure.legends
    assert {text.get_text() for text in key.texts} == {"full", "window", "reads"}


def test_a_folder_in_place_of_a_table_is_named_in_words(tmp_path):
    done = study("traces", str(tmp_path))
    assert done.stderr.rstrip() == f"error: {tmp_path} cannot be read: Is a directory"
