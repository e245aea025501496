"""`OptimizedStore`: cache, single-flight, deadline and concurrency limit composed around a store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import Any

from storescope.core.answering import MISSING, Answering, CachedTools, Fetched, Lead, failure
from storescope.core.batching.batch import AsyncBatchOptimizer, BatchOptimizer
from storescope.core.batching.deadline import Deadline, await_within, call_within
from storescope.core.batching.limiter import AsyncLimiter, Limiter
from storescope.core.caching.single_flight import AsyncSingleFlight, SingleFlight
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


class OptimizedStore(Answering):
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
        deadline = self._begin(tool_name, arguments)
        if tool_name not in self._ttls:
            return self._bypass(tool_name, arguments, deadline)
        key = self._key(self._find_owner(tool_name, deadline), tool_name, arguments)
        if key is None:
            return self._bypass(tool_name, arguments, deadline)
        answer = self._answer(key, self.cache.get(key, MISSING), "hits")
        if answer is not MISSING:
            return answer
        lead, store = Lead(), partial(self._store, key, tool_name)
        if self.stale:
            answer = self._answer(key, self.cache.get_stale(key, MISSING), "stale")
            if answer is not MISSING:
                refresh = partial(self._fetch, tool_name, arguments, Deadline(self.timeout), lead)
                self._flights.start(key, refresh, store=store)
                return answer
        fetch = partial(self._fetch, tool_name, arguments, deadline, lead)
        try:
            fetched, joined = self._flights.run(key, fetch, store=store)
        finally:
            self._count("calls", "misses" if lead.taken else "coalesced")
        if not joined:
            return fetched.result
        return (
            self._call(tool_name, arguments, deadline)
            if fetched.kept is None
            else self._hand_out(fetched.kept)
        )

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

    def _find_owner(self, tool_name: str, deadline: Deadline) -> Owner:
        known = self._owners.get(tool_name)
        return (
            self._known(tool_name, call_within(deadline.remaining(), self.owner, tool_name))
            if known is None
            else known
        )

    def _fetch(self, tool_name: str, arguments: Arguments, deadline: Deadline, lead: Lead) -> Fetched:
        lead.taken = True
        result = self._call(tool_name, arguments, deadline)
        return Fetched(result, self._keep(result))

    def _bypass(self, tool_name: str, arguments: Arguments, deadline: Deadline) -> Any:
        self._count("calls", "bypassed")
        return self._call(tool_name, arguments, deadline)

    def _call(self, tool_name: str, arguments: Arguments, deadline: Deadline) -> Any:
        try:
            if self._limiter is None:
                result = call_within(deadline.remaining(), self.store.call_tool, tool_name, arguments)
            else:
                with self._limiter.slot(deadline.remaining(), key=tool_name):
                    result = call_within(deadline.remaining(), self.store.call_tool, tool_name, arguments)
        except BaseException as error:
            self._count(*failure(error))
            raise
        if self._results.result_error(result) is not None:
            self._count("errors")
        return result


class AsyncOptimizedStore(Answering):
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
        deadline = self._begin(tool_name, arguments)
        if tool_name not in self._ttls:
            return await self._bypass(tool_name, arguments, deadline)
        key = self._key(await self._find_owner(tool_name, deadline), tool_name, arguments)
        if key is None:
            return await self._bypass(tool_name, arguments, deadline)
        answer = self._answer(key, await self._look_up(key), "hits")
        if answer is not MISSING:
            return answer
        lead, store = Lead(), partial(self._store, key, tool_name)
        if self.stale:
            answer = self._answer(key, self.cache.get_stale(key, MISSING), "stale")
            if answer is not MISSING:
                refresh = partial(self._fetch, tool_name, arguments, Deadline(self.timeout), lead)
                self._flights.start(key, refresh, store=store)
                return answer
        fetch = partial(self._fetch, tool_name, arguments, deadline, lead)
        try:
            fetched, joined = await self._flights.run(key, fetch, store=store)
        finally:
            self._count("calls", "misses" if lead.taken else "coalesced")
        if not joined:
            return fetched.result
        if fetched.kept is None:
            return await self._call(tool_name, arguments, deadline)
        return self._hand_out(fetched.kept)

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
            return self.cache.get(key, MISSING)
        kept = self.cache.get_local(key, MISSING)
        return await asyncio.to_thread(self.cache.get, key, MISSING) if kept is MISSING else kept

    async def _find_owner(self, tool_name: str, deadline: Deadline) -> Owner:
        known = self._owners.get(tool_name)
        if known is None:
            known = self._known(tool_name, await await_within(deadline.remaining(), self.owner(tool_name)))
        return known

    async def _fetch(self, tool_name: str, arguments: Arguments, deadline: Deadline, lead: Lead) -> Fetched:
        lead.taken = True
        result = await self._call(tool_name, arguments, deadline)
        return Fetched(result, self._keep(result))

    async def _bypass(self, tool_name: str, arguments: Arguments, deadline: Deadline) -> Any:
        self._count("calls", "bypassed")
        return await self._call(tool_name, arguments, deadline)

    async def _call(self, tool_name: str, arguments: Arguments, deadline: Deadline) -> Any:
        try:
            if self._limiter is None:
                result = await await_within(deadline.remaining(), self.store.call_tool(tool_name, arguments))
            else:
                async with self._limiter.slot(deadline.remaining(), key=tool_name):
                    result = await await_within(
                        deadline.remaining(), self.store.call_tool(tool_name, arguments)
                    )
        except BaseException as error:
            self._count(*failure(error))
            raise
        if self._results.result_error(result) is not None:
            self._count("errors")
        return result
