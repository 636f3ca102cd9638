"""A run as an OpenAI-compatible endpoint on this machine, for programs that speak that protocol.

    GET  /v1/models              the run, as the one model there is
    POST /v1/completions         the raw text that the model writes after a prompt, `128+367=`
    POST /v1/chat/completions    the answer to the problem of the last message, `128 + 367`: `495`

Decoding is greedy; `temperature` and the like are ignored. What cannot be asked, and `stream`, is
refused with status 400 and one line.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from addgpt.calculator.ask import Asker
from addgpt.config.errors import UsageError
from addgpt.evaluation.scorecard import graded
from addgpt.generation.decode import EXTRA_TOKENS, write
from addgpt.runs.run import Run
from addgpt.task import Graded

MOST_PROMPTS = 100  # of a request
LONGEST = 5_000  # characters of a prompt


class Endpoint:
    """Answers requests with the model of a run; one at a time."""

    def __init__(self, run: Run) -> None:
        self.name = run.name
        self.task: Graded = graded(run.task())
        self.model = run.model()
        self.asker = Asker(self.model, self.task)
        self.lock = threading.Lock()

    def completion(self, body: dict[str, Any]) -> dict[str, Any]:
        """What the model writes after the prompt or prompts. Raises UsageError."""
        prompts = body.get("prompt")
        some = prompts if isinstance(prompts, list) else [prompts]
        if not 1 <= len(some) <= MOST_PROMPTS:
            raise UsageError(f"{len(some):,} prompts; 1 to {MOST_PROMPTS} can be asked at once")
        choices, read, written = [], 0, 0
        for index, prompt in enumerate(some):
            text, finished, counts = self._write(prompt, body.get("max_tokens"))
            choices.append({"index": index, "text": text, "finish_reason": _reason(finished)})
            read, written = read + counts[0], written + counts[1]
        return self._reply("text_completion", choices, read, written)

    def chat(self, body: dict[str, Any]) -> dict[str, Any]:
        """The answer to the problem in the last message. Raises UsageError."""
        try:
            text = str(body["messages"][-1]["content"])
        except (KeyError, IndexError, TypeError):
            raise UsageError("messages must contain one with content") from None
        problem = self.task.parse(text.strip().removesuffix("?").rstrip())
        with self.lock:
            wrote = self.asker.ask([problem], together=False)[problem]
        if isinstance(wrote, str):
            raise UsageError(wrote)
        work = wrote.completion.removesuffix(self.task.end)
        content = work if wrote.answer is None else str(wrote.answer)
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "message": message, "finish_reason": _reason(wrote.finished)}
        read, written = len(self.task.prompt(problem)), len(wrote.completion)
        return self._reply("chat.completion", [choice], read, written)

    def _write(self, prompt: Any, most: Any) -> tuple[str, bool, tuple[int, int]]:
        """At most so many tokens after a prompt, as text without the end mark; whether it ended;
        how many tokens were read and written."""
        if not isinstance(prompt, str) or not prompt:
            raise UsageError("prompt must be a text, or a list of texts")
        if len(prompt) > LONGEST:
            raise UsageError(f"a prompt of {len(prompt):,} characters; at most {LONGEST:,}")
        tokens = self.task.encode(prompt)[None]
        limit = max(1, self.task.longest() * 4 + EXTRA_TOKENS)
        if most is not None:
            if type(most) is not int or most < 1:
                raise UsageError(f"max_tokens must be a whole number above 0, not {most!r}")
            limit = min(limit, most)
        if self.model.config.longest:
            limit = min(limit, self.model.config.longest + 1 - tokens.shape[1])
        try:
            with self.lock:
                out = write(self.model, self.task, tokens, limit)
        except (ValueError, IndexError, AssertionError, RuntimeError):
            example = f"12{self.task.cells()[0].op}34="
            raise UsageError(f"{prompt!r} is not a prompt like {example}") from None
        length = int(out.length[0])
        text = self.task.decode(np.asarray(out.tokens[0, :length]))
        finished = bool(out.terminated[0])
        return text.removesuffix(self.task.end), finished, (tokens.shape[1], length)

    def _reply(self, kind: str, choices: list, read: int, written: int) -> dict[str, Any]:
        usage = {"prompt_tokens": read, "completion_tokens": written}
        return {
            "id": "addgpt",
            "object": kind,
            "created": int(time.time()),
            "model": self.name,
            "choices": choices,
            "usage": usage | {"total_tokens": read + written},
        }


def application(run: Run) -> Starlette:
    """The endpoint as an ASGI application."""
    endpoint = Endpoint(run)

    def answered_by(make: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable:
        async def answer(request: Request) -> JSONResponse:
            try:
                body = await request.json()
                if not isinstance(body, dict):
                    raise UsageError("the body must be a JSON object")
                if body.get("stream"):
                    raise UsageError("stream is not supported; leave it out, or give false")
                return JSONResponse(await run_in_threadpool(make, body))
            except (ValueError, RecursionError) as error:  # UsageError, too, and what is no JSON
                told = {"message": str(error), "type": "invalid_request_error"}
                return JSONResponse({"error": told}, status_code=400)

        return answer

    async def models(request: Request) -> JSONResponse:
        one = {"id": endpoint.name, "object": "model", "created": 0, "owned_by": "addgpt"}
        return JSONResponse({"object": "list", "data": [one]})

    return Starlette(
        routes=[
            Route("/v1/models", models),
            Route("/v1/completions", answered_by(endpoint.completion), methods=["POST"]),
            Route("/v1/chat/completions", answered_by(endpoint.chat), methods=["POST"]),
        ]
    )


def _reason(finished: bool) -> str:
    return "stop" if finished else "length"
