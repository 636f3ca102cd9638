"""Intervals for proportions, computed by whoever reads counts."""

from __future__ import annotations

import math

import numpy as np

from addgpt.config.errors import UsageError


def wilson(
    successes: np.ndarray | float, n: np.ndarray | float, z: float = 1.96
) -> tuple[np.ndarray, np.ndarray]:
    """Score interval of a proportion (Wilson 1927, doi:10.1080/01621459.1927.10502953).

    The proportions p whose z-score is at most z: (successes / n - p)^2 <= z^2 p (1 - p) / n.

    Args:
        successes, n: counts, broadcast against each other; n = 0 gives (0, 1).
        z: half width in standard errors; 1.96 for 95 %.

    Returns:
        Lower and upper ends, shares in 0..1.

    Raises:
        ValueError: not 0 <= successes <= n.
    """
    successes, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(n, float))
    if not np.all((successes >= 0) & (successes <= n)):
        raise UsageError("successes must be in 0..n")
    total = n + z * z
    centre = (successes + z * z / 2) / total
    share = np.divide(successes, n, out=np.zeros(n.shape), where=n > 0)
    half = z * np.sqrt(n * share * (1 - share) + z * z / 4) / total
    low = np.where(successes == 0, 0.0, centre - half)
    high = np.where(successes == n, 1.0, centre + half)
    return low, high


def percent(right: float, n: float) -> str:
    """A share in per cent, never rounded up; two decimals above 99, and 100 only for all.

    >>> percent(1999, 2000), percent(2000, 2000), percent(1, 3), percent(0, 0)
    ('99.95', '100', '33.3', '-')
    """
    if not n:
        return "-"
    if right >= n:
        return "100"
    decimals = 2 if right > 0.99 * n else 1
    scale = 10**decimals
    steps = min(math.floor(100 * scale * right / n + 1e-9), 100 * scale - 1)
    return f"{steps / scale:.{decimals}f}"


def share(right: int, n: int) -> str:
    """`99.80 % (99.27-99.94)`: per cent with the Wilson 95 % interval."""
    low, high = (percent(float(bound), 1) for bound in wilson(right, n))
    return f"{percent(right, n)} % ({low}-{high})"
