"""IntelligentCache against the guide's, cachetools under a lock, `functools.lru_cache` and cachebox."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import count, islice
from threading import Lock

import cachebox
import cachetools

from storescope.core import IntelligentCache
from tests.benchmarks.row import Row
from tests.guide import naive

ROUNDS = 25
SMALL, LARGE = 1_000, 100_000
TTL = 300
#: Milliseconds that no single set may take.
LONGEST = 5.0

Work = Callable[[], object]


def rows() -> Iterator[Row]:
    """Measure hits, and sets that evict."""
    yield from _hits(f"hit among {SMALL:,}", SMALL, random.Random(1).sample(range(SMALL), SMALL), target=0.5)
    weights = [1 / (rank + 1) for rank in range(LARGE)]
    yield from _hits(
        f"hit among {LARGE:,}, Zipf", LARGE, random.Random(1).choices(range(LARGE), weights, k=5000)
    )
    yield from _sets()


def _hits(name: str, size: int, requests: Sequence[int], target: float | None = None) -> Iterator[Row]:
    keys = [f"key-{number}" for number in range(size)]
    random.Random(2).shuffle(keys)
    asked = [keys[number] for number in requests]
    ours, arc = IntelligentCache(size, TTL), IntelligentCache(size, TTL, policy="arc")
    locked, lock = cachetools.TTLCache[str, str](size, TTL), Lock()
    boxed: cachebox.TTLCache[str, str] = cachebox.TTLCache(size, TTL)
    memoized = lru_cache(size)(str.upper)
    for key in keys:
        for cache in (ours, arc):
            cache.set(key, key)
        locked[key] = boxed[key] = key
        memoized(key)

    def item_under_lock() -> None:
        for key in asked:
            with lock:
                locked[key]

    def get_under_lock() -> None:
        for key in asked:
            with lock:
                locked.get(key)

    times = _medians(
        {
            "ours": (_asking(ours.get, asked), len(asked)),
            "arc": (_asking(arc.get, asked), len(asked)),
            "item": (item_under_lock, len(asked)),
            "get": (get_under_lock, len(asked)),
            "cachebox": (_asking(boxed.get, asked), len(asked)),
            "lru_cache": (_asking(memoized, asked), len(asked)),
        }
    )
    yield Row(f"{name}, against TTLCache[key] under a lock", times["ours"], times["item"], target)
    yield Row(f"{name}, against TTLCache.get under a lock", times["ours"], times["get"], target)
    yield Row(f"{name}, arc, against TTLCache.get under a lock", times["arc"], times["get"], None)
    yield Row(f"{name}, against cachebox.TTLCache.get", times["ours"], times["cachebox"], None)
    yield Row(f"{name}, against functools.lru_cache", times["ours"], times["lru_cache"], None)


def _asking(get: Callable[[str], object], keys: Sequence[str]) -> Work:
    def ask() -> None:
        for key in keys:
            get(key)

    return ask


def _sets() -> Iterator[Row]:
    ours, guides = IntelligentCache(LARGE, TTL), naive.IntelligentCache(LARGE, TTL)
    locked, lock = cachetools.TTLCache[str, int](LARGE, TTL), Lock()
    keys = [f"key-{number}" for number in range(LARGE)]
    random.Random(2).shuffle(keys)
    for key in keys:
        ours.set(key, 1)
        guides.set(key, 1)
        locked[key] = 1
    fresh = map("new-{}".format, count())

    def set_under_lock(key: str) -> None:
        with lock:
            locked[key] = 1

    # The guide's leaves nothing of the others in the processor's caches, so they get blocks to warm up in.
    times = _medians(
        {
            "ours": (_setting(lambda key: ours.set(key, 1), fresh, 1000), 1000),
            "cachetools": (_setting(set_under_lock, fresh, 1000), 1000),
            "guide": (_setting(lambda key: guides.set(key, 1), fresh, 5), 5),
        }
    )
    name = f"set that evicts, at {LARGE:,}"
    yield Row(f"{name}, against the guide's", times["ours"], times["guide"], 0.001)
    yield Row(f"{name}, against TTLCache under a lock", times["ours"], times["cachetools"], None)
    yield Row(f"{name}, the longest of {3 * LARGE:,}", _longest_set(ours, fresh), LONGEST, 1.0, "ms")


def _setting(put: Callable[[str], object], fresh: Iterator[str], times: int) -> Work:
    def work() -> None:
        for key in islice(fresh, times):
            put(key)

    return work


def _longest_set(cache: IntelligentCache, fresh: Iterator[str]) -> float:
    longest = 0.0
    gc.disable()  # sets that evict give it nothing to do: when it comes, it is for all that this process holds
    try:
        for key in islice(fresh, 3 * LARGE):
            begin = time.thread_time()
            cache.set(key, 1)
            longest = max(longest, time.thread_time() - begin)
    finally:
        gc.enable()
    return longest * 1e3


def _medians(works: dict[str, tuple[Work, int]]) -> dict[str, float]:
    """Time each in turn, in microseconds of CPU an operation, so that whatever else goes on falls on all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, (work, operations) in works.items():
            begin = time.thread_time()
            work()
            times[name].append((time.thread_time() - begin) / operations * 1e6)
    return {name: statistics.median(measured) for name, measured in times.items()}
