"""Calls that never raise: one `ToolResult` for each, whatever comes of it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from storescope.core.results import results_of
from storescope.core.store import AsyncStore, BatchCall, Store, ToolCall, ToolResult


def call_each(store: Store, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
    """Call one tool after the other; what is no call raises TypeError or ValueError before the first is made."""
    return [call_once(store, call) for call in list(map(ToolCall.of, calls))]


async def call_each_async(store: AsyncStore, calls: Iterable[BatchCall | ToolCall]) -> list[ToolResult]:
    """Do the same on an event loop; being cancelled ends it."""
    return [await call_once_async(store, call) for call in list(map(ToolCall.of, calls))]


def call_once(store: Store, call: ToolCall) -> ToolResult:
    """Call a tool; an Exception is kept, whatever is graver goes on its way."""
    begun = time.perf_counter()
    try:
        value = store.call_tool(call.tool_name, call.arguments)
    except Exception as error:
        return ToolResult(error=error, duration=time.perf_counter() - begun)
    return _read(store, value, begun)


async def call_once_async(store: AsyncStore, call: ToolCall) -> ToolResult:
    """Do the same on an event loop."""
    begun = time.perf_counter()
    try:
        value = await store.call_tool(call.tool_name, call.arguments)
    except Exception as error:
        return ToolResult(error=error, duration=time.perf_counter() - begun)
    return _read(store, value, begun)


def _read(store: object, value: Any, begun: float) -> ToolResult:
    return ToolResult(value, results_of(store).result_error(value), time.perf_counter() - begun)
