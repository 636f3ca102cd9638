"""addgpt serve"""

from __future__ import annotations

from pathlib import Path

import click

from addgpt.cli.main import RESULTS
from addgpt.config.errors import UsageError


@click.command("serve")
@click.argument("run", default="calculator")
@click.option("--api", is_flag=True, help="An OpenAI-compatible endpoint in place of the page.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535))
@click.option("--results", default=RESULTS, show_default=True, type=click.Path(path_type=Path))
def command(run: str, api: bool, port: int, results: Path) -> None:
    """Watch the calculator work in your browser.

    Digits are tinted by how sure the model was; choose one to see what each head attended to. A
    second tab shows the runs of the results folder while they train. For this machine alone: the
    server listens on 127.0.0.1, and refuses requests from other pages. Needs the extra `web`.

    With --api, other programs can ask: /v1/chat/completions answers the problem of the last
    message, /v1/completions goes on from a prompt as the model writes.

    \b
    Example:
      addgpt serve
      addgpt serve results/add-3 --port 8001
      addgpt serve --api results/add-3
    """
    try:
        from addgpt.serve import app, local, openai_api
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise UsageError("addgpt serve needs an extra: pip install 'addgpt[web]'") from None
    if api:
        from addgpt.device import prepare
        from addgpt.runs.run import Run, run_path

        prepare()
        endpoint = openai_api.application(Run(run_path(run)))
        local.serve(endpoint, port, "/v1")
    else:
        from addgpt.calculator.load import load_calculator

        local.serve(app.Pages(load_calculator(run), results).app(), port)
