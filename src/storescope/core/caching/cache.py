"""IntelligentCache: results by key, each for its time, in a bounded space."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Hashable
from threading import RLock
from typing import Any, Protocol, runtime_checkable

from storescope.core import checks, forks
from storescope.core.caching.counter import Counter
from storescope.core.caching.entries import Entries, Part
from storescope.core.caching.eviction import POLICIES, Entry
from storescope.core.caching.expiry import NEVER
from storescope.core.caching.weight import entry_size
from storescope.core.gil import has_gil
from storescope.core.stats import CacheStats


@runtime_checkable
class SecondLevel(Protocol):
    """A cache behind the cache, such as `RedisCache`: slower, larger, shared. It never raises for being away."""

    def get(self, key: Any) -> tuple[Any, float | None] | None:
        """Return a value and the seconds that it has left (None: no end), or None where there is none."""

    def set(self, key: Any, value: Any, ttl: float | None) -> None:
        """Keep a value for `ttl` seconds; None: for ever."""

    def delete(self, key: Any) -> bool:
        """Forget a key; returns whether it was there."""

    def clear(self) -> None:
        """Forget every key."""


class IntelligentCache:
    """Keep results for their time; when space runs out, give up what is least likely to be asked for again.

    Thread-safe. Every operation is O(1), and O(log n) where a time is noted; expired entries are taken out a few at a
    time, or all at once by what tells the size. Nothing blocks but a moment in which another thread changes the cache,
    and the I/O of `second_level`, which has a timeout of its own. Under the GIL a hit of the policy `lru` takes no
    lock: it is one look into a dict, which a key's Python code may interrupt, and one change of an order of entries,
    which nothing can, because no code of a key's runs there.

    A forked child goes on with its parent's entries; with none, if another thread was changing them at that moment.
    """

    def __init__(
        self,
        max_size: int | None = 1000,
        default_ttl: float | None = 300,
        *,
        max_bytes: int | None = None,
        weigher: Callable[[Any, Any], int] | None = None,
        policy: str = "lru",
        second_level: SecondLevel | None = None,
        clock: Callable[[], float] = time.monotonic,
        name: str = "cache",
    ) -> None:
        """Make a cache of `max_size` entries or `max_bytes` bytes, whichever is reached first; None: no such limit.

        `default_ttl` is in seconds, None: entries do not expire. `weigher(key, value)` returns the bytes of an entry
        and is called outside of all locks; by default they are estimated (`weight.entry_size`) where `max_bytes` is
        given. `policy` is `lru`, or `arc`, which scans do not sweep empty. TypeError and ValueError for what cannot be.
        """
        self._max_size: int | None = checks.optional(checks.whole, "max_size", max_size)
        self._max_bytes: int | None = checks.optional(checks.whole, "max_bytes", max_bytes)
        if max_size is None and max_bytes is None:
            raise ValueError("max_size and max_bytes must not both be None: a cache has a bound")
        self._default_ttl: float | None = checks.optional(checks.positive, "default_ttl", default_ttl)
        checks.optional(checks.function, "weigher", weigher)
        self._weigher = entry_size if weigher is None and max_bytes is not None else weigher
        self._policy = checks.one_of("policy", policy, tuple(POLICIES))
        if second_level is not None and not isinstance(second_level, SecondLevel):
            raise TypeError(f"second_level must have get, set, delete and clear, not {second_level!r}")
        self._second_level = second_level
        self._clock: Callable[[], float] = checks.function("clock", clock)
        self._name = checks.text("name", name)
        self._lock = RLock()  # a key's comparison, or the end of a value, may call the cache that runs it
        self._hits, self._misses = Counter(), Counter()
        self._count_hit = self._hits.add
        self._second_level_hits = self._stale_hits = self._late_hits = 0
        #: How often something was taken out on purpose.
        self._removals = 0
        self._unlocked = policy == "lru" and has_gil()
        self._part: Callable[[Hashable], Part | None]
        self._begin()
        forks.after_fork(self._in_child)

    def get(self, key: Hashable, default: Any = None) -> Any:
        """Return a key's value of the first level, else of the second, whose I/O this waits for, or `default`.

        A value that is None is a value. TypeError for a key that cannot be hashed.
        """
        part = self._only_part or self._part(key)
        if part is not None:
            try:
                entry = part.find(key)
            except TypeError:
                self._entries.part(key)  # tells what is wrong with a key that cannot be hashed
                raise
            if entry is not None and self._clock() < entry.fresh_until:
                try:  # noqa: SIM105 - suppress costs as much as a hit
                    part.touch(entry)
                except KeyError:
                    pass  # it was evicted just now, and is a hit all the same
                self._count_hit()
                return entry.value
        return self._get_locked(key, default)

    def get_local(self, key: Hashable, default: Any = None) -> Any:
        """Return a key's value of the first level, without any I/O, or `default`: the `get` for event loops.

        Where there is a second level, a miss here is not counted: the request is still to be answered by `get`.
        """
        if self._second_level is None:
            return self.get(key, default)
        entry = self._find_fresh(key)
        return default if entry is None else entry.value

    def get_stale(self, key: Hashable, default: Any = None) -> Any:
        """Return a key's value of the first level, also within the `stale` seconds after its time, or `default`.

        It is the second look of a request whose `get` has missed: what it gives makes that miss a hit.
        """
        with self._lock:
            entry = self._entries.find(key)
            now = self._now()
            if entry is None or now >= entry.kept_until:
                return default
            self._late_hits += 1
            self._stale_hits += now >= entry.fresh_until
            return entry.value

    def set(self, key: Hashable, value: Any, ttl: float | None = None, *, stale: float = 0.0) -> None:
        """Keep a value for `ttl` seconds (None: `default_ttl`; `math.inf`: without end), in both levels.

        For `stale` seconds after that `get_stale` still gives it. An entry heavier than `max_bytes` is not kept, and
        counts as evicted. TypeError and ValueError for what cannot be.
        """
        seconds = self._seconds(ttl)
        entry = self._entry(key, value, seconds, stale)
        if self._second_level is not None:
            self._entries.part(key)  # so that both refuse a key that cannot be hashed
            self._second_level.set(key, value, None if seconds == math.inf else seconds)
        self._put(entry)

    def set_local(self, key: Hashable, value: Any, ttl: float | None = None, *, stale: float = 0.0) -> None:
        """Do what `set` does in the first level only, without any I/O."""
        self._put(self._entry(key, value, self._seconds(ttl), stale))

    def invalidate(self, key: Hashable) -> bool:
        """Forget a key in both levels; returns whether either had it."""
        self._entries.part(key)  # so that both refuse a key that cannot be hashed
        # The second level first: what a reader took from it before this, it does not put into the first after it.
        found = self._second_level is not None and self._second_level.delete(key)
        with self._lock:
            self._removals += 1
            entry = self._entries.take(key, self._now())
        return found or entry is not None

    def clear(self) -> None:
        """Forget every key in both levels; what was counted stays."""
        if self._second_level is not None:
            self._second_level.clear()
        with self._lock:
            self._removals += 1
            left = self._entries.expire(self._now()), self._entries.clear()
        del left

    def __contains__(self, key: Hashable) -> bool:
        """Tell whether the first level has a key; this is no request, and no use of it."""
        with self._lock:
            entry = self._entries.find(key)
            return entry is not None and self._now() < entry.fresh_until

    def __len__(self) -> int:
        """Count the entries of the first level that have not expired, or are within their `stale` time."""
        return self.stats().size

    def __repr__(self) -> str:
        now = self.stats()
        size = f"{now.size}" if now.max_size is None else f"{now.size} of {now.max_size}"
        weight = "" if now.max_bytes is None else f", {now.bytes} of {now.max_bytes} bytes"
        requests = f"{now.hits} hits, {now.misses} misses"
        return f"<IntelligentCache {self._name!r} ({self._policy}): {size} entries{weight}, {requests}>"

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self._name

    @property
    def second_level(self) -> SecondLevel | None:
        """The cache behind this one."""
        return self._second_level

    @property
    def max_size(self) -> int | None:
        """How many entries it keeps at most."""
        return self._max_size

    @property
    def max_bytes(self) -> int | None:
        """How many bytes its entries have at most."""
        return self._max_bytes

    @property
    def default_ttl(self) -> float | None:
        """For how many seconds `set` keeps a value if it is not told otherwise."""
        return self._default_ttl

    @property
    def hit_count(self) -> int:
        """How many requests were answered."""
        with self._lock:
            return self._hits.read() + self._late_hits

    @property
    def miss_count(self) -> int:
        """How many requests were not."""
        with self._lock:
            return max(0, self._misses.read() - self._late_hits)

    def stats(self) -> CacheStats:
        """Return what it holds and what it did; what has expired leaves first."""
        with self._lock:
            left = self._entries.expire(self._now())
            stats = CacheStats(
                size=len(self._entries),
                max_size=self._max_size,
                bytes=self._entries.bytes,
                max_bytes=self._max_bytes,
                hits=self.hit_count,
                misses=self.miss_count,
                stale_hits=self._stale_hits,
                second_level_hits=self._second_level_hits,
                evicted_by_size=self._entries.by_size,
                evicted_by_ttl=self._entries.by_ttl,
                evicted_explicitly=self._entries.explicitly,
            )
        del left  # values end outside of the lock: what they do then may be anything
        return stats

    def get_stats(self) -> dict[str, Any]:
        """Return `stats()` as a dict with the guide's names; `usage_rate`, 0 to 1, is of the limit that is nearer."""
        stats = self.stats()
        figures = dataclasses.asdict(stats)
        limits = ((stats.size, stats.max_size), (stats.bytes, stats.max_bytes))
        return {
            "size": figures.pop("size"),
            "max_size": figures.pop("max_size"),
            "hit_count": figures.pop("hits"),
            "miss_count": figures.pop("misses"),
            "hit_rate": stats.hit_rate,
            "usage_rate": max(used / limit for used, limit in limits if limit is not None),
            **figures,
        }

    def _begin(self) -> None:
        self._entries = Entries(self._policy, self._max_size, self._max_bytes)
        self._part = self._entries.part if self._unlocked else _no_part
        parts = self._entries.parts
        #: It spares hits the way to the part, where there is one only, and they need no lock.
        self._only_part = parts[0] if self._unlocked and len(parts) == 1 else None

    def _get_locked(self, key: Hashable, default: Any) -> Any:
        entry = self._find_fresh(key)
        if entry is not None:
            return entry.value
        if self._second_level is not None:
            removals = self._removals
            found = self._second_level.get(key)
            if found is not None:
                self._take_over(key, *found, removals)
                with self._lock:
                    self._count_hit()
                    self._second_level_hits += 1
                return found[0]
        with self._lock:
            self._misses.add()
        return default

    def _find_fresh(self, key: Hashable) -> Entry | None:
        """Find an entry that is a hit, and count it as one."""
        with self._lock:
            entry = self._entries.find(key)
            if entry is None or self._now() >= entry.fresh_until:
                return None
            self._entries.touch(entry)
            self._count_hit()
            return entry

    def _take_over(self, key: Hashable, value: Any, remaining: float | None, removals: int) -> None:
        """Keep what the second level has given, unless the key was set, or anything was taken out, meanwhile."""
        if remaining is not None and remaining <= 0:
            return
        entry = self._entry(key, value, self._seconds(remaining), 0.0)
        with self._lock:
            known = self._entries.find(key)
            left = None
            now = self._now()
            if removals == self._removals and (known is None or known.fresh_until <= now):
                left = self._entries.put(entry, now)
        del left

    def _entry(self, key: Hashable, value: Any, seconds: float, stale: float) -> Entry:
        weight = 0
        if self._weigher is not None:
            weight = checks.whole("what weigher returns", self._weigher(key, value), 0)
        fresh_until = kept_until = self._now() + seconds
        if stale != 0:
            kept_until += checks.number("stale", stale)
        return Entry(key, value, fresh_until, kept_until, weight)

    def _put(self, entry: Entry) -> None:
        with self._lock:
            left = self._entries.put(entry, self._now())
        del left

    def _now(self) -> float:
        now = self._clock()
        if not -NEVER < now < NEVER:
            raise ValueError(f"what clock returns must be a number of seconds, not {now!r}")
        return now

    def _seconds(self, ttl: float | None) -> float:
        """Return how long to keep a value."""
        if ttl is None:
            ttl = self._default_ttl
            return math.inf if ttl is None else ttl
        return checks.positive("ttl", ttl)

    def _in_child(self) -> None:
        """Replace the lock, which a thread that is not in this child may hold for ever, in the middle of a change."""
        changing = not self._lock.acquire(blocking=False)
        self._lock = RLock()
        if changing:
            self._begin()


def _no_part(key: Hashable) -> Part | None:
    """Stand for a part where hits need the lock."""
    return None
