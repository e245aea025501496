"""What a task costs on each pool, against what users would pick instead: concurrent.futures, joblib, gather."""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from joblib import Parallel, delayed

from storescope.core import CPUOptimizer
from storescope.core.workers.executors import process_executor
from tests.benchmarks.row import Row

ROUNDS = 15
TASKS = 400
WORKERS = 4
ARGUMENTS = [(number,) for number in range(TASKS)]


def rows() -> Iterator[Row]:
    """Yield microseconds of a task that does nothing, each pair from the same rounds."""
    with (
        CPUOptimizer() as optimizer,
        ThreadPoolExecutor(WORKERS) as threads,
        Parallel(WORKERS, "threading") as joblib,
    ):
        optimizer.optimize_thread_pool(WORKERS)
        limit = optimizer.optimize_async_concurrency(16)

        def ours() -> None:
            optimizer.io_intensive_task_optimizer(abs, ARGUMENTS)

        yield _row(
            "task in a thread, against concurrent.futures", ours, lambda: list(threads.map(abs, range(TASKS)))
        )
        yield _row(
            "task in a thread, against joblib",
            ours,
            lambda: joblib(delayed(abs)(*each) for each in ARGUMENTS),
        )
        yield _row(
            "coroutine under a limit, against gather and a semaphore",
            lambda: asyncio.run(limit.map(_nothing, range(TASKS))),
            lambda: asyncio.run(_gathered()),
        )
    with process_executor(2, name="bench") as pool, ProcessPoolExecutor(2) as processes:
        yield _row(
            "task in a process, against concurrent.futures",
            lambda: [future.result() for future in [pool.submit(math.sqrt, n) for n in range(TASKS)]],
            lambda: list(processes.map(math.sqrt, range(TASKS))),
        )


def _row(name: str, ours: Callable[[], object], floor: Callable[[], object]) -> Row:
    taken: dict[Callable[[], object], list[float]] = {ours: [], floor: []}
    for _ in range(ROUNDS):
        for run, times in taken.items():
            begun = time.perf_counter()
            run()
            times.append((time.perf_counter() - begun) / TASKS * 1e6)
    return Row(name, statistics.median(taken[ours]), statistics.median(taken[floor]), None)


async def _nothing(number: int) -> int:
    return number


async def _gathered() -> None:
    semaphore = asyncio.Semaphore(16)

    async def call(number: int) -> int:
        async with semaphore:
            return await _nothing(number)

    await asyncio.gather(*(call(number) for number in range(TASKS)))
