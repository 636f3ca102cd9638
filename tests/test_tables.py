"""Shares as a person reads them: never rounded up to what they are not."""

from __future__ import annotations

import pytest

from addgpt.evaluation.intervals import percent, share


@pytest.mark.parametrize(
    ("right", "n", "text"),
    [(3, 3, "100"), (9999, 10_000, "99.99"), (99_999, 100_000, "99.99"), (998, 1000, "99.80"),
     (1, 2, "50.0"), (0, 7, "0.0"), (0, 0, "-"), (9896, 10_000, "98.9")],
)  # fmt: skip
def test_percent_is_100_only_where_all_are_right(right, n, text):
    assert percent(right, n) == text


def test_share_has_its_interval_rounded_down():
    assert share(998, 1000) == "99.80 % (99.27-99.94)"
    assert share(10_000, 10_000) == "100 % (99.96-100)"
