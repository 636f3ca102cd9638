"""The REPL in a pseudo-terminal, with a model that is perfect but for one product."""

from __future__ import annotations

import os
import re
import signal
import sys
import termios
import time
from pathlib import Path

import pexpect
from pexpect import fdpexpect

from tests.helpers.processes import forked

HERE = Path(__file__).parents[2]
PROMPT = r"\x1b\[0m>\x1b\[0m[^>]*\x1b\[\?25h"  # drawn, and the cursor shown again
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")


def repl(terminal: str, environment: dict[str, str]) -> None:
    """In a process of its own: a session of `addgpt calc`."""
    from addgpt.calculator.repl import run_repl
    from tests.helpers.calculators import perfect

    def spoil(prompt, text):
        if prompt == "77*77=":
            print("at work", flush=True)
            time.sleep(60)
        return "9020#" if prompt == "6+7=" else text

    def open_model(path):
        if path not in ("other", "div"):
            raise RuntimeError(path + " is not a run: it has no config.json")
        return perfect({"other": "add"}.get(path, path))

    os.environ.clear()
    os.environ.update(environment)
    division = os.environ.get("DIVISION")
    os.chdir(HERE)
    os.login_tty(os.open(terminal, os.O_RDWR))
    sys.stdin, sys.stdout, sys.stderr = (open(n, "rw"[n > 0], closefd=False) for n in range(3))  # noqa: SIM115
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_repl(perfect(spoil=spoil), open_model, division=division)
    print("good" + "bye", flush=True)
    os._exit(0)


class Terminal:
    """A session in a pseudo-terminal; what comes back is read without its escape sequences."""

    def __init__(self, folder: Path, columns: int = 120, **environment: str) -> None:
        master, slave = os.openpty()
        termios.tcsetwinsize(master, (40, columns))
        mine = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
        mine |= {"TERM": "xterm", "XDG_STATE_HOME": str(folder)}
        mine["PROMPT_TOOLKIT_NO_CPR"] = "1"  # nobody answers where the cursor is
        self.process = forked(repl, os.ttyname(slave), mine | environment)
        self.child = fdpexpect.fdspawn(master, encoding="utf-8", timeout=30)
        self.child.expect("(?s):help.*for.*help")
        os.close(slave)
        self.ready()

    def ready(self) -> None:
        self.child.expect(PROMPT)

    def type(self, line: str, expect: str) -> str:
        """Type a line; the text from then on, up to and including what is expected."""
        self.child.send(line + "\r")
        self.child.expect(expect)
        seen = ESCAPES.sub("", self.child.before + self.child.after)
        self.ready()
        return seen

    def leave(self) -> None:
        self.child.send("\x04")  # Ctrl-D
        self.child.expect("goodbye")
        self.child.expect(pexpect.EOF)
        self.process.join(30)
        assert self.process.exitcode == 0
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.join()
        self.child.close()
