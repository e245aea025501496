"""IntelligentCache: what it keeps, for how long, what it gives up, and what it counts, under every policy."""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import signal
import sys
import threading
import time
import tracemalloc
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core import IntelligentCache
from storescope.core.caching.cache import SecondLevel
from storescope.core.caching.entries import PART_SIZE
from storescope.core.caching.eviction import ARC, POLICIES, Entry
from storescope.core.caching.expiry import Deadlines
from storescope.core.caching.weight import ENTRY_BYTES, entry_size, memory_size


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Twin:
    """A key that is compared by Python code, often in vain, and which a test may give something to do."""

    def __init__(self, name: str, then: Callable[[], Any] = lambda: None) -> None:
        self.name, self.then = name, then

    def __hash__(self) -> int:
        return len(self.name)

    def __eq__(self, other: object) -> bool:
        self.then()
        return isinstance(other, Twin) and self.name == other.name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=sorted(POLICIES))
def policy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(policy: str, clock: Clock) -> Callable[..., IntelligentCache]:
    """Make a cache of the policy, on the clock of the test."""

    def make(*args: Any, **options: Any) -> IntelligentCache:
        return IntelligentCache(*args, policy=policy, clock=clock, **options)

    return make


Make = Callable[..., IntelligentCache]


class TestValues:
    def test_what_is_set_is_got(self, make: Make) -> None:
        """A value comes back as the very object; what was never set gives None, or the default."""
        cache, value = make(), ["value"]
        cache.set("key", value)
        assert cache.get("key") is value
        assert cache.get("other") is None
        assert cache.get("other", "default") == "default"

    def test_none_is_a_value(self, make: Make) -> None:
        """None that was set is a hit, and is not taken for the default."""
        cache = make()
        cache.set("key", None)
        assert cache.get("key", "default") is None
        assert (cache.hit_count, cache.miss_count) == (1, 0)

    def test_a_key_has_its_last_value(self, make: Make) -> None:
        """Setting a key again replaces its value and begins its time anew."""
        cache = make(default_ttl=10)
        cache.set("key", 1)
        cache.set("key", 2, ttl=math.inf)
        assert (cache.get("key"), len(cache)) == (2, 1)

    @pytest.mark.parametrize("key", [("a", 1, None), b"a", 1.5, frozenset({1}), Twin("a"), object, len])
    def test_every_hashable_key_serves(self, make: Make, key: Any) -> None:
        """Keys of any type are found again, beside others."""
        cache = make()
        cache.set("other", 0)
        cache.set(key, 1)
        assert (cache.get(key), cache.get("other"), key in cache) == (1, 0, True)
        assert cache.invalidate(key)
        assert cache.get(key) is None

    def test_a_look_is_no_request(self, make: Make) -> None:
        """`in` counts nothing and makes nothing younger."""
        cache = make(max_size=2)
        cache.set("a", 1)
        cache.set("b", 2)
        assert "a" in cache
        assert "x" not in cache
        assert (cache.hit_count, cache.miss_count) == (0, 0)
        cache.set("c", 3)
        assert "a" not in cache


class TestTime:
    def test_an_entry_lasts_for_its_time(self, make: Make, clock: Clock) -> None:
        """It is a hit until its time to live is over, and not in that very moment; the default is five minutes."""
        cache = make()
        cache.set("short", 1, ttl=10)
        cache.set("usual", 2)
        clock.sleep(9.999)
        assert cache.get("short") == 1
        clock.sleep(0.001)
        assert cache.get("short") is None
        clock.sleep(289.9)
        assert cache.get("usual") == 2
        clock.sleep(0.1)
        assert cache.get("usual") is None

    def test_hits_do_not_lengthen_it(self, make: Make, clock: Clock) -> None:
        """An entry that is asked for all the time ends all the same."""
        cache = make(default_ttl=10)
        cache.set("key", 1)
        for _ in range(9):
            clock.sleep(1)
            assert cache.get("key") == 1
        clock.sleep(1)
        assert cache.get("key") is None

    @pytest.mark.parametrize("endless", [{"default_ttl": None}, {"default_ttl": math.inf}, {}])
    def test_an_entry_may_last_for_ever(self, make: Make, clock: Clock, endless: dict[str, Any]) -> None:
        """By the cache's default, or by its own time."""
        cache = make(**endless)
        cache.set("key", 1, ttl=None if endless else math.inf)
        clock.sleep(1e9)
        assert cache.get("key") == 1

    def test_expired_entries_leave_the_size(self, make: Make, clock: Clock) -> None:
        """Length, statistics and repr know nothing of what has expired, whether anybody asked for it or not."""
        cache = make(10)
        for index in range(10):
            cache.set(index, index, ttl=index + 1)
        clock.sleep(5)
        assert len(cache) == 5
        assert cache.stats().evicted_by_ttl == 5
        assert (cache.get_stats()["size"], cache.get_stats()["usage_rate"]) == (5, 0.5)
        assert ": 5 of 10 entries," in repr(cache)
        clock.sleep(5)
        assert len(cache) == 0
        assert cache.stats().evicted_by_size == 0

    def test_what_has_expired_makes_room_first(self, make: Make, clock: Clock) -> None:
        """A full cache gives up what nobody can get any more before what somebody can."""
        cache = make(3)
        cache.set("old", 1)
        cache.set("older", 2)
        cache.set("expired", 3, ttl=1)
        clock.sleep(1)
        cache.set("new", 4)
        assert all(key in cache for key in ("old", "older", "new"))
        assert (cache.stats().evicted_by_ttl, cache.stats().evicted_by_size) == (1, 0)

    def test_a_value_may_be_had_stale(self, make: Make, clock: Clock) -> None:
        """For `stale` seconds after its time `get_stale` gives what `get` does not; then nothing does."""
        cache = make()
        cache.set("key", 1, ttl=10, stale=5)
        cache.set("plain", 1, ttl=10)
        assert cache.get_stale("key") == 1
        clock.sleep(10)
        assert (cache.get("key"), cache.get_stale("key"), "key" in cache) == (None, 1, False)
        assert (cache.get_stale("plain"), cache.get_stale("other", 7)) == (None, 7)
        assert len(cache) == 1  # it takes up its place
        clock.sleep(5)
        assert cache.get_stale("key") is None
        assert len(cache) == 0

    def test_a_stale_answer_makes_the_miss_before_it_a_hit(self, make: Make, clock: Clock) -> None:
        """A request that looks twice is one request."""
        cache = make()
        cache.set("key", 1, ttl=10, stale=5)
        clock.sleep(10)
        assert cache.get("key") is None
        assert cache.get_stale("key") == 1
        assert cache.get("other") is None
        assert cache.get_stale("other") is None
        stats = cache.stats()
        assert (stats.hits, stats.stale_hits, stats.misses, stats.hit_rate) == (1, 1, 1, 0.5)

    @pytest.mark.parametrize("ttl", [1e20, 1e300, 1e305])
    def test_times_beyond_all_clocks(self, make: Make, clock: Clock, ttl: float) -> None:
        """They are as good as no end, and cost no other value."""
        cache = make(default_ttl=ttl)
        cache.set("key", 1)
        cache.set("key", 2, ttl)
        cache.set("other", 3, stale=ttl)
        clock.sleep(1e9)
        assert (cache.get("key"), cache.get("other"), len(cache)) == (2, 3, 2)

    @pytest.mark.parametrize("ttl", [0.1, 0.3, 1 / 3, 7, 1e-9])
    def test_a_miss_is_no_part_of_the_size(self, make: Make, clock: Clock, ttl: float) -> None:
        """In the very moment in which a time ends it has ended for `len` as well."""
        cache = make()
        clock.now = 1000.7
        cache.set("key", 1, ttl)
        clock.sleep(ttl)
        assert (cache.get("key"), len(cache)) == (None, 0)


class TestSpace:
    def test_the_size_is_bounded(self, make: Make) -> None:
        """However much is set, `max_size` entries are kept, and each that left is counted."""
        cache = make(max_size=7)
        for index in range(100):
            cache.set(index, index)
            assert cache.get(index) == index
        assert len(cache) == 7
        assert cache.stats().evicted_by_size == 93

    def test_overwriting_evicts_nothing(self, make: Make) -> None:
        """A full cache takes a new value for a key that it has without giving up another."""
        cache = make(max_size=2)
        cache.set("a", 1)
        cache.set("b", 2)
        cache.set("b", 3)
        cache.set("a", 4)
        assert (cache.get("a"), cache.get("b")) == (4, 3)
        assert cache.stats().evicted_by_size == 0

    def test_a_cache_of_one(self, make: Make) -> None:
        """The smallest one has the last entry."""
        cache = make(max_size=1)
        for index in (1, 2, 1, 2, 2):
            cache.set(index, index)
            assert (cache.get(index), len(cache)) == (index, 1)

    def test_bytes_are_bounded(self, make: Make) -> None:
        """As much as the weigher says fits into `max_bytes`, however many entries that is."""
        cache = make(max_size=None, max_bytes=100, weigher=lambda key, value: len(value))
        for index in range(50):
            cache.set(index, "x" * (index % 30))
            stats = cache.stats()
            assert stats.bytes <= 100
            assert index in cache
        cache.set("large", "x" * 100)
        assert (len(cache), cache.stats().bytes, cache.get_stats()["usage_rate"]) == (1, 100, 1.0)
        cache.clear()
        assert cache.stats().bytes == 0

    def test_what_is_too_heavy_is_not_kept(self, make: Make) -> None:
        """It evicts nothing but the former value of its own key, which is not true any more."""
        cache = make(max_bytes=100, weigher=lambda key, value: value)
        cache.set("a", 40)
        cache.set("b", 40)
        cache.set("b", 101)
        assert (cache.get("a"), cache.get("b")) == (40, None)
        assert cache.stats().evicted_by_size == 1

    def test_a_heavier_value_makes_others_leave(self, make: Make) -> None:
        """Overwriting does evict where the new value needs more room."""
        cache = make(max_bytes=100, weigher=lambda key, value: value)
        cache.set("a", 40)
        cache.set("b", 40)
        cache.set("b", 70)
        assert (cache.get("a"), cache.get("b"), cache.stats().bytes) == (None, 70, 70)

    def test_both_bounds_hold(self, make: Make) -> None:
        """Whichever is reached first counts, also for the rate of usage."""
        cache = make(max_size=10, max_bytes=100, weigher=lambda key, value: value)
        for index in range(10):
            cache.set(index, 2)
        assert cache.get_stats()["usage_rate"] == 1.0
        cache.set(11, 90)
        assert (cache.stats().bytes, len(cache)) == (100, 6)

    def test_the_default_weigher_estimates_memory(self, make: Make) -> None:
        """Text counts with its length, and even an entry of nothing has a weight."""
        cache = make(max_size=None, max_bytes=100_000)
        cache.set("key", "x" * 10_000)
        assert 10_000 < cache.stats().bytes < 11_000
        for index in range(10_000):
            cache.set(index, None)
        assert len(cache) < 250

    def test_large_caches_are_bounded_as_well(self, make: Make) -> None:
        """One that is kept in parts has exactly `max_size` entries, of the latest, whatever its keys' hashes are."""
        cache = make(max_size=4 * PART_SIZE)
        for index in range(5 * PART_SIZE):
            cache.set(index * 5, index)  # five parts: all of these keys belong to one
        assert len(cache) == 4 * PART_SIZE
        assert cache.stats().evicted_by_size == PART_SIZE
        for index in range(100):
            cache.set(f"key-{index}", index)
        assert len(cache) == 4 * PART_SIZE
        assert [cache.get(f"key-{index}") for index in range(100)] == list(range(100))


class TestRemoval:
    def test_a_key_can_be_forgotten(self, make: Make, clock: Clock) -> None:
        """`invalidate` says whether there was something; what has expired was not."""
        cache = make(max_bytes=10**6)
        cache.set("a", 1)
        cache.set("b", 2, ttl=1)
        clock.sleep(1)
        assert [cache.invalidate(key) for key in ("a", "a", "b", "x")] == [True, False, False, False]
        stats = cache.stats()
        assert (stats.size, stats.bytes, stats.evicted_explicitly, stats.evicted_by_ttl) == (0, 0, 1, 1)

    def test_all_can_be_forgotten(self, make: Make) -> None:
        """`clear` leaves nothing but what was counted, and the cache goes on."""
        cache = make(2)
        cache.set("a", 1)
        cache.set("b", 2)
        cache.get("a")
        cache.clear()
        assert (len(cache), cache.get("a"), cache.hit_count) == (0, None, 1)
        assert cache.stats().evicted_explicitly == 2
        cache.set("a", 3)
        assert cache.get("a") == 3

    def test_nothing_of_what_left_is_held(self, make: Make, clock: Clock) -> None:
        """Values that were evicted, overwritten, invalidated or have expired are free at once."""

        class Value:
            pass

        cache = make(max_size=2)
        references = []

        def put(key: str, **options: Any) -> None:
            value = Value()
            references.append(weakref.ref(value))
            cache.set(key, value, **options)

        put("overwritten")
        put("overwritten", ttl=1)
        clock.sleep(1)
        assert len(cache) == 0
        put("evicted")
        put("invalidated")
        put("cleared")
        cache.invalidate("invalidated")
        cache.clear()
        assert [reference() for reference in references] == [None] * 5


class TestStatistics:
    def test_the_guides_figures(self, make: Make) -> None:
        """`get_stats` has the guide's keys, which agree with `stats()`, the attributes and repr."""
        cache = make(max_size=4, name="results")
        cache.set("a", 1)
        for key in ("a", "a", "a", "x"):
            cache.get(key)
        figures = cache.get_stats()
        assert {key: figures[key] for key in ("size", "max_size", "hit_count", "miss_count")} == {
            "size": 1, "max_size": 4, "hit_count": 3, "miss_count": 1,
        }  # fmt: skip
        assert (figures["hit_rate"], figures["usage_rate"]) == (0.75, 0.25)
        assert (cache.hit_count, cache.miss_count, cache.stats().hit_rate) == (3, 1, 0.75)
        assert (cache.max_size, cache.max_bytes, cache.default_ttl, cache.name) == (4, None, 300, "results")
        assert repr(cache).startswith("<IntelligentCache 'results' (")
        assert repr(cache).endswith(": 1 of 4 entries, 3 hits, 1 misses>")

    def test_nothing_asked_is_no_rate(self, make: Make) -> None:
        """A cache that nobody has asked has a hit rate of 0."""
        assert make().get_stats()["hit_rate"] == 0


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"max_size": 0}, ValueError, "max_size must be 1 or more, not 0"),
    ({"max_size": True}, TypeError, "max_size must be an integer, not True"),
    ({"max_size": None}, ValueError, "max_size and max_bytes must not both be None"),
    ({"max_bytes": -1}, ValueError, "max_bytes must be 1 or more, not -1"),
    ({"max_bytes": 1.5}, TypeError, "max_bytes must be an integer, not 1.5"),
    ({"default_ttl": 0}, ValueError, "default_ttl must be above 0, not 0"),
    ({"default_ttl": math.nan}, ValueError, "default_ttl must be above 0, not nan"),
    ({"weigher": 1}, TypeError, "weigher must be callable, not 1"),
    ({"policy": "lfu"}, ValueError, "policy must be one of 'lru', 'arc', not 'lfu'"),
    ({"policy": []}, ValueError, r"policy must be one of 'lru', 'arc', not \[\]"),
    ({"second_level": {}}, TypeError, "second_level must have get, set, delete and clear, not {}"),
    ({"clock": 0.0}, TypeError, "clock must be callable, not 0.0"),
    ({"name": 1}, TypeError, "name must be "),
]


class TestBadInput:
    @pytest.mark.parametrize(("options", "error", "message"), BAD)
    def test_a_cache_that_cannot_be(
        self, options: dict[str, Any], error: type[Exception], message: str
    ) -> None:
        """Each argument is checked once, when the cache is made, and the error names it and its value."""
        with pytest.raises(error, match=message):
            IntelligentCache(**options)

    @pytest.mark.parametrize("ttl", [0, -1, math.nan, True, "10"])
    def test_times_that_cannot_be(self, make: Make, ttl: Any) -> None:
        """A time to live is a number above 0; nothing is kept, and nothing is lost, where it is none."""
        cache = make()
        cache.set("key", 1)
        with pytest.raises((TypeError, ValueError), match=f"ttl must be .*, not {ttl!r}"):
            cache.set("key", 2, ttl=ttl)
        assert cache.get("key") == 1

    @pytest.mark.parametrize("now", [math.nan, math.inf, -math.inf])
    def test_clocks_that_cannot_be(self, now: float) -> None:
        """A clock that does not tell the time is named."""
        cache = IntelligentCache(clock=lambda: now)
        for use in (lambda: cache.set("key", 1), lambda: len(cache), lambda: cache.invalidate("key")):
            with pytest.raises(
                ValueError, match=f"what clock returns must be a number of seconds, not {now}"
            ):
                use()

    @pytest.mark.parametrize("stale", [-1, math.nan, None, "10"])
    def test_stale_times_that_cannot_be(self, make: Make, stale: Any) -> None:
        """So is the stale time, which may be 0."""
        cache = make()
        with pytest.raises((TypeError, ValueError), match=f"stale must be .*, not {stale!r}"):
            cache.set("key", 2, stale=stale)
        assert "key" not in cache

    @pytest.mark.parametrize("use", ["get", "get_local", "get_stale", "invalidate", "__contains__"])
    @pytest.mark.parametrize("size", [10, 3 * PART_SIZE])
    def test_keys_that_cannot_be(self, make: Make, use: str, size: int) -> None:
        """What cannot be hashed is named."""
        cache = make(size)
        with pytest.raises(TypeError, match=r"key must be hashable, not \['a'\]"):
            getattr(cache, use)(["a"])
        with pytest.raises(TypeError, match=r"key must be hashable, not \['a'\]"):
            cache.set(["a"], 1)

    @pytest.mark.parametrize("weight", [-1, 1.5, None])
    def test_weights_that_cannot_be(self, make: Make, weight: Any) -> None:
        """A weigher has to return whole bytes."""
        cache = make(max_bytes=10, weigher=lambda key, value: weight)
        with pytest.raises((TypeError, ValueError), match=f"weigher returns must be .*, not {weight!r}"):
            cache.set("key", 1)
        assert len(cache) == 0


class TestReentrancy:
    def test_a_weigher_may_use_the_cache(self, make: Make) -> None:
        """It is called outside of all locks."""

        def weigh(key: Any, value: Any) -> int:
            if key != "inner" and "inner" not in cache:
                cache.set("inner", 1)
            return 1

        cache = make(max_size=2, max_bytes=10, weigher=weigh)
        cache.set("key", 1)
        assert (cache.get("key"), cache.get("inner"), cache.stats().bytes) == (1, 1, 2)

    def test_a_comparison_may_use_the_cache(self, make: Make) -> None:
        """Keys whose `__eq__` sets, gets and forgets other keys get along, and the bounds hold."""
        cache = make(max_size=3, max_bytes=100, weigher=lambda key, value: 1)
        turns = iter(range(10**6))

        def meddle() -> None:
            turn = next(turns)
            if turn % 3 == 0:
                cache.set(f"inner-{turn % 5}", turn)
                cache.get("inner-1")
                cache.invalidate("inner-2")

        for index in range(50):
            cache.set(Twin(str(index % 5), meddle), index)
            assert cache.get(Twin(str(index % 5))) in {None, index}
            assert len(cache) <= 3
        cache.clear()
        assert (len(cache), cache.stats().bytes) == (0, 0)

    @pytest.mark.parametrize("act", ["clear", "invalidate", "set"])
    @pytest.mark.parametrize("turn", range(6))
    @pytest.mark.parametrize("max_size", [1, 2])
    def test_a_comparison_may_clear_the_cache(self, make: Make, act: str, turn: int, max_size: int) -> None:
        """At whichever comparison, what was set is there afterwards, and the cache goes on as before."""
        cache, turns = make(max_size, max_bytes=100, weigher=lambda key, value: 1), iter(range(10**6))
        actions = {
            "clear": cache.clear,
            "invalidate": lambda: cache.invalidate(quiet[0]),
            "set": lambda: cache.set_local(quiet[1], "inner"),
        }

        def meddle() -> None:
            if next(turns, None) == turn:
                actions[act]()

        quiet, keys = [Twin("a"), Twin("b")], [Twin(name, meddle) for name in "abca"]
        for number, key in enumerate(keys):
            cache.set(key, number)
        turns = iter([])
        found = sum(cache.get(Twin(name)) is not None for name in "abc")
        assert len(cache) == cache.stats().bytes == found <= max_size
        for number in range(3):
            cache.set(f"later-{number}", number)
        assert cache.get("later-2") == 2
        assert len(cache) == max_size
        cache.clear()
        assert (len(cache), cache.stats().bytes) == (0, 0)

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no interval timers")
    @pytest.mark.parametrize("size", [3, 100])
    def test_a_signal_handler_may_use_the_cache(self, policy: str, size: int) -> None:
        """Whatever it does in the middle of a change, nothing raises, and the counts are right afterwards."""
        cache = IntelligentCache(size, 0.002, max_bytes=10**6, weigher=lambda key, value: 1, policy=policy)
        turns = iter(range(10**9))

        def handle(*_: object) -> None:
            turn = next(turns)
            for index in range(8):
                cache.set(f"key-{(turn + index) % 300}", index, ttl=None if index % 2 else 0.0005)
                cache.get(f"key-{(turn * 3 + index) % 300}")
            cache.invalidate(f"key-{turn % 300}")
            if turn % 5 == 0:
                cache.clear()

        before = signal.signal(signal.SIGALRM, handle)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
            until = time.monotonic() + 0.3
            while time.monotonic() < until:
                for index in range(300):
                    cache.set(f"key-{index}", index)
                    cache.get(f"key-{index // 2}")
                cache.clear()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert next(turns) > 20
        cache.clear()
        assert (len(cache), cache.stats().bytes) == (0, 0)
        for index in range(2 * size):
            cache.set(f"key-{index}", index, ttl=60)
        assert len(cache) == cache.stats().bytes == size
        assert sum(f"key-{index}" in cache for index in range(2 * size)) == size

    def test_the_end_of_a_value_may_use_the_cache(self, make: Make) -> None:
        """A value that says goodbye by the cache itself does so when it is evicted."""
        cache = make(max_size=1)

        class Value:
            def __del__(self) -> None:
                ended.append(len(cache))

        ended: list[int] = []
        cache.set("a", Value())
        cache.set("b", 1)
        assert ended == [1]

    def test_the_garbage_collector_may_come_at_any_time(self, make: Make) -> None:
        """Objects that invalidate their key when they are collected do not block the thread that is in the cache."""
        cache = make(max_size=50)

        class Owner:
            def __init__(self, key: int) -> None:
                self.itself = self
                weakref.finalize(self, cache.invalidate, key)

        before = gc.get_threshold()
        gc.set_threshold(5)
        try:
            for index in range(2000):
                Owner(index - 10)
                cache.set(index, [index])
        finally:
            gc.set_threshold(*before)
        gc.collect()
        assert len(cache) <= 50


# A simple model to compare with

KEYS = st.integers(0, 7)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), KEYS, st.sampled_from([None, 1, 3, 10, math.inf])),
        st.tuples(st.just("get"), KEYS, st.none()),
        st.tuples(st.just("invalidate"), KEYS, st.none()),
        st.tuples(st.just("sleep"), st.sampled_from([0.5, 1, 4]), st.none()),
        st.tuples(st.just("clear"), st.none(), st.none()),
    ),
    max_size=60,
)


class Model:
    """A list of what was used, the oldest first: an LRU cache that anyone can check."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self.entries: list[tuple[Any, Any, float]] = []

    def live(self, now: float) -> dict[Any, Any]:
        self.entries = [entry for entry in self.entries if entry[2] > now]
        return {key: value for key, value, _ in self.entries}

    def use(self, key: Any, entry: tuple[Any, Any, float] | None = None) -> None:
        found = [each for each in self.entries if each[0] == key]
        self.entries = [each for each in self.entries if each[0] != key]
        self.entries += [entry] if entry else found
        self.entries = self.entries[-self.max_size :]


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 5), OPERATIONS)
def test_lru_is_a_list_of_what_was_used(max_size: int, operations: list[tuple[Any, ...]]) -> None:
    """Every answer, the order of eviction and the size are those of a model that looks at all of its entries."""
    clock, model = Clock(), Model(max_size)
    cache = IntelligentCache(max_size, 5, clock=clock)
    for serial, (operation, key, ttl) in enumerate(operations):
        known = model.live(clock.now)
        if operation == "set":
            cache.set(key, serial, ttl)
            model.use(key, (key, serial, clock.now + (5 if ttl is None else ttl)))
        elif operation == "get":
            assert cache.get(key, "nothing") == known.get(key, "nothing")
            model.use(key)
        elif operation == "invalidate":
            assert cache.invalidate(key) == (key in known)
            model.entries = [entry for entry in model.entries if entry[0] != key]
        elif operation == "sleep":
            clock.sleep(key)
        else:
            cache.clear()
            model.entries = []
        assert {key for key in range(8) if key in cache} == set(model.live(clock.now))
        assert len(cache) == len(model.entries)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(POLICIES)), st.integers(1, 5), st.integers(5, 20), OPERATIONS)
def test_every_policy_keeps_its_promises(
    policy: str, max_size: int, max_bytes: int, operations: list[tuple[Any, ...]]
) -> None:
    """No value is wrong or too old, both bounds hold, and of what was put in it is known where it went."""
    clock, truth = Clock(), dict[Any, tuple[Any, float]]()
    cache = IntelligentCache(
        max_size, 5, max_bytes=max_bytes, weigher=lambda key, value: key, policy=policy, clock=clock
    )
    sets = overwritten = hits = misses = 0
    for serial, (operation, key, ttl) in enumerate(operations):
        if operation == "set":
            overwritten += key in cache
            cache.set(key, serial, ttl)
            truth[key] = serial, clock.now + (5 if ttl is None else ttl)
            sets += 1
            assert (key in cache) == (key <= max_bytes)
        elif operation == "get":
            answer = cache.get(key)
            hits, misses = hits + (answer is not None), misses + (answer is None)
            assert answer is None or (answer == truth[key][0] and clock.now < truth[key][1])
        elif operation == "invalidate":
            cache.invalidate(key)
            assert key not in cache
        elif operation == "sleep":
            clock.sleep(key)
        else:
            cache.clear()
        stats = cache.stats()
        assert stats.size == sum(key in cache for key in range(8)) <= max_size
        assert stats.bytes == sum(key for key in range(8) if key in cache) <= max_bytes
        assert sets == (
            stats.size + overwritten + stats.evicted_by_size + stats.evicted_by_ttl + stats.evicted_explicitly
        )
        assert (stats.hits, stats.misses) == (hits, misses)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 30)),
            st.tuples(st.just("drop"), st.integers(0, 400)),
            st.tuples(st.just("due"), st.integers(0, 3)),
        ),
        max_size=400,
    )
)
def test_deadlines_come_up_in_time(operations: list[tuple[str, int]]) -> None:
    """What is due is exactly what was added, not dropped, and is over; dropped ones do not pile up."""
    deadlines: Deadlines[tuple[int, float]] = Deadlines()
    waiting: dict[int, tuple[int, float]] = {}
    now = 0.0
    for serial, (operation, number) in enumerate(operations):
        if operation == "add":
            what = serial, now + number / 3
            waiting[deadlines.add(what[1], what)] = what
        elif operation == "drop" and waiting:
            handle = list(waiting)[number % len(waiting)]
            del waiting[handle]
            deadlines.drop(handle)
            deadlines.drop(handle)
        elif operation == "due":
            now += number
            over = {handle: what for handle, what in waiting.items() if what[1] <= now}
            assert sorted(deadlines.due(now)) == sorted(over.values())
            waiting = {handle: what for handle, what in waiting.items() if handle not in over}


def test_dropped_deadlines_do_not_pile_up() -> None:
    """A cache that evicts for ever keeps a few numbers for each entry, and no add takes long to see to that."""
    deadlines: Deadlines[int] = Deadlines()
    handles = [deadlines.add(1e6 + index, index) for index in range(1000)]
    for index in range(1000, 100_000):
        handles.append(deadlines.add(1e6 + index, index))
        deadlines.drop(handles[index - 1000])
        assert len(deadlines._heap) + len(deadlines._former) < 4500
    assert sorted(deadlines.due(1e9)) == list(range(99_000, 100_000))


def test_arc_survives_a_scan() -> None:
    """What was used twice is still there after a thousand keys that are used once; LRU has none of it left."""
    kept = {}
    for policy in POLICIES:
        cache = IntelligentCache(100, policy=policy)
        for _ in range(2):
            for key in range(50):
                cache.get(key)
                cache.set(key, key)
        for key in range(1000, 2000):
            cache.set(key, key)
        kept[policy] = sum(key in cache for key in range(50))
    assert kept == {"lru": 0, "arc": 50}


def test_arc_remembers_as_many_keys_as_it_has_entries() -> None:
    """The keys of what left are bounded, whatever comes."""
    policy = ARC()
    held: dict[int, Entry] = {}
    for index in range(10_000):
        key = index * index % 1009
        if key in held:
            policy.touch(held[key])
            continue
        if len(policy) == 100:
            del held[cast("int", policy.evict().key)]
        held[key] = Entry(key, None, 1.0, 1.0, 0)
        policy.add(held[key], again=False)
        assert len(policy._gone_once) + len(policy._gone_often) <= 101
    assert len(policy) == len(held) == 100


# Threads

READERS, WRITERS = 3, 2


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Have threads switch wherever they can."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switches")
@pytest.mark.parametrize(("key", "turns"), [(str, 6000), (Twin, 800)], ids=["c", "python"])
@pytest.mark.parametrize("gil", [True, False])
def test_hits_against_evicting_sets(
    policy: str, key: Callable[[str], Any], turns: int, gil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of threads that hit while others evict, none sees an exception or a wrong value, and every count is exact.

    So it is with keys that are compared in C and in Python, and with the lock of builds without a GIL.
    """
    if not gil:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    cache = IntelligentCache(32, policy=policy)
    progress = [0] * WRITERS
    working = list(range(WRITERS))

    def write(writer: int) -> None:
        for turn in range(turns):
            cache.set(key(f"{writer}-{turn}"), turn, ttl=1e-6 if turn % 7 == 0 else 100)
            progress[writer] = turn
            if turn % 5 == 0:
                cache.invalidate(key(f"{writer}-{turn - 3}"))
            if turn % 500 == 499:
                cache.clear()
        working.remove(writer)

    def read(reader: int) -> tuple[int, int]:
        asked = answered = 0
        while working:
            writer = (reader + asked) % WRITERS
            turn = progress[writer] - asked % 20
            value = cache.get(key(f"{writer}-{turn}"))
            assert value in {None, turn}
            asked, answered = asked + 1, answered + (value is not None)
        return asked, answered

    with ThreadPoolExecutor(READERS + WRITERS) as threads:
        reads = [threads.submit(read, number) for number in range(READERS)]
        for written in [threads.submit(write, number) for number in range(WRITERS)]:
            written.result()
        asked, answered = map(sum, zip(*(each.result() for each in reads), strict=True))
    stats = cache.stats()
    assert answered > 0
    assert (stats.hits, stats.misses) == (answered, asked - answered)
    left = stats.evicted_by_size + stats.evicted_by_ttl + stats.evicted_explicitly
    assert stats.size + left == WRITERS * turns
    assert stats.size <= 32


# Fork


def in_child(check: Callable[[], object]) -> bool:
    """Tell whether a check holds in a forked child, which has two seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # 3.12 and newer say that forking with threads is unwise
        child = os.fork()
    if child == 0:
        signal.alarm(2)
        os._exit(0 if check() else 1)
    return os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
class TestFork:
    def test_a_child_goes_on_with_what_is_there(self, make: Make) -> None:
        """It has its parent's entries and counts, and its own changes are its own."""
        cache = make(2)
        cache.set("a", 1)
        cache.get("a")

        def check() -> bool:
            cache.set("b", 2)
            return (cache.get("a"), cache.get("b"), len(cache), cache.hit_count) == (1, 2, 2, 3)

        assert in_child(check)
        assert (len(cache), cache.hit_count) == (1, 1)

    def test_a_child_does_not_wait_for_threads_of_its_parent(self, make: Make) -> None:
        """If one was changing the cache at the fork, the child begins with an empty one."""
        inside, leave = threading.Event(), threading.Event()

        def linger() -> None:
            inside.set()
            leave.wait(10)

        cache = make(10)
        cache.set(Twin("a", linger), 1)
        changing = threading.Thread(target=lambda: cache.set(Twin("b"), 2))
        changing.start()
        try:
            assert inside.wait(10)

            def check() -> bool:
                empty = cache.get("c", "default") == "default" and len(cache) == 0
                cache.set("c", 3)
                return empty and cache.get("c") == 3

            assert in_child(check)
        finally:
            leave.set()
            changing.join()
        assert len(cache) == 2


# A second level


class Shared:
    """A second level in a dict; `then` runs between its answer and its caller."""

    def __init__(self) -> None:
        self.values: dict[Any, tuple[Any, float | None]] = {}
        self.then: Callable[[], Any] = lambda: None
        self.asked = 0

    def get(self, key: Any) -> tuple[Any, float | None] | None:
        self.asked += 1
        found = self.values.get(key)
        self.then()
        return found

    def set(self, key: Any, value: Any, ttl: float | None) -> None:
        self.values[key] = value, ttl

    def delete(self, key: Any) -> bool:
        return self.values.pop(key, None) is not None

    def clear(self) -> None:
        self.values.clear()


class TestSecondLevel:
    @pytest.fixture
    def shared(self) -> Shared:
        return Shared()

    def test_it_is_one(self, shared: Shared) -> None:
        """Whatever has the four methods is a second level."""
        assert isinstance(shared, SecondLevel)
        assert IntelligentCache(second_level=shared).second_level is shared

    def test_values_go_to_both(self, make: Make, shared: Shared) -> None:
        """With their time; the local face keeps to the first."""
        cache = make(second_level=shared)
        cache.set("a", 1)
        cache.set("b", 2, ttl=7)
        cache.set("c", 3, ttl=math.inf)
        cache.set_local("d", 4)
        assert shared.values == {"a": (1, 300), "b": (2, 7), "c": (3, None)}
        assert [cache.get_local(key) for key in "abcd"] == [1, 2, 3, 4]
        assert shared.asked == 0

    def test_what_the_first_has_not_the_second_may_have(
        self, make: Make, shared: Shared, clock: Clock
    ) -> None:
        """Its answer is a hit, and is kept in the first for the seconds that it has left, or for the default."""
        cache = make(second_level=shared)
        shared.values = {"a": (None, 10.0), "b": (2, None), "gone": (3, 0.0)}
        assert cache.get_local("a", "default") == "default"
        assert [cache.get(key, "default") for key in ("a", "b", "gone", "x")] == [None, 2, 3, "default"]
        stats = cache.stats()
        assert (stats.hits, stats.second_level_hits, stats.misses, stats.size) == (3, 3, 1, 2)
        clock.sleep(9)
        assert cache.get_local("a", "default") is None
        clock.sleep(1)
        assert cache.get_local("a", "default") == "default"
        clock.sleep(289)
        assert cache.get_local("b") == 2
        clock.sleep(1)
        assert cache.get_local("b") is None

    def test_both_forget(self, make: Make, shared: Shared) -> None:
        """`invalidate` and `clear` reach both; either having had it is enough."""
        cache = make(second_level=shared)
        cache.set("a", 1)
        cache.set_local("b", 2)
        shared.set("c", 3, None)
        assert [cache.invalidate(key) for key in "abcx"] == [True, True, True, False]
        cache.set("a", 1)
        cache.clear()
        assert (shared.values, len(cache)) == ({}, 0)

    @pytest.mark.parametrize("removal", ["invalidate", "clear"])
    def test_what_was_forgotten_meanwhile_does_not_come_back(
        self, make: Make, shared: Shared, removal: str
    ) -> None:
        """A reader that has an answer in its hands does not keep it after it was invalidated."""
        cache = make(second_level=shared)
        shared.set("a", 1, None)
        shared.then = (lambda: cache.invalidate("a")) if removal == "invalidate" else cache.clear
        assert cache.get("a") == 1
        assert "a" not in cache

    def test_what_was_set_meanwhile_stays(self, make: Make, shared: Shared) -> None:
        """Nor does it put what it has over a newer value."""
        cache = make(second_level=shared)
        shared.set("a", 1, None)
        shared.then = lambda: cache.set("a", 2)
        assert cache.get("a") == 1
        assert cache.get_local("a") == 2


# Weights


def test_memory_is_estimated() -> None:
    """What is held counts, once; classes and modules do not; the rest of a large value is reckoned."""

    class Result:
        def __init__(self, text: str) -> None:
            self.text = text
            self.itself = self
            self.kind = Result

    text = "x" * 1000
    assert 1000 < memory_size(text) < 1100
    assert 1000 < memory_size([text, text, {"text": text}, {text}, (text,)]) < 2000
    assert 1000 < memory_size(Result(text)) < 1700
    assert memory_size(sys) == 0
    large = [str(number) * 100 for number in range(3000)]
    assert memory_size(large, max_parts=300) == pytest.approx(memory_size(large), rel=0.2)
    assert entry_size("", None) > ENTRY_BYTES


@dataclasses.dataclass(slots=True)
class Slotted:
    __part: object
    never_set: object = dataclasses.field(init=False)


class Below(Slotted):
    pass


class Struct(msgspec.Struct):
    part: object


class Hostile:
    """Raises wherever it is looked into."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(name)

    def __sizeof__(self) -> int:
        raise RuntimeError("size")


@pytest.mark.parametrize(
    "hold", [Slotted, Below, Struct, lambda part: deque([part]), lambda part: [Hostile(), part]]
)
def test_whatever_holds_a_value_is_as_heavy(hold: Callable[[object], object]) -> None:
    """`max_bytes` is a bound for slotted classes, structs and deques as well, and for what cannot be looked into."""
    assert 100_000 < memory_size(hold("x" * 100_000)) < 102_000
    cache = IntelligentCache(max_bytes=50_000)
    cache.set("key", hold("x" * 100_000))
    cache.set("hostile", Hostile())
    assert ("key" in cache, "hostile" in cache) == (False, True)


def test_an_entry_takes_about_what_the_weigher_adds() -> None:
    """The fixed part is what a cache of nothing takes that was full for a while, within a quarter."""
    keys = list(range(15_000))
    tracemalloc.start()
    try:
        cache = IntelligentCache(5000)
        for key in keys:
            cache.set(key, None)
        measured = tracemalloc.get_traced_memory()[0] / 5000
    finally:
        tracemalloc.stop()
    assert measured == pytest.approx(ENTRY_BYTES, rel=0.25)


def test_the_worst_set_is_no_scan() -> None:
    """At 100,000 entries no set takes as long as looking at all of them, evictions and expiries included."""
    cache = IntelligentCache(100_000, 1e9)
    for number in range(100_000):
        cache.set(number, None)
    gc.disable()
    try:
        began = time.thread_time()
        longest = 0.0
        for number in range(100_000, 150_000):
            cache.set(number, None, ttl=1e-9)
            ended = time.thread_time()
            longest, began = max(longest, ended - began), ended
    finally:
        gc.enable()
    assert longest < 0.05
