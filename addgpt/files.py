"""Writing a file so that a reader never meets half of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


class RunError(RuntimeError):
    """A run folder that cannot be used; the message is one line for a person."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that it has either its old or its new content. Raises RunError."""
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise RunError(f"cannot write {path}: {error.strerror}") from None
