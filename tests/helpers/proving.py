"""Trainings until all is proved that do not search long."""

import pytest

from addgpt.evaluation import certificate


def search_briefly(patch: pytest.MonkeyPatch | None = None) -> None:
    """Have few problems drawn among which one with a weak context is looked for."""
    for name, value in {"DRAWN": 2000, "AT_A_TIME": 1000}.items():
        (patch or pytest.MonkeyPatch()).setattr(certificate, name, value)
