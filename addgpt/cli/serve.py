"""addgpt serve"""

from __future__ import annotations

import click

from addgpt.config.errors import UsageError


@click.command("serve")
@click.argument("run_name", metavar="[RUN]", default="calculator")
@click.option("--api", is_flag=True, help="As an OpenAI-compatible endpoint.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True)
def command(run_name: str, api: bool, port: int) -> None:
    """Serve a run on this machine, at 127.0.0.1 alone.

    With --api, as an OpenAI-compatible endpoint: /v1/chat/completions answers the problem of the
    last message, /v1/completions goes on from a prompt as the model writes.

    \b
    Example:
      addgpt serve --api results/add-3
      addgpt serve --api --port 8080
    """
    from addgpt.device import prepare
    from addgpt.runs.run import Run, run_path
    from addgpt.serve.openai_api import serve

    if not api:
        raise UsageError("serve needs --api")
    prepare()
    serve(Run(run_path(run_name)), port, lambda line: click.echo(line, err=True))
