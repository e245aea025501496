"""What `cache_result` knows of one function: its keys, its calls under way, its counts."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, NamedTuple

from storescope.core.caching.cache import IntelligentCache
from storescope.core.caching.call_key import KeyFunction, compile_key, freeze
from storescope.core.caching.counter import Counter
from storescope.core.caching.single_flight import AsyncSingleFlight, SingleFlight
from storescope.core.forks import after_fork
from storescope.core.gil import has_gil
from storescope.core.payloads.keys import stable_key

MISSING: Final = object()

#: What can be read once, so that it is for one caller.
_READ_ONCE: Final = (Awaitable, Iterator, AsyncIterator)

_logger: Final = logging.getLogger("storescope.core")
#: Seconds: as good as no time to live, which no cache takes.
_AT_ONCE: Final = 1e-9
#: One for each decorated function, and for each `cache_clear`: the first item of its keys in this process.
_generations: Final = count()


class Call(NamedTuple):
    """One call of a function that the first level has no answer for."""

    key: Hashable
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What `cache_result` did for one function; the first four are those of `functools.lru_cache`."""

    #: Calls answered with a kept result.
    hits: int
    #: Calls that were computed, or joined one that was.
    misses: int
    #: Entries that the cache keeps at most, of all functions that share it.
    maxsize: int | None
    #: Entries of this function that the first level has, those that are only `stale` left out.
    currsize: int
    #: Of the misses, those that got the result of a call that was under way.
    joined: int
    #: Of the hits, those whose result had expired.
    stale: int
    #: Refreshes that stale hits began, and how many of them failed.
    refreshes: int
    refresh_errors: int
    #: Calls whose arguments have no key, or whose result can be read once; neither hits nor misses.
    uncached: int
    #: Computations under way now.
    in_flight: int


#: Those of its figures that are added up.
_COUNTED: Final = ("hits", "misses", "joined", "stale", "refreshes", "refresh_errors", "uncached")


class Memo:
    """The results of one function in a cache without a second level."""

    def __init__(
        self,
        function: Callable[..., Any],
        cache: IntelligentCache,
        ttl: float | None,
        key_func: Callable[..., Any] | None,
        stale: float,
        name: str | None,
        is_async: bool,
    ) -> None:
        self.function = function
        self.cache = cache
        self.name = name or _full_name(function)
        #: What may come of making a key, and stands for "no key"; what a `key_func` raises is the caller's to see.
        self.keyless: tuple[type[Exception], ...] = (Exception,) if key_func is None else ()
        self._bind = self._key_maker(key_func)
        self.key = self._bind(self._first_generation())
        self._ttl, self._stale = ttl, stale
        self._flights: Any = self._make_flights(is_async)
        self._compute = self._compute_async if is_async else self._compute_now
        self._known = _KnownKeys(cache)
        self._hits = Counter()
        self.count_hit = self._hits.add if has_gil() else self._count_hit_locked
        self._hits_cleared = 0
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._renew_lock()
        after_fork(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    # What the levels of the cache make different

    @property
    def look_up(self) -> Callable[[Any, Any], Any]:
        """What asks the first level."""
        return self.cache.get

    def _first_generation(self) -> Hashable:
        return next(_generations)

    def _next_generation(self) -> Hashable:
        return next(_generations)

    def _key_maker(self, key_func: Callable[..., Any] | None) -> Callable[[Hashable], KeyFunction]:
        if key_func is None:
            return compile_key(self.function)
        return lambda first: lambda *args, **kwargs: (first, freeze(key_func(*args, **kwargs)))

    def _make_flights(self, is_async: bool) -> SingleFlight | AsyncSingleFlight:
        return AsyncSingleFlight(name=self.name) if is_async else SingleFlight(name=self.name)

    def _find(self, key: Hashable) -> Any:
        """Look once more: whoever computed it may have ended since this call looked."""
        return self.cache.get_stale(key, MISSING) if key in self.cache else MISSING

    async def _find_async(self, key: Hashable) -> Any:
        return self._find(key)

    def _keep(self, key: Hashable, value: Any) -> None:
        self.cache.set(key, value, self._ttl, stale=self._stale)

    def _forget(self, key: Hashable) -> bool:
        return self.cache.invalidate(key)

    # Calls

    def run(self, call: Call) -> Any:
        """Answer a call that the first level has no fresh result for."""
        value = self._answer_stale(call)
        if value is not MISSING:
            return value
        computed, joined = self._flights.run(call.key, *self._work(call))
        if isinstance(computed[0], _READ_ONCE):
            self._count_read_once()
            return self.function(*call.args, **call.kwargs) if joined else computed[0]
        return self._settle(computed, joined)

    async def run_async(self, call: Call) -> Any:
        """Do the same for a coroutine function."""
        value = self._answer_stale(call)
        if value is not MISSING:
            return value
        computed, joined = await self._flights.run(call.key, *self._work(call))
        if isinstance(computed[0], _READ_ONCE):
            self._count_read_once()
            return await self.function(*call.args, **call.kwargs) if joined else computed[0]
        return self._settle(computed, joined)

    def _answer_stale(self, call: Call) -> Any:
        """Return an expired result that may still be given, having its refresh begun; else count a miss."""
        value = self.cache.get_stale(call.key, MISSING) if self._stale else MISSING
        if value is MISSING:
            self._count("misses")
        else:
            self._count("hits", "stale")
            if self._flights.start(call.key, *self._work(call), failed=self._refresh_failed):
                self._count("refreshes")
        return value

    def _work(self, call: Call) -> tuple[Callable[[], Any], Callable[[Any], None]]:
        return partial(self._compute, call), partial(self._store, call.key)

    def _compute_now(self, call: Call) -> tuple[Any, bool]:
        """Return a result and whether it is a new one."""
        found = self._find(call.key)
        return (self.function(*call.args, **call.kwargs), True) if found is MISSING else (found, False)

    async def _compute_async(self, call: Call) -> tuple[Any, bool]:
        found = await self._find_async(call.key)
        return (await self.function(*call.args, **call.kwargs), True) if found is MISSING else (found, False)

    def _store(self, key: Hashable, computed: tuple[Any, bool]) -> None:
        value, is_new = computed
        if isinstance(value, _READ_ONCE):
            return
        if is_new:
            self._keep(key, value)
        self._known.add(key)

    def _settle(self, computed: tuple[Any, bool], joined: bool) -> Any:
        """Count what came of a call that was counted as a miss, and return its result."""
        value, is_new = computed
        if joined:
            self._count("joined")
        elif not is_new:
            self._count("hits")
            self._count("misses", by=-1)
        return value

    def _refresh_failed(self, error: BaseException) -> None:
        self._count("refresh_errors")
        _logger.debug("%s: a refresh failed, the old result stays", self.name, exc_info=error)

    # What the decorated function has

    def invalidate(self, /, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of a call, also of one that is under way; returns whether there was one.

        TypeError where the call does not fit the function or its arguments have no key.
        """
        key = self.key(*args, **kwargs)
        self._flights.forget(key)
        return self._forget(key)

    def clear(self) -> None:
        """Forget the results of this function, also of calls that are under way, and what was counted.

        With a second level: all that this process knows of are deleted there, and it no longer asks for others.
        """
        self.key = self._bind(self._next_generation())
        self._flights.forget_all()
        for key in self._known.clear():
            self._forget(key)
        with self._lock:
            self._hits_cleared = self._hits.read()
            self._counts = dict.fromkeys(self._counts, 0)

    def info(self) -> CacheInfo:
        """Return what was counted since the decoration or the last `cache_clear`; takes O(currsize)."""
        with self._lock:
            counts = dict(self._counts)
            counts["hits"] += self._hits.read() - self._hits_cleared
        sizes = {"currsize": len(self._known), "in_flight": len(self._flights)}
        return CacheInfo(maxsize=self.cache.max_size, **sizes, **counts)

    def count_uncached(self) -> None:
        """Count a call without a key."""
        self._count("uncached")

    def _count_read_once(self) -> None:
        self._count("misses", by=-1)
        self._count("uncached")

    def _count(self, *names: str, by: int = 1) -> None:
        with self._lock:
            for name in names:
                self._counts[name] += by

    def _count_hit_locked(self) -> None:
        with self._lock:
            self._hits.add()


class SharedMemo(Memo):
    """The results of one function in a cache with a second level, under keys that are the same in every process."""

    def __init__(self, function: Callable[..., Any], cache: IntelligentCache, *options: Any) -> None:
        super().__init__(function, cache, *options)
        *_, name, _ = options
        if name is None and not _has_stable_name(function):
            raise ValueError(
                f"name must be given for {self.name}: the second level of {cache.name!r} needs one that is the same "
                "in every process"
            )

    @property
    def look_up(self) -> Callable[[Any, Any], Any]:
        """What asks the first level."""
        return self.cache.get_local

    def _first_generation(self) -> Hashable:
        return self.name, ""

    def _next_generation(self) -> Hashable:
        return self.name, uuid.uuid4().hex

    def _key_maker(self, key_func: Callable[..., Any] | None) -> Callable[[Hashable], KeyFunction]:
        """Make keys of bytes where the arguments allow it, else those of this process alone."""
        in_process = super()._key_maker(key_func)
        if key_func is None:
            items = compile_key(self.function, frozen=False)
        else:
            items = lambda first: lambda *args, **kwargs: (first, key_func(*args, **kwargs))  # noqa: E731

        def bind(first: Hashable) -> Any:
            key_items, key_in_process = items(first), in_process(first)

            def key(*args: Any, **kwargs: Any) -> Hashable:
                values = key_items(*args, **kwargs)
                try:
                    return stable_key(*values)
                except (TypeError, ValueError):
                    return key_in_process(*args, **kwargs)

            return key

        return bind

    def _make_flights(self, is_async: bool) -> SingleFlight | AsyncSingleFlight:
        if is_async:
            return AsyncSingleFlight(name=self.name, blocking_store=True)
        return SingleFlight(name=self.name)

    def _find(self, key: Hashable) -> Any:
        return self.cache.get(key, MISSING) if type(key) is bytes else super()._find(key)

    async def _find_async(self, key: Hashable) -> Any:
        return await asyncio.to_thread(self._find, key) if type(key) is bytes else self._find(key)

    def _keep(self, key: Hashable, value: Any) -> None:
        if type(key) is bytes:
            try:
                self.cache.set(key, value, self._ttl, stale=self._stale)
            except TypeError:
                pass  # it has no form that every process has
            else:
                return
        self.cache.set_local(key, value, self._ttl, stale=self._stale)

    def _forget(self, key: Hashable) -> bool:
        if type(key) is bytes:
            return super()._forget(key)
        # The second level would refuse such a key: what is there is replaced by nothing, which ends at once.
        known = key in self.cache
        self.cache.set_local(key, MISSING, _AT_ONCE)
        return known


class _KnownKeys:
    """The keys that a function has stored: those that the cache has, and fewer than as many that it has given up."""

    def __init__(self, cache: IntelligentCache) -> None:
        self._cache = cache
        self._keys: OrderedDict[Hashable, None] = OrderedDict()
        self._renew_lock()
        after_fork(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Count those that the cache has."""
        with self._lock:
            keys = list(self._keys)
        return sum(key in self._cache for key in keys)

    def add(self, key: Hashable) -> None:
        """Add a key, and look after the two oldest: more than come in, so that few stay that are gone."""
        with self._lock:
            self._keys[key] = None
            oldest = [self._keys.popitem(last=False)[0] for _ in range(min(2, len(self._keys)))]
        kept = dict.fromkeys(key for key in oldest if key in self._cache)
        with self._lock:
            self._keys.update(kept)

    def clear(self) -> list[Hashable]:
        """Forget all, and return them."""
        with self._lock:
            keys = list(self._keys)
            self._keys.clear()
        return keys


def _full_name(function: Callable[..., Any]) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"


def _has_stable_name(function: Callable[..., Any]) -> bool:
    """Whether module and qualified name are those of this function alone, in every process."""
    owner = getattr(function, "__self__", None)
    if not hasattr(function, "__qualname__") or not (owner is None or inspect.ismodule(owner)):
        return False  # an instance, or a method that is bound to one: there are others of its name
    name = _full_name(function)
    return "<" not in name and not name.startswith("__main__.")
