"""Hit ratios of the shipped policies and of those that were not chosen: `python -m tests.benchmarks.hit_ratio`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from storescope.core import IntelligentCache
from storescope.core.caching.eviction import POLICIES
from tests.benchmarks.policies import CANDIDATES, Candidate
from tests.benchmarks.row import Row
from tests.benchmarks.traces import KEYS, TRACES

SIZES: Final = (KEYS // 100, KEYS // 10)
SCAN_RESISTANT: Final = "arc"
POLLUTED: Final = "1.0 + scans"


class Shipped:
    """The cache itself, asked and filled as a program does."""

    def __init__(self, policy: str, size: int) -> None:
        self.cache = IntelligentCache(size, None, policy=policy)

    def ask(self, key: int) -> bool:
        if self.cache.get(key, False):
            return True
        self.cache.set(key, True)
        return False


def rows() -> Iterator[Row]:
    """Compare the scan-resistant policy with LRU, in points of misses, where each has to be good."""
    ratios = {
        (policy, size, trace): ratio(Shipped(policy, size), requests)
        for trace, requests in ((name, make()) for name, make in TRACES.items())
        for size in SIZES
        for policy in POLICIES
    }
    gains = {
        (size, trace): ratios[SCAN_RESISTANT, size, trace] - ratios["lru", size, trace]
        for size in SIZES
        for trace in TRACES
    }
    worst = min(gains, key=gains.__getitem__)
    for name, (size, trace), points in (("worst trace", worst, 2.0), ("scans", (SIZES[0], POLLUTED), -5.0)):
        ours, floor = (100 - ratios[policy, size, trace] for policy in (SCAN_RESISTANT, "lru"))
        label = f"misses of {SCAN_RESISTANT}, against lru: {name} ({trace}, size {size})"
        yield Row(label, ours, floor, (floor + points) / floor, "%")


def ratio(cache: Candidate, requests: list[int]) -> float:
    """Return how many of a hundred requests are hits."""
    return 100 * sum(map(cache.ask, requests)) / len(requests)


def main() -> None:
    """Print the table as Markdown."""
    policies: dict[str, Callable[[int], Candidate]] = {
        **{f"**{name}**": lambda size, name=name: Shipped(name, size) for name in POLICIES},  # type: ignore[misc]
        **CANDIDATES,
    }
    columns = [(size, trace) for size in SIZES for trace in TRACES]
    requests = {trace: make() for trace, make in TRACES.items()}
    print("| policy |", " | ".join(f"{trace}, {100 * size // KEYS} %" for size, trace in columns), "|")
    print("|---|", "|".join("---" for _ in columns), "|", sep="")
    for name, make in policies.items():
        figures = [f"{ratio(make(size), requests[trace]):.1f}" for size, trace in columns]
        print(f"| {name} |", " | ".join(figures), "|", flush=True)


if __name__ == "__main__":
    main()
