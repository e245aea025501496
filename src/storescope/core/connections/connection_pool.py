"""A pool of connections for threads; the one for asyncio can be had from here as well."""

from __future__ import annotations

import inspect
import threading
import weakref
from _thread import allocate_lock
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from storescope.core import checks
from storescope.core.connections.async_connection_pool import AsyncOptimizedConnectionPool
from storescope.core.connections.pool_face import AWAITED, CLOSING_TIME, ByHand, Lease, PoolFace
from storescope.core.connections.pool_logic import PoolLogic
from storescope.core.connections.pool_parts import Entry, Job, Waiter
from storescope.core.forks import check_process, current_process

__all__ = ["AsyncOptimizedConnectionPool", "OptimizedConnectionPool"]

if TYPE_CHECKING:
    from typing_extensions import Self


class OptimizedConnectionPool(PoolFace):
    """A pool of connections that any threads share, first come, first served.

    Connections go to a service (`service_config`: `{"url": ...}` or `{"command": ..., "args": ...}` for MCP sessions,
    `{"host": ..., "port": ...}` for TCP), or are whatever `factory()` gives. Of a connection the pool uses, where it
    has them, `is_alive()`, which looks at a local flag and is asked at each check-out and return; `ping()`, which asks
    the server and raises where it is gone; and `close()`. `min_size` are opened at once, in the background: making a
    pool neither blocks nor fails because a server is away. Opening, pinging and closing is done in daemon threads, so
    it never holds up who comes, and an open pool never the end of the program.

    Times are in seconds. `timeout`: how long `get_connection` waits. `max_idle_time`: connections above `min_size`
    that idle longer are closed. `max_lifetime`: connections that are older, or up to a tenth younger at random, are
    replaced when they are not in use. `validate_after`: connections that idle longer are pinged before they are used.
    `max_waiting`: how many may wait; 0 for any number. While the server is away it is tried again after 0.1 s, then
    ever later, up to 5 s. `clock` and `rng` are for tests.
    """

    def _begin(self) -> None:
        if inspect.iscoroutinefunction(self._connect):
            raise TypeError(
                "factory must not be a coroutine function: AsyncOptimizedConnectionPool takes those"
            )
        worker = _Worker(self._logic, self._lock, self._connect, self._clock, self.name)
        weakref.finalize(self, worker.abandon).atexit = False

    @staticmethod
    def _connector(service_config: dict[str, Any]) -> Callable[[], Any]:
        from storescope.core.connections.connectors import connector_for

        return connector_for(service_config)

    def get_connection(self, timeout: float | None = None) -> Checkout:
        """Return a context manager that has a connection inside its `with` block.

        Entering blocks up to `timeout` seconds (the pool's, if None; 0 never blocks). It raises PoolTimeout, whose
        cause is the last error of opening one, if any; ConnectFailed, where the server is away and the pool has none;
        QueueFull; PoolClosed; UsedAfterFork. At the end of the block the connection goes back. It is closed and
        replaced if its flag says that it is dead, or if the block ended with ConnectionError, EOFError, TimeoutError,
        or what is no Exception (KeyboardInterrupt, SystemExit, GeneratorExit): an answer may still be under way.
        """
        return Checkout(self, timeout)

    def acquire(self, timeout: float | None = None) -> Any:
        """Return a connection, which is to be given to `release`; blocks and raises as `get_connection` does."""
        seconds = self._timeout if timeout is None else checks.number("timeout", timeout)
        holder = ByHand()
        try:
            return self._get(holder, seconds).connection
        except BaseException as error:
            self._undo(holder, error)
            raise

    def wait(self, timeout: float = 30.0) -> None:
        """Block until `min_size` connections are open; raises PoolTimeout or ConnectFailed after `timeout` seconds."""
        self._check()
        self._check_outside()
        checks.number("timeout", timeout)
        if not self._wait_until(lambda: self._logic.filled or self._logic.closed, timeout):
            with self._lock:
                raise self._logic.failure(timeout)
        self._logic.check_open()

    def close(self, timeout: float = 5.0) -> None:
        """Close the pool for good; those who wait get PoolClosed.

        Blocks up to `timeout` seconds until the connections in use have come back, then closes them all, and gives
        the closing 5 s more. A second call does no harm. In a forked child it does nothing: the connections are the
        parent's.
        """
        checks.number("timeout", timeout)
        if self._made_in != current_process():
            return
        if self._inside():
            self._logic.close_later()
            return
        with self._lock:
            self._logic.close()
        try:
            self._wait_until(lambda: self._logic.in_use == 0, timeout)
        finally:
            with self._lock:
                self._logic.close_all()
        self._wait_until(lambda: self._logic.quiet, CLOSING_TIME)

    def __enter__(self) -> Self:
        self._check()
        self._logic.check_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check(self) -> None:
        check_process(self._made_in, self)

    def _get(self, holder: object, timeout: float) -> Entry:
        return self._take(holder) or self._wait_for_one(holder, timeout)

    def _wait_for_one(self, holder: object, timeout: float) -> Entry:
        waiter = _ThreadWaiter()
        with self._lock:
            self._logic.join(holder, waiter, self._clock())
        waiter.wait(timeout)
        with self._lock:
            return self._logic.settle(holder, waiter, timeout)

    def _wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        waiter = _ThreadWaiter()
        with self._lock:
            self._logic.watch(condition, waiter)
        try:
            return waiter.wait(timeout)
        finally:
            with self._lock:
                self._logic.unwatch(waiter)


class Checkout(Lease):
    """A connection for the time of a `with` block. It can be used again, and not inside itself."""

    __slots__ = ()

    def __enter__(self) -> Any:
        if self._entry is not None:
            raise self._in_use()
        self._entry = AWAITED
        try:
            entry = self._entry = self._pool._get(self, self._timeout)
        except BaseException as error:
            self._entry = None
            self._pool._undo(self, error)
            raise
        return entry.connection

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self._end(error)


class _ThreadWaiter(Waiter):
    """A thread that waits: a bare lock costs a tenth of an Event."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        super().__init__()
        self._lock = allocate_lock()
        self._lock.acquire()

    def wake(self) -> None:
        self._lock.release()

    def wait(self, timeout: float) -> bool:
        """Block up to so many seconds; tell whether `wake` was called."""
        return self._lock.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))


class _Worker:
    """Does what a pool decides, in daemon threads: one that keeps the time, and one for each job while it lasts.

    It does not refer to the pool, and so ends when a pool is dropped that nobody closed.
    """

    def __init__(
        self,
        logic: PoolLogic,
        lock: Any,
        connect: Callable[[], Any],
        clock: Callable[[], float],
        name: str,
    ) -> None:
        self._logic = logic
        self._lock = lock
        self._connect = connect
        self._clock = clock
        self._name = name
        self._signals: SimpleQueue[None] = SimpleQueue()
        self._signalled = False
        logic.wake = self._wake
        threading.Thread(target=self._work, name=f"{name}-worker", daemon=True).start()

    def abandon(self) -> None:
        """End without the pool; called by the garbage collector, anywhere, so that it must not lock anything."""
        self._logic.abandoned = True
        self._signals.put(None)

    def _wake(self) -> None:
        if not self._signalled:
            self._signalled = True
            self._signals.put(None)

    def _work(self) -> None:
        while True:
            with self._lock:
                self._signalled = False
                jobs, due = self._logic.tick(self._clock())
                over = self._logic.over
            for job in jobs:
                self._start(job)
            if over:
                return
            left = min(max(due - self._clock(), 0.0), threading.TIMEOUT_MAX)
            with suppress(Empty):
                self._signals.get(timeout=left)

    def _start(self, job: Job) -> None:
        name = f"{self._name}-{job.action.value}"
        try:
            threading.Thread(target=self._run, args=(job,), name=name, daemon=True).start()
        except RuntimeError:  # there are as many threads as may be, or the program ends
            self._run(job)

    def _run(self, job: Job | None) -> None:
        while job is not None:
            value, error = self._attempt(job)
            with self._lock:
                job = self._logic.finish(job, value, error, self._clock())

    def _attempt(self, job: Job) -> tuple[Any, BaseException | None]:
        try:
            value = job.perform(self._connect)
        except BaseException as error:  # whatever it is, the place in the pool must come free
            return None, error
        if inspect.iscoroutine(value):
            value.close()
            return None, TypeError(
                f"{job.action.value} gave a coroutine: AsyncOptimizedConnectionPool takes those"
            )
        return value, None
