"""A server of this machine alone, and who may ask it: programs, and its own page.

The server listens on 127.0.0.1, so nobody from outside reaches it. What is left is a page of
another site in the same browser: it may send requests here, directly or by a name of its own that
leads to 127.0.0.1 (DNS rebinding). The browser states in `Host`, `Origin` and `Sec-Fetch-Site` whom
it asks and for whom; what does not fit is refused. Other programs of this machine may ask freely,
but not keep others from asking: whoever leaves the server waiting is cut off.
"""

from __future__ import annotations

import logging
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from addgpt.runs.files import RunError

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src "
        "'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LARGEST_BODY = 1 << 18  # bytes
PATIENCE = 3.0  # seconds for a whole request to come, for an answer to be read, for the next one
CROWD = 100  # connections that keep the server waiting, above which there is no patience


class Guard:
    """Middleware that refuses requests of other sites, and bodies that are too large."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refusal(Headers(scope=scope))
        await (PlainTextResponse(*refused) if refused else self.app)(scope, receive, send)

    def _refusal(self, told: Headers) -> tuple[str, int] | None:
        host = told.get("host", "")
        if host not in self.hosts:
            return f"this server answers to {', '.join(sorted(self.hosts))}", 403
        own, site = f"http://{host}", told.get("sec-fetch-site", "none")
        if told.get("origin", own) != own or site not in ("same-origin", "none"):
            return "requests of other sites are refused", 403
        length = told.get("content-length", "0")
        if "transfer-encoding" in told or not length.isdecimal() or int(length) > LARGEST_BODY:
            return "too large a request", 413
        return None


class Server(uvicorn.Server):
    """Serves an application on a socket. Ends at once at Ctrl-C, whoever is being answered."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        config = uvicorn.Config(
            Guard(app, sock.getsockname()[1]), headers=list(HEADERS.items()), log_level="error",
            http="h11", ws="none", lifespan="off",
        )  # fmt: skip
        super().__init__(config)
        self.waiting: dict[Any, float] = {}  # for whom, in which of its requests: since when

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: cut off who has kept the server waiting for too long."""
        now = time.monotonic()
        connections: list[Any] = list(self.server_state.connections)
        waiting = [(each, each.cycle) for each in connections if _is_awaited(each)]
        self.waiting = {key: self.waiting.get(key, now) for key in waiting}
        patience = PATIENCE if len(waiting) <= CROWD else 0.0
        for (connection, _), since in self.waiting.items():
            if now - since > patience:
                connection.transport.abort()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # to be cut off is no error
        super().handle_exit(sig, frame)


def _is_awaited(connection: Any) -> bool:
    """Whether it is the client's turn: to send its request, to read the answer, to go on."""
    cycle = connection.cycle  # a request and its answer
    done = cycle is None or cycle.more_body or cycle.response_complete
    return done or connection.flow.write_paused


def serve(app: ASGIApp, port: int, path: str = "/") -> None:
    """Serve until Ctrl-C; prints the address. Raises RunError if the port cannot be had."""
    try:
        sock = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        reason = f"{error.strerror}; --port 0 takes any"
        raise RunError(f"cannot listen on port {port}: {reason}") from None
    with sock:
        port = sock.getsockname()[1]
        print(f"http://127.0.0.1:{port}{path}  (Ctrl-C ends it)", flush=True)
        Server(app, sock).run(sockets=[sock])
