"""The local server: what the page asks for, and the answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from addgpt.calculator.show import answer, heading, notes
from addgpt.calculator.solver import Calculator, StepFinished, StepStarted, TokenWritten
from addgpt.config.errors import UsageError
from addgpt.interpret.activations import read
from addgpt.interpret.page import page_data
from addgpt.interpret.subject import subject, written
from addgpt.runs.files import RunError
from addgpt.serve import live

SECONDS, HURRY = 60, 3  # that one expression may take; with all places taken
TOGETHER = 4  # messages, until it is the turn of others
LONGEST = 2_000  # characters of an expression
MOST = 8  # places: requests that use the model, in turns


class Pages:
    """Answers the requests of the page; the model does one thing at a time."""

    def __init__(self, calculator: Calculator, results: Path) -> None:
        self.calculator, self.results = calculator, results
        self.model, self.places = asyncio.Lock(), asyncio.Semaphore(MOST)
        self.reading, self.read, self.runs = asyncio.Lock(), 0.0, list[dict[str, Any]]()

    def app(self) -> Starlette:
        folders: Any = [("addgpt.serve", "static"), ("addgpt.interpret", "static")]
        routes = [Route(f"/{name}", getattr(self, name)) for name in ("about", "solve", "live")]
        routes += [Route("/attention", self.attention, methods=["POST"])]
        files = Mount("/", StaticFiles(packages=folders, html=True))
        refused: Any = dict.fromkeys((UsageError, RunError), self.refused)
        return Starlette(routes=[*routes, files], exception_handlers=refused)

    def refused(self, request: Request, error: Exception) -> Response:
        return PlainTextResponse(str(error), 503 if self.places.locked() else 400)

    async def about(self, request: Request) -> Response:
        proved = ", proved right for numbers of any length" if self.calculator.proved else ""
        known = f"{self.calculator.name}: {' '.join(self.calculator.operators)}{proved}"
        return PlainTextResponse(f"{known}. Every digit is the model's.")

    def _place(self) -> asyncio.Semaphore:
        if self.places.locked():
            raise UsageError("the model is busy; try again")
        return self.places

    async def solve(self, request: Request) -> Response:
        told = self._told(request.query_params.get("text", ""))
        return StreamingResponse(told, media_type="text/event-stream")

    async def _told(self, text: str) -> AsyncIterator[str]:
        """Server-sent events, some at a time; in between it is the turn of others."""
        try:
            if len(text) > LONGEST:
                raise UsageError(f"at most {LONGEST:,} characters")
            async with self._place():
                told, begun = messages(self.calculator, text), time.monotonic()
                while time.monotonic() - begun < (HURRY if self.places.locked() else SECONDS):
                    async with self.model:
                        some = await run_in_threadpool(lambda: list(islice(told, TOGETHER)))
                    if not some:
                        return
                    yield "".join(some)
            raise UsageError("it takes too long, or others wait; addgpt calc has no such limit")
        except UsageError as error:
            yield message("answer", text=f"error: {error}", right=False)

    async def attention(self, request: Request) -> Response:
        """What each head attended to; asked for by a problem, then on further lines its
        completion."""
        asked = (await request.body()).decode(errors="replace")
        async with self._place(), self.model:
            return JSONResponse(await run_in_threadpool(self._attention, asked))

    def _attention(self, asked: str) -> dict[str, Any]:
        problem, _, completion = asked.partition("\n")
        of = subject(self.calculator.model, self.calculator.task)
        work = written(of, problem, completion)
        return page_data(of, work, read(of, work), problem)

    async def live(self, request: Request) -> Response:
        async with self.reading:  # once a second, however many ask
            if time.monotonic() - self.read > 1:
                self.runs = await run_in_threadpool(live.runs, self.results)
                self.read = time.monotonic()
        return JSONResponse(self.runs)


def messages(calculator: Calculator, text: str) -> Iterator[str]:
    """What the page is told while an expression is evaluated, as server-sent events:

    step     a step begins: its title, the problem
    token    the model wrote a token: char, its chance, whether it is wrong, row and its label
    done     the step ends: its title, with the result, and what is wrong with it
    answer   the end: the answer, or why there is none, with notes; whether it is right
    """
    for event in calculator.stream(text):
        if isinstance(event, TokenWritten):
            told = {"chance": round(event.probability, 4), "wrong": event.correct is False}
            yield message("token", char=event.char, row=event.row, label=event.label, **told)
        elif isinstance(event, StepStarted):
            yield message("step", title=event.reduction, problem=event.problem)
        elif isinstance(event, StepFinished):
            yield message("done", title=heading(event.done))
        else:
            lines = [answer(event.solution, terminal=True), *notes(event.solution)]
            yield message("answer", text="\n".join(lines), right=bool(event.solution.correct))


def message(name: str, **data: Any) -> str:
    """A server-sent event."""
    return f"event: {name}\ndata: {json.dumps(data)}\n\n"
