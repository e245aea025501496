"""The guide's cache and its program, and what its own code gets wrong: each fault fails on `naive` and not on ours."""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from guide import naive

from storescope.core import IntelligentCache, cache_result

Make = Callable[..., Any]


def fault(reason: str, raises: Any = AssertionError) -> pytest.MarkDecorator:
    """Run a test with the guide's cache, which has to fail, and with ours."""
    fails = pytest.mark.xfail(strict=True, reason=reason, raises=raises)
    broken = pytest.param(naive.IntelligentCache, marks=fails, id="naive")
    return pytest.mark.parametrize("make", [broken, pytest.param(IntelligentCache, id="ours")])


def test_the_program_of_the_guide() -> None:
    """The second of two equal calls is answered at once, and the figures say what happened."""
    intelligent_cache = IntelligentCache(max_size=500, default_ttl=600)

    @cache_result(intelligent_cache, ttl=300)
    def expensive_operation(param1: str, param2: str) -> str:
        time.sleep(0.2)
        return f"Result for {param1} and {param2}"

    began = time.monotonic()
    first = expensive_operation("test", "data")
    between = time.monotonic()
    second = expensive_operation("test", "data")
    ended = time.monotonic()

    assert first == second == "Result for test and data"
    assert between - began >= 0.2 > ended - between
    figures = intelligent_cache.get_stats()
    assert {key: figures[key] for key in ("size", "max_size", "hit_count", "miss_count")} == {
        "size": 1, "max_size": 500, "hit_count": 1, "miss_count": 1,
    }  # fmt: skip
    assert (figures["hit_rate"], figures["usage_rate"]) == (0.5, 1 / 500)
    assert (intelligent_cache.hit_count, intelligent_cache.miss_count) == (1, 1)
    intelligent_cache.clear()
    assert intelligent_cache.get_stats()["size"] == 0


@fault("to evict one entry it looks at all of them")
def test_eviction_takes_no_longer_in_a_large_cache(make: Make) -> None:
    """A set into a full cache of 30,000 takes about what it takes in one of 300."""
    times = []
    for size in (300, 30_000):
        cache = make(size, 300)
        for number in range(size):
            cache.set(f"key-{number}", number)
        began = time.thread_time()
        for number in range(100):
            cache.set(f"new-{number}", number)
        times.append(time.thread_time() - began)
    assert times[1] < 10 * times[0]


@fault("it asks the wall clock")
@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_step_of_the_clock_is_no_time(make: Make, step: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Setting the clock forth expires nothing, and setting it back revives nothing."""
    cache = make(10, 0.05)
    cache.set("brief", 1)
    cache.set("lasting", 2, 60)
    wall_clock = time.time
    monkeypatch.setattr(time, "time", lambda: wall_clock() + step)
    time.sleep(0.06)
    assert (cache.get("brief"), cache.get("lasting")) == (None, 2)


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Have threads switch wherever they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@fault("its two dicts are changed without a lock", (KeyError, RuntimeError, ValueError, AssertionError))
@pytest.mark.usefixtures("eager_switches")
def test_threads_do_not_disturb_each_other(make: Make) -> None:
    """Gets and sets of several threads raise nothing, lose no count and keep to the size."""
    turns = 5000
    cache = make(20, 300)

    def work(thread: int) -> None:
        for turn in range(turns):
            cache.set(f"key-{(turn + thread) % 40}", turn)
            cache.get(f"key-{(turn * 7) % 40}")

    with ThreadPoolExecutor(4) as threads:
        for worker in [threads.submit(work, number) for number in range(4)]:
            worker.result()
    figures = cache.get_stats()
    assert figures["size"] <= 20
    assert figures["hit_count"] + figures["miss_count"] == 4 * turns


@fault("a full cache evicts before it looks whether it has the key")
def test_overwriting_evicts_no_other(make: Make) -> None:
    """A new value for a key of a full cache costs no other key its value."""
    cache = make(2, 300)
    cache.set("a", 1)
    cache.set("b", 2)
    cache.set("b", 3)
    assert (cache.get("a"), cache.get("b"), cache.get_stats()["size"]) == (1, 3, 2)


@fault("what has expired stays until somebody asks for it")
def test_expired_entries_are_no_part_of_the_size(make: Make) -> None:
    """The size is that of what can still be had."""
    cache = make(10, 300)
    cache.set("brief", 1, 0.01)
    cache.set("lasting", 2)
    time.sleep(0.02)
    assert (cache.get_stats()["size"], cache.get_stats()["usage_rate"]) == (1, 0.1)


@fault("None stands for a miss, and there is no default to tell them apart")
def test_none_is_a_value(make: Make) -> None:
    """A caller can tell a value that is None from none."""
    cache = make(10, 300)
    cache.set("key", None)
    options = {"default": "missing"} if "default" in inspect.signature(cache.get).parameters else {}
    assert cache.get("key") is None
    assert cache.get("key", **options) != cache.get("other", **options)
