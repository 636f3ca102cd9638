"""A server of this machine alone, and who may ask it: programs, and its own page.

The server listens on 127.0.0.1, so nobody from outside reaches it. What is left is a page of
another site in the same browser: it may send requests here, directly or by a name of its own that
leads to 127.0.0.1 (DNS rebinding). The browser states in `Host`, `Origin` and `Sec-Fetch-Site` whom
it asks and for whom; what does not fit is refused. Other programs of this machine may ask freely.
"""

from __future__ import annotations

import logging
import socket
from types import FrameType

import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from addgpt.runs.files import RunError

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
LARGEST_BODY = 1 << 20  # bytes


class Guard:
    """Middleware that refuses requests of other sites, and bodies that are too large."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(key.encode(), value.encode()) for key, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        told = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        refused = self._refusal(told)
        if refused:
            await PlainTextResponse(*refused)(scope, receive, answer)
        else:
            await self.app(scope, receive, answer)

    def _refusal(self, told: dict[str, str]) -> tuple[str, int] | None:
        host = told.get("host", "")
        if host not in self.hosts:
            return f"this server answers to {', '.join(sorted(self.hosts))}", 403
        own = f"http://{host}"
        if told.get("origin", own) != own or told.get("sec-fetch-site", "none") not in (
            "same-origin", "none",
        ):  # fmt: skip
            return "requests of other sites are refused", 403
        length = told.get("content-length", "0")
        if "transfer-encoding" in told or not length.isdecimal() or int(length) > LARGEST_BODY:
            return "too large a request", 413
        return None


class _Server(uvicorn.Server):
    """Ends at once at Ctrl-C, whoever is still being answered."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = True
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # to be cut off is no error
        super().handle_exit(sig, frame)


def serve(app: ASGIApp, port: int, path: str = "/") -> None:
    """Serve until Ctrl-C; prints the address. Raises RunError if the port cannot be had."""
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", port))
    except OSError as error:
        reason = f"{error.strerror}; --port 0 takes any"
        raise RunError(f"cannot listen on port {port}: {reason}") from None
    port = sock.getsockname()[1]
    print(f"http://127.0.0.1:{port}{path}  (Ctrl-C ends it)", flush=True)
    guarded = Guard(app, port)
    config = uvicorn.Config(guarded, log_level="warning", limit_concurrency=50)
    with sock:
        _Server(config).run(sockets=[sock])
