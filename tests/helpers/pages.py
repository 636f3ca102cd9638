"""Pages of markdown, cut into what can be checked: code blocks, commands, links, paths."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
RECORDS = ("docs/log.md", "CHANGELOG.md")  # say what was run then, and stay as they are
PAGES = sorted(
    page
    for page in (
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        ROOT / "results" / "README.md",
        *ROOT.glob("addgpt/pretrained/*/*.md"),
    )
    if str(page.relative_to(ROOT)) not in RECORDS
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?:^    .*\n?)+", re.MULTILINE)
INLINE = re.compile(r"`([^`]+)`")
LINK = re.compile(r"!?\[[^]]*\]\(([^)\s]+)\)")
OURS = re.compile(r"(srun |torchrun |\.venv/bin/)?.*\baddgpt ")
OWN_TASK = "tasks/double.py"  # the reader writes it


class Block(NamedTuple):
    """A code block of a page."""

    page: Path
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.code[:60]!r}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [Block(page, *found) for found in FENCE.findall(page.read_text(encoding="utf-8"))]


def python_of(page: Path) -> list[str]:
    return [block.code for block in blocks(page) if block.language == "python"]


def commands(page: Path) -> list[list[str]]:
    """The words after `addgpt` of each command that a page shows, in blocks and in running text."""
    found = [_words(line) for line in shell_lines(page) if OURS.match(line.split("#")[0])]
    rest = FENCE.sub("", page.read_text(encoding="utf-8"))
    for code in INLINE.findall(INDENTED.sub("", rest)):
        line = " ".join(code.split())
        if line.startswith("addgpt "):
            found.append(_words(line))
    return found


def shell_lines(page: Path) -> list[str]:
    """The lines that a page's shell blocks give to the shell, without `$ ` and output."""
    code = [block.code for block in blocks(page) if block.language in ("sh", "console")]
    rest = FENCE.sub("", page.read_text(encoding="utf-8"))
    code += [block for block in INDENTED.findall(rest) if re.search(r"^ +addgpt ", block, re.M)]
    return [line for block in code for line in _of_script(block) if line]


def _of_script(code: str) -> list[str]:
    """Its lines, with the values of variables. Of the shell it knows `NAME=text` and `for`."""
    console = code.startswith("$ ")
    lines = code.replace("\\\n", " ").splitlines()
    found, variables = [], {}
    for line in lines:
        if console and not line.startswith("$ "):
            continue  # output
        line = line.removeprefix("$ ").strip()
        if given := re.fullmatch(r'(\w+)="?([^"$`]*)"?', line):
            variables[given[1]] = given[2]
        elif given := re.fullmatch(r"for (\w+) in (\S+).*; do", line):
            variables[given[1]] = given[2]
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", lambda _, value=value: value, line)
        found.append(line)
    return found


def _words(line: str) -> list[str]:
    """What the program gets: from behind its name to a pipe or a redirection."""
    words = shlex.split(line, comments=True)
    start = next(i for i, word in enumerate(words) if word.rpartition("/")[2] == "addgpt")
    words = words[start + 1 :]
    ends = [i for i, word in enumerate(words) if word in ("|", "<", ">", "&&", ";")]
    return words[: min(ends, default=len(words))]


def links(page: Path) -> list[str]:
    """Where the links and pictures of a page lead, but not those to other sites."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    found = (target.partition("#")[0] for target in LINK.findall(text))
    return [target for target in found if target and "://" not in target]


def paths(page: Path) -> list[str]:
    """Files of this project that a page names: `docs/length.md`, (tasks/add.py)."""
    text = page.read_text(encoding="utf-8")
    folders = "addgpt|tasks|analysis|benchmarks|tests|docs|results/reference"
    found = re.findall(rf"(?<![\w/.-])((?:{folders})/[\w/.*-]*\w(?:\*|/)?)", text)
    return [path for path in found if path != OWN_TASK]
