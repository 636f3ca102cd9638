"""Trainings in processes of their own, for tests of what happens to processes."""

import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def words(out: Path, settings: dict, *more: str) -> list[str]:
    command = [sys.executable, "-m", "addgpt", "train", "--task", "add", "--out", str(out), *more]
    return command + [w for key, value in settings.items() for w in ("--set", f"{key}={value}")]


def child(
    command: list[str],
    errors: str,
    terminal: str,
    limit: int,
    ignore: bool,
    place: dict,
    before: Callable[[], None] | None = None,
) -> None:
    """In a process of its own: what `python -m addgpt` does, with `place` in its environment."""
    os.environ.update(place)
    if before:
        before()
    if terminal:
        os.login_tty(os.open(terminal, os.O_RDWR))
    else:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignore else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["addgpt", *command[3:]]
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    from addgpt.cli.main import main

    try:
        main()
    except SystemExit as end:
        os._exit(end.code)  # multiprocessing would flush to a terminal that is gone
    os._exit(0)


def forked(target: Callable, *words: object) -> multiprocessing.Process:
    """A process that is forked from one that has imported everything, and does this."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.helpers.warm"])
    process = context.Process(target=target, args=words)
    process.start()
    return process


class Training:
    """A training in another process; all are forked from one that has imported everything."""

    def __init__(self, out: Path, settings: dict, *more: str, terminal="", limit=0, ignore=False,
                 place: dict | None = None, before: Callable[[], None] | None = None):  # fmt: skip
        self.errors = Path(tempfile.mkdtemp()) / "errors"
        command = words(out, settings, *more)
        place = place or {}
        how = terminal, limit, ignore, place, before
        self.process = forked(child, command, str(self.errors), *how)

    def send(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def end(self) -> tuple[int, str]:
        """The exit status and what was said on stderr, once it has ended."""
        self.process.join(120)
        told = self.errors.read_text() if self.errors.exists() else ""
        shutil.rmtree(self.errors.parent)
        return self.process.exitcode, told


def wait_for(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def workers(count: int, out: Path, settings: dict, *more: str, before=None) -> list[Training]:
    """What torchrun starts, each with its own stderr, without torchrun's own output; each carries
    out `before` first."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    return [
        Training(
            out,
            settings,
            *more,
            before=before,
            place=place | {"RANK": str(n), "LOCAL_RANK": str(n)},
        )  # fmt: skip
        for n in range(count)
    ]


def ends(trainings: list[Training]) -> list[tuple[int, str]]:
    return [training.end() for training in trainings]
