"""Where a run comes from: the command, the commit, the versions and the machine."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import addgpt


def command_line() -> str:
    """How this process was called, without the path of the program, as a shell takes it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def versions() -> dict[str, str]:
    """What a result depends on besides its settings: versions, commit, machine."""
    return {
        "addgpt": addgpt.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "commit": _commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
    }


def _commit() -> str:
    """The commit of the source tree, `+` where it has changes; empty outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return ""

    def git(*words: str) -> str:
        command = ["git", "-C", str(here), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain") else "")
    return ""
