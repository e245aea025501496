"""`adapt()`: whatever has tools to call becomes a store that the optimizers can work with."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

from storescope.core.calling import call_each, call_each_async
from storescope.core.connections.connection_pool import AsyncOptimizedConnectionPool, OptimizedConnectionPool
from storescope.core.store import Arguments, AsyncStore, BatchCall, Owner, Store, ToolCall, ToolResult
from storescope.stores.owners import OwnerLookUp, owner_look_up
from storescope.stores.results import StoreResults


class _Adapted(StoreResults):
    """What both faces share: the callables of the store behind, and the owners of its tools."""

    def __init__(
        self,
        source: object,
        call_tool: Callable[[str, Arguments], Any],
        list_tools: Callable[[], Any],
    ) -> None:
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
    faces, becomes a `Store` unless `is_async` is true. What is a store already is returned as it is.

    Opens and sends nothing. Raises TypeError for an object that has no tools to call, or not the face asked for.
    """
    if isinstance(source, (Store, AsyncStore)) and hasattr(source, "owner"):
        return source
    if isinstance(source, OptimizedConnectionPool):
        made: _Adapted = AdaptedStore(
            source, partial(_borrow, source, "call_tool"), partial(_borrow, source, "list_tools")
        )
    elif isinstance(source, AsyncOptimizedConnectionPool):
        made = AsyncAdaptedStore(
            source, partial(_borrow_async, source, "call_tool"), partial(_borrow_async, source, "list_tools")
        )
    else:
        made = _of_object(source, is_async)
    if is_async is not None and is_async is not isinstance(made, AsyncAdaptedStore):
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
    if inspect.iscoroutinefunction(call_tool) or type(source).__name__.startswith("Async"):
        return AsyncAdaptedStore(source, call_tool, list_tools)
    return AdaptedStore(source, call_tool, list_tools)


def _borrow(pool: OptimizedConnectionPool, method: str, *arguments: Any) -> Any:
    with pool.get_connection() as connection:
        return getattr(connection, method)(*arguments)


async def _borrow_async(pool: AsyncOptimizedConnectionPool, method: str, *arguments: Any) -> Any:
    async with pool.get_connection() as connection:
        return await getattr(connection, method)(*arguments)


def _no_list(source: object) -> Awaitable[Any]:
    raise TypeError(f"{source!r} has no list_tools()")
