"""addgpt serve"""

from __future__ import annotations

from pathlib import Path

import click

from addgpt.cli.main import RESULTS
from addgpt.config.errors import UsageError


@click.command("serve")
@click.argument("run", default="calculator")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--results", default=RESULTS, show_default=True, type=click.Path(path_type=Path))
def command(run: str, port: int, results: Path) -> None:
    """The calculator as a page in your browser: watch the model write its work.

    Digits are tinted by how sure the model was; choose one to see what each head looked at. A
    second tab shows the runs of the results folder while they train. For this machine alone: the
    server listens on 127.0.0.1, and answers no other page. Needs the extra `web`.

    \b
    Example:
      addgpt serve
      addgpt serve results/add-3 --port 8001
    """
    try:
        from addgpt.serve.app import serve
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError("addgpt serve needs an extra: pip install 'addgpt[web]'") from None
    from addgpt.calculator.load import load_calculator

    serve(load_calculator(run), results, port)
