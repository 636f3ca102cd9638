"""How the page of `addgpt report` looks and is read; a reader of it, and runs to report on."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from analysis import load, report

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results/reference"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
VOID = {"meta", "br", "link", "img", "input", "hr", "wbr"}


class Reader(HTMLParser):
    """A page as its tags with attributes, its text, and its tables as rows of cells' text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.marked: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag in ("small", "br"):
            self.handle_data(" ")
        elif tag == "mark":
            self.marked.append("")

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.tables[-1][-1][-1] += data
        if "mark" in self.open:
            self.marked[-1] += data

    def rows(self, column: str) -> dict[str, list[str]]:
        """The first table with a column of that name: its rows by their first cell."""
        table = next(table for table in self.tables if column in table[0])
        return {_plain(row[0]): [_plain(cell) for cell in row[1:]] for row in table[1:]}


def _plain(text: str) -> str:
    return " ".join(text.split())


def page(folder: Path) -> Reader:
    return Reader(report.build(folder).html)


def write_run(path: Path, seed: int = 0, wrong: int = 0, lr: float = 0.01) -> Path:
    """Addition trained on 2 digits and scored on 3; `wrong` of the 200 2 + 2 digit sums."""
    path.mkdir(parents=True)
    config = {"task": "add", "seed": seed, "options": {"digits": 2}, "model": {"layers": 1}}
    config |= {"train": {"lr": lr, "eval_size": 500}, "command": f"addgpt train --seed {seed}"}
    config |= {"versions": {"torch": "2.9", "machine": "abacus"}, "format": 1}
    (path / "config.json").write_text(json.dumps(config))
    with open(path / "metrics.jsonl", "w") as file:
        for step, exact in ((10, 0.2), (20, 0.95), (30, 1.0)):
            look = {"step": step, "examples": 100 * step, "tokens": 900, "seconds": step + seed}
            file.write(json.dumps(look | {"loss": 1 / step, "val_loss": 2 / step})[:-1])
            file.write(f', "val_exact": {exact}}}\n')
    same = {"run": "x", "task": "add", "seed": seed, "params": 4321, "step": 30, "examples": 3000}
    same |= {"seconds": 30, "split": "test", "unterminated": 0, "op": "+"}
    with open(path / "eval.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, load.EVAL_COLUMNS, lineterminator="\n")
        writer.writeheader()
        for a in (1, 2, 3):
            for b in (1, 2, 3):
                n = 100 if a == b == 1 else 200
                right = n - wrong if a == b == 2 else n // 4 if max(a, b) == 3 else n
                row = {"len_a": a, "len_b": b, "stratum": "all", "seen": a == b == 1, "n": n}
                writer.writerow(same | row | {"answer_correct": right, "trace_correct": right})
        row = {"len_a": 2, "len_b": 2, "stratum": "nines", "seen": False, "n": 50}
        writer.writerow(same | row | {"answer_correct": 49, "trace_correct": 49})
    return path


def write_findings(path: Path) -> None:
    """What `addgpt eval` writes about mistakes."""
    columns = "op,len_a,len_b,stratum,problem,truth,answer,kind,digit,line,place,target,written"
    mistakes = [
        ["+", 2, 2, "all", "17+25", 42, 32, "carry", 1, "", 1, "24#", "23#"],
        ["+", 2, 2, "all", "11+11", 22, "", "unterminated", "", 1, 2, "22#", "2211111"],
    ]
    with open(path / "errors.csv", "w", newline="") as file:
        csv.writer(file).writerows([columns.split(","), *mistakes])
    counts = "op,len_a,len_b,stratum,kind,digit,line,n\n+,2,2,all,carry,1,,6\n"
    counts += "+,2,1,all,carry,0,,1\n+,2,2,all,unterminated,,1,3\n"
    (path / "error_counts.csv").write_text(counts)
    right = "op,len_a,len_b,stratum,problem,truth,written\n+,2,2,all,10+10,20,02#\n"
    (path / "examples.csv").write_text(right)
    checked = {"summary": "0 of 650 were in training", "drawable": 0, "met": 0, "found": []}
    facts = {"per_cell": 200, "contamination": checked, "date": "2031-02-03T04:05:06+00:00"}
    (path / "eval.json").write_text(json.dumps(facts | {"command": "addgpt eval results/a"}))


def write_results(path: Path) -> Path:
    """Three seeds of one configuration, of which seed 0 has findings, and another learning rate."""
    for seed, wrong in enumerate((7, 0, 21)):
        write_run(path / f"seed{seed}", seed, wrong)
    write_run(path / "slow", lr=0.001)
    write_findings(path / "seed0")
    return path


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
