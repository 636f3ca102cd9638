"""Which runs a grid makes, and what is wrong with one, before anything is written."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from addgpt.runs.checkpoint import weight_count
from addgpt.sweep.grid import grid_names, load_grid
from addgpt.sweep.plan import plan_sweep
from tasks.common import sources
from tests.helpers.sweeps import refused, sweep, write_grid

pytestmark = pytest.mark.slow

KEYS = st.sampled_from(["width", "steps", "lr", "norm", "trace"])
VALUES = st.lists(st.integers(0, 99) | st.sampled_from("abcd"), min_size=1, max_size=3, unique=True)


@pytest.fixture(scope="module")
def grid_file(tmp_path_factory):
    """Writes the file of a sweep of tiny runs; its path."""
    return lambda text="", **common: write_grid(tmp_path_factory.mktemp("sweep"), text, **common)


def as_toml(grid: dict, tmp: Path, seeds: list[int] = [0]) -> Path:  # noqa: B006
    file = tmp / "grid.toml"
    lines = [f"{key} = {json.dumps(values)}" for key, values in grid.items()]
    file.write_text(f'task = "add"\nseeds = {seeds}\n[grid]\n' + "\n".join(lines))
    return file


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3))
def test_a_grid_is_every_combination(tmp_path_factory, grid):
    found = load_grid(str(as_toml(grid, tmp_path_factory.mktemp("g")))).combinations
    wanted = itertools.product(*([(key, str(v)) for v in values] for key, values in grid.items()))
    assert sorted(sorted(one.settings.items()) for one in found) == sorted(map(sorted, wanted))
    assert len({one.stem for one in found}) == len(found)


@given(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), st.randoms())
def test_folders_keep_their_names_when_a_grid_grows(tmp_path_factory, grid, random):
    tmp = tmp_path_factory.mktemp("g")

    def folders(grid: dict) -> set:
        found = load_grid(str(as_toml(grid, tmp))).combinations
        return {(one.stem, *one.settings.items()) for one in found}

    keys = random.sample(list(grid), len(grid))
    grown = {key: random.sample([*grid[key], "new"], len(grid[key]) + 1) for key in keys}
    assert folders(grid) < folders(grown)


def test_cases_come_besides_the_grid_and_go_on_top_of_set(grid_file):
    text = (
        '[grid]\nwidth = [16, 32]\n[[case]]\nname = "plain-8"\nset = {format = "plain", width = 8}'
    )
    planned = plan_sweep(load_grid(str(grid_file("seeds = [3, 1]\n" + text))))
    names = [[f"width=16,seed={n}", f"width=32,seed={n}", f"plain-8-s{n}"] for n in (3, 1)]
    assert [one.name for one in planned] == sum(names, [])
    assert [one.config.model.width for one in planned] == [16, 32, 8] * 2
    assert [one.config.seed for one in planned] == [3] * 3 + [1] * 3
    assert [one.config.options["format"] for one in planned][:3] == ["reverse", "reverse", "plain"]


def test_cases_of_another_grid_come_besides_its_own(tmp_path):
    text = 'task = "add"\n[[case]]\nname = "own"\nset = {width = 8}\n'
    (tmp_path / "one.toml").write_text(text.replace("own", "other"))
    grid = tmp_path / "grid.toml"
    grid.write_text('cases_of = "one"\n' + text)
    found = load_grid(str(grid)).combinations
    assert [(one.name, one.settings) for one in found] == [
        ("own", {"width": "8"}),
        ("other", {"width": "8"}),
    ]
    grid.write_text('cases_of = "one"\nwithout = ["other"]\n' + text)
    assert [one.name for one in load_grid(str(grid)).combinations] == ["own"]
    grid.write_text('cases_of = "one"\nwithout = ["own"]\n' + text)
    with pytest.raises(ValueError, match="unknown case 'own' of one in without; valid: other"):
        load_grid(str(grid))
    grid.write_text('without = ["other"]\n' + text)
    with pytest.raises(ValueError, match="without leaves out .* of another grid; cases_of must"):
        load_grid(str(grid))
    for text_of_other in ('task = "add"\n', 'cases_of = "two"\n' + text):
        (tmp_path / "bare.toml").write_text(text_of_other)
        grid.write_text('cases_of = "bare"\n' + text)
        with pytest.raises(ValueError, match="of bare, which must have its own"):
            load_grid(str(grid))
    for name in ("two", "../one", str(tmp_path / "one")):
        grid.write_text(f'cases_of = "{name}"\n' + text)
        says = f"unknown grid '{name}' in cases_of .*; valid: bare, grid, one"
        with pytest.raises(ValueError, match=says):
            load_grid(str(grid))


def test_help_names_the_grids_that_come_along():
    told = CliRunner().invoke(main, ["sweep", "--help"]).output
    assert [name for name in grid_names() if name not in re.findall(r"[\w-]+", told)] == []


def test_without_grid_and_cases_the_seeds_are_the_runs(grid_file):
    planned = plan_sweep(load_grid(str(grid_file("seeds = [0, 7]"))))
    assert [(one.name, one.config.seed) for one in planned] == [("seed=0", 0), ("seed=7", 7)]


def test_values_are_written_as_set_takes_them(grid_file):
    levels = (("learned", "none", "rotary"), ("rotary",) * 3)
    text = f"[grid]\nlevel_position = {json.dumps(levels)}\nqk_norm = [true, false]\nlr = [1e-3]"
    planned = plan_sweep(load_grid(str(grid_file(text))))
    found = {(one.config.model.level_position, one.config.model.qk_norm) for one in planned}
    assert found == set(itertools.product(levels, (True, False)))
    assert {one.config.train.lr for one in planned} == {1e-3}


def test_the_smallest_adders_are_named_by_their_parameters():
    planned = plan_sweep(load_grid("smallest"))
    named = {one.combination.name: weight_count(one.config.model) for one in planned}
    assert {name: int(name) for name in named} == named


@pytest.mark.parametrize("name", grid_names())
def test_the_grids_that_come_along_can_be_run(name, tmp_path, monkeypatch):
    words = map("".join, itertools.product("abcdefghij", repeat=3))
    text = " ".join(words)  # in place of what would be downloaded
    (tmp_path / "tinyshakespeare.txt").write_text(text)
    known = ("", hashlib.sha256(text.encode()).hexdigest())
    monkeypatch.setitem(sources.KNOWN, "tinyshakespeare", known)
    monkeypatch.setenv("ADDGPT_DATA", str(tmp_path))
    grid = load_grid(name)
    planned = plan_sweep(grid)
    assert len(planned) == len(grid.seeds) * len(grid.combinations) and len(grid.seeds) >= 3
    assert {one.path.parent for one in planned} == {Path("results") / name}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('name = "widths"', "the name of a grid is that of its file"),
        (
            "sedes = [1]",
            "unknown key 'sedes'; did you mean seeds? valid keys: case, cases_of, eval,",
        ),
        ("name = 'other'", "name is not a key: the name of a grid is that of its file"),
        ("seeds = []", "seeds must be different whole numbers, not []"),
        ("seeds = [1, 1]", "different"),
        (f"seeds = [{2**63}]", f"seeds must be in 0..{2**63 - 1}, not {2**63}"),
        ("seeds = [-1]", "seeds must be in 0..9223372036854775807, not -1"),
        ("seeds = [true]", "seeds must be a whole number, not True"),
        ("seeds = 3", "seeds must be a list, not 3"),
        ("per_cell = 0", "per_cell must be at least 1, not 0"),
        ("eval = 1", "eval must be true or false, not 1"),
        ("[grid]\nwidth = []", "width in [grid] must be a list of values, not []"),
        ("[grid]\nwidth = 32", "must be a list"),
        ("[grid]\nwidth = [16, 16]", "'width=16' appears twice"),
        ("[grid]\nlr = [1e-3, 0.0010]", "appears twice"),
        ("[grid]\nwidth = [17]", "width=17: heads=2 does not divide width=17"),
        ("[grid]\nwidht = [16]", "unknown setting 'widht'; did you mean width? valid:"),
        ("[grid]\nnorm = ['rms', 'x']", "norm=x: norm must be one of rms,"),
        ("[grid]\nwidth = [[16]]", "width=16: width must be a whole number, not [16]"),
        (
            "[[case]]\nname = 'a'\nset = {width = [16]}",
            "a: width must be a whole number, not [16]; values to compare go in [grid]",
        ),
        ("[grid]\nactivation = ['a@b']", "tiny.toml, activation=a@b: activation must be one of"),
        ("[grid]\nsteps = ['many']", "steps must be a whole number, not 'many'"),
        ("[grid]\nsteps = [2026-01-01]", "steps must be a whole number, not '2026-01-01'"),
        ("[grid]\ndigits = [0]", "tiny.toml, digits=0: digits must be"),
        ("[grid]\ndevice = ['cuda']", "this machine has no cuda"),
        (f"[grid]\nwidth = {list(range(101))}\nsteps = {list(range(100))}", "more than 10,000"),
        (f"[grid]\nformat = ['{'x' * 300}']", "too long for a folder; make it a [[case]]"),
        ("[[case]]\nset = {}", "name is missing in case 1"),
        ("[[case]]\nname = '../x'", "a case is named by letters, digits and . _ + -, not '../x'"),
        (
            "[[case]]\nname = 'a'\nsett = {}",
            "unknown key 'sett' in case 1; did you mean set? valid keys: name, recipe, set",
        ),
        ("[[case]]\nname = 'a'\n[[case]]\nname = 'A'\nset = {width = 32}", "'A' appears twice"),
        (
            "[[case]]\nname = 'a'\n[[case]]\nname = 'b'\nset = {trace = 'none'}",
            "a and b are the same",
        ),
        ("case = 3", "case must be a list, not 3"),
        ("case = [3]", "case 1 must be a table of settings, not 3"),
        ("[[case]]\nname = 'a'\nset = 3", "set in case 1 must be a table, not 3"),
        ("[[case]]\nname = 'a'\nrecipe = 'x'", "case a: unknown recipe 'x'; valid: "),
        ("grid = 3", "grid must be a table, not 3"),
        ('out = "a\\u0000b"', "out must be a folder's name without .., not 'a\\x00b'"),
        ("x", "Expected"),
    ],
)
def test_a_bad_grid_is_refused_in_one_line_before_anything_is_written(grid_file, text, says):
    if "device" in text and os.path.exists("/dev/nvidia0"):
        pytest.skip("this machine has the device")
    file = grid_file()
    lines = file.read_text().splitlines(keepends=True)
    lines = [line for line in lines if line.split(" =")[0] != text.split(" =")[0]]
    file.write_text(
        f"{text}\n{''.join(lines)}" if "[" not in text[:2] else f"{''.join(lines)}{text}"
    )
    line = refused(sweep(file))
    assert says in line and "tiny" in line
    assert not (file.parent / "runs").exists()


def test_a_grid_may_start_with_the_mark_that_notepad_writes(grid_file):
    file = grid_file()
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(load_grid(str(file)).combinations) == 1


def test_what_is_wrong_in_set_is_not_laid_on_a_case(grid_file):
    file = grid_file("[[case]]\nname = 'a'\nset = {width = 32}", heads=3)
    assert "tiny.toml, a: heads=3 does not divide width=32" in refused(sweep(file))
    file = grid_file(digits=[1])
    line = refused(sweep(file))
    assert "tiny.toml, [set]: digits in the options of add must be a whole number, not [1]" in line
    assert "values to compare go in [grid]" in line
    file = grid_file("[[case]]\nname = 'a'\nset = {width = 32}", norm="x")
    assert "tiny.toml, [set]: norm must be one of rms," in refused(sweep(file))


def test_unknown_grids_tasks_and_options_are_refused(tmp_path):
    line = refused(sweep("nosuch"))
    assert line.endswith(
        "nosuch is not there, nor a grid that comes along: " + ", ".join(grid_names())
    )
    (tmp_path / "folder.toml").mkdir()
    os.mkfifo(tmp_path / "fifo.toml")
    (tmp_path / "notes.txt").touch()
    for place in ("", "folder.toml", "notes.txt", "fifo.toml", "/dev/null"):
        line = refused(sweep(tmp_path / place))
        assert f"{tmp_path / place} is no file NAME.toml, nor a grid that comes along: abl" in line
    (tmp_path / "g.toml").write_text("seeds = [0]")
    assert "task is missing" in refused(sweep(tmp_path / "g.toml"))
    (tmp_path / "g.toml").write_text('task = "ad"')
    assert "unknown task 'ad'; valid: add," in refused(sweep(tmp_path / "g.toml"))
    assert "--ray-address goes with --engine ray" in refused(sweep("formats", "--ray-address", "x"))


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    line = refused(sweep("formats", "--engine", "ray"))
    assert line == "error: --engine ray needs Ray: pip install 'addgpt[ray]'"
