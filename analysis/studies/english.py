"""A large English text to pretrain on, from what Debian packages: dictionary, sermons, Bible.

    apt install dict-gcide sword-comm-tdavid bible-kjv
    addgpt study english --out english.txt --without tinyshakespeare.txt

Webster's dictionary of 1913 and its followers (gcide), Spurgeon's commentary on the psalms of 1885
(tdavid) and the King James Bible of 1611, as plain ASCII in lines of at most 60 characters, their
entries, verses and paragraphs shuffled, so that each part of the file is like any other.

With `--without FILE` each entry or paragraph that shares six words in a row with the last tenth of
that file (the validation part of `shakespeare`) is left out, and the total is printed. Brown et al.
2020 (arXiv:2005.14165, appendix C) do the same with 13 words.
"""

from __future__ import annotations

import gzip
import random
import re
import struct
import subprocess
import textwrap
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from addgpt.config.errors import UsageError
from addgpt.runs.files import write_atomically

TRAIN = 0.9  # share of the characters of a text; the rest is its validation part
RUN = 6  # words in a row that are too many to be chance
LINE = 60  # characters
SHORTEST = 20  # characters of a piece that is worth keeping
VERSES = 10  # that stay together
SEED = 0
WORD = re.compile("[a-z]+")
MARKED = re.compile(r"(?<=[A-Za-z])\[[^\[\]\s]{1,3}\]|\[[^\[\]\s]{1,3}\](?=[a-z])")  # C[ae]sar
DICTIONARY = "usr/share/dictd/gcide.dict.dz"
SERMONS = "usr/share/sword/modules/comments/zcom/tdavid"
PLAIN = str.maketrans({"\u2014": "--", "\u2013": "-", "\u2018": "'", "\u2019": "'",
                       "\u201c": '"', "\u201d": '"'})  # fmt: skip


def dictionary(root: Path) -> Iterator[str]:
    """The entries of gcide, without pronunciation, etymology and where they are from."""
    with gzip.open(root / DICTIONARY, "rt", encoding="utf-8", errors="replace") as file:
        text = file.read()
    for entry in re.split(r"\n(?=\S)", text.partition("\nA \\")[2]):
        entry = re.sub(r"\\[^\\\n]*\\", "", entry)
        entry = MARKED.sub(lambda found: re.sub("[^A-Za-z]", "", found[0].replace("um", "")), entry)
        entry = re.sub(r"\[[^\[\]]*\]", "", re.sub(r"\[[^\[\]]*\]", "", entry))
        yield re.sub("[{}]", "", entry)


def sermons(root: Path) -> Iterator[str]:
    """The paragraphs of tdavid: an index of (start, size, size unpacked) into zlib streams."""
    index = (root / SERMONS / "ot.czs").read_bytes()
    packed = (root / SERMONS / "ot.czz").read_bytes()
    for start, size, _ in struct.iter_unpack("<III", index):
        chapter = zlib.decompress(packed[start : start + size]).decode("utf-8", "replace")
        for paragraph in re.split(r"<div [^>]*x-p[^>]*>|<title[^>]*>", chapter):
            yield re.sub(r"<[^>]*>", "", paragraph)


def bible() -> Iterator[str]:
    """The King James Bible, ten verses at a time, without their numbers.

    It is in a format of its own, which the program `bible` reads, so that has to be installed.
    """
    asked = subprocess.run(
        ["bible", "-f"], input="ge1:1-re22:21\n", capture_output=True, text=True, check=True
    )
    verses = [v for line in asked.stdout.splitlines() if (v := verse(line))]
    for start in range(0, len(verses), VERSES):
        yield "\n".join(verses[start : start + VERSES])


def verse(line: str) -> str:
    """`Ge1:1 In the beginning ...` -> `In the beginning ...`; nothing if it is no verse."""
    found = re.match(r"\w+?\d+:\d+ (.*)", line)
    return found[1] if found else ""


def plain(piece: str) -> str:
    """ASCII, in lines of at most `LINE` characters."""
    piece = unicodedata.normalize("NFKD", piece.translate(PLAIN)).encode("ascii", "ignore").decode()
    lines = [textwrap.fill(" ".join(line.split()), LINE) for line in unwrapped(piece)]
    return "\n".join(line for line in lines if line)


def unwrapped(piece: str) -> list[str]:
    """The lines of a piece before they were wrapped: those that go on are indented alike."""
    return re.sub(r"\n[ \t]+(?=[^\s\d(])", " ", piece).split("\n")


def runs(text: str, words: int = RUN) -> set[tuple[str, ...]]:
    """All runs of `words` words in a row, in lower case; punctuation and lines do not count."""
    found = WORD.findall(text.lower())
    return set(zip(*(found[i:] for i in range(words)), strict=False))


def apart(pieces: Iterable[str], held_out: str) -> tuple[list[str], list[str]]:
    """Pieces that share no run of words with a held-out text, and those that do."""
    known = runs(held_out)
    kept, removed = [], []
    for piece in pieces:
        (kept if known.isdisjoint(runs(piece)) else removed).append(piece)
    return kept, removed


def collect(sources: dict[str, Iterable[str]], held_out: str) -> tuple[str, list[str]]:
    """The text of all sources, shuffled, and a line about each of them."""
    everything: list[str] = []
    told = []
    for name, pieces in sources.items():
        kept, removed = apart((p for p in map(plain, pieces) if len(p) > SHORTEST), held_out)
        sizes = [sum(map(len, some)) for some in (kept, removed)]
        told.append(
            f"{name}: {sizes[0]:,} characters in {len(kept):,} pieces; "
            f"left out as known: {sizes[1]:,} in {len(removed):,}"
        )
        everything += kept
    random.Random(SEED).shuffle(everything)
    return "\n\n".join(everything) + "\n", told


def write(out: Path, without: Path | None = None, root: Path = Path("/")) -> list[str]:
    """Write the text to a file; returns a line about each source.

    Args:
        without: a text whose last tenth stays unknown.
        root: where dict-gcide and sword-comm-tdavid are.

    Raises:
        OSError: a package is not installed, or a file cannot be read or written.
        ValueError: a package is damaged.
    """
    known = without.read_text(encoding="utf-8") if without else ""
    try:
        sources = {
            "dict-gcide": dictionary(root),
            "sword-comm-tdavid": sermons(root),
            "bible-kjv": bible(),
        }
        text, told = collect(sources, known[int(len(known) * TRAIN) :])
    except (subprocess.CalledProcessError, zlib.error, struct.error, EOFError) as error:
        raise UsageError(f"a package is damaged: {error}") from None
    except FileNotFoundError as error:
        needs = "apt install dict-gcide sword-comm-tdavid bible-kjv"
        raise UsageError(f"{error.filename} is not there; {needs}") from None
    write_atomically(out, text)
    return [*told, f"{out}: {len(text):,} characters"]
