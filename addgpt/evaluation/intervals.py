"""Intervals for proportions, computed by whoever reads counts."""

from __future__ import annotations

import math

import numpy as np


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
        raise ValueError("successes must be in 0..n")
    total = n + z * z
    centre = (successes + z * z / 2) / total
    share = np.divide(successes, n, out=np.zeros(n.shape), where=n > 0)
    half = z * np.sqrt(n * share * (1 - share) + z * z / 4) / total
    low = np.where(successes == 0, 0.0, centre - half)
    high = np.where(successes == n, 1.0, centre + half)
    return low, high


def share(right: int, n: int) -> str:
    """`99.80 % (99.29-99.94)` with the Wilson 95 % interval; 100 only where all are right."""
    low, high = (float(bound) for bound in wilson(right, n))
    return f"{percent(right, n)} % ({round_down(low)}-{round_down(high)})"


def percent(right: int, n: int) -> str:
    return round_down(right / n) if n else "-"


def round_down(share: float) -> str:
    """A share in per cent, never rounded up; two decimals where it is near 100."""
    if share >= 1:
        return "100"
    decimals = 2 if share > 0.99 else 1
    return f"{math.floor(share * 100 * 10**decimals + 1e-9) / 10**decimals:.{decimals}f}"
