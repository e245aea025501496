"""The pool of connections for the tasks of one event loop."""

from __future__ import annotations

import asyncio
import inspect
import math
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from storescope.core import checks
from storescope.core.connections.pool_face import AWAITED, CLOSING_TIME, ByHand, Lease, PoolFace
from storescope.core.connections.pool_logic import PoolLogic
from storescope.core.connections.pool_parts import Action, Entry, Job, Waiter
from storescope.core.errors import WrongEventLoop
from storescope.core.forks import check_process, current_process

if TYPE_CHECKING:
    from typing_extensions import Self


class AsyncOptimizedConnectionPool(PoolFace):
    """A pool of connections that the tasks of one event loop share: `OptimizedConnectionPool` for asyncio.

    Arguments and meaning are the same; `factory()`, and a connection's `ping()` and `close()`, may return awaitables,
    `is_alive()` not. The pool belongs to the event loop that runs when it is made, or else to the first that it is
    used on, and opens its first connections then; used on another it raises WrongEventLoop. Only `stats` and
    `get_stats` may be called by other threads. A task that is cancelled while it waits, or at the moment at which it
    is handed a connection, loses none. When the loop ends before the pool was closed, so does the pool.
    """

    def _begin(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the first use tells which one
        self._bind(loop)

    @staticmethod
    def _connector(service_config: dict[str, Any]) -> Callable[[], Any]:
        from storescope.core.connections.connectors import async_connector_for

        return async_connector_for(service_config)

    def get_connection(self, timeout: float | None = None) -> AsyncCheckout:
        """Return a context manager that has a connection inside its `async with` block.

        Waits and raises as `OptimizedConnectionPool.get_connection`, and WrongEventLoop. Being cancelled inside the
        block closes the connection, because an answer may still be under way.
        """
        return AsyncCheckout(self, timeout)

    async def acquire(self, timeout: float | None = None) -> Any:
        """Return a connection, which is to be given to `release`; waits and raises as `get_connection` does."""
        seconds = self._timeout if timeout is None else checks.number("timeout", timeout)
        holder = ByHand()
        try:
            return (await self._get(holder, seconds)).connection
        except BaseException as error:
            self._undo(holder, error)
            raise

    async def wait(self, timeout: float = 30.0) -> None:
        """Wait until `min_size` connections are open; raises PoolTimeout or ConnectFailed after `timeout` seconds."""
        checks.number("timeout", timeout)
        self._check()
        self._check_outside()
        if not await self._wait_until(lambda: self._logic.filled or self._logic.closed, timeout):
            with self._lock:
                raise self._logic.failure(timeout)
        self._logic.check_open()

    async def close(self, timeout: float = 5.0) -> None:
        """Close the pool for good; those who wait get PoolClosed.

        Waits up to `timeout` seconds until the connections in use have come back, then closes them all, and gives
        the closing 5 s more. A second call does no harm, and a call in a forked child does nothing.
        """
        checks.number("timeout", timeout)
        if self._made_in != current_process():
            return
        self._check()
        self._tasks.expect_close()
        if self._inside():
            self._logic.close_later()
            return
        with self._lock:
            self._logic.close()
        try:
            await self._wait_until(lambda: self._logic.in_use == 0, timeout)
        finally:
            with self._lock:
                self._logic.close_all()
        await self._wait_until(lambda: self._logic.quiet, CLOSING_TIME)

    async def __aenter__(self) -> Self:
        self._check()
        self._logic.check_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._tasks = _Tasks(self._logic, self._lock, self._connect, self._clock, self.name, loop)
        weakref.finalize(self, self._tasks.abandon).atexit = False

    def _check(self) -> None:
        check_process(self._made_in, self)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongEventLoop(
                f"{self!r} is used where no event loop runs: use it in a coroutine"
            ) from None
        if loop is not self._loop:
            if self._loop is not None:
                raise WrongEventLoop(
                    f"{self!r} belongs to {self._loop!r} and is used on {loop!r}: make one here"
                )
            self._bind(loop)

    async def _get(self, holder: object, timeout: float) -> Entry:
        return self._take(holder) or await self._wait_for_one(holder, timeout)

    async def _wait_for_one(self, holder: object, timeout: float) -> Entry:
        waiter = _TaskWaiter()
        with self._lock:
            self._logic.join(holder, waiter, self._clock())
        await waiter.wait(timeout)
        with self._lock:
            return self._logic.settle(holder, waiter, timeout)

    async def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        waiter = _TaskWaiter()
        with self._lock:
            self._logic.watch(condition, waiter)
        try:
            return await waiter.wait(timeout)
        finally:
            with self._lock:
                self._logic.unwatch(waiter)


class AsyncCheckout(Lease):
    """A connection for the time of an `async with` block. It can be used again, and not inside itself."""

    __slots__ = ()

    async def __aenter__(self) -> Any:
        if self._entry is not None:
            raise self._in_use()
        self._entry = AWAITED
        try:
            entry = self._entry = await self._pool._get(self, self._timeout)
        except BaseException as error:
            self._entry = None
            self._pool._undo(self, error)
            raise
        return entry.connection

    async def __aexit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end(error)


class _TaskWaiter(Waiter):
    """A task that waits. What it was handed is in `entry`, so that no cancellation can lose it in the future."""

    __slots__ = ("_future", "_loop")

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._future: asyncio.Future[bool] = self._loop.create_future()

    def wake(self) -> None:
        self._end(True)

    async def wait(self, timeout: float) -> bool:
        """Wait up to so many seconds; tell whether `wake` was called."""
        timer = None if timeout == math.inf else self._loop.call_later(timeout, self._end, False)
        try:
            return await self._future
        finally:
            if timer is not None:
                timer.cancel()

    def _end(self, woken: bool) -> None:
        if not self._future.done():
            self._future.set_result(woken)


class _JobTask(asyncio.Task[None]):
    """A task that knows who has cancelled it: a CancelledError alone may come from whatever it awaits."""

    by_others = False

    def cancel(self, msg: Any = None) -> bool:
        self.by_others = True
        return super().cancel(msg)

    if sys.version_info >= (3, 11):

        def uncancel(self) -> int:
            left = super().uncancel()
            self.by_others = left > 0
            return left

    def give_up(self) -> None:
        """Cancel it for the pool."""
        super().cancel()


class _Tasks:
    """Does what a pool decides, in a task for each job and a timer.

    It does not refer to the pool, and so ends when a pool is dropped that nobody closed.
    """

    def __init__(
        self,
        logic: PoolLogic,
        lock: Any,
        connect: Callable[[], Any],
        clock: Callable[[], float],
        name: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._logic = logic
        self._lock = lock
        self._connect = connect
        self._clock = clock
        self._name = name
        self._loop = loop
        self._tasks: dict[_JobTask, Job] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._signalled = False
        self._loop_ends = False
        self._closing = False
        logic.wake = self._wake
        self._wake()

    def abandon(self) -> None:
        """End without the pool; called by the garbage collector, anywhere, so that it must not lock anything."""
        self._logic.abandoned = True
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._step)

    def expect_close(self) -> None:
        """Go on to the end, whoever cancels tasks: the loop goes on as well, for somebody waits for it."""
        self._closing = True
        self._loop_ends = False
        self._wake()

    def _wake(self) -> None:
        if not self._signalled:
            self._signalled = True
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._step)

    def _step(self) -> None:
        self._signalled = False
        if self._loop_ends:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        with self._lock:
            now = self._clock()
            jobs, due = self._logic.tick(now)
        for task, job in self._tasks.items():
            unwanted = self._logic.closed and job.action is Action.OPEN
            if (unwanted or job not in self._logic.running) and not job.cancelled:
                job.cancelled = True
                task.give_up()
        for job in jobs:
            task = _JobTask(self._run(job), loop=self._loop, name=f"{self._name}-{job.action.value}")
            self._tasks[task] = job
            task.add_done_callback(self._done)
        if due != math.inf:
            self._timer = self._loop.call_later(max(due - now, 0.0), self._step)

    def _done(self, task: Any) -> None:
        job = self._tasks.pop(task)
        if task.cancelled():  # before its first step
            self._finish(task, job, None, asyncio.CancelledError())

    async def _run(self, first: Job) -> None:
        task: Any = asyncio.current_task()
        job: Job | None = first
        while job is not None:
            self._tasks[task] = job
            task.by_others = False
            value, error = await self._attempt(job)
            job = self._finish(task, job, value, error)

    def _finish(self, task: _JobTask, job: Job, value: Any, error: BaseException | None) -> Job | None:
        with self._lock:
            # As the loop ends nothing new may begin. A timeout of the connection's own (asyncio.timeout, a scope of
            # anyio's) cancels the task as well, but then makes another error of it, or none.
            ended = task.by_others and isinstance(error, asyncio.CancelledError)
            if ended and not self._closing:
                self._loop_ends = True
                self._logic.close()
            return self._logic.finish(job, value, error, self._clock())

    async def _attempt(self, job: Job) -> tuple[Any, BaseException | None]:
        try:
            value = job.perform(self._connect)
            if inspect.isawaitable(value):
                value = await value
        except BaseException as error:  # whatever it is, the place in the pool must come free
            return None, error
        return value, None
