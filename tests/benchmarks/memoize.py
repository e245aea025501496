"""What a hit of `cache_result` costs, against what a user would write with cachetools, and against lru_cache."""

from __future__ import annotations

import asyncio
import functools
import inspect
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from cachetools import TTLCache, cached
from cachetools.keys import typedkey

from storescope.core import IntelligentCache, cache_result
from tests.benchmarks.row import Row

CALLS = 5000
ROUNDS = 25

#: Seconds of CPU for one call.
Measure = Callable[[], float]


def rows() -> Iterator[Row]:
    """Measure hits of a call of one positional argument and two by name."""
    ours, cachetools, lru = (
        with_ours(read_file),
        with_cachetools(read_file),
        functools.lru_cache(typed=True)(read_file),
    )
    ours_async = with_ours(read_file_async)
    yield compare(
        "cache_result, a hit, against cachetools with lock, typed key and bound arguments",
        lambda: per_call(ours),
        lambda: per_call(cachetools),
        0.4,
    )
    yield compare(
        "cache_result, a hit, against functools.lru_cache", lambda: per_call(ours), lambda: per_call(lru)
    )
    yield compare(
        "cache_result, a hit of a coroutine function, against a hit and awaiting nothing",
        lambda: per_await(ours_async),
        lambda: per_call(ours) + per_await(nothing),
        1.3,
    )


def read_file(path: str, lines: int = 100, *, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Stand for a tool."""
    return f"{lines} of {path} in {encoding}, {errors}"


async def read_file_async(
    path: str, lines: int = 100, *, encoding: str = "utf-8", errors: str = "strict"
) -> str:
    """Stand for a tool of an async store."""
    return f"{lines} of {path} in {encoding}, {errors}"


async def nothing(path: str, lines: int = 100, *, encoding: str = "utf-8", errors: str = "strict") -> None:
    """Return at once."""


def with_ours(function: Callable[..., Any]) -> Callable[..., Any]:
    return cache_result(IntelligentCache(), ttl=300)(function)


def with_cachetools(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do with cachetools what makes all spellings of a call one, from many threads."""
    signature = inspect.signature(function)
    kept = cached(TTLCache(1000, 300), key=typedkey, lock=threading.Lock())(function)

    @functools.wraps(function)
    def bound(*args: Any, **kwargs: Any) -> Any:
        arguments = signature.bind(*args, **kwargs)
        arguments.apply_defaults()
        return kept(*arguments.args, **arguments.kwargs)

    return bound


def compare(name: str, ours: Measure, floor: Measure, target: float | None = None) -> Row:
    """Measure both in turn, so that whatever else the machine does falls on both."""
    times: dict[Measure, list[float]] = {ours: [], floor: []}
    for _ in range(ROUNDS):
        for measure, measured in times.items():
            measured.append(measure() * 1e6)
    return Row(name, statistics.median(times[ours]), statistics.median(times[floor]), target)


def per_call(function: Callable[..., Any]) -> float:
    """Measure calls of a function."""
    begin = time.thread_time()
    for _ in range(CALLS):
        function("/srv/notes/roadmap.md", lines=40, encoding="utf-8")
    return (time.thread_time() - begin) / CALLS


def per_await(function: Callable[..., Any]) -> float:
    """Measure calls of a coroutine function on an event loop."""

    async def call() -> float:
        begin = time.thread_time()
        for _ in range(CALLS):
            await function("/srv/notes/roadmap.md", lines=40, encoding="utf-8")
        return (time.thread_time() - begin) / CALLS

    return asyncio.run(call())
