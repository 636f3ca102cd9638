"""Files that survive: written whole or not at all, read with a check, never through a link.

A run folder may come from a stranger and a disk may fail, so what is read here is bounded in size,
comes from regular files only, and says in one line (`RunError`) what is wrong with it.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import re
import stat
import tomllib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MOST_TEXT = 256 << 20  # bytes of a text file; a long run's metrics are a few megabytes
MOST_LINE = 1 << 16  # bytes of a line of metrics
MOST_TOML, MOST_DOTS = 1 << 20, 100  # tomllib takes memory by the square of a dotted key's parts
SEALED = re.compile(r'(.*), "crc": ([0-9]+)\}')


class RunError(RuntimeError):
    """A run folder that cannot be used; the message is one line for a person."""


def write_atomically(path: Path, content: str | bytes, keep: Path | None = None) -> None:
    """Write a file so that it has either its old or its new content. Raises RunError.

    A link under that name is replaced, never followed. With `keep`, the old content stays under
    that name, and at no moment is there neither.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    spare = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    try:
        _write_new(temporary, data)
        if keep is not None and path.exists():
            _keep(path, keep, spare)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        for leftover in (temporary, spare):
            with contextlib.suppress(OSError):
                leftover.unlink()
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def _write_new(path: Path, data: bytes) -> None:
    """Write and flush a file that is not there yet: O_EXCL follows no link laid out for us."""
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _keep(path: Path, keep: Path, spare: Path) -> None:
    """Let a file's content stand under a second name too; moved where no second name can be."""
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare, follow_symlinks=False)
    except (OSError, NotImplementedError):
        spare = path
    os.replace(spare, keep)


def _flush_folder(folder: Path) -> None:
    """Have a rename survive a power failure too, where the file system can promise that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove_leftovers(folder: Path, names: tuple[str, ...]) -> None:
    """Remove temporary files of these names that a killed process left behind."""
    for name in names:
        for file in folder.glob(f".{name}.*.tmp"):
            with contextlib.suppress(OSError):
                file.unlink()


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a regular file of up to `most` bytes. Raises RunError.

    Of what the shell passes as /dev/fd/N or /dev/stdin, pipes are read too.
    """
    passed = str(path).startswith(("/dev/fd/", "/dev/stdin"))
    try:
        # Opening a pipe would wait for its writer; O_NONBLOCK lets us look at it first.
        wait = 0 if passed else getattr(os, "O_NONBLOCK", 0)
        with open(os.open(path, os.O_RDONLY | wait), "rb") as handle:
            if not passed and not stat.S_ISREG(os.fstat(handle.fileno()).st_mode):
                raise RunError(f"{path} is damaged: not a regular file")
            data = handle.read(most + 1)
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > most:
        raise RunError(f"{path} is damaged: it has more than {most:,} bytes")
    return data


def read_text(path: Path, most: int = MOST_TEXT) -> str:
    """The text of a regular UTF-8 file of up to `most` bytes. Raises RunError."""
    try:
        return read_bytes(path, most).decode()
    except UnicodeDecodeError:
        raise RunError(f"{path} is damaged: not UTF-8 text") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ValueError, without the name of the file."""
    try:
        text = read_text(path, MOST_TOML)
        if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {MOST_DOTS} dots")
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    except RunError as error:
        raise ValueError(str(error).replace(f"{path} ", "")) from None


def append_line(path: Path, line: str) -> None:
    """Append a line and flush it. Raises RunError; a link under that name is refused."""
    try:
        with open(open_own(path, os.O_APPEND), "a", encoding="utf-8") as handle:
            handle.write(line)
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def open_own(path: Path, flags: int = 0) -> int:
    """Open a file for writing, or make it; neither follows a link nor waits for a pipe's reader.

    Raises OSError, and RunError for what is not a regular file.
    """
    flags |= os.O_WRONLY | os.O_CREAT
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise RunError(f"cannot write {path}: it is not a regular file")
    return os.open(path, flags, 0o666)


def seal(row: dict[str, Any], crc: int) -> tuple[str, int]:
    """A row as a line of JSON that ends with the CRC-32 of all lines so far, and that number.

    >>> seal({"step": 1}, 0)
    ('{"step": 1, "crc": 981963069}\\n', 981963069)
    """
    text = json.dumps(row)
    crc = zlib.crc32(text.encode(), crc)
    return f'{text[:-1]}, "crc": {crc}}}\n', crc


def read_log(path: Path) -> list[tuple[dict[str, Any], int]]:
    """The rows of a file of sealed lines, each with the CRC-32 up to it. Raises RunError.

    A last line without its end, cut short by a crash, is left out. Lines of versions that sealed
    none are taken as they are (CRC 0), but not after a sealed one.
    """
    *lines, _ = read_text(path).split("\n")
    rows, crc = [], 0
    for number, line in enumerate(lines, 1):
        match = SEALED.fullmatch(line)
        text = f"{match[1]}}}" if match else line
        found = zlib.crc32(text.encode(), crc) if match else 0
        if len(line) > MOST_LINE or found != (int(match[2]) if match else crc):
            raise RunError(f"{path} is damaged: line {number} does not match its checksum")
        crc = found
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise RunError(f"{path} is damaged: line {number} is not a JSON object")
        rows.append((row, crc))
    return rows


def write_checked(path: Path, content: str) -> None:
    """Write a file, and beside it `NAME.sha256`, which `sha256sum -c` reads. Raises RunError.

    In between there is none rather than a wrong one.
    """
    beside = _beside(path)
    beside.unlink(missing_ok=True)
    write_atomically(path, content)
    write_atomically(beside, f"{hashlib.sha256(content.encode()).hexdigest()}  {path.name}\n")


def read_checked(path: Path) -> str:
    """The text of a file that `write_checked` wrote; one without a checksum is taken as it is.

    Raises RunError.
    """
    text = read_text(path)
    beside = _beside(path)
    if beside.exists():
        wanted = read_text(beside, 4096)
        if wanted != f"{hashlib.sha256(text.encode()).hexdigest()}  {path.name}\n":
            raise RunError(
                f"{path} is damaged: its content does not match {beside.name}; "
                "if it was edited on purpose, remove that"
            )
    return text


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def sealed_table(table: dict[str, Any]) -> str:
    """A table of settings as JSON text with a `sha256` of its content."""
    return json.dumps(table | {"sha256": _digest(table)}, indent=2) + "\n"


def open_table(text: str) -> tuple[Any, bool]:
    """What `sealed_table` was given, and whether it is that; True where there is no checksum.

    Raises ValueError where the text is not JSON.
    """
    try:
        table = json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(table, dict) or "sha256" not in table:
        return table, True
    wanted = table.pop("sha256")
    return table, wanted == _digest(table)


def _digest(table: dict[str, Any]) -> str:
    """SHA-256 of the content: spaces and the order of keys do not count."""
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def csv_text(columns: list[str], rows: Iterable[dict[str, Any]]) -> str:
    """Rows as csv, in the given columns."""
    lines: list[str] = []

    class Lines:
        write = staticmethod(lines.append)

    writer = csv.DictWriter(Lines, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return "".join(lines)


def write_csv(path: Path, columns: list[str], rows: Iterable[dict[str, Any]]) -> None:
    """Write rows atomically, in the given columns. Raises RunError."""
    write_atomically(path, csv_text(columns, rows))
