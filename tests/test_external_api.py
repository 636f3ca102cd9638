"""Endpoints that speak the protocol of OpenAI: with faults, and one of our own runs behind one."""

import itertools
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from addgpt.cli.main import main
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.external.questions import Question, ask_missing, asked_cells
from addgpt.evaluation.external.reading import read_reply
from addgpt.evaluation.external.replies import Replies
from addgpt.evaluation.external.settings import external_config, open_folder
from addgpt.evaluation.scorecard import score_run
from addgpt.runs.files import RunError
from addgpt.runs.run import Run
from addgpt.task import Answer
from addgpt.task_lookup import load_task

pytestmark = pytest.mark.slow

ADD = load_task("add", {"digits": 3})


PICKY = {"max_tokens": "use max_completion_tokens instead", "temperature": "no temperature here"}


class Faulty(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    faults: itertools.cycle
    hits: list
    together = threading.Barrier(4)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"] if "messages" in body else body["prompt"]
        fault = next(self.faults)
        self.hits.append((prompt, fault))
        if fault == "cut":
            self.connection.close()
            return
        a, b = map(int, re.match(r"(\d+)\+(\d+)=", prompt).groups())
        message = {"message": {"role": "assistant", "content": f"It is {a + b}."}}
        choice = {"index": 0, "finish_reason": "stop", "text": f"{a + b}"} | message
        good = {"id": "1", "object": "x", "created": 0, "model": "m", "choices": [choice]}
        good["usage"] = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}
        if fault == "lies":
            good["usage"] = {"prompt_tokens": "many", "completion_tokens": -5}
            choice["text"] = message["message"]["content"] = "\ud800 5"
        text = {"nonsense": "<html>", "half": json.dumps(good)[:40], "empty": "{}"}
        text = text.get(fault, json.dumps(good))
        if fault == "picky" and not body.keys().isdisjoint(PICKY):
            self.together.wait(9)  # all are asked before the first is refused
            named = next(name for name in PICKY if name in body)
            fault, text = 400, json.dumps({"error": {"message": PICKY[named]}})
        if fault == "slow":
            threading.Event().wait(1.2)
        self.send_response(fault if isinstance(fault, int) else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *about):
        pass


@pytest.fixture
def endpoint():
    """Serves sums on this machine, with the faults of a list in turn."""
    pytest.importorskip("openai")
    servers = []

    def serve(*faults):
        handler = type("Handler", (Faulty,), {"faults": itertools.cycle(faults), "hits": []})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.handle_error = lambda *about: None
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"api:http://127.0.0.1:{server.server_port}/v1", handler.hits

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def client_of(source, **settings):
    from addgpt.evaluation.external.openai_client import OpenAIClient

    how = ExternalConfig(source=source, model="m", endpoint=settings.pop("endpoint", "chat"))
    return OpenAIClient(how, **{"first_wait": 0.01, "timeout": 0.8} | settings)


QUESTIONS = [Question(f"{k}+{k}", f"{k}+{k}=", 9) for k in range(20)]


@pytest.mark.parametrize("endpoint_kind", ["chat", "completions"])
def test_faults_of_an_endpoint_cost_tries_not_answers(endpoint, tmp_path, endpoint_kind):
    faults = [429, "", 500, "cut", "", "nonsense", "", "half", "empty", "", 503, "", "", ""]
    source, hits = endpoint("slow", *faults)
    replies = Replies(tmp_path)
    client = client_of(source, concurrency=4, endpoint=endpoint_kind)
    ask_missing(client, QUESTIONS, replies)
    for question in QUESTIONS:
        wanted = Answer(2 * int(question.problem.split("+")[0]))
        reply = replies.known[question.prompt]
        assert read_reply(ADD, ADD.parse(question.problem), reply.text, "last") == wanted
        assert reply[1:] == (True, 4, 2)
    good = [prompt for prompt, fault in hits if fault == ""]
    assert sorted(good) == sorted(q.prompt for q in QUESTIONS)  # none was paid for twice
    assert client.requests == len(hits)
    ask_missing(client, QUESTIONS, Replies(tmp_path))
    assert client.requests == len(hits)


def test_an_endpoint_that_stays_broken_or_refuses_is_one_line(endpoint, tmp_path):
    source, hits = endpoint(500)
    with pytest.raises(RunError, match="gives no reply to .*500.*rerun the same command"):
        ask_missing(client_of(source, concurrency=2), QUESTIONS, Replies(tmp_path))
    with pytest.raises(RunError, match=r"2 requests .* of which the last failed \(500 .*"):
        client = client_of(source, concurrency=1, max_requests=2)
        ask_missing(client, QUESTIONS, Replies(tmp_path))
    source, hits = endpoint(401)
    with pytest.raises(RunError, match="refuses .*401"):
        ask_missing(client_of(source, concurrency=1), QUESTIONS, Replies(tmp_path))
    assert len(hits) == 1


def test_an_endpoint_that_takes_other_arguments_gets_those_from_all(endpoint, tmp_path):
    source, hits = endpoint("picky")
    ask_missing(client_of(source, concurrency=4, timeout=9), QUESTIONS, Replies(tmp_path))
    assert len(Replies(tmp_path).known) == 20 and len(hits) == 20 + 2 * 4


def test_requests_are_bounded_and_what_came_is_kept(endpoint, tmp_path):
    source, hits = endpoint("")
    with pytest.raises(RunError, match="after 7 requests"):
        ask_missing(client_of(source, max_requests=7), QUESTIONS, Replies(tmp_path))
    assert len(hits) == 7 == len(Replies(tmp_path).known)
    ask_missing(client_of(source), QUESTIONS, Replies(tmp_path))
    assert len(hits) == 20


def test_what_a_server_lies_about_spoils_no_score(endpoint, tmp_path, monkeypatch):
    source, _ = endpoint("lies")
    how = external_config(source, ADD, {"model": "m"})
    run = open_folder(how, "add", ADD, tmp_path / "run")
    cells = [cell for cell in ADD.cells() if not ADD.seen(cell)]
    monkeypatch.setattr(type(ADD), "cells", lambda self: cells)
    asked = [one for one in asked_cells(ADD, how, cells, 2, "test", 0)]
    questions = [question for one in asked for question in one.questions]
    ask_missing(client_of(source), questions, Replies(run.path))
    card = score_run(run, 2)
    card.write()
    assert card.facts["replies"]["tokens_read"] == card.facts["replies"]["tokens_written"] == 0
    assert {row.text for row in Replies(run.path).known.values()} == {"? 5"}


def test_one_of_our_runs_behind_an_endpoint_gets_its_own_score(tmp_path, monkeypatch, half_trained):
    """`addgpt serve --api`, asked by `addgpt eval api:`: the same right answers, cell by cell."""
    pytest.importorskip("openai")
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    from addgpt.evaluation.exact_match import evaluate
    from addgpt.runs.resolve import configure
    from addgpt.serve.openai_api import application

    monkeypatch.chdir(tmp_path)
    task, model = half_trained
    cells = [cell for cell in task.cells() if not task.seen(cell)]  # the others are asked whole
    monkeypatch.setattr(type(task), "cells", lambda self: cells)
    settings = {"digits": "3", "layers": "1", "width": "32", "heads": "2"}
    run = Run.create(tmp_path / "half", configure("sub", settings))
    run.save(model, {}, {"step": 1, "examples": 1, "seconds": 1.0})
    config = uvicorn.Config(application(run), port=0, log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    command = ["eval", f"api:http://127.0.0.1:{port}/v1", "--model", "half", "--task", "sub"]
    result = CliRunner().invoke(main, [*command, "--digits", "3", "--per-cell", "3", "--json"])
    server.should_exit = True
    thread.join()
    assert result.exit_code == 0, result.output
    wanted = list(evaluate(model, task, cells, per_cell=3))
    found = json.loads(result.stdout)
    assert [r["answer_correct"] for r in found] == [r["answer_correct"] for r in wanted]
    assert 0 < sum(r["answer_correct"] for r in found) < sum(r["n"] for r in found)
