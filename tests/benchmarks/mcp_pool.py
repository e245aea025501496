"""The guide's workload on npm's server-filesystem over pools of MCP sessions, against as many bare sessions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from storescope.core import AsyncOptimizedConnectionPool
from storescope.core.connections.connection_pool import OptimizedConnectionPool
from storescope.core.connections.connectors import async_connector_for
from tests.benchmarks.row import Row

#: Names the folder whose `node_modules` has the server, as for the tests.
FOLDER = "STORESCOPE_TEST_NODE_FOLDER"
SESSIONS = (2, 5)
THREADS = 10
#: Runs of each part of the workload by each side, one after the other; the best counts.
REPEATS = 11
#: Rounds of a workload, and the reads and the writes in each.
ROUNDS, FILES = 3, 50
#: At least 0.85 times the speed.
TARGET = 1 / 0.85

Call = tuple[str, dict[str, Any]]
Side = Callable[[list[Call]], Awaitable[float]]


def rows() -> Iterator[Row]:
    """Measure where node and the server are; say so where they are not."""
    folder, node = os.environ.get(FOLDER), shutil.which("node")
    if folder is None or node is None:
        print(f"mcp_pool is left out: {FOLDER} is not set, or there is no node", file=sys.stderr)
        return
    script = Path(folder, "node_modules/@modelcontextprotocol/server-filesystem/dist/index.js")
    for sessions in SESSIONS:
        with tempfile.TemporaryDirectory() as files:
            config = {"command": node, "args": [str(script), files]}
            batches = _workload(Path(files))
            async_connector_for(config)  # imports the SDK, which is no part of opening
            yield from asyncio.run(_compare(config, batches, sessions))


def _workload(folder: Path) -> list[list[Call]]:
    paths = [str(folder / f"{i}.txt") for i in range(FILES)]
    for path in paths:
        Path(path).write_text("as it was before")
    reads: list[Call] = [("read_file", {"path": path}) for path in paths]
    writes: list[Call] = [("write_file", {"path": path, "content": "x" * 200}) for path in paths]
    return [reads, writes] * ROUNDS


async def _compare(config: dict[str, Any], batches: list[list[Call]], sessions: int) -> list[Row]:
    async with contextlib.AsyncExitStack() as stack:
        started = time.perf_counter()
        bare = [await stack.enter_async_context(_bare_session(config)) for _ in range(sessions)]
        bare_opening = time.perf_counter() - started

        started = time.perf_counter()
        pool = AsyncOptimizedConnectionPool(config, sessions, sessions)
        await stack.enter_async_context(pool)
        await pool.wait()
        pool_opening = time.perf_counter() - started

        threads = OptimizedConnectionPool(config, sessions, sessions)
        stack.callback(threads.close)
        await asyncio.to_thread(threads.wait)

        async def of_pool(call: Call) -> Any:
            async with pool.get_connection() as session:
                return await session.call_tool(*call)

        sides: dict[str, Side] = {
            "bare": lambda calls: _in_workers([session.call_tool for session in bare], calls),
            "pool": lambda calls: _in_workers([lambda *call: of_pool(call)] * sessions, calls),
            "threads": lambda calls: asyncio.to_thread(_in_threads, threads, calls),
        }
        best = await _best(sides, batches)
    title = f"{sum(map(len, batches))} reads and writes, {sessions} MCP sessions"
    return [
        Row(f"{title}: async pool", best["pool"], best["bare"], TARGET, "ms"),
        Row(f"{title}: pool, {THREADS} threads", best["threads"], best["bare"], None, "ms"),
        Row(
            f"opening {sessions} MCP sessions, against one by one",
            pool_opening * 1000,
            bare_opening * 1000,
            None,
            "ms",
        ),
    ]


async def _best(sides: dict[str, Side], batches: list[list[Call]]) -> dict[str, float]:
    """Return, for each side, the milliseconds of its best run of each batch, added up."""
    best = dict.fromkeys(sides, 0.0)
    for batch in batches:
        times: dict[str, list[float]] = {side: [] for side in sides}
        for repeat in range(REPEATS):  # whoever comes first has it harder or easier: they take turns
            for side in list(sides) if repeat % 2 else reversed(sides):
                times[side].append(await sides[side](batch) * 1000)
        for side, measured in times.items():
            best[side] += min(measured)
    return best


@contextlib.asynccontextmanager
async def _bare_session(config: dict[str, Any]) -> AsyncIterator[Any]:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    with open(os.devnull, "w") as discarded:  # noqa: ASYNC230, PTH123 - it takes no time
        async with (
            stdio_client(StdioServerParameters(**config), errlog=discarded) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            yield session


async def _in_workers(workers: list[Callable[..., Awaitable[Any]]], calls: list[Call]) -> float:
    """Return the seconds that the calls take where each worker makes the next one that is left."""
    left = iter(calls)

    async def work(call_tool: Callable[..., Awaitable[Any]]) -> None:
        for name, arguments in left:
            _check(await call_tool(name, arguments))

    started = time.perf_counter()
    await asyncio.gather(*map(work, workers))
    return time.perf_counter() - started


def _in_threads(pool: OptimizedConnectionPool, calls: list[Call]) -> float:
    def make(call: Call) -> None:
        with pool.get_connection() as session:
            _check(session.call_tool(*call))

    started = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(make, calls))
    return time.perf_counter() - started


def _check(result: Any) -> None:
    if getattr(result, "is_error", None) or getattr(result, "isError", None):
        raise RuntimeError(f"a call failed: {result}")
