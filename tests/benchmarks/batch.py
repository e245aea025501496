"""A batch against a bare thread pool, and an adaptive limit against the number that it has to find."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from storescope.core import AsyncBatchOptimizer, BatchOptimizer
from tests.benchmarks.row import Row
from tests.guide import naive

ROUNDS = 9
OPERATIONS = 2000
WORKERS = 5

#: The server that a limit has to be found for: this many calls at once, each of so many seconds in the mean.
SLOTS = 8
SERVICE = 1 / 150
#: As many more wait; whoever comes then is refused.
BACKLOG = 8
CALLS = 4800


class Idle:
    """A store whose tools do nothing."""

    def call_tool(self, tool_name: str, arguments: Mapping[str, Any]) -> None:
        return None

    def batch_call(self, calls: list[dict[str, Any]]) -> list[None]:
        return [self.call_tool(call["tool_name"], call["arguments"]) for call in calls]


class Server:
    """A server of eight slots and a short queue, as its clients see it."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(SLOTS)
        self.rng = random.Random(1)
        self.inside = self.refused = 0

    async def call_tool(self, tool_name: str, arguments: Mapping[str, Any]) -> None:
        if self.inside >= SLOTS + BACKLOG:
            self.refused += 1
            raise ConnectionError("too many requests")
        self.inside += 1
        try:
            async with self.slots:
                await asyncio.sleep(self.rng.uniform(0.7, 1.3) * SERVICE)
        finally:
            self.inside -= 1


def rows() -> Iterator[Row]:
    """Yield CPU microseconds of an operation that does nothing, then what a server of eight slots gets done."""
    taken = _interleaved(
        {
            "ours": lambda: _batch(BatchOptimizer(Idle(), max_concurrent=WORKERS)),
            "pool": _thread_pool,
            "naive": lambda: _batch(naive.BatchOptimizer(Idle())),
            "adaptive": lambda: _batch(BatchOptimizer(Idle(), max_concurrent="adaptive")),
            "tasks": _tasks,
        }
    )
    yield Row("batch operation, against ThreadPoolExecutor.map", taken["ours"], taken["pool"], 1.5)
    yield Row("… adaptive", taken["adaptive"], taken["pool"], None)
    yield Row("… of tasks", taken["tasks"], taken["pool"], None)
    yield Row("… against the guide's batch (no results of their own)", taken["ours"], taken["naive"], None)
    for limit, name in (("adaptive", "adaptive"), (64, "64 at once")):
        seconds, refused = asyncio.run(_serve(limit))
        ideal, _ = asyncio.run(_serve(SLOTS))
        target = 1.1 if limit == "adaptive" else None
        yield Row(f"{CALLS} calls of 8 slots, {name}, against 8", seconds, ideal, target, "s")
        yield Row("… refused per 1000 calls", 1000 * refused / CALLS, 10, target and 1.0, "")


def _interleaved(ways: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return the median CPU microseconds per operation of each way, all measured in turn."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            taken[name].append(way())
    return {name: statistics.median(times) * 1e6 / OPERATIONS for name, times in taken.items()}


def _batch(batch: Any) -> float:
    began = time.process_time()
    for number in range(OPERATIONS):
        batch.add_operation("read", "read_file", {"path": number})
    with contextlib.redirect_stdout(io.StringIO()):  # the naive one prints
        batch.optimize_batch_execution()
    return time.process_time() - began


def _tasks() -> float:
    class AsyncIdle:
        async def call_tool(self, tool_name: str, arguments: Mapping[str, Any]) -> None:
            return None

    async def run() -> float:
        batch = AsyncBatchOptimizer(AsyncIdle(), max_concurrent=WORKERS)
        began = time.process_time()
        for number in range(OPERATIONS):
            batch.add_operation("read", "read_file", {"path": number})
        await batch.optimize_batch_execution()
        return time.process_time() - began

    return asyncio.run(run())


def _thread_pool() -> float:
    store = Idle()
    began = time.process_time()
    with ThreadPoolExecutor(WORKERS) as pool:
        arguments = [{"path": number} for number in range(OPERATIONS)]
        list(pool.map(lambda each: store.call_tool("read_file", each), arguments))
    return time.process_time() - began


async def _serve(limit: Any) -> tuple[float, int]:
    """Return the seconds until every call has succeeded, and how many attempts were refused."""
    server = Server()
    batch = AsyncBatchOptimizer(
        server, max_concurrent=limit, retries=1000, backoff=SERVICE, max_backoff=4 * SERVICE
    )
    began = time.perf_counter()
    for number in range(CALLS):
        batch.add_operation("read", "search", {"query": number})
    results = await batch.optimize_batch_execution()
    seconds = time.perf_counter() - began
    assert all(result.ok for result in results)
    return seconds, server.refused
