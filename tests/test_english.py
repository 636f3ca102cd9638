"""The pretraining text: what is kept of its sources, and that nothing held out is in it."""

import gzip
import re
import struct
import sys
import zlib

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from addgpt.cli.main import main
from analysis.studies import english

WORDS = st.lists(st.sampled_from("to be or not that is the question".split()), max_size=30)
ENTRY = """\

00-database-info
   About it.

A \\A\\ (a). The first letter.

Zymose \\Zy*mose"\\, n. [Zyme + -ose, fr. Gr. [z]] (Chem.)
   Invertin, which turns cane
   sugar. See {Zyme}. [1913 Webster]
   2. C[ae]sar caf['e], [OE]dipus. Another \u201cthing\u201d \u2014 na\u00efve.
"""
BIBLE = """#!{python}
import sys
print("bible: a release")
for i in range(1, 24):
    print(f"Ge{{i}}:1 Verse number {{i}} of the first book of all books.")
print("bible(KJV) [Gen1:1]> ")
"""


def naive_shares(a: str, b: str, words: int) -> bool:
    one, other = (re.sub("[^a-z]+", " ", text.lower()).split() for text in (a, b))
    text = " " + " ".join(other) + " "
    return any(
        " " + " ".join(one[i : i + words]) + " " in text for i in range(len(one) - words + 1)
    )


@given(st.lists(WORDS.map(" ".join), max_size=5), WORDS)
def test_a_piece_goes_if_it_shares_six_words_in_a_row(pieces, held_out):
    held_out = ", ".join(held_out).title()  # case and punctuation do not count
    kept, removed = english.apart(pieces, held_out)
    assert sorted(kept + removed) == sorted(pieces)
    assert [naive_shares(piece, held_out, english.RUN) for piece in kept] == [False] * len(kept)
    assert all(naive_shares(piece, held_out, english.RUN) for piece in removed)


@given(st.text(max_size=400))
def test_pieces_become_plain_lines(piece):
    text = english.plain(piece)
    assert text.isascii()
    lines = text.split("\n") if text else []
    assert all(0 < len(line) and line == line.strip() for line in lines)
    assert all(len(line) <= english.LINE or " " not in line for line in lines)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Packages with an entry each, and a program that prints the Bible."""
    path = tmp_path / english.DICTIONARY
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(ENTRY.encode()))
    sermons = tmp_path / english.SERMONS
    sermons.mkdir(parents=True)
    chapters = [
        '<chapter/><title type="x">Psalm 1</title><div sID="g" type="x-p"/><hi>Blessed</hi> is '
        'the good man.<div eID="g" type="x-p"/>',
        '<div sID="h" type="x-p"/>It is the very question: to be or not to be, that is the '
        'question here.<div eID="h" type="x-p"/>',
    ]
    packed = [zlib.compress(chapter.encode()) for chapter in chapters]
    starts = [0, len(packed[0])]
    (sermons / "ot.czz").write_bytes(b"".join(packed))
    (sermons / "ot.czs").write_bytes(
        b"".join(
            struct.pack("<III", start, len(part), 0)
            for start, part in zip(starts, packed, strict=True)
        )
    )
    program = tmp_path / "bin" / "bible"
    program.parent.mkdir()
    program.write_text(BIBLE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    return tmp_path


def study(*words):
    return CliRunner().invoke(main, ["study", "english", *map(str, words)])


def test_a_text_is_made_of_packages(root):
    out, play = root / "english.txt", root / "play.txt"
    play.write_text("x " * 500 + "To be, or not to be: that is the question")  # its last tenth
    done = study("--root", root, "--out", out, "--without", play)
    assert done.exit_code == 0, done.output
    text = out.read_text()
    assert "Invertin, which turns cane sugar. See\nZyme." in text
    assert '2. Caesar cafe, OEdipus. Another "thing" -- naive.' in text
    assert "Blessed is the good man." in text and "About it" not in text
    assert "not to be" not in text
    pieces = text.strip().split("\n\n")
    verses = [re.findall(r"Verse number (\d+)", piece) for piece in pieces]
    assert sorted(map(len, filter(None, verses))) == [3, 10, 10]
    told = done.stdout
    assert re.search(r"sword-comm-tdavid: 24 .* in 1 pieces; left out as known: \d+ in 1\n", told)
    assert f"{len(text):,} characters" in told


def test_missing_packages_are_named_in_one_line(tmp_path):
    done = study("--root", tmp_path, "--out", tmp_path / "x")
    assert done.exit_code == 2 and not (tmp_path / "x").exists()
    assert "gcide" in done.stderr and done.stderr.count("\n") == 1


def test_a_damaged_package_is_one_line(root):
    (root / english.SERMONS / "ot.czz").write_bytes(b"no zlib stream")
    done = study("--root", root, "--out", root / "x")
    assert done.exit_code == 2 and "a package is damaged" in done.stderr
    assert done.stderr.count("\n") == 1 and not (root / "x").exists()
