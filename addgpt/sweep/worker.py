"""How the process of a run begins, and the cores of this machine. Loads no torch."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Collection, Sequence


def usable_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def shares(workers: int, cores: Sequence[int]) -> list[list[int]]:
    """Cores for each worker, equally many and no two the same while there are enough.

    >>> shares(2, [0, 1, 2, 3, 4])
    [[0, 1], [2, 3]]
    >>> shares(3, [4, 5])
    [[4], [5], [4]]
    """
    size = max(1, len(cores) // workers)
    return [[cores[(w * size + i) % len(cores)] for i in range(size)] for w in range(workers)]


def begin(cores: Collection[int]) -> None:
    """Keep this process, and the threads it has yet to start, to these cores, on Linux; all if none.

    Its standard input is a lifeline: once that closes, the sweep is gone, and the process is asked
    to save and stop.
    """
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    threading.Thread(target=_outlive, daemon=True).start()


def _outlive() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
