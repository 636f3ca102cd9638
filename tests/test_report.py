"""The page of `addgpt report`: its numbers, what it survives, and how it looks in a browser."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from addgpt.cli import main
from addgpt.intervals import wilson
from analysis import load, report
from analysis.report import data as report_data
from analysis.report import svg as report_svg
from analysis.report import traces as report_traces

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "results/reference"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
HOSTILE = "\"'><script>alert(1)</script><img src=http://x.example/y onerror=alert(2)>"
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


def cells(path: Path) -> list[dict]:
    with open(path / "eval.csv", newline="") as file:
        whole = ("len_a", "len_b", "n", "answer_correct")
        return [row | {name: int(row[name]) for name in whole} for row in csv.DictReader(file)]


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


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Three seeds of one configuration, of which seed 0 has findings, and another learning rate."""
    for seed, wrong in enumerate((7, 0, 21)):
        write_run(tmp_path / f"results/seed{seed}", seed, wrong)
    write_run(tmp_path / "results/slow", lr=0.001)
    write_findings(tmp_path / "results/seed0")
    return tmp_path / "results"


# Numbers.


def test_the_headline_is_the_counts_of_eval_csv(tmp_path: Path) -> None:
    for run in ("add-3", "add-3-s1", "add-3-s2"):
        shutil.copytree(REFERENCE / run, tmp_path / run)
    counted = []
    for run in sorted(tmp_path.iterdir()):
        held_out = [cell for cell in cells(run) if cell["seen"] == "False"]
        right = sum(cell["answer_correct"] for cell in held_out)
        counted.append((right, sum(cell["n"] for cell in held_out)))
    (right, n), (middle, of) = min(counted), sorted(counted)[1]
    low, high = (100 * float(end) for end in wilson(right, n))
    (median, worst), *_ = page(tmp_path).rows("Configuration").values()
    share = "100" if right == n else f"{100 * right / n:.2f}"
    assert worst.startswith(f"{share} % {right:,} of {n:,} ")
    ends = [float(end) for end in worst.rpartition(" ")[2].split("–")]
    assert ends == pytest.approx([low, high], abs=0.011)
    assert f"{middle:,} of {of:,}" in median


def test_each_kind_of_problem_has_its_own_row(results: Path) -> None:
    rows = page(results).rows("Worst cell")
    assert {name.partition("  ")[0].rpartition(" ")[0].rpartition(" ")[0] for name in rows} == {
        "all held out",
        "a + b held out",
        "a + b held out, longer than trained on",
        "a + b special problems, held out",
        "a + b seen in training",
    }
    plain = rows["a + b held out 3 cells"]
    assert plain[0].startswith("98.8 % 593 of 600")  # seed 0, with 7 wrong
    assert plain[1].startswith("96.5 % 579 of 600")  # seed 2, with 21
    assert plain[2] == "89.5 % 179 of 200 2 + 2 digits"
    assert rows["a + b held out, longer than trained on 5 cells"][0].startswith(
        "25.0 % 250 of 1,000"
    )
    assert rows["a + b seen in training 1 cell"][1] == "100 % 100 of 100 all there are"
    assert rows["all held out 4 cells"][1].startswith("96.6 % 628 of 650")


def test_seeds_are_grouped_and_other_settings_apart(results: Path) -> None:
    shown = page(results)
    names = list(shown.rows("Configuration"))
    assert len(names) == 2
    assert names[0].startswith("add, digits=2, lr=0.01 ") and "3 runs" in names[0]
    assert names[1].startswith("add, digits=2, lr=0.001 ") and "1 run" in names[1]
    assert shown.rows("Configuration")[names[1]][1] == "one run"


def test_strata_and_first_reachings(results: Path) -> None:
    shown = page(results)
    assert shown.rows("Kind")["nines"][1].startswith("98.0 % 49 of 50")
    reached = shown.rows("Examples seen")
    assert reached["90 %"] == ["3 of 3", "2,000", "21 s"]  # seeds take 20, 21 and 22 s
    assert reached["100 %"] == ["3 of 3", "3,000", "31 s"]


def test_mistakes_are_counted_and_shown(results: Path) -> None:
    shown = page(results)
    rows = shown.rows("Most at")
    explained = report_traces.KINDS
    assert rows[f"carry {explained['carry']}"] == ["7", "70.0 %", "digit 1 (6)"]
    assert rows[f"unterminated {explained['unterminated']}"] == ["3", "30.0 %", "line 1 (3)"]
    assert shown.marked == ["3", "1"]
    assert "First wrong: token 2: 3 instead of 4." in shown.text
    assert "First wrong: token 3, in line 1 of the work: 1 instead of #." in shown.text
    assert "0 of 650 were in training." in shown.text and "Contaminated" not in shown.text
    assert "10+10 = 20" in _plain(shown.text)


def test_contamination_is_said_loudly(results: Path) -> None:
    facts = json.loads((results / "seed0/eval.json").read_text())
    facts["contamination"] |= {"summary": "1 of 650 was in training", "met": 1}
    (results / "seed0/eval.json").write_text(json.dumps(facts))
    text = page(results).text
    assert "Contaminated, the scores do not count: 1 of 650 was in training." in text


def test_the_kinds_explained_are_those_that_exist() -> None:
    from addgpt.errors import KINDS  # imports torch, which analysis must not

    assert set(report_traces.KINDS) == set(KINDS)


@pytest.mark.parametrize(
    ("target", "written"),
    [("802;=802#", "802;=812#"), ("12#", "12"), ("1", "123456789"), ("", "7"), ("1234567", "")],
)
def test_pieces_hold_both_texts_and_mark_the_first_difference(target: str, written: str) -> None:
    row = {"problem": "p", "truth": "t", "answer": "", "target": target, "written": written}
    example = report_traces._example("run", row)
    for column, text in enumerate((target, written)):
        pieces = [pair[column] for pair in example.rows]
        joined = "".join(p.before + p.first + p.after for p in pieces)
        assert joined.replace(report_traces.NOTHING, "") == text
        before = "".join(p.before for p in pieces)
        assert before == target[: example.place] == written[: example.place]
        assert len([p for p in pieces if p.first]) == 1


def test_all_that_was_run_is_stated(results: Path) -> None:
    text = _plain(page(results).text)
    for fact in ("addgpt train --seed 2", "addgpt eval results/a", "abacus", "4,321", "2.9"):
        assert fact in text
    assert "2031-02-03T04:05:06+00:00" in text


def test_a_heat_map_has_every_cell_and_the_trained_lengths(results: Path) -> None:
    html = report.build(results / "seed0").html
    heat = re.search(r'<svg class="heat".*?</svg>', html)[0]
    assert len(re.findall(r'<text class="in ', heat)) == 9
    assert heat.count("<title>") == 6  # those not all right
    assert "<title>2 and 2 digits: 193 of 200</title>" in heat
    assert re.search(r'class="trained" d="M\S+ 0.975h2v2h-2z"', heat)


def test_a_grid_of_scattered_lengths_is_drawn_by_its_lengths(tmp_path: Path) -> None:
    path = write_run(tmp_path / "far")
    text = (path / "eval.csv").read_text()
    (path / "eval.csv").write_text(text.replace(",3,3,all", ",3000000,3000000,all"))
    assert len(report.build(path).html) < 100_000


def test_points_that_are_no_numbers_are_left_out() -> None:
    line = report_svg.Line("all", [1, 2, 3, 4, 5], [10, float("nan"), 30, float("inf"), 50])
    axis = report_svg.Axis(0, 5)
    svg = report_svg.chart([line], "about", "x", axis, report_svg.Axis(0, 100))
    assert re.search(r'<path class="line s0" d="([^"]*)"', svg)[1].count("L") == 2


def test_a_long_log_is_thinned() -> None:
    line = report_svg.Line("all", list(range(9999)), [50.0] * 9999)
    axis = report_svg.Axis(0, 9999)
    svg = report_svg.chart([line], "about", "x", axis, report_svg.Axis(0, 100))
    assert len(svg) < 6000 and "326.0 " in svg  # the last point is kept


# Strangers' folders.


def test_nothing_in_a_folder_can_become_markup(tmp_path: Path) -> None:
    path = write_run(tmp_path / HOSTILE.replace("/", ""))
    write_findings(path)
    for name in ("errors.csv", "error_counts.csv", "examples.csv"):
        with open(path / name, newline="") as file:
            rows = list(csv.DictReader(file))
        with open(path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(
                {k: v if k == "n" else HOSTILE + v for k, v in r.items()} for r in rows
            )
    config = json.loads((path / "config.json").read_text())
    config |= {"task": HOSTILE, "seed": HOSTILE, "command": HOSTILE + "\ud800\x00\u202e"}
    config["options"] |= {HOSTILE: [HOSTILE]}
    config["model"] = config["versions"] = {"layers": HOSTILE, HOSTILE: HOSTILE}
    (path / "config.json").write_text(json.dumps(config))
    (path / "eval.json").write_text(json.dumps({HOSTILE: {HOSTILE: HOSTILE}, "date": HOSTILE}))
    text = (path / "eval.csv").read_text().replace("nines", f'"{HOSTILE.replace(chr(34), "")}"')
    (path / "eval.csv").write_text(text.replace(",+,", ",<b>,"))
    for name in ("seed1", "seed2"):  # beside it, so that titles and keys name it, too
        shutil.copytree(path, tmp_path / name)
    (tmp_path / "seed2/metrics.jsonl").write_text(f"{HOSTILE}\n")
    shown = page(tmp_path)
    assert shown.text.count("<script>alert(1)</script>") > 30
    assert_nothing_foreign(shown)
    assert "b" in {tag for tag, _ in shown.tags} and "a <b> b" in _plain(shown.text)


def assert_nothing_foreign(shown: Reader) -> None:
    tags = {tag for tag, _ in shown.tags}
    assert not tags & {"script", "img", "iframe", "link", "object", "embed", "base", "image", "use"}
    for tag, attributes in shown.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert "src" not in attributes and attributes.get("href", "#").startswith("#")
        assert tag != "meta" or attributes.get("http-equiv", "").lower() != "refresh"


def test_the_page_refers_to_nothing_outside(results: Path) -> None:
    html = report.build(results).html
    assert_nothing_foreign(Reader(html))
    assert not re.search(r"https?:|url\(|@import", html)
    assert "default-src 'none'" in html  # a browser would load nothing even so


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"task": "add"}'),
        ("config.json", '{"task": "add", "seed": 1, "options": [1]}'),
        ("config.json", '{"task": "add", "seed": 1, "train": 3}'),
        ("config.json", "[" * 100_000),
        ("metrics.jsonl", "7\n8\n"),
        ("metrics.jsonl", '{"step": "three"}\n'),
        ("metrics.jsonl", '{"step": 1, "val_exact": [1]}\n'),
        ("eval.csv", "op,n\n+,3\n"),
        ("eval.csv", "\0\xff"),
        ("errors.csv", "op,problem\n"),
        ("errors.csv", '"' + "x" * 200_000),
        ("error_counts.csv", "op,kind,n\n+,sign,many\n"),
        ("examples.csv", "op,problem,truth,written\n+\n"),
        ("eval.json", "[]"),
        ("eval.json", '{"seconds": '),
    ],
)
def test_damage_is_named_once_and_hides_nothing_else(results, capsys, file, content) -> None:
    (results / "seed0" / file).write_bytes(content.encode("latin-1"))
    out = results.parent / "page.html"
    done = CliRunner().invoke(main, ["report", str(results), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("seed0")
    shown = Reader(out.read_text())
    assert "Could not be read" in shown.text and "seed0" in shown.text
    assert _plain(done.stderr)[:200] in _plain(shown.text)
    assert "21 of 200" not in shown.text and "179 of 200" in shown.text  # seed 2 is there
    assert len(shown.rows("Configuration")) == 2


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1", "1e300"])
def test_odd_numbers_in_a_log_are_drawn_or_left_out(tmp_path: Path, value: str) -> None:
    path = write_run(tmp_path / "run")
    log = (path / "metrics.jsonl").read_text()
    (path / "metrics.jsonl").write_text(re.sub(r'("\w+"): [0-9.]+', rf"\1: {value}", log))
    html = report.build(path).html
    assert not re.search(r'd="[^"]*(nan|inf)', html)
    Reader(html)


def test_a_run_just_begun_and_a_task_without_answers(tmp_path: Path) -> None:
    new = write_run(tmp_path / "new")
    (new / "eval.csv").unlink()
    (new / "metrics.jsonl").unlink()
    text = write_run(tmp_path / "text", lr=0.1)
    (text / "eval.csv").unlink()
    log = (text / "metrics.jsonl").read_text()
    (text / "metrics.jsonl").write_text(re.sub(r', "val_exact": [0-9.]+', "", log))
    waiting = write_run(tmp_path / "waiting", lr=0.2)
    (waiting / "eval.csv").unlink()
    rows = list(page(tmp_path).rows("Configuration").values())
    assert rows[0] == ["nothing logged yet"]
    assert rows[1] == ["loss on val 0.06667 nats per token"]
    assert rows[2] == [f"not scored yet: addgpt eval {waiting}"]


def test_the_same_files_make_the_same_page(results: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(results, tmp_path / "elsewhere" / "results")
    assert report.build(results).html == report.build(copied).html
    assert report.build(results, date="1 May").html.count("1 May") == 1


# The command.


def test_command_writes_the_page_and_says_so(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = CliRunner().invoke(main, ["report", str(results), "--out", str(out)])
    assert done.exit_code == 0 and done.stdout.startswith(f"{out}: 4 runs, ")
    assert out.read_text() == report.build(results).html
    assert [file.name for file in tmp_path.glob("*page*")] == ["page.html"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere"], 2, "there is no folder nowhere"),
        (["."], 2, "holds no run"),
        (["a file"], 2, "a file is not a folder"),
        (["run", "--out", "missing/page.html"], 1, "cannot write missing/page.html"),
        (["run", "--out", "run"], 1, "cannot write run"),
    ],
)
def test_what_a_user_can_mend_is_one_line(tmp_path, monkeypatch, words, code, says) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    if "run" in words:
        write_run(tmp_path / "run")
    done = CliRunner().invoke(main, ["report", *words])
    assert done.exit_code == code
    assert says in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("**/*.html"))


def test_no_torch_and_no_matplotlib_is_loaded(results: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from addgpt.cli import main\n"
        f"try: main(['report', {str(results)!r}, '--out', {str(tmp_path / 'o.html')!r}])\n"
        "finally: print({'torch', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.endswith("set()\n"), done.stderr


def test_progress_is_told_how_much_there_is(results: Path) -> None:
    told = []

    def progress(items, total: int, what: str):
        told.append((what, total))
        return items

    report.build(results, progress)
    assert told == [("reading", 4), ("drawing", 2)]


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


def test_the_data_module_names_a_difference_once(results: Path) -> None:
    runs, _ = report_data.read(results, lambda items, total, what: items)
    assert [len(one.runs) for one in report_data.group(runs)] == [3, 1]
