"""The local server: what the page asks for, and the answers."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from addgpt.calculator.show import answer, heading, notes
from addgpt.calculator.solver import Calculator, Finished, StepFinished, StepStarted, TokenWritten
from addgpt.config.errors import UsageError
from addgpt.interpret.activations import read
from addgpt.interpret.page import page_data
from addgpt.interpret.subject import subject, written
from addgpt.runs.files import RunError
from addgpt.serve import live

SECONDS = 60  # of work that one expression may take
TOGETHER = 0.03  # seconds for which tokens are gathered
LONGEST = 2_000  # characters of an expression
WAITING = 8  # requests that may wait for the model
BUSY = "the model is busy; try again"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
FILES = {
    "": ("addgpt.serve", "static/index.html"),
    "page.css": ("addgpt.serve", "static/page.css"),
    "page.js": ("addgpt.serve", "static/page.js"),
    "attention.css": ("addgpt.interpret", "attention.css"),
    "attention.js": ("addgpt.interpret", "attention.js"),
}


class Pages:
    """Answers the requests of the page; the model does one thing at a time."""

    def __init__(self, calculator: Calculator, results: Path) -> None:
        self.calculator, self.results = calculator, results
        self.model, self.waiting = asyncio.Lock(), 0  # requests that use it, or wait for it

    def app(self) -> Starlette:
        routes = [Route(f"/{name}", self.file) for name in FILES]
        routes += [
            Route("/about", self.about),
            Route("/solve", self.solve),
            Route("/attention", self.attention, methods=["POST"]),
            Route("/live", self.live),
        ]
        return Starlette(routes=routes)

    async def file(self, request: Request) -> Response:
        package, path = FILES[request.url.path.removeprefix("/")]
        content = files(package).joinpath(path).read_text(encoding="utf-8")
        return Response(content, media_type=TYPES[path.rpartition(".")[2]])

    async def about(self, request: Request) -> Response:
        proved = ", proved right for numbers of any length" if self.calculator.proved else ""
        op = self.calculator.operators
        text = f"{self.calculator.name}: {' '.join(op)}{proved}. Every digit is the model's."
        return JSONResponse({"text": text, "example": "123*456" if "*" in op else f"345{op[0]}67"})

    async def solve(self, request: Request) -> Response:
        told = self._told(request.query_params.get("text", ""))
        texts = (f"event: {name}\ndata: {json.dumps(data)}\n\n" async for name, data in told)
        return StreamingResponse(texts, media_type="text/event-stream")

    async def _told(self, text: str) -> AsyncIterator[tuple[str, Any]]:
        if len(text) > LONGEST or self.waiting >= WAITING:
            long = f"at most {LONGEST:,} characters"
            yield "refused", long if len(text) > LONGEST else BUSY
            return
        pieces, spent = events(self.calculator, text), 0.0
        while spent < SECONDS:
            # Between two pieces it is the turn of others: nobody keeps them waiting by not reading.
            piece, took = await self._in_turn(_timed, pieces)
            if piece is None:
                return
            spent += took
            yield piece
        yield "refused", f"this takes more than {SECONDS} s; addgpt calc has no such limit"

    async def _in_turn(self, work: Callable[..., Any], *args: Any) -> Any:
        """What `work` returns, once nobody else uses the model."""
        self.waiting += 1
        try:
            async with self.model:
                return await run_in_threadpool(work, *args)
        finally:
            self.waiting -= 1

    async def attention(self, request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
            problem, completion = str(asked["problem"]), str(asked["completion"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return PlainTextResponse("a problem and its completion, as JSON", 400)
        if self.waiting >= WAITING:
            return PlainTextResponse(BUSY, 503)
        try:
            return JSONResponse(await self._in_turn(self._attention, problem, completion))
        except (UsageError, RunError) as error:
            return PlainTextResponse(str(error), 400)

    def _attention(self, problem: str, completion: str) -> dict[str, Any]:
        if self.calculator.model is None:
            raise UsageError("there is no model to inspect")
        of = subject(self.calculator.model, self.calculator.task)
        work = written(of, problem, completion)
        return page_data(of, work, read(of, work), problem)

    async def live(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(live.runs, self.results))


def _timed(pieces: Iterator[tuple[str, Any]]) -> tuple[tuple[str, Any] | None, float]:
    """The next piece, None at the end, and the seconds that it took."""
    start = time.monotonic()
    return next(pieces, None), time.monotonic() - start


def events(calculator: Calculator, text: str) -> Iterator[tuple[str, Any]]:
    """What the page is told while an expression is computed: the event's name, its data.

    step     a step begins: its title, the problem
    tokens   the next tokens that the model wrote, a few at a time
    done     the step ends: its title, whether it is right, the work as on paper
    answer   the end: the answer, whether it is right, and what else there is to say
    refused  in place of an answer: why there is none
    """
    told, tokens = time.monotonic(), list[dict[str, Any]]()
    for event in calculator.stream(text):
        now = time.monotonic()
        if isinstance(event, TokenWritten):
            chance = round(event.probability, 4)
            wrong = event.correct is False
            row = [event.row, event.label]
            tokens.append({"char": event.char, "chance": chance, "wrong": wrong, "row": row})
            if now - told < TOGETHER:
                continue
        if tokens:
            yield "tokens", tokens
            told, tokens = now, []
        if isinstance(event, StepStarted):
            yield "step", {"title": event.reduction, "problem": event.problem}
        elif isinstance(event, StepFinished):
            done = event.done
            paper = calculator.explain(done)
            yield "done", {"title": heading(done), "right": done.correct, "paper": paper}
        elif isinstance(event, Finished):
            solution = event.solution
            if solution.error is not None:
                yield "refused", solution.error
            else:
                said = {"text": answer(solution, terminal=True), "notes": notes(solution)}
                yield "answer", said | {"right": bool(solution.correct)}
