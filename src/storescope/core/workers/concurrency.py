"""Many coroutines, so many at once: results in order, whichever event loop they run on."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

from storescope.core.checks import function, optional, whole
from storescope.core.errors import TaskErrors, WouldDeadlock
from storescope.core.forks import after_fork

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")

#: Called with how many items are done; that there is no total is because items may come from an iterator.
Progress = Callable[[int], object]


class AsyncConcurrency:
    """A limit on what runs at once on each event loop, as `async with` or for all items of `map`.

    Unlike an `asyncio.Semaphore` it may be made anywhere and used on one loop after another.
    """

    def __init__(self, max_concurrent: int) -> None:
        self.max_concurrent = whole("max_concurrent", max_concurrent)
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        """Start with nothing under way; in a forked child too, where no event loop of the parent runs."""
        self._lock = threading.Lock()
        self._semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            WeakKeyDictionary()
        )
        self._inside: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<AsyncConcurrency of {self.max_concurrent}>"

    async def __aenter__(self) -> None:
        await self._semaphore().acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._semaphore().release()

    async def map(
        self,
        func: Callable[[T], Awaitable[R]],
        items: Iterable[T],
        *,
        return_errors: bool = False,
        progress: Progress | None = None,
    ) -> list[Any]:
        """Await `func(item)` for each item, `max_concurrent` at once, and return the results in the items' order.

        Items are taken from the iterable as there is room. If any failed, raises one TaskErrors with every result and
        error when all are done; with `return_errors` each exception stands in its place instead. Cancelling this
        cancels all. Raises WouldDeadlock inside a task of a `map` on the same limit, whose place it may wait for.
        """
        function("func", func)
        each = iterable("items", items)
        optional(function, "progress", progress)
        if asyncio.current_task() in self._inside:
            raise WouldDeadlock(f"a task of {self!r} cannot wait for more of its places: use another limit")
        run = _Run(func, progress)
        semaphore = self._semaphore()
        tasks: set[asyncio.Task[None]] = set()

        def ended(task: asyncio.Task[None]) -> None:
            tasks.discard(task)
            self._inside.discard(task)
            semaphore.release()

        try:
            for index, item in enumerate(each):
                await semaphore.acquire()
                task = asyncio.ensure_future(run.one(index, item))
                tasks.add(task)
                self._inside.add(task)
                task.add_done_callback(ended)
            while tasks:
                await asyncio.wait(tasks)
        finally:
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        return collected(run.results, run.errors, return_errors=return_errors)

    def _semaphore(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        with self._lock:
            semaphore = self._semaphores.get(loop)
            if semaphore is None:
                semaphore = self._semaphores[loop] = asyncio.Semaphore(self.max_concurrent)
        return semaphore


class _Run(Generic[T]):
    """One `map`: what came of it, who is told."""

    def __init__(self, func: Callable[[T], Awaitable[Any]], progress: Progress | None) -> None:
        self._func = func
        self.results: dict[int, Any] = {}
        self.errors: dict[int, BaseException] = {}
        self._progress = progress
        self._done = 0

    async def one(self, index: int, item: T) -> None:
        """Await one item. A CancelledError is the item's error; who cancels the map ends it in `map` itself."""
        self.results[index] = None
        try:
            self.results[index] = await self._func(item)
        except (Exception, asyncio.CancelledError) as error:
            self.errors[index] = error
        self._report()

    def _report(self) -> None:
        self._done += 1
        try:
            if self._progress is not None:
                self._progress(self._done)
        except Exception:
            logger.warning("the progress callback of a map failed; it is not called again", exc_info=True)
            self._progress = None


def iterable(name: str, value: Iterable[T]) -> Iterable[T]:
    """Return what can be iterated."""
    try:
        iter(value)
    except TypeError:
        raise TypeError(f"{name} must be an iterable, not {value!r}") from None
    return value


def collected(results: dict[int, Any], errors: dict[int, BaseException], *, return_errors: bool) -> list[Any]:
    """Return results by index as a list, with errors in their places or, by default, raised as one TaskErrors."""
    if errors and not return_errors:
        raise TaskErrors([results[index] for index in range(len(results))], errors)
    return [errors.get(index, results[index]) for index in range(len(results))]
