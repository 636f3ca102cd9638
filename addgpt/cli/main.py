"""The command line. Data goes to stdout, progress and errors to stderr.

Each command is a file of `addgpt/cli` that holds a function `command`, decorated by click. It is
imported when it is called for: the list of commands shows the first line of that function's
docstring, read from the file's text.
"""

from __future__ import annotations

import ast
import atexit
import contextlib
import gc
import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import click

import addgpt
from addgpt import cli as commands
from addgpt.config.errors import HOME, UsageError, place
from addgpt.runs import RESULTS

PRETRAINED = HOME / "addgpt" / "pretrained"
LIBRARY = [HOME / name for name in ("addgpt", "analysis", "tasks/common")]  # no file of a user's
DEBUG = "addgpt.traceback"  # in a click context: whether to show all of an error


def scores_folder(folder: Path) -> Path:
    """A folder of runs that a person names; of a shipped run, the one that its scores went to."""
    scores = Path(RESULTS) / folder
    if folder.exists() or not (PRETRAINED / folder.name / "config.json").exists():
        return folder
    if not scores.exists():
        raise UsageError(f"{folder} has no scores here yet; addgpt eval {folder} writes them")
    return scores


class Commands(click.Group):
    """Turns every error into one line: exit code 2 for usage, 1 for failure."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        modules = (module.name for module in pkgutil.iter_modules(commands.__path__))
        return sorted(name for name in modules if name != "main" and name[0] != "_")

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        names = self.list_commands(ctx)
        if name not in names:
            raise click.UsageError(f"no command {name!r}; valid: {', '.join(names)}")
        return importlib.import_module(f"addgpt.cli.{name}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = self.list_commands(ctx)
        room = formatter.width - 6 - max(map(len, names))
        with formatter.section("Commands"):
            lines = [click.Command(name, help=help_text(name)) for name in names]
            texts = [line.get_short_help_str(room) for line in lines]
            formatter.write_dl(list(zip(names, texts, strict=True)))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`--traceback` may come after the command, too, where one adds it after a failure."""
        end = args.index("--") if "--" in args else len(args)
        rest = [_expanded(word) for word in args[:end] if word != "--traceback"]
        ctx.meta[DEBUG] = len(rest) < end or os.environ.get("ADDGPT_DEBUG", "0") not in ("", "0")
        return super().parse_args(ctx, rest + args[end:])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("stopped", 130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.meta[DEBUG]:
                traceback.print_exc()
            fail(*explained(error))

    def main(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        # Read when torch is loaded. Threads that spin for long while they wait for one another keep
        # the cores from those that could work; threads that never spin lose as much in waking up.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
            os.environ.setdefault("GOMP_SPINCOUNT", "1000")
        # What torch loads stays. Python would search it for garbage time and again while it is
        # loaded, and once more before the process ends: half a second in all.
        gc.set_threshold(50_000, 20, 20)
        atexit.register(gc.freeze)
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.ctx.get_help(), err=True)
            sys.exit(2)
        except click.NoSuchOption as error:
            fail(_no_option(error), 2)
        except click.ClickException as error:
            fail(error.format_message(), 2)
        except click.Abort:
            fail("stopped", 130)


def _no_option(error: click.NoSuchOption) -> str:
    """What an unknown option is told; `--steps` and other settings, how they are given."""
    from addgpt.config.architectures import model_settings
    from addgpt.config.schema import TrainConfig
    from addgpt.config.settings import names_of

    name = error.option_name.lstrip("-").replace("-", "_")
    takes = error.ctx and any("--set" in param.opts for param in error.ctx.command.params)
    if takes and name in (*model_settings(), *names_of(TrainConfig)):
        return f"no option {error.option_name}; it is a setting: --set {name}=VALUE"
    return error.format_message()


def _expanded(word: str) -> str:
    """A word with `~` as the home folder also where the shell leaves it: `--out=~/run`."""
    before, sign, path = word.rpartition("=")
    return f"{before}{sign}{os.path.expanduser(path)}" if path.startswith("~") else word


def help_text(name: str) -> str:
    """What a command does: the docstring of its function, or else of its module."""
    tree = ast.parse((Path(commands.__path__[0]) / f"{name}.py").read_text(encoding="utf-8"))
    found = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "command"]
    text = ast.get_docstring(found[0]) if found else None
    return text or ast.get_docstring(tree) or ""


def explained(error: Exception) -> tuple[str, int]:
    """The message for an error, and the exit code."""
    from addgpt.runs.files import Damaged, RunError

    text = str(error)
    if isinstance(error, UsageError):
        return text, 2
    if isinstance(error, Damaged):
        doctor = importlib.import_module("addgpt.runs.doctor")  # which reads files with torch
        return text + doctor.recovery_hint(error.path), 1
    if isinstance(error, RunError):
        return text, 1
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("alloc" in text or type(error).__name__ == "OutOfMemoryError")
    ):
        return "out of memory; try a smaller --set batch_size or width", 1
    file, where = place(error)
    if isinstance(error, OSError):
        text = f"{error.filename or 'input/output'}: {error.strerror or error}"
        if any(map(Path(file).resolve().is_relative_to, LIBRARY)):
            return text, 1
    return f"{type(error).__name__}: {text} ({where}; --traceback shows all)", 1


def leave(message: str, code: int) -> NoReturn:
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo(" ".join(message.split()), err=True)
    sys.exit(code)


def fail(message: str, code: int) -> NoReturn:
    leave(f"error: {message}", code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(addgpt.__version__, package_name="addgpt")
@click.option(
    "--traceback", is_flag=True, expose_value=False, help="Show the traceback of an error."
)
def main() -> None:
    """A small GPT learns arithmetic: train it, score it, calculate with it.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt eval results/add-3
      addgpt calc "123+456"
    """
