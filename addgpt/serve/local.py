"""A server of this machine alone, and who may ask it: programs, and its own page.

The server listens on 127.0.0.1, so nobody from outside reaches it. What is left is a page of
another site in the same browser: it may send requests here, directly or by a name of its own that
leads to 127.0.0.1 (DNS rebinding). The browser states in `Host`, `Origin` and `Sec-Fetch-Site` whom
it asks and for whom; what does not fit is refused. Other programs of this machine may ask freely,
but not keep others from asking: whoever leaves the server waiting is cut off.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from types import FrameType
from typing import Any

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from addgpt.runs.files import RunError

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = [("x-content-type-options", "nosniff"), ("cache-control", "no-store")]
OWN = ("same-origin", "none")  # of `Sec-Fetch-Site`: our page, or what a person typed
LARGEST_BODY = 1 << 18  # bytes
PATIENCE = 3.0  # seconds for a whole request to come, for an answer to be read, for the next one
CROWD = 100  # connections that keep the server waiting; with more, all of these are cut off


class Server(uvicorn.Server):
    """Serves an application on a socket. Ends at once at Ctrl-C, whoever is being answered."""

    def __init__(self, app: ASGIApp, sock: socket.socket) -> None:
        self.app, port = app, sock.getsockname()[1]
        self.hosts = [f"127.0.0.1:{port}", f"localhost:{port}"]
        self.waiting: dict[Any, float] = {}  # for which client, after which request: since when
        config = uvicorn.Config(
            self.answer, interface="asgi3", http="h11", ws="none", lifespan="off",
            headers=[("content-security-policy", POLICY), *HEADERS],
            log_level="error", limit_concurrency=2 * CROWD,
        )  # fmt: skip
        super().__init__(config)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse requests of other sites, and bodies that are too large; else the application's."""
        told, app = Headers(scope=scope), self.app
        host, site = told.get("host", ""), told.get("sec-fetch-site", "none")
        length = told.get("content-length", "0")
        if host not in self.hosts:
            app = PlainTextResponse(f"this server answers to {' and '.join(self.hosts)}", 403)
        elif told.get("origin", f"http://{host}") != f"http://{host}" or site not in OWN:
            app = PlainTextResponse("requests of other sites are refused", 403)
        elif "transfer-encoding" in told or not length.isdecimal() or int(length) > LARGEST_BODY:
            app = PlainTextResponse("too large a request", 413)
        with contextlib.suppress(ClientDisconnect):
            await app(scope, receive, send)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: cut off clients that have kept the server waiting for too long."""
        now, before, self.waiting = time.monotonic(), self.waiting, {}
        connections: list[Any] = list(self.server_state.connections)
        for one in connections:
            cycle = one.cycle  # its last request, and the answer
            idle = cycle is None or cycle.more_body or cycle.response_complete
            if idle or one.flow.write_paused:  # it is the client's turn
                self.waiting[one, cycle] = before.get((one, cycle), now)
        patience = PATIENCE if len(self.waiting) <= CROWD else 0.0
        for (one, _), since in self.waiting.items():
            if now - since > patience:
                one.transport.abort()
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # to be cut off is no error
        super().handle_exit(sig, frame)


def serve(app: ASGIApp, port: int, path: str = "/") -> None:
    """Serve until Ctrl-C; prints the address. Raises RunError if the port cannot be had."""
    try:
        sock = socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise RunError(f"cannot listen on port {port}: {error.strerror}; try --port 0") from None
    with sock:
        print(f"http://127.0.0.1:{sock.getsockname()[1]}{path}  (Ctrl-C ends it)", flush=True)
        Server(app, sock).run(sockets=[sock])
