"""The settings of an external model that is asked problems: what is known of it."""

from __future__ import annotations

from dataclasses import dataclass

from addgpt.config.base import BaseConfig
from addgpt.config.settings import setting

ENDPOINTS = ("chat", "completions")
RULES = ("first", "last", "trace")


@dataclass(frozen=True)
class ExternalConfig(BaseConfig):
    """A model that is not ours: it is asked in text, and only what it answers is kept.

    It stands where a run has the settings of its model, so that a folder of answers is a run like
    any other to tables, reports and figures.
    """

    architecture: str = setting("external", "an external model", ("external",))
    source: str = setting("", "where it is: hf:PATH, api:ADDRESS or answers:FILE")
    model: str = setting("", "its name at the address")
    endpoint: str = setting("chat", "which endpoint of an address is asked", ENDPOINTS)
    template: str = setting("{problem}=", "what it is asked")
    shots: int = setting(0, "solved problems before each one", low=0, high=1000)
    answer: str = setting("first", "which number of a reply is its answer", RULES)
    max_tokens: int = setting(0, "tokens of a reply (0: as many as the task expects)", low=0)
    params: int | None = setting(None, "how many weights it has; none: not known", low=0)
