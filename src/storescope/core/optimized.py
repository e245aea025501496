"""`OptimizedStore`: cache, single-flight, deadline and concurrency limit composed around a store."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final, Literal, NamedTuple

from storescope.core.batching.batch import AsyncBatchOptimizer, BatchOptimizer
from storescope.core.batching.deadline import Deadline, await_within, call_within
from storescope.core.batching.limiter import MAX_LIMIT, AsyncLimiter, Limiter
from storescope.core.caching.cache import IntelligentCache
from storescope.core.caching.single_flight import AsyncSingleFlight, SingleFlight
from storescope.core.checks import number, optional, positive
from storescope.core.errors import DeadlineExceeded
from storescope.core.forks import after_fork
from storescope.core.payloads.codec import MAX_BYTES, decode, encode
from storescope.core.payloads.keys import stable_key
from storescope.core.results import results_of
from storescope.core.stats import OptimizedStoreStats
from storescope.core.store import (
    Arguments,
    AsyncStore,
    BatchCall,
    Owner,
    Store,
    ToolCall,
    ToolResult,
    check_store,
)

_MISSING: Final = object()

#: Calls of a batch that are under way at once, where `max_concurrent` does not say.
BATCH_CONCURRENCY: Final = 5

CachedTools = Mapping[str, "float | None"] | Iterable[str]


@dataclass(frozen=True, slots=True)
class _Kept:
    """A result that has no plain form: only this process can hand out copies of it."""

    result: Any


class _Fetched(NamedTuple):
    """A result of the store's, for whoever asked first, and what others are given copies of."""

    result: Any
    kept: bytes | _Kept


class _Optimized:
    """What both faces share: which calls are cached under which key, what is kept of a result, and the counts."""

    def __init__(
        self,
        store: Any,
        cached_tools: CachedTools = (),
        *,
        cache: IntelligentCache | None = None,
        stale: float = 0.0,
        timeout: float | None = None,
        max_concurrent: int | Literal["adaptive"] | None = None,
        namespace: str | None = None,
        name: str = "store",
    ) -> None:
        self._ttls = _ttls(cached_tools)
        self.store = store
        self.cache = IntelligentCache(name=f"{name}.results") if cache is None else cache
        self.stale = number("stale", stale)
        self.timeout: float | None = optional(positive, "timeout", timeout)
        self.max_concurrent = max_concurrent
        self.name = name
        self._namespace = namespace
        self._own = uuid.uuid4().hex
        self._results = results_of(store)
        self._counts = dict.fromkeys(OptimizedStoreStats.__dataclass_fields__, 0)
        self._renew_lock()
        after_fork(self._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        counts = self.stats()
        return f"<{type(self).__name__} {self.name!r} of {self.store!r}: {counts.hits} hits in {counts.calls} calls>"

    def stats(self) -> OptimizedStoreStats:
        """Return how its calls were answered since it was made."""
        with self._lock:
            return OptimizedStoreStats(**self._counts)

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def result_error(self, result: Any) -> Exception | None:
        """Return the error that a result is marked with; None where the tool succeeded."""
        return self._results.result_error(result)

    def copy_result(self, result: Any) -> Any:
        """Return a copy that shares nothing that can change."""
        return self._results.copy_result(result)

    def dump_result(self, result: Any) -> Any:
        """Return the plain value from which `load_result` makes an equal result; raise TypeError without one."""
        return self._results.dump_result(result)

    def load_result(self, plain: Any) -> Any:
        """Return the result that a plain value was made of."""
        return self._results.load_result(plain)

    def _batch_width(self, calls: int) -> int:
        """Return how many calls of a batch are made at once; where there is a limit, each waits for its turn."""
        if self.max_concurrent is None:
            return max(1, min(calls, BATCH_CONCURRENCY))
        return max(1, min(calls, MAX_LIMIT if self.max_concurrent == "adaptive" else self.max_concurrent))

    def _count(self, *names: str) -> None:
        with self._lock:
            for name in names:
                self._counts[name] += 1

    def _key(self, owner: Owner, tool_name: str, arguments: Arguments) -> bytes | None:
        """Return the key of a call; None where its arguments cannot be told from others.

        Where a store does not tell the services of its tools apart, its results are its own, unless the application
        gives stores one namespace.
        """
        namespace = self._namespace
        if namespace is None:
            namespace = "" if owner.service else self._own
        try:
            return stable_key(namespace, owner.service, owner.scope, owner.agent, tool_name, dict(arguments))
        except TypeError:
            return None

    def _keep(self, result: Any) -> bytes | _Kept:
        """Return what is kept of a result: bytes, of which each load makes a new one, else a copy of its own."""
        try:
            return encode(self._results.dump_result(result), compress_above=MAX_BYTES)
        except (TypeError, ValueError):
            return _Kept(self._results.copy_result(result))

    def _hand_out(self, kept: Any) -> Any:
        """Return a result of the caller's own; raise ValueError where what was kept elsewhere cannot be read."""
        if type(kept) is _Kept:
            return self._results.copy_result(kept.result)
        return self._results.load_result(decode(kept))

    def _answer(self, key: bytes, kept: Any, count: str) -> Any:
        """Return what the cache has for a call, as the caller's own; _MISSING where it has nothing that can be read."""
        if kept is _MISSING:
            return _MISSING
        try:
            result = self._hand_out(kept)
        except (TypeError, ValueError):
            self.cache.invalidate(key)
            return _MISSING
        self._count("calls", count)
        return result

    def _store(self, key: bytes, tool_name: str, fetched: _Fetched) -> None:
        """Keep a result that is no error for those who ask later: here alone where it has no plain form."""
        if self._results.result_error(fetched.result) is None:
            put = self.cache.set_local if type(fetched.kept) is _Kept else self.cache.set
            put(key, fetched.kept, self._ttls[tool_name], stale=self.stale)


class OptimizedStore(_Optimized):
    """A `Store` that answers from a cache, joins equal calls in flight, and bounds how many run and for how long.

    Around any `Store` (`storescope.adapt` makes one of whatever has tools), and one itself:

    - `cached_tools`: the tools whose results may be kept, as names, or as a dict of seconds by name (None: as long as
      the cache keeps what has no time of its own). Name only tools that change nothing. Keys hold service, scope,
      agent, tool and arguments. Errors are not kept. What is handed out is the caller's own, of the type that the
      store itself returns, from whichever level it came.
    - `cache`: an `IntelligentCache`, with a second level or without; one of its own by default. Stores that share one
      share results of the same service, scope and agent; where these mean different things, give each a `namespace`.
    - `stale`: seconds after a result's time in which it still answers, while a new one is fetched in the background.
    - `timeout`: seconds for one call, waiting for its turn included; DeadlineExceeded afterwards. The abandoned call
      goes on in its thread, because nothing can stop it.
    - `max_concurrent`: how many calls reach the store at once, a number or "adaptive"; hits do not count.

    Blocks as long as the store does. Usable from any thread, and in a forked child if the store is.
    """

    def __init__(self, store: Store, cached_tools: CachedTools = (), **options: Any) -> None:
        check_store(store, is_async=False)
        super().__init__(store, cached_tools, **options)
        self._flights = SingleFlight()
        self._limiter = None if self.max_concurrent is None else Limiter(self.max_concurrent, name=self.name)

    def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool, or answer from the cache, or wait for an equal call that is in flight."""
        key = self._key(self.owner(tool_name), tool_name, arguments) if tool_name in self._ttls else None
        if key is None:
            self._count("calls", "bypassed")
            return self._call(tool_name, arguments)
        answer = self._answer(key, self.cache.get(key, _MISSING), "hits")
        if answer is not _MISSING:
            return answer
        fetch, store = partial(self._fetch, tool_name, arguments), partial(self._store, key, tool_name)
        if self.stale:
            answer = self._answer(key, self.cache.get_stale(key, _MISSING), "stale")
            if answer is not _MISSING:
                self._flights.start(key, fetch, store=store)
                return answer
        fetched, joined = self._flights.run(key, fetch, store=store)
        self._count("calls", "coalesced" if joined else "misses")
        return self._hand_out(fetched.kept) if joined else fetched.result

    def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Make calls together, in no order among them, and return one result for each, in theirs.

        A failing call hides no other. `BatchOptimizer` has an order, retries and more.
        """
        given = list(map(ToolCall.of, calls))
        batch = BatchOptimizer(self, max_concurrent=self._batch_width(len(given)))
        for call in given:
            batch.add_operation("call", call.tool_name, call.arguments)
        return batch.optimize_batch_execution()

    def list_tools(self) -> Any:
        """Return the store's own list of its tools."""
        return self.store.list_tools()

    def owner(self, tool_name: str) -> Owner:
        """Return whose a tool is, as far as the store tells."""
        return self.store.owner(tool_name) if hasattr(self.store, "owner") else Owner()

    def invalidate(self, tool_name: str, arguments: Arguments) -> bool:
        """Drop the kept result of a call from both levels; False where there was none."""
        key = self._key(self.owner(tool_name), tool_name, arguments)
        if key is None:
            return False
        self._flights.forget(key)
        return self.cache.invalidate(key)

    def _fetch(self, tool_name: str, arguments: Arguments) -> _Fetched:
        result = self._call(tool_name, arguments)
        return _Fetched(result, self._keep(result))

    def _call(self, tool_name: str, arguments: Arguments) -> Any:
        deadline = Deadline(self.timeout)
        try:
            if self._limiter is None:
                result = call_within(deadline.remaining(), self.store.call_tool, tool_name, arguments)
            else:
                with self._limiter.slot(deadline.remaining(), key=tool_name):
                    result = call_within(deadline.remaining(), self.store.call_tool, tool_name, arguments)
        except BaseException as error:
            self._count(*_failure(error))
            raise
        if self._results.result_error(result) is not None:
            self._count("errors")
        return result


class AsyncOptimizedStore(_Optimized):
    """An `AsyncStore` that does for one event loop what `OptimizedStore` does for threads, with the same options.

    A call that is past its deadline is cancelled. The second level of a cache is asked in a thread, so that the loop
    goes on.
    """

    def __init__(self, store: AsyncStore, cached_tools: CachedTools = (), **options: Any) -> None:
        check_store(store, is_async=True)
        super().__init__(store, cached_tools, **options)
        self._flights = AsyncSingleFlight(blocking_store=self.cache.second_level is not None)
        self._limiter = (
            None if self.max_concurrent is None else AsyncLimiter(self.max_concurrent, name=self.name)
        )

    async def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool, or answer from the cache, or wait for an equal call that is in flight."""
        key = (
            self._key(await self.owner(tool_name), tool_name, arguments) if tool_name in self._ttls else None
        )
        if key is None:
            self._count("calls", "bypassed")
            return await self._call(tool_name, arguments)
        answer = self._answer(key, await self._look_up(key), "hits")
        if answer is not _MISSING:
            return answer
        fetch, store = partial(self._fetch, tool_name, arguments), partial(self._store, key, tool_name)
        if self.stale:
            answer = self._answer(key, self.cache.get_stale(key, _MISSING), "stale")
            if answer is not _MISSING:
                self._flights.start(key, fetch, store=store)
                return answer
        fetched, joined = await self._flights.run(key, fetch, store=store)
        self._count("calls", "coalesced" if joined else "misses")
        return self._hand_out(fetched.kept) if joined else fetched.result

    async def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Make calls together, in no order among them, and return one result for each, in theirs."""
        given = list(map(ToolCall.of, calls))
        batch = AsyncBatchOptimizer(self, max_concurrent=self._batch_width(len(given)))
        for call in given:
            batch.add_operation("call", call.tool_name, call.arguments)
        return await batch.optimize_batch_execution()

    async def list_tools(self) -> Any:
        """Return the store's own list of its tools."""
        return await self.store.list_tools()

    async def owner(self, tool_name: str) -> Owner:
        """Return whose a tool is, as far as the store tells."""
        return await self.store.owner(tool_name) if hasattr(self.store, "owner") else Owner()

    async def invalidate(self, tool_name: str, arguments: Arguments) -> bool:
        """Drop the kept result of a call from both levels; False where there was none."""
        key = self._key(await self.owner(tool_name), tool_name, arguments)
        if key is None:
            return False
        self._flights.forget(key)
        return await asyncio.to_thread(self.cache.invalidate, key)

    async def _look_up(self, key: bytes) -> Any:
        if self.cache.second_level is None:
            return self.cache.get(key, _MISSING)
        kept = self.cache.get_local(key, _MISSING)
        return await asyncio.to_thread(self.cache.get, key, _MISSING) if kept is _MISSING else kept

    async def _fetch(self, tool_name: str, arguments: Arguments) -> _Fetched:
        result = await self._call(tool_name, arguments)
        return _Fetched(result, self._keep(result))

    async def _call(self, tool_name: str, arguments: Arguments) -> Any:
        deadline = Deadline(self.timeout)
        try:
            if self._limiter is None:
                result = await await_within(deadline.remaining(), self.store.call_tool(tool_name, arguments))
            else:
                async with self._limiter.slot(deadline.remaining(), key=tool_name):
                    result = await await_within(
                        deadline.remaining(), self.store.call_tool(tool_name, arguments)
                    )
        except BaseException as error:
            self._count(*_failure(error))
            raise
        if self._results.result_error(result) is not None:
            self._count("errors")
        return result


def _failure(error: BaseException) -> tuple[str, ...]:
    return ("errors", "deadlines") if isinstance(error, DeadlineExceeded) else ("errors",)


def _ttls(cached_tools: CachedTools) -> dict[str, float | None]:
    if isinstance(cached_tools, str):
        raise TypeError(f"cached_tools must name several tools, as [{cached_tools!r}], not be one text")
    given = cached_tools if isinstance(cached_tools, Mapping) else dict.fromkeys(cached_tools)
    for tool, ttl in given.items():
        if not isinstance(tool, str):
            raise TypeError(f"cached_tools must name tools, not {tool!r}")
        optional(positive, f"cached_tools[{tool!r}]", ttl)
    return dict(given)
