"""The first cell of the notebook for beginners: addgpt at hand, or one line on how to get it."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BOOK = Path(__file__).resolve().parent.parent / "analysis" / "first_steps.ipynb"


@pytest.fixture
def first_cell(monkeypatch) -> str:
    monkeypatch.setattr(sys, "path", list(sys.path))
    cells = json.loads(BOOK.read_text())["cells"]
    return "".join(next(cell["source"] for cell in cells if cell["cell_type"] == "code"))


@pytest.mark.parametrize("folder", [BOOK.parent, BOOK.parent.parent])
def test_in_a_clone_its_own_code_is_used(first_cell, monkeypatch, folder):
    monkeypatch.chdir(folder)
    exec(first_cell, {})
    assert sys.path[0] == str(BOOK.parent.parent)


def test_where_it_is_installed_nothing_is_done(first_cell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    exec(first_cell, {})
    assert sys.path == before


def test_elsewhere_one_line_says_how_to_get_it(first_cell, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as caught:
        exec(first_cell, {})
    says = str(caught.value)
    assert "addgpt is not installed" in says and "%pip install" in says and "\n" not in says
