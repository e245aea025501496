"""`cache_result` over a cache with a second level: what processes share, and what stays in one."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from storescope.core import IntelligentCache, cache_result
from storescope.core.caching.memo import CacheInfo
from storescope.core.payloads.codec import decode, encode
from storescope.core.payloads.keys import stable_key

WAIT = 10.0


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Elsewhere:
    """A second level that is a dict with a clock, takes what `RedisCache` takes, and remembers who asked."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.entries: dict[Any, tuple[Any, float | None]] = {}
        self.clock = clock
        self.asked_by: list[str] = []

    def get(self, key: Any) -> tuple[Any, float | None] | None:
        self.asked_by.append(threading.current_thread().name)
        value, until = self.entries.get(stable_key(key), (b"", 0.0))
        remaining = None if until is None else until - self.clock()
        return None if remaining is not None and remaining <= 0 else (decode(value), remaining)

    def set(self, key: Any, value: Any, ttl: float | None) -> None:
        self.asked_by.append(threading.current_thread().name)
        self.entries[stable_key(key)] = encode(value), None if ttl is None else self.clock() + ttl

    def delete(self, key: Any) -> bool:
        return self.entries.pop(stable_key(key), None) is not None

    def clear(self) -> None:
        self.entries.clear()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def counted(info: CacheInfo) -> dict[str, Any]:
    """Return what is not 0, but for the cache's size."""
    return {name: value for name, value in dataclasses.asdict(info).items() if value and name != "maxsize"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


def shared_sum(a: int, b: int = 0) -> int:
    return a + b


def shared_object(a: int) -> object:
    return object()


def repr_of(value: Any) -> str:
    return repr(value)


async def shared_difference(a: int, b: int = 0) -> int:
    return a - b


def two_level(elsewhere: Elsewhere, clock: Clock) -> IntelligentCache:
    return IntelligentCache(clock=clock, second_level=elsewhere)


def test_processes_share_results_under_one_key(clock: Clock) -> None:
    """What one process computed, in whatever spelling, answers another's call, with a key of the function's name."""
    elsewhere = Elsewhere(clock)
    here, there = (cache_result(two_level(elsewhere, clock), 10)(shared_sum) for _ in range(2))

    assert here(1, b=0) == there(a=1) == 1
    assert here.cache_info().misses == 1
    assert counted(there.cache_info()) == {"hits": 1, "currsize": 1}
    named = cache_result(two_level(elsewhere, clock), name="another.sum")(shared_sum)
    assert named(1) == 1
    assert named.cache_info().misses == 1
    assert here.invalidate(1)
    assert here(1) == 1
    assert here.cache_info().misses == 2


def test_keys_are_the_same_in_every_process(tmp_path: Any) -> None:
    """Two interpreters with other hash seeds make the same keys of the same calls."""
    (tmp_path / "shop.py").write_text(
        textwrap.dedent(
            """
            from storescope.core import IntelligentCache, cache_result
            class Printing:
                def get(self, key): print(key.hex())
                def set(self, key, value, ttl): pass
                def delete(self, key): return False
                def clear(self): pass
            @cache_result(IntelligentCache(second_level=Printing()))
            def price(item, *, options=(), **more): return 1
            price("tea", options={"b", "a"}, y=2, x=[1, {"k": None}])
            """
        )
    )
    keys = [
        subprocess.run(
            [sys.executable, "-c", "import shop"],
            cwd=tmp_path, env={**os.environ, "PYTHONHASHSEED": seed}, check=True, capture_output=True, text=True,
        ).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert keys[0] == keys[1] != ""


def test_a_name_that_is_not_the_same_everywhere_is_refused(clock: Clock) -> None:
    """Lambdas, nested functions, bound methods and those of `__main__` need `name=`, unless there is but one level."""

    def nested() -> int:
        return 1

    cache = two_level(Elsewhere(clock), clock)
    main: Any = type(shared_sum)(shared_sum.__code__, {"__name__": "__main__"}, "shared_sum")
    for function in (nested, lambda: 1, functools.partial(shared_sum, 1), main, [].append, Clock().__call__):
        with pytest.raises(ValueError, match=r"name must be given for .*: the second level of 'cache'"):
            cache_result(cache)(function)
        cache_result(cache, name="given")(function)
        cache_result(IntelligentCache())(function)


def test_arguments_of_this_process_alone_stay_in_it() -> None:
    """Objects, and the instance of a method, are keyed in the first level only."""
    elsewhere = Elsewhere()
    cache = IntelligentCache(second_level=elsewhere)
    function = cache_result(cache)(repr_of)
    marker = object()

    class Note:
        @cache_result(cache, name="Note.read")
        def read(self) -> int:
            return id(self)

    one, two = Note(), Note()
    assert function(marker) == function(marker) == repr(marker)
    assert (one.read(), two.read(), one.read()) == (id(one), id(two), id(one))
    assert counted(function.cache_info()) == {"hits": 1, "misses": 1, "currsize": 1}
    assert not elsewhere.entries
    assert function.invalidate(marker)
    assert not function.invalidate(marker)
    assert function(marker) == repr(marker)
    assert function.cache_info().misses == 2
    function.cache_clear()
    function(marker)
    assert function.cache_info().misses == 1


def test_results_of_this_process_alone_stay_in_it() -> None:
    """A result that has no written form is returned and kept in the first level."""
    elsewhere = Elsewhere()
    cache = IntelligentCache(second_level=elsewhere)
    function = cache_result(cache)(shared_object)

    assert function(1) is function(1)
    assert function.invalidate(1)
    assert function(1) is function(1)
    assert not elsewhere.entries


def test_a_second_level_does_not_hold_an_event_loop(clock: Clock) -> None:
    """It is asked and told in threads; hits of the first level ask nobody."""
    elsewhere = Elsewhere(clock)
    here, there = (cache_result(two_level(elsewhere, clock), 10)(shared_difference) for _ in range(2))

    async def main() -> None:
        assert await asyncio.gather(here(3, 1), here(a=3, b=1)) == [2, 2]
        assert await here(3, 1) == 2
        assert await there(3, b=1) == 2

    asyncio.run(main())
    assert len(elsewhere.asked_by) == 3
    assert threading.main_thread().name not in elsewhere.asked_by
    assert counted(there.cache_info()) == {"hits": 1, "currsize": 1}
    assert counted(here.cache_info()) == {"hits": 1, "misses": 2, "joined": 1, "currsize": 1}


def test_clear_with_a_second_level(clock: Clock) -> None:
    """What this process knows of is deleted there, and what others have put there is not asked for any more."""
    elsewhere = Elsewhere(clock)
    here, there = (cache_result(two_level(elsewhere, clock), 10)(shared_sum) for _ in range(2))
    here(1), there(2)

    here.cache_clear()
    assert len(elsewhere.entries) == 1
    assert (here(1), here(2)) == (1, 2)
    assert here.cache_info().misses == 2


def test_stale_results_with_a_second_level(clock: Clock) -> None:
    """The refresh takes what another process has computed since."""
    elsewhere = Elsewhere(clock)
    here, there = (cache_result(two_level(elsewhere, clock), 10, stale=100)(shared_sum) for _ in range(2))
    here(1)
    clock.now += 11
    there(1)

    assert here(1) == 1
    until(lambda: not here.cache_info().in_flight)
    assert counted(here.cache_info()) == {"hits": 1, "misses": 1, "stale": 1, "refreshes": 1, "currsize": 1}
