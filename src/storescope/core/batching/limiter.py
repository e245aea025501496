"""How many calls are under way at once: a fixed number, or one found from latency and errors (AIMD)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import asdict
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar

from storescope.core.batching.aimd import AimdLimit, FixedLimit, is_overload
from storescope.core.checks import function, number, optional, text, whole
from storescope.core.errors import DeadlineExceeded, WrongEventLoop
from storescope.core.forks import after_fork
from storescope.core.stats import LimiterStats

Clock = Callable[[], float]

#: What an adaptive limit stays below unless told otherwise.
MAX_LIMIT = 64

#: The slots that this thread or task holds, or that are held by the call that it was started within.
_held: ContextVar[tuple[_Slot[Any], ...]] = ContextVar("storescope_slots", default=())


def check_limit(name: str, value: object) -> int | Literal["adaptive"]:
    """Return a limit; the error for what is none names the argument that it was given as."""
    if value == "adaptive":
        return "adaptive"
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer or 'adaptive', not {value!r}")
    return whole(name, value)


class _Waiter(Protocol):
    def wake(self) -> None: ...


W = TypeVar("W", bound=_Waiter)


class _Turns(Generic[W]):
    """Who may go: the whole logic of both limiters, but for waiting; threads hold the lock around each step."""

    def __init__(
        self,
        limit: int | Literal["adaptive"],
        *,
        initial: int = 5,
        min_limit: int = 1,
        max_limit: int = MAX_LIMIT,
        tolerance: float = 2.0,
        backoff_ratio: float = 0.9,
        overload: Callable[[BaseException], bool] = is_overload,
        clock: Clock = time.monotonic,
        name: str = "limiter",
    ) -> None:
        fixed = check_limit("limit", limit)
        self._limit: AimdLimit | FixedLimit
        if fixed == "adaptive":
            whole("min_limit", min_limit)
            whole("max_limit", max_limit, min_limit)
            if whole("initial", initial, min_limit) > max_limit:
                raise ValueError(f"initial must be at most max_limit, {max_limit}, not {initial}")
            if number("tolerance", tolerance) <= 1:
                raise ValueError(f"tolerance must be above 1, not {tolerance!r}")
            if not 0 < number("backoff_ratio", backoff_ratio) < 1:
                raise ValueError(f"backoff_ratio must be between 0 and 1, not {backoff_ratio!r}")
            self._limit = AimdLimit(initial, min_limit, max_limit, tolerance, backoff_ratio)
        else:
            self._limit = FixedLimit(fixed)
        self._overload = function("overload", overload)
        self._clock: Clock = function("clock", clock)
        self.name = text("name", name)
        self._acquired = self._timeouts = self._generation = 0
        self._begin()
        after_fork(self._begin)

    def _begin(self) -> None:
        """Start with all slots free; in a forked child too, where those that held slots are missing."""
        self._lock = threading.Lock()
        self._free_all()

    def _free_all(self) -> None:
        #: Slots that were taken before belong to an earlier generation: they are not given back.
        self._generation += 1
        self._in_flight = 0
        self._waiters: deque[W] = deque()

    @property
    def limit(self) -> int:
        """How many may be under way now."""
        return self._limit.now

    def stats(self) -> LimiterStats:
        """Return what it allows and lets through now, and what it did since it was made."""
        return LimiterStats(
            limit=self.limit,
            in_flight=self._in_flight,
            waiting=len(self._waiters),
            acquired=self._acquired,
            timeouts=self._timeouts,
            increases=self._limit.increases,
            decreases=self._limit.decreases,
        )

    def get_stats(self) -> dict[str, Any]:
        """Return the statistics as a dict."""
        return asdict(self.stats())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} {self._in_flight} of {self.limit}, {len(self._waiters)} waiting>"

    def is_inside(self) -> bool:
        """Whether the caller holds a slot, or is a thread or task within a call that holds one."""
        return any(
            slot.limiter is self and slot.generation == self._generation and not slot.ended
            for slot in _held.get()
        )

    def _free(self) -> bool:
        return self._in_flight < self._limit.now and not self._waiters

    def _take(self) -> None:
        self._in_flight += 1
        self._acquired += 1

    def _give_up(self, waiter: W) -> bool:
        """Leave the queue; False where a slot was handed over already, which is then the waiter's to give back."""
        try:
            self._waiters.remove(waiter)
        except ValueError:
            return False
        return True

    def _exit(self, slot: _Slot[Any], error: BaseException | None) -> None:
        with self._lock:
            try:
                if slot.generation == self._generation:
                    self._learn(slot, error)
            finally:
                self._leave(slot)

    def _learn(self, slot: _Slot[Any], error: BaseException | None) -> None:
        if error is None:
            saturated = bool(self._waiters) or self._in_flight >= self._limit.now
            self._limit.succeeded(slot.key, self._clock() - slot.began, slot.era, saturated)
        elif self._overload(error):
            self._limit.dropped(slot.era)

    def _leave(self, slot: _Slot[Any]) -> None:
        """Take a slot back, and hand what is free to those who wait longest."""
        if slot.generation != self._generation:  # taken by the parent process, or on a loop that was closed
            return
        self._in_flight -= 1
        while self._waiters and self._in_flight < self._limit.now:
            self._take()
            self._waiters.popleft().wake()

    def _timed_out(self, timeout: float) -> DeadlineExceeded:
        self._timeouts += 1
        return DeadlineExceeded(
            f"no slot of {self.name!r} after {timeout:g} s ({self._in_flight} in flight, {len(self._waiters)} waiting)"
        )


T = TypeVar("T", bound=_Turns[Any])


class _Slot(Generic[T]):
    """What one call is known by between its begin and its end."""

    __slots__ = ("began", "ended", "era", "generation", "key", "limiter", "timeout")

    def __init__(self, limiter: T, key: str, timeout: float | None) -> None:
        self.limiter = limiter
        self.key = key
        self.timeout: float | None = optional(number, "timeout", timeout)
        #: Of the limiter when it was taken; None for one that nothing was taken for.
        self.generation: int | None = None
        self.ended = False
        self.began = 0.0
        self.era = 0

    def _is_needed(self) -> bool:
        """Whether to take it; within a call that holds one already, to wait might be to wait for oneself."""
        if self.ended or self.generation is not None:
            raise RuntimeError(f"a slot of {self.limiter!r} is entered twice: ask for another one")
        return not self.limiter.is_inside()

    def _begin(self) -> None:
        self.era = self.limiter._limit.decreases
        self.began = self.limiter._clock()
        _held.set((*_held.get(), self))

    def _end(self, error: BaseException | None) -> None:
        self.ended = True
        if self.generation is not None:
            _held.set(tuple(slot for slot in _held.get() if slot is not self))
            self.limiter._exit(self, error)


class _Turnstile:
    """A thread that waits; the lock is taken until it is its turn."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, timeout: float | None) -> bool:
        return self._lock.acquire(timeout=-1 if timeout is None else min(timeout, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        self._lock.release()


class Limiter(_Turns[_Turnstile]):
    """Let at most `limit` calls of threads be under way, first come, first served.

    `limit` is a number, or "adaptive": then it starts at `initial`, stays from `min_limit` to `max_limit`, and
    follows latency and errors as `AimdLimit` says (`tolerance`, `backoff_ratio`; `overload` tells which errors
    count). Usable from any thread.

    A call within a call that holds a slot goes through at once and takes none: to wait might be to wait for itself.
    Within are the same thread, and threads and tasks that run with a copy of its context variables, until the slot is
    given back. A plain thread has no such copy before free-threaded CPython 3.14: it waits, so give it a timeout.
    """

    def slot(self, timeout: float | None = None, *, key: str = "") -> _ThreadSlot:
        """Return a context manager that holds one slot, once; entering it blocks until one is free.

        `timeout` is in seconds (0: do not wait); DeadlineExceeded is raised when none came free. `key` names what
        is called, so that latencies are compared with their like. An exception that leaves the block is a failure.
        """
        return _ThreadSlot(self, key, timeout)

    def stats(self) -> LimiterStats:
        """Return what it allows and lets through now, and what it did since it was made."""
        with self._lock:
            return super().stats()

    def _enter(self, slot: _ThreadSlot) -> None:
        with self._lock:
            slot.generation = self._generation
            if self._free():
                self._take()
                return
            if slot.timeout == 0:
                raise self._timed_out(0)
            waiter = _Turnstile()
            self._waiters.append(waiter)
        try:
            if waiter.wait(slot.timeout):
                return
        except BaseException:  # KeyboardInterrupt: what was handed over meanwhile goes to the next
            with self._lock:
                if not self._give_up(waiter):
                    self._leave(slot)
            raise
        with self._lock:
            if self._give_up(waiter):
                raise self._timed_out(slot.timeout or 0.0)


class _ThreadSlot(_Slot[Limiter]):
    __slots__ = ()

    def __enter__(self) -> None:
        if self._is_needed():
            self.limiter._enter(self)
            self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)


class _Ticket:
    """A task that waits."""

    __slots__ = ("turn",)

    def __init__(self) -> None:
        self.turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def wake(self) -> None:
        if not self.turn.done():  # else its task was cancelled, and gives the slot back itself
            self.turn.set_result(None)


class AsyncLimiter(_Turns[_Ticket]):
    """Let at most `limit` calls of tasks be under way: a `Limiter` for asyncio, on one event loop at a time.

    A task that is cancelled, waiting or not, leaks no slot. While slots are held or waited for on one event loop,
    another one gets WrongEventLoop.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def slot(self, timeout: float | None = None, *, key: str = "") -> _TaskSlot:
        """Return an async context manager that holds one slot, as `Limiter.slot` does."""
        return _TaskSlot(self, key, timeout)

    async def _enter(self, slot: _TaskSlot) -> None:
        with self._lock:  # against the loops of other threads, which are told that they are wrong here
            self._check_loop()
            slot.generation = self._generation
            if self._free():
                self._take()
                return
            if slot.timeout == 0:
                raise self._timed_out(0)
            waiter = _Ticket()
            self._waiters.append(waiter)
        try:
            await asyncio.wait((waiter.turn,), timeout=slot.timeout)
        except BaseException:
            with self._lock:
                if not self._give_up(waiter):
                    self._leave(slot)
            raise
        with self._lock:
            if self._give_up(waiter):
                raise self._timed_out(slot.timeout or 0.0)

    def _check_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if loop is self._loop:
            return
        if self._loop is not None and self._loop.is_closed():
            self._free_all()  # its tasks will never go on
        if self._in_flight or self._waiters:
            raise WrongEventLoop(
                f"{self!r} is in use on {self._loop!r} and asked for a slot on {loop!r}: make one here"
            )
        self._loop = loop


class _TaskSlot(_Slot[AsyncLimiter]):
    __slots__ = ()

    async def __aenter__(self) -> None:
        if self._is_needed():
            await self.limiter._enter(self)
            self._begin()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end(error)
