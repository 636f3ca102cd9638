"""How the page of `addgpt report` looks and is read."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import report
from analysis.report.svg import Drawings
from analysis.style import Panel
from tests.helpers.report import (
    REFERENCE,
    page,
    write_results,
    write_run,
)

pytestmark = pytest.mark.slow

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return write_results(tmp_path / "results")


# Looks.


def test_figures_and_tables_can_be_read_aloud(results: Path) -> None:
    shown = page(results)
    for tag, attributes in shown.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or len(attributes["aria-label"]) > 20
        if tag == "th":
            assert attributes["scope"] in ("col", "row")
    ids = [attributes["id"] for _, attributes in shown.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [a["href"][1:] for tag, a in shown.tags if tag == "a"]
    assert links and set(links) <= set(ids)


MEASURE = """<body><script>
const measure = ({contentDocument: page}) => ({
  width: page.documentElement.clientWidth,
  needed: page.documentElement.scrollWidth,
  scrolled: [...page.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length,
  paper: getComputedStyle(page.body).backgroundColor,
  cell: getComputedStyle(page.querySelector('.map path')).stroke,
  folded: page.querySelectorAll('details:not([open])').length,
  heights: [...page.querySelectorAll('figure > svg')].map(e => e.clientHeight),
});
onload = () => {
  const frames = [...document.querySelectorAll('iframe')];
  document.body.textContent = JSON.stringify(frames.map(measure));
};
</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt install chromium")
def test_it_fits_a_phone_and_a_wide_screen_in_light_and_dark(results: Path, tmp_path: Path) -> None:
    shutil.copytree(REFERENCE / "calculator", results / "calculator")
    long = write_run(results / ("long-" * 30), lr=0.5)
    text = (long / "eval.csv").read_text()
    (long / "eval.csv").write_text(text.replace("nines", "n" * 40))
    html = report.build(results).html
    assert "<details>" in html  # there are too many groups to unfold all
    (tmp_path / "page.html").write_text(html.replace("<details", "<details open"))
    sizes = (360, 1280)
    frames = [f'<iframe src="page.html" width="{w}" height="800"></iframe>' for w in sizes]
    (tmp_path / "frames.html").write_text(MEASURE + "".join(frames))
    dark, light = (measured(tmp_path, scheme) for scheme in (0, 1))
    for found, width in zip(dark + light, sizes + sizes, strict=True):
        assert found["folded"] == 0 and min(found["heights"]) > 100
        assert found["needed"] <= found["width"] <= width
        assert bool(found["scrolled"]) == (width == 360)  # tables with the long name
    assert [found["paper"] for found in dark] == ["rgb(20, 23, 26)"] * 2
    assert [found["paper"] for found in light] == ["rgb(253, 253, 251)"] * 2
    assert dark[0]["cell"] != light[0]["cell"]


def measured(folder: Path, scheme: int) -> list[dict]:
    """What MEASURE finds, with the preferred colour scheme: 0 dark, 1 light."""
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    flags += [f"--blink-settings=preferredColorScheme={scheme}", "--dump-dom"]
    flags += [f"--user-data-dir={folder / 'profile'}", (folder / "frames.html").as_uri()]
    done = subprocess.run([CHROMIUM, *flags], capture_output=True, text=True, timeout=120)
    return json.loads(re.search(r"\[\{.*\}\]", done.stdout)[0])


def drawn(x: list, y: list) -> str:
    panel = Panel("", "", lambda axis: axis.plot(x, y, color="#0173b2"))
    return re.search(r'<path class="\w+" d="([^"]*)"', Drawings().draw(panel))[1]


def test_points_that_are_no_numbers_are_left_out() -> None:
    path = drawn([1, 2, 3, 4, 5, 6], [10, 20, float("nan"), 30, float("inf"), 50])
    assert path.count("l") == 1 and "nan" not in path and "inf" not in path
