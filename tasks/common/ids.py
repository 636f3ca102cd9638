"""What the col ids of digits are, how training varies them, and index hints, which write them out.

A run that has seen the ids 1 to 10 alone knows nothing of an id 11. So ids can be moved in
training: shifted, or spread out with gaps between them. Index hints (Zhou et al. 2023,
arXiv:2310.16028) say in the text itself which column a digit is in: a letter before each digit,
which moves as ids do.
"""

from __future__ import annotations

import string

import numpy as np

from addgpt.config.catalogue import Feature
from addgpt.task import Batch

ALPHABET = "0123456789+-*/=#r,;"

# One for each column from the least significant: A to Z, a to z but r, which means remainder, and
# as many accented letters as fit into a byte.
HINTS = (string.ascii_letters.swapcase().replace("r", "") + "".join(map(chr, range(256, 512))))[
    : 256 - len(ALPHABET)
]

IDS = {
    "coupled": Feature(
        "position coupling",
        "Cho et al. 2024, arXiv:2405.20671",
        "digits of the same place value have the same col id",
    ),
    "abacus": Feature(
        "abacus positions",
        "McLeish et al. 2024, arXiv:2405.17399",
        "col ids count the digits of each written number from its first",
    ),
}
OFFSET = {
    "N": Feature(
        "random offset of ids",
        "McLeish et al. 2024, arXiv:2405.17399",
        "col ids start up to N higher in training, so that ids of longer numbers are trained",
    )
}
SPREAD = {
    "N": Feature(
        "random increasing ids",
        "Ruoss et al. 2023, arXiv:2305.16843",
        "col ids in training are an increasing choice from 1..N, with gaps in half of the rows",
    )
}
WRITTEN = {
    "true": Feature(
        "index hints",
        "Zhou et al. 2023, arXiv:2310.16028",
        "each digit is written with a letter before it that says its column",
    )
}


def moved(
    batch: Batch, rng: np.random.Generator, offset: int, spread: int, letters: int = len(HINTS)
) -> None:
    """Move the col ids of a batch, and the hints in its text, as training varies them.

    `letters` is how many hints the alphabet has.
    """
    col, most = batch.positions[:, :, 0], int(batch.positions[:, :, 0].max())
    table = np.zeros((len(batch), most + 1), np.int16)  # where each id goes; 0 stays 0
    if spread:
        table[:, 1:] = _spread_out(rng, len(batch), most, spread)
    else:
        table[:, 1:] = np.arange(1, most + 1) + rng.integers(0, offset + 1, (len(batch), 1))
    col[:] = np.take_along_axis(table, col.astype(int), 1)
    hint = (batch.tokens >= len(ALPHABET)) & (batch.tokens < len(ALPHABET) + letters)
    if hint.any():
        before = np.where(hint, batch.tokens - (len(ALPHABET) - 1), 0)
        after = np.take_along_axis(table, before.astype(int), 1) + (len(ALPHABET) - 1)
        batch.tokens[hint] = after[hint]


def _spread_out(rng: np.random.Generator, rows: int, most: int, spread: int) -> np.ndarray:
    """(rows, most) increasing ids out of 1..spread.

    In half of the rows they stay together, as they are when the model is used.
    """
    gaps = np.sort(rng.random((rows, spread)).argpartition(most - 1, 1)[:, :most], 1)
    together = rng.integers(0, spread - most + 1, (rows, 1)) + np.arange(most)
    return np.where(rng.random((rows, 1)) < 0.5, together, gaps) + 1
