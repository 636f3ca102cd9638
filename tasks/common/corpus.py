"""A corpus as tokens: encoded once, in bounded memory, into a file that is mapped into memory.

Token i is the i-th character of the corpus's alphabet, its distinct characters in order of their
code points. The file in the cache holds the tokens, then a JSON note, and at its end the note's
length, the CRC-32 of all before these, and a mark, 8 bytes each. It is made again when the size or
date of a source file changes.
"""

from __future__ import annotations

import codecs
import errno
import functools
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from addgpt.runs.files import locked, whole_file
from addgpt.task import UsageError
from tasks.common import sources

CHUNK = 1 << 20  # bytes read at a time
TRAIN = 0.9  # share of the text, from its start, as in nanoGPT; the rest is held out
MAX_SYMBOLS = 1 << 16
VERIFIED = 1 << 30  # bytes of tokens up to which a checksum is computed each time
MAGIC = b"addgpt 1"


@dataclass(frozen=True, eq=False)
class Corpus:
    """An encoded text.

    tokens    (N,) uint8, or uint16 where the alphabet has more than 256 characters; read only
    alphabet  the distinct characters, sorted
    sha256    of the text as it was read
    """

    tokens: np.ndarray
    alphabet: str
    sha256: str

    def part(self, split: str) -> np.ndarray:
        """The tokens of a split: the first 90 % is train, the rest is val and test."""
        border = int(len(self.tokens) * TRAIN)
        return self.tokens[:border] if split == "train" else self.tokens[border:]

    def decode(self, tokens: np.ndarray) -> str:
        """The text of (T,) tokens."""
        return code_points(self.alphabet)[tokens].tobytes().decode("utf-32-le")


def code_points(text: str) -> np.ndarray:
    """(T,) uint32 code points of a text."""
    return np.frombuffer(text.encode("utf-32-le"), np.dtype("<u4"))


def load(corpus: str) -> Corpus:
    """The corpus of that name. Raises UsageError if there is none or not UTF-8, and OSError."""
    files = tuple(sources.files(corpus))
    return _load(files, _stamp(files))


def texts(
    files: Iterable[Path], chunk: int = CHUNK, read: Callable[[bytes], None] = lambda data: None
) -> Iterator[str]:
    """The text of some files, a piece of at most `chunk` bytes at a time.

    Between two files there is a newline, if the first does not end with one. A byte order mark is
    left out. `read` is called with the bytes.

    Raises UsageError naming file and place of a byte that is not UTF-8.
    """
    last = "\n"
    for file in files:
        if last != "\n":
            read(b"\n")
            yield "\n"
        for piece in _texts(file, chunk, read):
            last = piece[-1]
            yield piece


def _texts(file: Path, chunk: int, read: Callable[[bytes], None]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, start = 0, True
    with open(file, "rb") as handle:
        data = True
        while data:
            data = handle.read(chunk)
            pending = len(decoder.getstate()[0])  # bytes of a character that is cut in two
            try:
                piece = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                place = offset - pending + error.start
                byte = error.object[error.start]
                raise UsageError(f"{file} is not UTF-8: byte {place:,} is 0x{byte:02x}") from None
            read(data)
            offset += len(data)
            if piece:
                piece, start = piece.removeprefix("\ufeff") if start else piece, False
            if piece:
                yield piece


@functools.lru_cache(maxsize=4)
def _load(files: tuple[Path, ...], stamp: tuple) -> Corpus:
    names = "\n".join(str(file.resolve()) for file in files)
    name = hashlib.sha256(names.encode()).hexdigest()[:16]
    path = sources.cache_folder("corpora") / f"{files[0].stem}-{name}.tokens"
    found = _open(path, stamp)
    if found is None:
        with locked(sources.lock_of(path)):
            found = _open(path, stamp) or _make(path, files, stamp)
    return found


def _stamp(files: tuple[Path, ...]) -> tuple[tuple[str, int, int], ...]:
    """Identifies a version of a file: path, size, and date in nanoseconds."""
    states = [(file, file.stat()) for file in files]
    return tuple((str(file.resolve()), at.st_size, at.st_mtime_ns) for file, at in states)


def _make(path: Path, files: tuple[Path, ...], stamp: tuple) -> Corpus:
    """Encode files into a file of the cache."""
    digest = hashlib.sha256()
    with whole_file(path) as temporary:
        with sources.Bar(f"reading {files[0].name}") as bar:
            bar.total = sum(size for _, size, _ in stamp)

            def read(data: bytes) -> None:
                digest.update(data)
                bar.update(len(data))

            alphabet, kind = encode(texts(files, CHUNK, read), temporary)
        if not alphabet:
            raise UsageError(f"{' '.join(map(str, files))} is empty")
        if _stamp(files) != stamp:
            raise UsageError(f"{files[0]} was changed while it was read; try again")
        with open(temporary, "r+b") as out:
            out.seek(0, os.SEEK_END)
            note = {"stamp": stamp, "alphabet": alphabet, "type": kind.name}
            content = json.dumps(note | {"sha256": digest.hexdigest()}).encode()
            out.write(content)
            numbers = len(content), _crc(out, out.tell())
            out.write(b"".join(number.to_bytes(8, "little") for number in numbers) + MAGIC)
    found = _open(path, stamp)
    if found is None:
        raise OSError(errno.EIO, "what was just written cannot be read back", str(path))
    return found


def _open(path: Path, stamp: tuple) -> Corpus | None:
    """The corpus in a file; None where there is none, it is damaged, or of other source files."""
    try:
        with open(path, "rb") as file:
            note, size = _note(file)
            if [list(entry) for entry in stamp] != note["stamp"]:
                return None
            kind = np.dtype(note["type"])
            tokens = np.memmap(file, kind, "r", shape=(size // kind.itemsize,))
        return Corpus(tokens, note["alphabet"], note["sha256"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _note(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The note near the end of a file, and the size of what is before it. Raises UsageError."""
    end = file.seek(0, os.SEEK_END) - 24
    if end < 0:
        raise UsageError("too short")
    file.seek(end)
    length, crc = (int.from_bytes(file.read(8), "little") for _ in range(2))
    if file.read(8) != MAGIC or length > end or (end <= VERIFIED and crc != _crc(file, end)):
        raise UsageError("damaged")
    file.seek(end - length)
    return json.loads(file.read(length)), end - length


def _crc(file: BinaryIO, size: int) -> int:
    """Checksum of the first `size` bytes of a file, which then stands after them."""
    crc = 0
    file.seek(0)
    while size and (data := file.read(min(CHUNK, size))):
        crc = zlib.crc32(data, crc)
        size -= len(data)
    return crc


def encode(pieces: Iterable[str], path: Path) -> tuple[str, np.dtype]:
    """Write the tokens of a text to a file; returns its alphabet and the tokens' type.

    One pass: characters are numbered as they come up, and renumbered in the file at the end.
    Raises UsageError if there are too many different characters.
    """
    number = np.full(0x110000, -1, np.int32)  # of each code point
    points: list[int] = []
    kind = np.dtype(np.uint8)
    out = open(path, "w+b")
    try:
        for piece in pieces:
            codes = code_points(piece)
            if (number[codes] < 0).any():
                new = np.unique(codes[number[codes] < 0])
                number[new] = np.arange(len(points), len(points) + len(new))
                points += new.tolist()
            if len(points) > MAX_SYMBOLS:
                raise UsageError(f"the corpus has more than {MAX_SYMBOLS:,} different characters")
            if len(points) > 256 and kind == np.uint8:
                kind = np.dtype(np.uint16)
                out = _widened(out, path)
            out.write(number[codes].astype(kind).tobytes())
        order = np.argsort(points)
        rank = np.empty(len(points), kind)
        rank[order] = np.arange(len(points))
        _renumber(out, rank)
    finally:
        out.close()
    return "".join(chr(points[i]) for i in order), kind


def _widened(out: BinaryIO, path: Path) -> BinaryIO:
    """A file of uint8 replaced by one of uint16, open at its end."""
    wide = path.with_name(f"{path.name}.wide")
    new = open(wide, "w+b")
    out.seek(0)
    while data := out.read(CHUNK):
        new.write(np.frombuffer(data, np.uint8).astype(np.uint16).tobytes())
    out.close()
    os.replace(wide, path)
    return new


def _renumber(out: BinaryIO, rank: np.ndarray) -> None:
    """Replace each token t of a file by rank[t]."""
    out.flush()
    place = 0
    while True:
        out.seek(place)
        data = out.read(CHUNK)
        if not data:
            return
        out.seek(place)
        place += out.write(rank[np.frombuffer(data, rank.dtype)].tobytes())
