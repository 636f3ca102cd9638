"""Ctrl-C and other requests to stop: the step under way and its checkpoint are finished first."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

STOPPING = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")  # the last as schedulers send it


@dataclass
class StopRequests:
    """The signals that came so far."""

    received: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.received)

    def handle(self, number: int, frame: Any) -> None:
        """Note a signal. A second Ctrl-C stops at once; other signals may come twice, from a
        launcher and from its own parent."""
        if number == signal.SIGINT and signal.SIGINT in self.received:
            raise KeyboardInterrupt
        self.received.append(number)


@contextlib.contextmanager
def stop_requests() -> Iterator[StopRequests]:
    """Collect SIGINT, SIGTERM, SIGHUP and SIGUSR1 instead of being killed by them.

    Signals that are ignored (nohup) stay so. Outside the main thread the caller handles signals,
    and nothing is collected.
    """
    requests, before = StopRequests(), {}
    try:
        for name in STOPPING:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, requests.handle)
    except ValueError:  # not in the main thread
        before = {}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
