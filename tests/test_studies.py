"""`addgpt study`: what there is, and what it says where it cannot go on."""

from __future__ import annotations

import importlib

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from analysis.studies import STUDIES


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
