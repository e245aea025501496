"""`storescope.adapt()` and `OptimizedStore` on real stores and sessions."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import store_generation
from integration.harness import STDIO_SERVER
from integration.stores import Lab, Lab1, run_async, stdio_config

import storescope
from storescope.core import (
    AsyncOptimizedConnectionPool,
    AsyncOptimizedStore,
    AsyncStore,
    IntelligentCache,
    OptimizedConnectionPool,
    OptimizedStore,
    Store,
)
from storescope.core.errors import DeadlineExceeded, ToolFailed
from storescope.core.payloads.codec import decode, encode
from storescope.core.store import Owner

COMMAND = {"command": sys.executable, "args": [str(STDIO_SERVER)]}


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A store of the installed generation, that nobody observes."""
    made = (Lab if store_generation() == "mcpstore2" else Lab1)(tmp_path_factory.mktemp("store"))
    yield made
    made.close()


@pytest.fixture
def context(laboratory: Any) -> Any:
    laboratory.wire.clear()
    return laboratory.context if isinstance(laboratory, Lab) else laboratory.proxy


def calls(laboratory: Any) -> int:
    return laboratory.wire.methods().count("tools/call")  # type: ignore[no-any-return]


def text(result: Any) -> str:
    """Return the first text of a result, whatever its kind."""
    parts = result["content"] if isinstance(result, dict) else result.content
    return parts[0]["text"] if isinstance(parts[0], dict) else parts[0].text  # type: ignore[no-any-return]


@pytest.mark.anystore
def test_a_context_becomes_a_store(context: Any) -> None:
    """`call_tool` gives what the store gives, `list_tools` its list, `batch_call` a result for each call."""
    store = storescope.adapt(context)
    assert isinstance(store, Store)
    live = context.call_tool("lab_echo", {"text": "hi"})
    assert store.call_tool("lab_echo", {"text": "hi"}) == live
    assert len(store.list_tools()) == len(context.list_tools())

    echoed, failed = store.batch_call(
        [
            {"tool_name": "lab_echo", "arguments": {"text": "one"}},
            {"tool_name": "lab_fail", "arguments": {}},
        ]
    )
    assert text(echoed.value) == "one"
    assert isinstance(failed.error, ToolFailed)
    assert "no such thing" in str(failed)
    assert storescope.adapt(store) is store


@pytest.mark.anystore
@pytest.mark.parametrize(("tool", "arguments"), [("lab_echo", {"text": "x"}), ("lab_add", {"a": 1, "b": 2})])
def test_results_survive_being_dumped(context: Any, tool: str, arguments: dict[str, Any]) -> None:
    """What is read from bytes, and a copy, equal the live result and have its type, and share nothing with it."""
    store = storescope.adapt(context)
    live = store.call_tool(tool, arguments)
    written = encode(store.dump_result(live))
    for other in (store.load_result(decode(written)), store.copy_result(live)):
        assert other == live
        assert type(other) is type(live)
        assert other is not live


@pytest.mark.anystore
def test_a_hit_is_what_the_live_call_gives(laboratory: Any, context: Any) -> None:
    """The named tool is called once; a hit is equal, of the same type, and the caller's own; errors are not kept."""
    store = OptimizedStore(storescope.adapt(context), ["lab_echo", "lab_fail"])
    live = store.call_tool("lab_echo", {"text": "hi"})
    hit = store.call_tool("lab_echo", {"text": "hi"})
    assert hit == live
    assert type(hit) is type(live)
    assert hit is not live
    assert calls(laboratory) == 1
    for _ in range(2):
        store.call_tool("lab_fail", {})
    assert calls(laboratory) == 3
    assert (store.stats().hits, store.stats().errors) == (1, 2)


@pytest.mark.anystore
def test_keys_hold_service_scope_and_agent(laboratory: Any, context: Any) -> None:
    """With one cache for the store and an agent of it, each has its own results, and only those."""
    agent = laboratory.store.for_agent("bob")
    agent.add_service(stdio_config(laboratory.wire.path))
    agent.wait_service("lab")
    cache = IntelligentCache()
    stores = [OptimizedStore(storescope.adapt(each), ["lab_echo"], cache=cache) for each in (context, agent)]
    for store in stores * 2:
        assert text(store.call_tool("lab_echo", {"text": "hi"})) == "hi"
    assert [store.owner("lab_echo") for store in stores] == [
        Owner("lab", "store", ""),
        Owner("lab", "agent", "bob"),
    ]
    assert [(store.stats().misses, store.stats().hits) for store in stores] == [(1, 1), (1, 1)]
    assert calls(laboratory) == 2


@pytest.mark.mcpstore1
def test_the_async_face_of_1x(lab1: Lab1) -> None:
    """A context of 1.5.x, which has both faces, becomes an async store on demand."""
    store = storescope.adapt(lab1.proxy, is_async=True)
    assert isinstance(store, AsyncStore)

    async def scenario() -> Any:
        optimized = AsyncOptimizedStore(store, ["lab_echo"])
        results = [await optimized.call_tool("lab_echo", {"text": "hi"}) for _ in range(2)]
        return results, await store.owner("lab_echo"), optimized.stats(), len(await store.list_tools())

    (live, hit), owner, stats, tools = asyncio.run(scenario())
    assert hit == live
    assert owner == Owner("lab", "store", "")
    assert stats.hits == 1
    assert tools > 5


@pytest.mark.mcpstore2
def test_the_async_face_of_2x(tmp_path: Path) -> None:
    """An async context of 2.x, whose methods return futures, becomes an async store."""

    async def scenario(_: Any, context: Any) -> Any:
        store = storescope.adapt(context)
        optimized = AsyncOptimizedStore(store, ["lab_echo"], timeout=30)
        results = [await optimized.call_tool("lab_echo", {"text": "hi"}) for _ in range(2)]
        failed = await optimized.batch_call([{"tool_name": "lab_fail", "arguments": {}}])
        return (
            results,
            failed,
            await store.owner("lab_echo"),
            optimized.stats(),
            len(await store.list_tools()),
        )

    (live, hit), (failed,), owner, stats, tools = run_async(tmp_path, scenario)
    assert hit == live == {"content": [{"text": "hi", "type": "text"}], "is_error": False}
    assert isinstance(failed.error, ToolFailed)
    assert owner == Owner("lab", "store", "")
    assert (stats.hits, stats.errors) == (1, 1)
    assert tools > 5


@contextlib.asynccontextmanager
async def session() -> AsyncIterator[Any]:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async with (
        stdio_client(StdioServerParameters(**COMMAND)) as streams,
        ClientSession(*streams) as opened,
    ):
        await opened.initialize()
        yield opened


@pytest.mark.mcpsdk
def test_a_session_becomes_an_async_store() -> None:
    """Its results are models of the SDK's, from the cache too; an error is told by its mark."""

    async def scenario() -> Any:
        async with session() as opened:
            store = AsyncOptimizedStore(storescope.adapt(opened), ["add"])
            results = [await store.call_tool("add", {"a": 1, "b": 2}) for _ in range(2)]
            batch = await store.batch_call([{"tool_name": "fail", "arguments": {}}])
            return results, batch, await store.list_tools()

    (live, hit), (failed,), tools = asyncio.run(scenario())
    assert hit == live
    assert type(hit) is type(live)
    assert text(hit) == "3"
    assert isinstance(failed.error, ToolFailed)
    assert len(tools.tools) > 5


@pytest.mark.mcpsdk
def test_a_pool_becomes_a_store() -> None:
    """Each call borrows a session; two pools of one configuration may share results, others do not."""
    with OptimizedConnectionPool(COMMAND, min_size=1, max_size=2) as pool:
        store = OptimizedStore(storescope.adapt(pool), ["echo"])
        results = store.batch_call([{"tool_name": "echo", "arguments": {"text": str(n)}} for n in range(6)])
        assert [text(result.value) for result in results] == list("012345")
        assert text(store.call_tool("echo", {"text": "0"})) == "0"
        assert store.stats().hits == 1
        assert pool.stats().in_use == 0
        assert store.owner("echo").service


@pytest.mark.mcpsdk
def test_an_async_pool_becomes_an_async_store() -> None:
    """The same on an event loop."""

    async def scenario() -> Any:
        async with AsyncOptimizedConnectionPool(COMMAND, min_size=1, max_size=2) as pool:
            store = storescope.adapt(pool)
            results = await store.batch_call([{"tool_name": "echo", "arguments": {"text": "hi"}}])
            return [text(result.value) for result in results], len(await store.list_tools())

    texts, tools = asyncio.run(scenario())
    assert texts == ["hi"]
    assert tools > 5


@pytest.mark.mcpsdk
def test_an_abandoned_call_gives_its_session_back() -> None:
    """A call that is past its deadline does not keep those who come later from the pool."""
    with OptimizedConnectionPool(COMMAND, min_size=1, max_size=1) as pool:
        store = OptimizedStore(storescope.adapt(pool), timeout=5)
        assert text(store.call_tool("echo", {"text": "hi"})) == "hi"
        late = OptimizedStore(storescope.adapt(pool), timeout=0.1)
        with pytest.raises(DeadlineExceeded):
            late.call_tool("sleep", {"seconds": 30})
        assert text(store.call_tool("echo", {"text": "hi"})) == "hi"
