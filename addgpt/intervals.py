"""Intervals for proportions, computed by whoever reads counts."""

from __future__ import annotations

import numpy as np

Z95 = 1.959963984540054


def wilson(right, n, z: float = Z95) -> tuple[np.ndarray, np.ndarray]:
    """Bounds of the Wilson score interval (Wilson 1927) for `right` of `n`, as shares.

    (0, 1) where n is 0.
    """
    right, n = np.asarray(right, float), np.asarray(n, float)
    safe = np.maximum(n, 1)
    share = right / safe
    middle = (share + z**2 / (2 * safe)) / (1 + z**2 / safe)
    half = z / (1 + z**2 / safe) * np.sqrt(share * (1 - share) / safe + z**2 / (4 * safe**2))
    low = np.where(right <= 0, 0.0, middle - half)
    high = np.where(right >= n, 1.0, middle + half)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)
