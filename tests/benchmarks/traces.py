"""Requests that a cache is asked: five traces over 100,000 keys, the same in every run."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate
from typing import Final

KEYS: Final = 100_000
REQUESTS: Final = 500_000
#: Of the polluted trace: keys that are asked for once, in one go, and their share of all requests.
SCAN: Final = 5_000
SCANNED: Final = 0.35
#: Of the drifting trace: after so many requests each rank belongs to a key that is so many places away.
PERIOD: Final = 50_000
STEP: Final = 10_000


def zipf(exponent: float) -> list[int]:
    """Ask for key k with a probability of 1 / (k + 1) ** exponent."""
    weights = list(accumulate((rank + 1) ** -exponent for rank in range(KEYS)))
    return random.Random(1).choices(range(KEYS), cum_weights=weights, k=REQUESTS)


def polluted() -> list[int]:
    """Interrupt Zipf 1.0 by scans of keys that never come again."""
    usual = zipf(1.0)
    between = int(SCAN * (1 - SCANNED) / SCANNED)
    requests: list[int] = []
    for start in range(0, REQUESTS, between):
        requests += usual[start : start + between]
        requests += range(KEYS + start * SCAN, KEYS + start * SCAN + SCAN)
    return requests[:REQUESTS]


def drifting() -> list[int]:
    """Let Zipf 1.0 be about other keys from time to time."""
    shuffled = list(range(KEYS))
    random.Random(2).shuffle(shuffled)
    return [shuffled[(key + index // PERIOD * STEP) % KEYS] for index, key in enumerate(zipf(1.0))]


TRACES: Final[dict[str, Callable[[], list[int]]]] = {
    "Zipf 0.9": lambda: zipf(0.9),
    "Zipf 1.0": lambda: zipf(1.0),
    "Zipf 1.2": lambda: zipf(1.2),
    "1.0 + scans": polluted,
    "1.0 drifting": drifting,
}
