"""The command line. Data goes to stdout, progress and errors to stderr.

Each command is a file of `addgpt/cli`, read when it is called for.
"""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys

import click

from addgpt import cli as commands

RESULTS = "results"


class Commands(click.Group):
    """Turns what users can mend into one line: exit code 2 for usage, 1 for failure."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(m.name for m in pkgutil.iter_modules(commands.__path__) if m.name != "main")

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        names = self.list_commands(ctx)
        if name not in names:
            raise click.UsageError(f"no command {name!r}; there are {', '.join(names)}")
        return importlib.import_module(f"addgpt.cli.{name}").command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            fail(str(error), 2)
        except KeyboardInterrupt:
            fail("stopped", 130)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(1)
        except OSError as error:
            fail(f"{error.filename or 'input/output'}: {error.strerror or error}", 1)
        except MemoryError:
            fail("out of memory; try a smaller --set batch_size or width", 1)
        except RuntimeError as error:
            if type(error).__name__ in ("RunError", "Diverged", "WorkerLost"):
                fail(str(error), 1)
            if "alloc" in str(error) or type(error).__name__ == "OutOfMemoryError":
                fail("out of memory; try a smaller --set batch_size or width", 1)
            raise

    def main(self, *args, **kwargs) -> object:
        try:
            return super().main(*args, **kwargs | {"standalone_mode": False})
        except click.ClickException as error:
            fail(error.format_message(), 2)
        except click.Abort:
            fail("stopped", 130)


def leave(message: str, code: int) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone
        click.echo(" ".join(message.split()), err=True)
    sys.exit(code)


def fail(message: str, code: int) -> None:
    leave(f"error: {message}", code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="addgpt")
def main() -> None:
    """A small GPT learns arithmetic: train it, score it, calculate with it.

    \b
    Example:
      addgpt train --task add --digits 3
      addgpt eval results/add-3
      addgpt calc "123+456"
    """
