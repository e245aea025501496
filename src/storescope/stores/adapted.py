"""`adapt()`: whatever has tools to call becomes a store that the optimizers can work with."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import cache, partial
from typing import Any

from storescope.core.batching.deadline import time_left
from storescope.core.calling import call_each, call_each_async
from storescope.core.connections.connection_pool import AsyncOptimizedConnectionPool, OptimizedConnectionPool
from storescope.core.optimized import AsyncOptimizedStore, OptimizedStore
from storescope.core.results import results_of
from storescope.core.store import Arguments, BatchCall, Owner, ToolCall, ToolResult
from storescope.stores.owners import OwnerLookUp, owner_look_up
from storescope.stores.results import StoreResults


class _Adapted(StoreResults):
    """What both faces share: the callables of the store behind, and the owners of its tools.

    Where the store says itself what its results are (`result_error` and the like), that counts.
    """

    def __init__(
        self,
        source: object,
        call_tool: Callable[[str, Arguments], Any],
        list_tools: Callable[[], Any],
    ) -> None:
        results_of(source, self)
        self.source = source
        self._call_tool = call_tool
        self._list_tools = list_tools
        self._look_up = owner_look_up(source)
        self._owners: dict[str, Owner] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.source!r}>"

    def _finding(self, tool_name: str) -> OwnerLookUp:
        """Look an owner up; only what was found is kept, for a tool may be added later."""
        if self._look_up is None:
            return Owner()
        owner: Owner = yield from self._look_up(self.source, self._list_tools, tool_name)
        if owner.service:
            self._owners[tool_name] = owner
        return owner


class AdaptedStore(_Adapted):
    """A `Store` made by `adapt`. Calls block and may come from any thread; batches run one call after the other."""

    def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool and return the store's own result, or raise its own exception."""
        return self._call_tool(tool_name, arguments)

    def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Call tools one after the other and return a result for each; a failing call hides no other."""
        return call_each(self, calls)

    def list_tools(self) -> Any:
        """Return the store's own list of its tools."""
        return self._list_tools()

    def owner(self, tool_name: str) -> Owner:
        """Return whose a tool is; asks the store once for each tool. A store that fails leaves it unknown."""
        known = self._owners.get(tool_name)
        if known is not None:
            return known
        look_up = self._finding(tool_name)
        value = None
        try:
            while True:
                value = look_up.send(value)
        except StopIteration as found:
            return found.value  # type: ignore[no-any-return]
        except Exception:  # the call itself is about to say so
            return Owner()


class AsyncAdaptedStore(_Adapted):
    """An `AsyncStore` made by `adapt`, for the event loop of the store behind it."""

    async def call_tool(self, tool_name: str, arguments: Arguments) -> Any:
        """Call a tool and return the store's own result, or raise its own exception."""
        return await self._call_tool(tool_name, arguments)

    async def batch_call(self, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
        """Call tools one after the other and return a result for each; a failing call hides no other."""
        return await call_each_async(self, calls)

    async def list_tools(self) -> Any:
        """Return the store's own list of its tools."""
        return await self._list_tools()

    async def owner(self, tool_name: str) -> Owner:
        """Return whose a tool is; asks the store once for each tool. A store that fails leaves it unknown."""
        known = self._owners.get(tool_name)
        if known is not None:
            return known
        look_up = self._finding(tool_name)
        value = None
        try:
            while True:
                step = look_up.send(value)
                value = await step if inspect.isawaitable(step) else step
        except StopIteration as found:
            return found.value  # type: ignore[no-any-return]
        except Exception:  # the call itself is about to say so
            return Owner()


def adapt(source: Any, *, is_async: bool | None = None) -> Any:
    """Make a `Store` or an `AsyncStore` of whatever has tools to call.

    `source` is a context of mcpstore (1.5.x or 2.x, sync or async), an `mcp.ClientSession`, an
    `OptimizedConnectionPool` of MCP sessions or its asyncio twin (each call borrows one), or any object with
    `call_tool(name, arguments)`. It becomes what its own `call_tool` is; a context of mcpstore 1.5.x, which has both
    faces, becomes a `Store` unless `is_async` is true; so does an object whose `call_tool` does not tell that what it
    returns is awaitable. What was adapted or optimized is returned as it is.

    Opens and sends nothing. Raises TypeError for an object that has no tools to call, or not the face asked for.
    """
    if isinstance(source, (AdaptedStore, AsyncAdaptedStore, OptimizedStore, AsyncOptimizedStore)):
        made: Any = source
    elif isinstance(source, OptimizedConnectionPool):
        made = AdaptedStore(source, partial(_call_pooled, source), partial(_list_pooled, source))
    elif isinstance(source, AsyncOptimizedConnectionPool):
        made = AsyncAdaptedStore(
            source, partial(_call_pooled_async, source), partial(_list_pooled_async, source)
        )
    else:
        made = _of_object(source, is_async)
    if is_async is not None and is_async is not inspect.iscoroutinefunction(made.call_tool):
        raise TypeError(f"{source!r} has no {'async' if is_async else 'sync'} face")
    return made


def _of_object(source: Any, is_async: bool | None) -> _Adapted:
    context = getattr(source, "_context", source)
    if is_async and hasattr(context, "call_tool_async"):  # mcpstore 1.5.x
        return AsyncAdaptedStore(source, context.call_tool_async, context.list_tools_async)
    call_tool = getattr(source, "call_tool", None)
    if not callable(call_tool):
        raise TypeError(f"{source!r} has no call_tool(tool_name, arguments)")
    list_tools = getattr(source, "list_tools", partial(_no_list, source))
    if is_async or (is_async is None and _is_async(source, call_tool)):
        return AsyncAdaptedStore(source, call_tool, list_tools)
    return AdaptedStore(source, call_tool, list_tools)


def _is_async(source: object, call_tool: Callable[..., Any]) -> bool:
    """Whether a store's calls are awaited; those of mcpstore 2.x are natives, which do not tell."""
    called = getattr(call_tool, "__call__", call_tool)  # noqa: B004 - an object whose calls are coroutines
    return (
        inspect.iscoroutinefunction(call_tool)
        or inspect.iscoroutinefunction(called)
        or any(kind.__name__ == "AsyncScopeContext" for kind in type(source).__mro__)
    )


def _call_pooled(pool: OptimizedConnectionPool, tool_name: str, arguments: Arguments) -> Any:
    """Call over a borrowed session. It is told of the caller's deadline, so that an abandoned call gives it back."""
    left = time_left()
    with pool.get_connection() if left is None else pool.get_connection(left) as connection:
        if left is None or not _takes_timeout(connection.__class__):
            return connection.call_tool(tool_name, arguments)
        return connection.call_tool(tool_name, arguments, timeout=time_left())


def _list_pooled(pool: OptimizedConnectionPool) -> Any:
    with pool.get_connection() as connection:
        return connection.list_tools()


async def _call_pooled_async(pool: AsyncOptimizedConnectionPool, tool_name: str, arguments: Arguments) -> Any:
    async with pool.get_connection() as connection:
        return await connection.call_tool(tool_name, arguments)


async def _list_pooled_async(pool: AsyncOptimizedConnectionPool) -> Any:
    async with pool.get_connection() as connection:
        return await connection.list_tools()


@cache
def _takes_timeout(kind: Any) -> bool:
    return "timeout" in inspect.signature(kind.call_tool).parameters


def _no_list(source: object) -> Awaitable[Any]:
    raise TypeError(f"{source!r} has no list_tools()")
