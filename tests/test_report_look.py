"""How the page of `addgpt report` looks and is read; a reader of it, and runs to report on."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from analysis import report
from tests.helpers.report import (
    REFERENCE,
    ROOT,
    page,
    write_results,
    write_run,
)

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


def test_numbers_in_cells_stand_out_from_their_shade() -> None:
    """WCAG 2.2 contrast of at least 4.5, in light and in dark."""
    style = (ROOT / "analysis/report/templates/report.css").read_text()
    schemes = [dict(re.findall(r"--(\w+): (#\w+)", part)) for part in style.split(":root {")[1:3]]
    assert len(schemes) == 2
    for colours in schemes:
        for number in range(9):
            assert contrast(colours[f"h{number}"], colours[f"t{number}"]) >= 4.5
        for name in ("ink", "soft", "accent", "wrong", *(f"s{i}" for i in range(8))):
            assert contrast(colours[name], colours["paper"]) >= 4.5


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))


MEASURE = """<body><script>
const measure = ({contentDocument: page}) => ({
  width: page.documentElement.clientWidth,
  needed: page.documentElement.scrollWidth,
  scrolled: [...page.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length,
  paper: getComputedStyle(page.body).backgroundColor,
  cell: getComputedStyle(page.querySelector('.heat path')).fill,
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
