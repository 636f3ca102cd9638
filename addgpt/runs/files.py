"""Files that survive: written whole or not at all, and checked against SHA256SUMS.

The checksums of a folder's files stand in one file, which `sha256sum -c SHA256SUMS` reads too.
Before a file is replaced its line is taken out, afterwards the new one is put in: a crash in
between leaves a file without a checksum, which is taken as it is, never one with a wrong checksum.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import filelock

SUMS = "SHA256SUMS"
LARGEST_HEADER = 1 << 24  # bytes
FIRST = "addgpt train --task add --digits 3"  # a command to begin with
LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class RunError(RuntimeError):
    """A run folder that cannot be used; the message is one line for a person."""


class Damaged(RunError):
    """A file is not what was written, or not there; `path` says which."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path} is {what}")
        self.path = path


class Unsupported(RunError):
    """A sound run that this version cannot open: another one, or a task that it lacks, made it."""


def holds_run(path: Path) -> bool:
    """Whether a folder has the config of a run; of transformers, as in exports, is not, but what
    cannot be read is: a damaged one."""
    try:
        return not of_transformers(json.loads((path / "config.json").read_bytes()))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError, RecursionError):
        return True


def of_transformers(table: Any) -> bool:
    """Whether the content of a config.json is that of a model of transformers."""
    return isinstance(table, dict) and "model_type" in table and "seed" not in table


# Writing.


@contextlib.contextmanager
def whole_file(path: Path, keep: Path | None = None) -> Iterator[Path]:
    """A temporary name to write a file under; it gets its own once all of it is on the disk.

    With `keep`, the old content stays under that name, and one of the two always exists.
    """
    if not path.name:  # such as `.`
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    spare = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    try:
        yield temporary
        with open(temporary, "r+b") as written:
            os.fsync(written.fileno())
        if keep is not None and path.exists():
            try:
                os.link(path, spare)
            except (OSError, NotImplementedError):  # a file system without second names
                spare = path
            os.replace(spare, keep)
        os.replace(temporary, path)
        _flush_folder(path.parent)
    finally:
        for leftover in {temporary, spare} - {path}:
            with contextlib.suppress(OSError):
                leftover.unlink(missing_ok=True)


def write_atomically(path: Path, content: str | bytes, keep: Path | None = None) -> None:
    """Write a file so that it has either its old or its new content. Raises RunError.

    With `keep`, the old content stays under that name.
    """
    with _replaced(path, content, keep):
        pass


@contextlib.contextmanager
def _replaced(path: Path, content: str | bytes, keep: Path | None = None) -> Iterator[None]:
    """Write a file at once, and have it take the place of the old one at the end."""
    with _told(path), whole_file(path, keep) as temporary:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        yield


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turns an OSError into a RunError that names the file."""
    try:
        yield
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None


def append_line(path: Path, line: str) -> None:
    """Append a line and have it on the disk. Raises RunError."""
    with _told(path), open(path, "a", encoding="utf-8") as handle:
        handle.write(line)
        handle.flush()
        os.fsync(handle.fileno())


def remove_leftovers(folder: Path, *names: str) -> None:
    """Remove temporary files of these names that a killed process left behind."""
    for name in names:
        for file in folder.glob(f".{name}.*.tmp"):
            with contextlib.suppress(OSError):
                file.unlink()


def check_writable(folder: Path) -> None:
    """Raise RunError unless files can be written into a folder, which is made if need be."""
    with _told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def locked(path: Path, message: str | None = None) -> Iterator[None]:
    """Hold a lock file, released when the process ends. Raises RunError.

    Where another process holds it, `message` is raised at once; without one, this waits.
    """
    lock = filelock.FileLock(path, timeout=-1 if message is None else 0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise RunError(message) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"cannot lock {path.parent}: {reason}") from None
    try:
        yield
    finally:
        lock.release()


def _flush_folder(folder: Path) -> None:
    """Have a rename survive a power failure too, where the file system can promise that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# Reading.


def read_text(path: Path) -> str:
    """The text of a UTF-8 file. Raises RunError."""
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError:
        raise Damaged(path, "damaged: not UTF-8 text") from None
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises ValueError, without the name of the file."""
    try:
        return tomllib.loads(read_text(path).removeprefix("\ufeff"))  # which Notepad writes
    except RecursionError:
        raise ValueError("nested too deep") from None
    except tomllib.TOMLDecodeError as error:
        hint = "; text needs quotes" if str(error).startswith("Invalid value") else ""
        raise ValueError(f"{error}{hint}") from None
    except RunError as error:
        raise ValueError(str(error).replace(f"{path} ", "")) from None


def no_folder(path: Path) -> str:
    """What is said of a path that should be a folder of runs or a run, and is no folder."""
    if path.exists():
        return f"{path} is a file, not a folder"
    return f"there is no folder {path}; train a run first ({FIRST}), or name another folder"


def saved_step(path: Path) -> int | None:
    """The training step of a file of weights, by its safetensors header, without the library;
    None where there is none to read."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, LARGEST_HEADER)))
        return int(json.loads(header["__metadata__"]["progress"])["step"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines that grows; a last line cut short is left out.

    There are none where there is no file. SHA256SUMS knows what it held at the last checkpoint: the
    file must start with that. Raises RunError if it does not, or was there and is missing, or holds
    a line that is no JSON object.
    """
    while True:
        wanted = checksums(path.parent).get(path.name)
        if not path.exists() and wanted is None:
            return []
        if not path.exists():
            raise Damaged(path, f"missing; to continue without it, remove its line in {SUMS}")
        *lines, _ = read_text(path).split("\n")
        if wanted in (None, *_digests(lines)):
            break
        if checksums(path.parent).get(path.name) == wanted:  # else it was replaced meanwhile
            hint = f"by {SUMS}; to go on with what is left, remove its line there"
            raise Damaged(path, f"damaged: lines were changed or are missing, {hint}")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise Damaged(path, f"damaged: line {number} is not a JSON object")
        rows.append(row)
    return rows


def _digests(lines: list[str]) -> Iterator[str]:
    """The checksums of none, one, two, … all of some lines."""
    digest = hashlib.sha256()
    yield digest.hexdigest()
    for line in lines:
        digest.update(f"{line}\n".encode())
        yield digest.hexdigest()


# Checksums.


def write_checked(
    folder: Path,
    contents: Mapping[str, str | bytes],
    keep: Mapping[str, str] | None = None,
    grown: Iterable[str] = (),
) -> None:
    """Write files of a folder, all or none, and put their checksums into SHA256SUMS.

    Only a process that is killed between two of them leaves some new beside some old.

    Args:
        contents: of each file, by its name.
        keep: under which name the old content of a file stays, with its checksum.
        grown: files that have grown line by line since and are now noted as they are.

    Raises:
        RunError: a file cannot be written; the old content of all of them then stays.
    """
    keep = keep or {}
    old = checksums(folder)
    data = {n: text.encode() if isinstance(text, str) else text for n, text in contents.items()}
    fresh = {spare: old.get(name) for name, spare in keep.items()}
    fresh |= {name: hashlib.sha256(content).hexdigest() for name, content in data.items()}
    with contextlib.ExitStack() as files:
        for name, content in reversed(data.items()):  # the last one to begin is the first to end
            spare = folder / keep[name] if name in keep else None
            files.enter_context(_replaced(folder / name, content, spare))
        record(folder, dict.fromkeys(fresh))
    fresh |= {name: digest(folder / name) for name in grown if (folder / name).is_file()}
    record(folder, fresh)


def record(folder: Path, sums: Mapping[str, str | None]) -> None:
    """Change lines of SHA256SUMS, or take them out (None). Raises RunError."""
    if not any(sums.values()) and not sums.keys() & checksums(folder).keys():
        return
    with locked(folder / f".{SUMS}.lock"):  # scoring may write while training does
        remove_leftovers(folder, SUMS)
        merged = {name: wanted for name, wanted in {**checksums(folder), **sums}.items() if wanted}
        text = "".join(f"{wanted}  {name}\n" for name, wanted in sorted(merged.items()))
        write_atomically(folder / SUMS, text)


def remove(*paths: Path) -> None:
    """Remove files and their checksums, so far as they are there. Raises RunError."""
    for path in paths:
        record(path.parent, {path.name: None})
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)


def checksums(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file that SHA256SUMS names; none without one. Raises RunError."""
    file = folder / SUMS
    if not file.is_file():
        return {}
    *lines, end = read_text(file).split("\n")
    matches = [LINE.fullmatch(line) for line in lines]
    if end or None in matches:
        raise Damaged(file, "damaged: a line is no checksum; remove it to do without")
    return {match[2]: match[1] for match in matches if match}


def check(path: Path) -> None:
    """Raise RunError unless a file has the checksum that SHA256SUMS has of it, if any."""
    while (wanted := checksums(path.parent).get(path.name)) and digest(path) != wanted:
        if checksums(path.parent).get(path.name) == wanted:  # else it was replaced meanwhile
            raise Damaged(path, f"damaged: its content does not match its checksum in {SUMS}")


def read_checked(path: Path) -> str:
    """The text of a file; one without a checksum is taken as it is. Raises RunError."""
    try:
        check(path)
    except Damaged as error:
        if error.path == path:
            error.args = (f"{error}; if it was edited on purpose, remove its line there",)
        raise
    return read_text(path)


def digest(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise RunError(f"cannot read {path}: {error.strerror}") from None
