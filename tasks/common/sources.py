"""Where a corpus comes from: its name -> UTF-8 files on this machine, fetched first if need be.

A corpus is `tinyshakespeare`, a path or glob, an http(s) URL, or `hf:NAME` (`hf:NAME:CONFIG`). The
folder in the environment variable ADDGPT_DATA is looked in first, for `tinyshakespeare.txt`, the
path, the last part of the URL, or the last part of NAME with `.txt`. What is fetched is kept in the
user's cache, or in ADDGPT_CACHE.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from addgpt.runs.files import locked, whole_file
from addgpt.task import UsageError

VALID = "tinyshakespeare, a file or glob such as 'books/*.txt', an http(s) URL, or hf:NAME"
RAW = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data"

# Karpathy 2015, char-rnn: 1,115,394 bytes.
KNOWN = {
    "tinyshakespeare": (
        f"{RAW}/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
}


def files(corpus: str) -> list[Path]:
    """The files of a corpus, in the order of their names.

    Raises UsageError if there is no such corpus, OSError if it cannot be fetched or is damaged.
    """
    if not corpus:
        raise UsageError(f"corpus is missing; valid: {VALID}")
    data = _data_folder()
    if corpus in KNOWN:
        url, sha256 = KNOWN[corpus]
        name = f"{corpus}.txt"
        given = _given(data, name)
        return [_checked(given, sha256) if given else _downloaded(url, name, sha256)]
    if corpus.startswith(("http://", "https://")):
        name = Path(urlparse(corpus).path).name or "index"
        return [_given(data, name) or _downloaded(corpus, name)]
    if corpus.startswith("hf:"):
        name = corpus.split(":")[1].rpartition("/")[2] + ".txt"
        return [_given(data, name) or _streamed(corpus, name)]
    found = (data and _matching(data / corpus)) or _matching(Path(corpus).expanduser())
    if not found:
        raise UsageError(f"no file matches corpus {corpus!r}; valid: {VALID}")
    return found


def cache_folder(name: str) -> Path:
    """A folder of that name in the cache of addgpt. Raises OSError."""
    import platformdirs

    base = os.environ.get("ADDGPT_CACHE") or platformdirs.user_cache_dir("addgpt")
    folder = Path(base).expanduser() / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        advice = "set ADDGPT_CACHE to a folder that can be written"
        raise OSError(error.errno, f"{error.strerror}; {advice}", str(folder)) from None
    return folder


def lock_of(path: Path) -> Path:
    """The lock of a file in the cache: one process makes it, others wait and then find it there."""
    return path.with_name(f".{path.name}.lock")


def _data_folder() -> Path | None:
    given = os.environ.get("ADDGPT_DATA")
    if not given:
        return None
    folder = Path(given).expanduser()
    if not folder.is_dir():
        raise UsageError(f"ADDGPT_DATA is {given!r}, which is not a folder")
    return folder


def _given(data: Path | None, name: str) -> Path | None:
    return data / name if data and (data / name).is_file() else None


def _matching(path: Path) -> list[Path]:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; give a file or a glob such as '{path}/*.txt'")
    if path.is_file():
        return [path]
    return [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if _is_file(name)]


def _is_file(name: str) -> bool:
    return Path(name).is_file()


def _checked(file: Path, sha256: str) -> Path:
    """A file whose checksum is known. Raises OSError if it differs."""
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if found != sha256:
        raise OSError(errno.EINVAL, f"its sha256 is {found}, not {sha256}", str(file))
    return file


def _downloaded(url: str, name: str, sha256: str | None = None) -> Path:
    """A file of the cache, downloaded if it is not there or damaged; never half of one."""
    folder = cache_folder("downloads")
    import pooch
    import requests

    pooch.get_logger().setLevel("WARNING")  # it logs each download; the bar shows it here
    try:
        with Bar(f"downloading {name}") as bar:
            fetch = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
            known = f"sha256:{sha256}" if sha256 else None
            file = f"{_short(url)}-{name}"
            return Path(pooch.retrieve(url, known, fname=file, path=folder, downloader=fetch))
    except requests.RequestException as error:
        raise _unreachable(url, name, folder, error) from None
    except ValueError as error:  # what pooch raises for another checksum
        raise OSError(errno.EINVAL, f"what was downloaded is damaged: {error}", url) from None


def _streamed(corpus: str, name: str) -> Path:
    """A text file of the cache with the documents of a data set, a newline between them."""
    _, data_set, *config = corpus.split(":")
    if not data_set:
        raise UsageError(f"{corpus} names no data set; valid: {VALID}")
    path = cache_folder("downloads") / f"{_short(corpus)}-{name}"
    if path.is_file():
        return path
    try:
        import datasets
    except ImportError:
        raise UsageError(f"{corpus} needs datasets: pip install 'addgpt[text]'") from None
    try:
        with locked(lock_of(path)):
            if not path.is_file():  # else another process has fetched it meanwhile
                rows = datasets.load_dataset(data_set, *config, split="train", streaming=True)
                with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as out:
                    for number, text in enumerate(_column(corpus, rows)):
                        out.write(f"\n{text}" if number else text)
    except UsageError:
        raise
    except ValueError as error:  # such as a data set of several configs, of which it names none
        raise UsageError(f"{corpus} cannot be read: {' '.join(str(error).split())}") from None
    except Exception as error:  # the library and what it is built on raise all kinds
        raise _unreachable(corpus, name, path.parent, error) from None
    return path


def _column(corpus: str, rows: Any) -> Iterator[str]:
    """The column `text` of a data set, or its first column of text."""
    key = None
    for row in rows:
        if key is None:
            texts = [name for name, value in row.items() if isinstance(value, str)]
            if not texts:
                raise UsageError(f"{corpus} has no column of text, but {', '.join(row)}")
            key = "text" if "text" in texts else texts[0]
        yield row[key]


def _unreachable(source: str, name: str, folder: Path, error: Exception) -> OSError:
    """One line: what was tried, and the three ways to go on."""
    data = os.environ.get("ADDGPT_DATA")
    tried = f"not in {folder}" + (f" nor in ADDGPT_DATA={data}" if data else "")
    ways = (
        f"put {name} into a folder and set ADDGPT_DATA to it, or name a text file of your own "
        "(--set corpus=FILE), or try again with a network"
    )
    reason = type(error).__name__
    response = getattr(error, "response", None)
    if response is not None:
        reason = f"the server answers {response.status_code}"
    return OSError(errno.EHOSTUNREACH, f"cannot be fetched ({reason}), {tried}; {ways}", source)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Bar:
    """A bar on stderr, if that is a terminal, with the methods that pooch asks for."""

    def __init__(self, what: str) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.bar = Progress(
            console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        )
        self.row = self.bar.add_task(what, total=None)
        self.total = 0

    def __enter__(self) -> Bar:
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def update(self, amount: int) -> None:
        self.bar.update(self.row, total=self.total, advance=amount)

    def reset(self) -> None:
        self.bar.reset(self.row)

    def close(self) -> None:
        pass
