"""What people can do wrong, and where in their own files something else went wrong."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

HOME = Path(__file__).resolve().parents[2]  # holds addgpt, tasks and analysis


class UsageError(ValueError):
    """A request that cannot be met; the message is one line that names the valid choices."""


def quoted(text: str, most: int = 60) -> str:
    """What somebody gave, in quotes; the middle of a long text is left out."""
    text = text.strip()
    half = most // 2
    return repr(text if len(text) <= most else f"{text[:half]}…{text[-half:]}")


def place(error: BaseException) -> tuple[str, str]:
    """The innermost file of an error that belongs to no installed package, and where in it.

    Where is `my.py, line 7, in read`; for text that is not Python, the place that the error names.
    """
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, f"{error.filename}, line {error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).is_file() and not _installed(Path(f.filename))]
    frame = (own or frames)[-1]
    return frame.filename, f"{frame.filename}, line {frame.lineno}, in {frame.name}"


def _installed(file: Path) -> bool:
    """Whether a file is Python's own or of a package besides this one."""
    import numpy as np

    installed = Path(sysconfig.get_path("stdlib")), Path(np.__file__).parents[1]
    ours = (HOME / name for name in ("addgpt", "tasks", "analysis"))
    where = file.resolve()
    return not any(map(where.is_relative_to, ours)) and any(map(where.is_relative_to, installed))
