"""How far training or an evaluation is: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from addgpt.config.format import clock
from addgpt.evaluation.intervals import percent

if TYPE_CHECKING:  # counting needs no torch, and no terminal needs no rich
    from rich.progress import Progress

    from addgpt.training.loop import TrainState

WIDTH, NARROW = 110, 60  # characters that a line needs with a note, and without
BESIDES = 14  # characters of a narrow line besides its note
PLAIN_SECONDS = 30.0  # between plain lines, where stderr is no terminal


def least_loss(smoothing: float, vocab: int) -> float:
    """The lowest loss in nats a token that label smoothing leaves: the entropy of its targets.

    >>> round(least_loss(0.1, 19), 3), least_loss(0.0, 19)
    (0.587, 0.0)
    """
    if not smoothing:
        return 0.0
    other = smoothing / vocab
    right = 1 - smoothing + other
    return -(right * math.log(right) + (vocab - 1) * other * math.log(other))


class TrainingProgress:
    """The callback that shows training: `with TrainingProgress() as shown: train(run, shown)`.

    If the terminal goes away, the display ends, not the training.

    Args:
        quiet: show nothing.
        smoothed: the part of the training loss that label smoothing causes, see `least_loss`.
        added: the settings whose losses are added to it, such as supervise.
    """

    def __init__(
        self, quiet: bool = False, smoothed: float = 0.0, added: Sequence[str] = ()
    ) -> None:
        self.quiet = quiet
        self.within = "; ".join(
            [f"{smoothed:.4f} of it label smoothing"] * bool(smoothed)
            + [f"with that of {' and '.join(added)}"] * bool(added)
        )
        self.live = not quiet and sys.stderr.isatty()
        self.bar = _bar("{task.fields[note]}", WIDTH) if self.live else None
        narrow = self.bar is not None and self.bar.console.width < WIDTH
        self.room = self.bar.console.width - BESIDES if self.bar and narrow else WIDTH
        if self.bar:
            self.row = self.bar.add_task("train", total=None, note="")
        self.told = 0.0
        self.validated = -1
        self.began: tuple[int, float] | None = None
        self.last = 0

    def __enter__(self) -> TrainingProgress:
        with contextlib.suppress(OSError):
            if self.bar:
                self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            if self.bar:
                self.bar.stop()

    def __call__(self, state: TrainState) -> None:
        if self.quiet:
            return
        try:
            self._say(state)
        except OSError:
            self.quiet = True

    def _say(self, state: TrainState) -> None:
        now = time.monotonic()
        if self.began is None or state.step < self.last:  # of several trainings, the next one
            self.began = (state.step - 1, now)
        (first, since), self.last = self.began, state.step
        if self.bar:
            self.bar.update(
                self.row, total=state.steps, completed=state.step, note=self._note(state)
            )
        validated = state.validation.get("step", -1)
        if not self.bar and (validated != self.validated or now - self.told > PLAIN_SECONDS):
            pace = (now - since) / max(1, state.step - first)  # since this process began
            left = f"  ETA {clock(pace * (state.steps - state.step))}" if now > since else ""
            note = f"step {state.step}/{state.steps}  {self._note(state)}{left}"
            print(note, file=sys.stderr, flush=True)
            self.told = now
        self.validated = validated

    def _note(self, state: TrainState) -> str:
        pace = state.examples / state.seconds if state.seconds else 0
        within = f" ({self.within})" if self.within else ""
        loss, val = f"loss {state.loss:.4f}", ""
        if "val_exact" in state.validation:
            val = f"  val exact {percent(state.validation['val_exact'], 1)} %"
        elif "val_loss" in state.validation:
            val = f"  val loss {state.validation['val_loss']:.4f}"
        if state.contexts:
            val += f"  {state.wrong:,} of {state.contexts:,} contexts wrong"
        full = loss + within + val
        notes = [f"{full}  {pace:,.0f} examples/s", full, loss + val]
        return next((note for note in notes if len(note) <= self.room), notes[-1])


def counted(
    items: Iterable, total: int, what: str, size: Callable[[Any], int] = lambda item: 1
) -> Iterator:
    """The items, with a bar on stderr that says how much of the total has passed.

    `size` says how much one item is.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    with _bar("", NARROW) as bar:
        row = bar.add_task(what, total=total)
        for item in items:
            yield item
            bar.advance(row, size(item))


def _bar(note: str, width: int) -> Progress:
    """A live line; on a terminal of fewer characters than `width`, numbers alone."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    percentage, left = TextColumn("{task.percentage:3.0f}%"), TimeRemainingColumn(compact=True)
    noted = TextColumn(note, markup=False)
    if console.width < width:
        return Progress(percentage, noted, left, console=console)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), percentage, noted)
    return Progress(*columns, TimeElapsedColumn(), TextColumn("ETA"), left, console=console)
