"""What `addgpt eval` needs for external models: options, and asking before scoring."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from addgpt.cli._options import DIGITS
from addgpt.config.errors import UsageError
from addgpt.config.external import ENDPOINTS, RULES

OPTIONS = (
    click.option("--task", help="External model: the task whose problems it is asked."),
    DIGITS,
    click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="Options of --task."),
    click.option("--model", help="api: the model to ask."),
    click.option("--endpoint", type=click.Choice(ENDPOINTS), help="api: which endpoint [chat]."),
    click.option("--template", help="The prompt; {problem} is 12+34 ['{problem}=']."),
    click.option("--shots", type=click.IntRange(0), help="Solved examples before each one [0]."),
    click.option("--answer", type=click.Choice(RULES),
                 help="Which number counts [first; chat: last]."),
    click.option("--max-tokens", type=click.IntRange(1), help="Longest reply."),
    click.option("--max-requests", type=click.IntRange(1),
                 help="api: stop after this many requests."),
    click.option("--concurrency", type=click.IntRange(1), default=8,
                 help="api: requests at a time [8]."),
    click.option("--rows", type=click.IntRange(1), help="hf: prompts per pass [by length]."),
    click.option("--trust-remote-code", is_flag=True,
                 help="hf: run code that comes with the model."),
)  # fmt: skip
NAMES = ("task", "digits", "pairs", "model", "endpoint", "template", "shots", "answer",
         "max_tokens", "max_requests", "concurrency", "rows", "trust_remote_code")  # fmt: skip
SETTINGS = ("model", "endpoint", "template", "shots", "answer", "max_tokens")


def external_options(command: Callable) -> Callable:
    """The options of external models, handed to the command as one dict, `asked`."""

    def gathered(**options: Any) -> Any:
        asked = {name: options.pop(name) for name in NAMES}
        return command(asked=asked, **options)

    gathered.__doc__ = command.__doc__
    for option in reversed(OPTIONS):
        gathered = option(gathered)
    gathered.__click_params__ += getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    return gathered


@dataclass(frozen=True)
class Asking:
    """What all external models of one command are asked: a task, and settings."""

    task_name: str
    task: Any
    options: dict[str, Any]
    per_cell: int | None
    split: str
    seed: int


def answered(
    names: tuple[str, ...],
    against: tuple[str, ...],
    choice: Any,
    options: dict[str, Any],
    stored: bool,
    cells: bool,
) -> tuple[tuple[str, ...], tuple[str, ...], Any]:
    """Names with the run folder of each external model in its place, once it was asked.

    With `stored` none is asked. Raises UsageError for options that do not go together.
    """
    from addgpt.evaluation.external.settings import is_external

    others = [name for name in (*names, *against) if is_external(name)]
    given = [n for n in NAMES if options[n] not in (None, ()) and options[n] is not False]
    given = [name for name in given if name != "concurrency"]
    if not others:
        if given:
            option = "set" if given[0] == "pairs" else given[0].replace("_", "-")
            raise UsageError(f"--{option} only goes with hf:PATH, api:ADDRESS or answers:FILE")
        return names, against, choice
    if not cells:
        raise UsageError(
            f"{others[0]} is asked the problems of --task: no --problems, --suite or --far "
            "(--set far=20,50)"
        )
    if choice.out is not None and len(others) > 1:
        raise UsageError("--out takes one external model; several each get a folder of their own")
    asking = _asking(options, choice)
    folders = {name: str(_run(name, asking, choice.out, stored)) for name in others}
    if choice.out is not None:
        choice = replace(choice, out=None)
    return (
        tuple(folders.get(name, name) for name in names),
        tuple(folders.get(name, name) for name in against),
        choice,
    )


def near(facts: dict[str, Any]) -> None:
    """How close an external model's answers are to the right ones; empty for our own models."""
    found = facts.get("replies")
    if not found:
        return
    line = f"digit match {100 * found['digit_match']:.4g} %, length error "
    line += f"{found['length_error']:.3g} digits (as NUPA, arXiv:2411.03766)"
    read, written = found["tokens_read"], found["tokens_written"]
    if read or written:
        line += f"; {read:,} tokens read, {written:,} written"
    if found["problems"] != "the evaluation set":
        line += "; the problems are those of the file, not the evaluation set"
    click.echo(line)


def _asking(options: dict[str, Any], choice: Any) -> Asking:
    from addgpt.evaluation.scorecard import graded
    from addgpt.runs.resolve import parse_pairs
    from addgpt.task_lookup import load_task

    if not options["task"]:
        raise UsageError(
            "an external model needs --task, and usually --digits: the problems to ask"
        )
    settings = parse_pairs(options["pairs"], digits=options["digits"])
    task = graded(load_task(options["task"], settings).resolved())
    return Asking(options["task"], task, options, choice.per_cell, choice.split, choice.seed)


def _run(name: str, asking: Asking, out: Path | None, stored: bool) -> Path:
    """The folder of an external model, all its replies in it."""
    from addgpt.evaluation.external import settings
    from addgpt.evaluation.external.replies import Replies

    task, options = asking.task, asking.options
    kind, _, where = name.partition(":")
    how = settings.external_config(name, task, {key: options[key] for key in SETTINGS})
    client: Any = None
    if stored:
        return settings.folder_of(how, asking.task_name, task, out)
    if kind == "answers":
        from addgpt.evaluation.external.made_elsewhere import MadeElsewhere

        client = MadeElsewhere(Path(where).expanduser(), task)
    elif kind == "hf":
        from addgpt.evaluation.external.huggingface import HuggingFace

        trust, rows = options["trust_remote_code"], options["rows"] or 0
        client = HuggingFace(os.path.expanduser(where), trust, rows)  # a Path would lose its ./
        how = replace(how, params=client.parameter_count())
    else:
        from addgpt.evaluation.external.openai_client import OpenAIClient

        client = OpenAIClient(how, options["concurrency"], options["max_requests"])
    run = settings.open_folder(how, asking.task_name, task, out)
    with run.locked():
        replies = Replies(run.path)
        if kind == "answers":
            client.keep(replies)
        else:
            _ask(client, run, how, asking, replies)
    return run.path


def _ask(client: Any, run: Any, how: Any, asking: Asking, replies: Any) -> None:
    from addgpt.evaluation.external.questions import ask_missing, asked_cells
    from addgpt.evaluation.scorecard import usual_size
    from addgpt.training.progress import counted

    task = asking.task
    size = asking.per_cell or usual_size(task)
    cells = asked_cells(task, how, task.cells(), size, asking.split, asking.seed)
    questions = [question for one in cells for question in one.questions]
    known = sum(question.prompt in replies.known for question in questions)
    if known:
        click.echo(f"{known:,} of {len(questions):,} replies are in {replies.path}", err=True)
    ask_missing(client, questions, replies, counted)
