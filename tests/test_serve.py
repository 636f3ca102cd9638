"""The calculator as a web page: what it answers, whom it answers, and the page in a browser."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from addgpt.calculator.load import load_calculator
from addgpt.cli.main import main
from addgpt.runs.resolve import configure
from addgpt.runs.run import SHIPPED, Run
from addgpt.training.loop import train
from tests.helpers.sweeps import SMALL, until

if TYPE_CHECKING:
    from starlette.types import ASGIApp

pytest.importorskip("uvicorn", reason="pip install 'addgpt[web]'")

from addgpt.serve import local  # noqa: E402
from addgpt.serve.app import LONGEST, MOST, Pages  # noqa: E402
from addgpt.serve.local import LARGEST_BODY  # noqa: E402
from addgpt.serve.openai_api import MOST_PROMPTS, application  # noqa: E402

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
QUIET = "--no-sandbox --disable-gpu --no-first-run --disable-background-networking".split()


class Server:
    """An application on a free port, in a thread."""

    def __init__(self, app: ASGIApp) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.port = self.sock.getsockname()[1]
        self.server = local.Server(app, self.sock)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.sock]})
        self.thread.start()
        until(lambda: self.server.started)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, str, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET" if body is None else "POST", path, body, names)
        reply = connection.getresponse()
        return reply.status, reply.read().decode(), dict(reply.getheaders())

    def events(self, text: str) -> list[tuple[str, object]]:
        code, told, _ = self.ask(f"/solve?text={quote(text)}")
        assert code == 200
        pairs = [event.split("\n") for event in told.strip().split("\n\n")]
        return [(name.split(": ")[1], json.loads(data.split(": ", 1)[1])) for name, data in pairs]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with a run that was scored, and one that is damaged."""
    folder = tmp_path_factory.mktemp("results")
    run = Run.create(folder / "a run", configure("add", {k: str(v) for k, v in SMALL.items()}, 0))
    train(run)
    assert CliRunner().invoke(main, ["eval", str(run.path), "--per-cell", "20"]).exit_code == 0
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text("{")
    return folder


@pytest.fixture(scope="module")
def server(results):
    pages = Pages(load_calculator(), results)
    found = Server(pages.app())
    found.pages = pages
    yield found
    found.stop()


@pytest.fixture
def endpoint():
    found = Server(application(Run(SHIPPED)))
    yield found
    found.stop()


def test_an_expression_is_told_token_by_token(server):
    events = server.events("12*34+1")
    assert [data["title"] for name, data in events if name == "done"] == [
        "12 * 34 = 408",
        "408 + 1 = 409",
    ]
    assert events[-1] == ("answer", {"text": "409", "right": True})
    tokens = [token for name, token in events if name == "token"]
    first = "".join(token["char"] for token in tokens).partition("#")[0]
    assert first.startswith("8") and all(0.5 < token["chance"] <= 1 for token in tokens)
    assert not any(token["wrong"] for token in tokens)
    assert {token["label"] for token in tokens} >= {"product", "answer"}
    assert [name for name, _ in events].index("token") > [name for name, _ in events].index("step")


def test_what_cannot_be_worked_out_is_refused_in_one_line(server):
    for text in ("1+", "", "12 foo", "1/0", "1" * (LONGEST + 1)):
        (name, told) = server.events(text)[-1]
        assert name == "answer" and not told["right"], text
        assert told["text"].startswith("error: ") and "\n" not in told["text"], text


def test_the_attention_of_a_token_is_that_of_the_work_that_was_written(server):
    work = "".join(token["char"] for n, token in server.events("128+367") if n == "token")
    asked = f"128+367\n{work}".encode()
    code, told, _ = server.ask("/attention", asked)
    found = json.loads(told)
    assert code == 200 and found["answer"] == "495" and len(found["slots"]) == len(work)
    assert "".join(token["char"] for token in found["tokens"]) == f"128+367={work}"
    for body in (
        b"",
        b"[]",
        b"[" * 100_000,
        b"1+\n",
        b"1+2\nx",
        b"1+2\n\xff",
        b"1+2\n" + b"3" * 3_000,
    ):
        code, told, _ = server.ask("/attention", body)
        assert code == 400 and "\n" not in told


def test_runs_are_shown_as_they_are(server):
    found = {run["name"]: run for run in json.loads(server.ask("/live")[1])}
    assert found.keys() == {"a run", "damaged"}
    run = found["a run"]
    steps = SMALL["steps"]
    assert run["loss"][-1][0] == steps and f"step {steps} of {steps}" in run["text"]
    assert {tuple(cell[:3]) for cell in run["cells"]} == {
        ("+", a, b) for a in (1, 2) for b in (1, 2)
    }
    assert (
        all(0 <= right <= n for *_, right, n in run["cells"])
        and "damaged" in found["damaged"]["text"]
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1"},  # of another port
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},  # another port of this machine
    ],
)
def test_other_pages_are_refused(server, headers):
    for path in ("/", "/about", "/solve?text=1%2B1", "/live"):
        code, told, _ = server.ask(path, **headers)
        assert code == 403 and "calculator" not in told


def test_too_much_is_refused(server):
    assert server.ask("/attention", b" " * (LARGEST_BODY + 1))[0] == 413
    assert server.ask("/attention", iter([b"x"]), Transfer_Encoding="chunked")[0] == 413


def started(server: Server, text: str) -> socket.socket:
    """A client that has asked, and has read no more than the beginning."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    sock.connect(("127.0.0.1", server.port))
    ask = f"GET /solve?text={quote(text)} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n"
    sock.sendall(ask.encode())
    assert sock.recv(12) == b"HTTP/1.1 200"
    return sock


def test_nobody_waits_for_a_long_computation_or_for_whoever_left_it(server):
    long = "7" * 100 + "*" + "3" * 100
    slow = [started(server, long) for _ in range(2)]  # which read no further
    begun = time.monotonic()
    assert server.events("12*34")[-1][1]["text"] == "408"
    for sock in slow:
        sock.close()
    until(
        lambda: server.pages.places._value == MOST
    )  # what nobody reads any more is not worked out
    assert server.events("12*34")[-1][1]["text"] == "408"
    assert time.monotonic() - begun < 15  # alone, `long` takes more


ASKED = " HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n"
HANGING = {
    "silent": "",
    "half a header": "GET / HTTP/1.1\r\nHo",
    "half a body": f"POST /attention{ASKED}Content-Length: 99\r\n\r\n1+2",
    "kept open": f"GET /about{ASKED}\r\n",
    "answer unread": f"GET /solve?text={'7' * 50}*{'3' * 50}{ASKED}\r\n",
}


def hanging(server: Server, kind: str, count: int) -> list[socket.socket]:
    """Clients that have sent something, and neither read nor end."""
    many = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(count)]
    for sock in many:
        sock.sendall(HANGING[kind].replace("PORT", str(server.port)).encode())
    return many


@pytest.mark.parametrize("kind", HANGING)
def test_connections_that_hang_shut_nobody_out_and_are_closed(server, monkeypatch, kind):
    monkeypatch.setattr("addgpt.serve.local.PATIENCE", 0.5)
    monkeypatch.setattr("addgpt.serve.app.SECONDS", 1.0)
    monkeypatch.setattr("addgpt.serve.app.HURRY", 0.5)
    many = hanging(server, kind, 50)
    assert server.ask("/about")[0] == 200
    until(lambda: server.events("12*34")[-1][1]["text"] == "408")  # else the model is busy
    until(lambda: not server.server.server_state.connections)  # though none has closed its own
    for sock in many:
        sock.close()


def test_a_crowd_that_hangs_is_closed_at_once(server, monkeypatch):
    monkeypatch.setattr("addgpt.serve.local.PATIENCE", 1_000)
    many = hanging(server, "silent", 300)
    until(lambda: server.ask("/about")[0] == 200)
    for sock in many:
        sock.close()


def test_time_is_bounded_and_so_is_who_may_wait(server, monkeypatch):
    monkeypatch.setattr("addgpt.serve.app.SECONDS", 0.2)
    events = server.events("7" * 60 + "*" + "3" * 60)
    assert "it takes too long" in events[-1][1]["text"]
    monkeypatch.setattr(server.pages, "places", asyncio.Semaphore(0))
    assert "the model is busy; try again" in server.events("1+1")[0][1]["text"]
    assert server.ask("/attention", b"1+2\n30")[:2] == (503, "the model is busy; try again")


def test_the_page_takes_nothing_from_outside(server):
    for path in ("/", "/page.css", "/page.js", "/attention.css", "/attention.js"):
        code, text, headers = server.ask(path)
        assert code == 200 and "default-src 'none'" in headers["content-security-policy"]
        links = text.replace("http://www.w3.org/2000/svg", "")  # the name of a format
        assert "http:" not in links and "https:" not in links
    assert server.ask("/../setup.cfg")[0] == server.ask("/page.py")[0] == 404


@pytest.mark.parametrize("width,scheme", [(1100, "light"), (380, "dark")])
def test_in_a_browser(server, tmp_path, width, scheme):
    sync = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if not Path(CHROMIUM).exists():
        pytest.skip("there is no Chromium")
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        size = {"width": width, "height": 800}
        page = browser.new_context(viewport=size, color_scheme=scheme).new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.keyboard.type("12*34")  # the field has the focus
        page.keyboard.press("Enter")
        page.wait_for_selector("#answer:text-is('408')")
        page.click(".token >> nth=3")
        page.wait_for_selector(".attn svg .arc")
        assert page.locator(".token[aria-pressed=true]").count() == 1
        page.fill("#expression", "12345678*87654321")
        page.keyboard.press("Enter")
        page.click(".token >> nth=3")  # while it writes
        page.wait_for_selector("#answer:text-is('1082152022374638')")
        page.click(".token >> nth=-1")
        page.wait_for_selector(".attn .written >> nth=200", state="attached")
        page.focus("#tab-calculate")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("figure polyline", state="attached")
        assert page.locator("figure td").count() == 4
        wide = page.evaluate("() => document.documentElement.scrollWidth")
        assert wide <= width and not said, (wide, said)
        browser.close()


def test_the_command_starts_and_ends(tmp_path):
    words = [sys.executable, "-m", "addgpt", "serve", "--results", str(tmp_path), "--port"]
    pipe = subprocess.PIPE
    first = subprocess.Popen([*words, "0"], stdout=pipe, stderr=pipe, text=True)
    assert first.stdout is not None and first.stderr is not None
    line = first.stdout.readline()
    port = line.split(":")[2].split("/")[0]
    taken = subprocess.run([*words, port], capture_output=True, text=True)
    assert taken.returncode == 1 and f"cannot listen on port {port}" in taken.stderr
    host, path = f"127.0.0.1:{port}", f"/solve?text={'7' * 99}*{'3' * 99}"
    client = socket.create_connection(("127.0.0.1", int(port)))
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert client.recv(12) == b"HTTP/1.1 200"
    os.kill(first.pid, signal.SIGINT)  # in the middle of a long computation
    begun = time.monotonic()
    assert first.wait(20) in (0, 130, -2) and time.monotonic() - begun < 8
    client.close()
    assert first.stderr.read() in ("", "error: stopped\n")


def test_the_endpoint_answers_and_refuses_what_the_calculator_does(endpoint):
    def chat(problem):
        body = json.dumps({"messages": [{"content": problem}]})
        code, told, _ = endpoint.ask("/v1/chat/completions", body.encode())
        return code, json.loads(told)

    for a, b in ((12, 34), (3**40, 7**25)):
        code, told = chat(f"{a} * {b}?")
        assert code == 200 and told["choices"][0]["message"]["content"] == str(a * b)
    code, told = chat(f"{10**900}*{10**900}")
    assert code == 400 and told["error"]["message"].startswith("too much work: 901 digits * 901")


def test_the_endpoint_refuses_in_one_line_what_it_cannot_do(endpoint):
    for body, words in (
        ("[" * 100_000, "recursion"),
        ("{", "Expecting"),
        ("[]", "must be a JSON object"),
        ('{"prompt": 3}', "prompt must be a text"),
        ('{"prompt": "\\ud800"}', "not in the alphabet"),
        ('{"prompt": []}', f"0 prompts; 1 to {MOST_PROMPTS}"),
        (json.dumps({"prompt": ["1+2="] * 101}), "101 prompts"),
        ('{"prompt": "1+2=", "stream": true}', "stream"),
        ('{"prompt": "1+2=", "max_tokens": 0}', "max_tokens must be a whole number above 0, not 0"),
        ('{"prompt": "1+2=", "max_tokens": "9"}', "not '9'"),
        (json.dumps({"prompt": "1" * 99_998 + "+1="}), "100,001 characters; at most 5,000"),
    ):
        code, reply, _ = endpoint.ask("/v1/completions", body.encode())
        told = json.loads(reply)["error"]["message"]
        assert code == 400 and words in told and "\n" not in told, (body[:40], told)
