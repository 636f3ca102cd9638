"""Results folders to report on, and what a reader sees of a page."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path

from analysis import load, report

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results/reference"
COUNTED = ("n", "len_a", "len_b", "digit", "line")  # which have to be numbers
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
        return {plain(row[0]): [plain(cell) for cell in row[1:]] for row in table[1:]}


def plain(text: str) -> str:
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


def write_hostile(folder: Path) -> Path:
    """A run whose name, settings and scores are markup wherever they are text."""
    path = write_run(folder / HOSTILE.replace("/", ""))
    write_findings(path)
    for name in ("errors.csv", "error_counts.csv", "examples.csv"):
        with open(path / name, newline="") as file:
            rows = list(csv.DictReader(file))
        with open(path / name, "w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0]])
            writer.writeheader()
            writer.writerows(
                {k: v if k in COUNTED else HOSTILE + v for k, v in r.items()} for r in rows
            )
    config = json.loads((path / "config.json").read_text())
    config |= {"task": HOSTILE, "seed": HOSTILE, "command": HOSTILE + "\ud800\x00\u202e"}
    config["options"] |= {HOSTILE: [HOSTILE]}
    config["model"] = config["versions"] = {"layers": HOSTILE, HOSTILE: HOSTILE}
    (path / "config.json").write_text(json.dumps(config))
    (path / "eval.json").write_text(json.dumps({HOSTILE: {HOSTILE: HOSTILE}, "date": HOSTILE}))
    text = (path / "eval.csv").read_text().replace("nines", f'"{HOSTILE.replace(chr(34), "")}"')
    (path / "eval.csv").write_text(text.replace(",+,", ",<b>,"))
    return path
