"""What external models replied: a line of answers.jsonl each, written as soon as it came.

A process that is killed loses nothing; a machine that fails loses at most the last second.
A prompt that has a reply is not asked again. A line holds `problem`, `prompt`, `reply` (the raw
text), `finished` (whether it ended by itself) and how many tokens were read and written, where that
is told.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from addgpt.runs.files import Damaged, RunError, read_text, write_atomically

FILE = "answers.jsonl"
FLUSH_SECONDS = 1.0  # between waits for the disk, which take longer than many a reply


class Reply(NamedTuple):
    """The raw text; whether it ended by itself; tokens read and written, None if not told."""

    text: str
    finished: bool = True
    tokens_read: int | None = None
    tokens_written: int | None = None


class Replies:
    """The replies in a folder, by the prompt they were given to.

    Raises RunError, naming the line, for a file that is damaged; a last line that was cut short by
    a crash is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self.known: dict[str, Reply] = {}
        self.flushed = 0.0
        text = read_text(self.path) if self.path.exists() else ""
        *lines, rest = text.split("\n")
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                reply = Reply(row["reply"], row["finished"], *row["tokens"])
                self.known[str(row["prompt"])] = reply
                if not isinstance(reply.text, str):
                    raise TypeError(reply.text)
            except (ValueError, KeyError, TypeError, RecursionError):
                raise Damaged(self.path, f"damaged: line {number} is no reply") from None
        if rest:
            write_atomically(self.path, text[: len(text) - len(rest)])

    def add(self, replies: Iterable[tuple[str, str, Reply]]) -> None:
        """Keep (problem, prompt, reply) of some prompts. Raises RunError."""
        lines = []
        for problem, prompt, reply in replies:
            self.known[prompt] = reply
            row: dict[str, Any] = {"problem": problem, "prompt": prompt, "reply": reply.text}
            row |= {"finished": reply.finished, "tokens": reply[2:]}
            lines.append(json.dumps(row) + "\n")
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write("".join(lines))
                file.flush()
                if time.monotonic() > self.flushed + FLUSH_SECONDS:
                    os.fsync(file.fileno())
                    self.flushed = time.monotonic()
        except OSError as error:
            raise RunError(f"cannot write {self.path}: {error.strerror}") from None

    def tokens(self) -> dict[str, int]:
        """How many tokens were read and written for all replies, where that was told."""
        replies = self.known.values()
        return {
            "tokens_read": sum(reply.tokens_read or 0 for reply in replies),
            "tokens_written": sum(reply.tokens_written or 0 for reply in replies),
        }
