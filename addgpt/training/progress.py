"""How far training or an evaluation is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:  # counting needs no torch
    from addgpt.training.loop import Moment

PLAIN_SECONDS = 30.0  # between plain lines, where nobody looks at a terminal


class TrainingProgress:
    """Watches training: `with TrainingProgress() as watch: train(run, watch)`.

    A terminal that goes away ends the talk, not the training.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.bar = _bar("{task.fields[note]}") if self.live else None
        self.row = self.bar.add_task("train", total=None, note="") if self.bar else None
        self.told = 0.0
        self.looked = -1
        self.began: tuple[int, float] | None = None

    def __enter__(self) -> TrainingProgress:
        with contextlib.suppress(OSError):
            if self.bar:
                self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            if self.bar:
                self.bar.stop()

    def __call__(self, moment: Moment) -> None:
        if self.quiet:
            return
        try:
            self._say(moment)
        except OSError:
            self.quiet = True

    def _say(self, moment: Moment) -> None:
        now = time.monotonic()
        self.began = self.began or (moment.step - 1, now)
        if self.bar:
            self.bar.update(self.row, total=moment.steps, completed=moment.step, note=_note(moment))
        look = moment.look.get("step", -1)
        if not self.bar and (look != self.looked or now - self.told > PLAIN_SECONDS):
            left = f"  ETA {_clock(self._left(moment, now))}" if now > self.began[1] else ""
            note = f"step {moment.step}/{moment.steps}  {_note(moment)}{left}"
            print(note, file=sys.stderr, flush=True)
            self.told = now
        self.looked = look

    def _left(self, moment: Moment, now: float) -> float:
        """Seconds left, at the speed since this process began."""
        first, since = self.began
        pace = (now - since) / max(1, moment.step - first)
        return pace * (moment.steps - moment.step)


def counted(
    items: Iterable, total: int, what: str, size: Callable[[Any], int] = lambda item: 1
) -> Iterator:
    """The items, with a bar on stderr that says how much of the total has passed.

    `size` is how much of it an item is.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    with _bar("") as bar:
        row = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(row, size(item))


def _note(moment: Moment) -> str:
    pace = moment.examples / moment.seconds if moment.seconds else 0
    parts = [f"loss {moment.loss:.4f}"]
    if "val_exact" in moment.look:
        parts.append(f"val exact {100 * moment.look['val_exact']:.2f}%")
    elif "val_loss" in moment.look:
        parts.append(f"val loss {moment.look['val_loss']:.4f}")
    return "  ".join([*parts, f"{pace:,.0f} examples/s"])


def _bar(note: str) -> Progress:
    columns = [TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%")]
    columns += [TextColumn(note), TimeElapsedColumn(), TextColumn("ETA"), TimeRemainingColumn()]
    return Progress(*columns, console=Console(stderr=True))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
