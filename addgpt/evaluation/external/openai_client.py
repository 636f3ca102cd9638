"""Replies of any endpoint that speaks OpenAI's protocol: a service, or a server on this machine."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from addgpt.config.errors import UsageError
from addgpt.config.external import ExternalConfig
from addgpt.evaluation.external.questions import Question
from addgpt.evaluation.external.replies import Reply
from addgpt.runs.files import RunError

TRIES = 6  # of a request, before the evaluation stops
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before the second try; doubled each time
TIMEOUT = 120.0  # seconds that a reply may take
KEY = "OPENAI_API_KEY"


class Spent(RunError):
    """As many requests were made as `--max-requests` allows."""


class OpenAIClient:
    """Asks an address, several prompts at a time, and retries what failed for the moment.

    Tried again after growing waits: 408, 409, 429, 5xx, cut connections, time-outs, and replies
    that are no completion. Every try counts as a request. The key is that of the environment
    (`OPENAI_API_KEY`), and is stored nowhere; servers on one's own machine mostly need none.

    Args:
        concurrency: prompts that are asked at a time.
        max_requests: requests after which it stops; None: no bound.

    Raises UsageError if the client library is not installed.
    """

    def __init__(
        self,
        how: ExternalConfig,
        concurrency: int = 8,
        max_requests: int | None = None,
        timeout: float = TIMEOUT,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        try:
            import openai
        except ImportError:
            raise UsageError("api: needs the client: pip install 'addgpt[api]'") from None
        self.openai, self.how = openai, how
        self.concurrency, self.max_requests = concurrency, max_requests
        self.failed = ""  # why the last request got no reply, if it got none
        self.first_wait = first_wait
        self.requests = 0
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.client = openai.OpenAI(
            base_url=how.source.removeprefix("api:"),
            api_key=os.environ.get(KEY) or "none",
            max_retries=0,
            timeout=timeout,
        )
        self.limit_name = "max_tokens"
        self.greedy: dict[str, Any] = {"temperature": 0}

    def ask(self, questions: list[Question]) -> Iterator[list[tuple[Question, Reply]]]:
        """Replies as they come. What has come is given out before an error is raised."""
        waiting = iter(questions)
        failure: BaseException | None = None
        with ThreadPoolExecutor(self.concurrency) as pool:
            running: dict[Any, Question] = {}
            try:
                while True:
                    while failure is None and len(running) < self.concurrency:
                        question = next(waiting, None)
                        if question is None:
                            break
                        running[pool.submit(self._reply, question)] = question
                    if not running:
                        break
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    batch = []
                    for future in done:
                        question = running.pop(future)
                        if future.exception() is None:
                            batch.append((question, future.result()))
                        else:
                            failure = failure or future.exception()
                            self.stop.set()
                    if batch:
                        yield batch
            finally:
                self.stop.set()  # no new attempt begins, however this ends
        if failure is not None:
            raise failure

    def _reply(self, question: Question) -> Reply:
        """One prompt's reply, tried again while that may help. Raises RunError."""
        pause, told = self.first_wait, ""
        for attempt in range(TRIES):
            if attempt:
                if self.stop.wait(pause * random.uniform(0.75, 1.25)):
                    break
                pause = min(2 * pause, LONGEST_WAIT)
            self._count()
            how = self.greedy | {self.limit_name: question.limit}  # others may change it meanwhile
            try:
                reply, self.failed = self._asked(question, how), ""
                return reply
            except self.openai.APIStatusError as error:
                self.failed = told = f"{error.status_code} {_line(error)}"
                if self._adapted(error, how):
                    continue
                if error.status_code not in (408, 409, 429) and error.status_code < 500:
                    raise RunError(
                        f"{self.how.source} refuses {question.problem}: {told}"
                    ) from None
                if getattr(error, "code", None) == "insufficient_quota":
                    break
                pause = max(pause, _told_wait(error))
            except (self.openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
                self.failed = told = f"{type(error).__name__}: {_line(error)}"
        if self.stop.is_set() and not told:
            raise RunError("stopped")
        raise RunError(
            f"{self.how.source} gives no reply to {question.problem} ({told}); its replies "
            "are kept: rerun the same command to resume"
        )

    def _asked(self, question: Question, how: dict[str, Any]) -> Reply:
        """One request. Raises ValueError for a reply that is no completion."""
        how = how | {"model": self.how.model}
        if self.how.endpoint == "chat":
            messages: Any = [{"role": "user", "content": question.prompt}]
            found: Any = self.client.chat.completions.create(messages=messages, **how)
        else:
            found = self.client.completions.create(prompt=question.prompt, **how)
        choices = getattr(found, "choices", None)
        if not choices:
            raise ValueError("a reply without choices")
        choice, usage = choices[0], getattr(found, "usage", None)
        text = choice.message.content if self.how.endpoint == "chat" else choice.text
        if not isinstance(text, str | None) or (text is None and choice.finish_reason != "length"):
            raise ValueError("a reply without text")
        told = (getattr(usage, f"{part}_tokens", None) for part in ("prompt", "completion"))
        counts = (count if type(count) is int and count >= 0 else None for count in told)
        text = (text or "").encode("utf-8", "replace").decode()  # half a character can go nowhere
        return Reply(text, choice.finish_reason != "length", *counts)

    def _count(self) -> None:
        """Count a request. Raises Spent if there were enough."""
        with self.lock:
            if self.max_requests is not None and self.requests >= self.max_requests:
                last = f", of which the last failed ({self.failed})" if self.failed else ""
                raise Spent(
                    f"stopped after {self.requests:,} requests (--max-requests){last}; the "
                    "replies are kept: rerun the same command to resume"
                )
            self.requests += 1

    def _adapted(self, error: Any, sent: dict[str, Any]) -> bool:
        """Whether the endpoint refuses one of these arguments, and from now on gets another."""
        text = str(error)
        if error.status_code != 400:
            return False
        if "max_completion_tokens" in text and "max_tokens" in sent:
            self.limit_name = "max_completion_tokens"
            return True
        if "temperature" in text and "temperature" in sent:
            self.greedy = {}
            return True
        return False


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]


def _told_wait(error: Any) -> float:
    """The seconds that a server asks to wait; 0 if it does not."""
    try:
        return min(float(error.response.headers.get("retry-after", 0)), LONGEST_WAIT)
    except ValueError:
        return 0.0
