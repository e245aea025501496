"""Single-flight: of equal calls at the same time one is computed, and the others wait for what it gives."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, TypeVar

from storescope.core.forks import after_fork

T = TypeVar("T")


class _Flight:
    """One computation, how many wait for it, and which others it needs now."""

    __slots__ = ("_lock", "forgotten", "needs", "waiters")

    def __init__(self) -> None:
        self.needs: list[_Flight] = []
        self.waiters = 0
        self.forgotten = False
        self._lock = threading.RLock()

    def keep(self, store: Callable[[T], object], value: T) -> None:
        """Store the value unless the flight has been forgotten; whoever forgets it waits until it is stored."""
        with self._lock:
            if not self.forgotten:
                store(value)

    def forget(self) -> None:
        with self._lock:
            self.forgotten = True


class _ThreadFlight(_Flight):
    """A computation in a thread. Without an outcome it was abandoned: nobody is to have what ended it."""

    __slots__ = ("done", "error", "has_outcome", "value")

    def __init__(self) -> None:
        super().__init__()
        self.done = threading.Event()
        self.has_outcome = False
        self.value: Any = None
        self.error: Exception | None = None


class _TaskFlight(_Flight):
    """A computation in a task of its own, for which its first caller waits like others."""

    __slots__ = ("task",)
    task: asyncio.Task[Any]

    def was_abandoned(self) -> bool:
        """Whether it ended by what nobody else is to have: a cancellation, the end of the program."""
        return self.task.cancelled() or not isinstance(self.task.exception(), (Exception, type(None)))


class _Needs:
    """Which flight needs which, over all threads and tasks, so that none is ever made to wait for itself."""

    def __init__(self) -> None:
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.RLock()

    def add(self, flight: _Flight | None, needed: _Flight) -> bool:
        """Note that a flight needs another; False, and nothing is noted, where that one needs it already."""
        if flight is None:
            return True
        with self._lock:
            reached = [needed]
            for one in reached:  # grows while it is walked
                reached += [other for other in one.needs if other not in reached]
            if flight in reached:
                return False
            flight.needs.append(needed)
        return True

    def remove(self, flight: _Flight | None, needed: _Flight) -> None:
        if flight is not None:
            with self._lock:
                flight.needs.remove(needed)


_needs: Final = _Needs()
#: The flight that the current code computes for: it reaches tasks and threads that copy the context.
_innermost: ContextVar[_Flight | None] = ContextVar("storescope_flight", default=None)


class _Flights:
    """The flights under way, by place."""

    def __init__(self, *, name: str = "single_flight") -> None:
        self.name = name
        self._renew()
        after_fork(self._renew)

    def _renew(self) -> None:
        """Begin without flights: in a forked child those who fly them are missing."""
        self._lock = threading.RLock()  # may be taken again within: a collection can run anything
        self._flights: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {len(self)} in flight, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many callers wait for a computation that is not in their own thread."""
        with self._lock:
            return sum(flight.waiters for flight in self._flights.values())

    def forget_all(self) -> None:
        """Do what `forget` does for every key."""
        self._forget(list(self._flights))

    def _forget(self, places: Iterable[Hashable]) -> None:
        for place in places:
            with self._lock:
                flight = self._flights.pop(place, None)
            if flight is not None:
                flight.forget()

    def _drop(self, place: Hashable, flight: _Flight) -> None:
        with self._lock:
            if self._flights.get(place) is flight:
                del self._flights[place]


class SingleFlight(_Flights):
    """Computes each key once at a time for all threads.

    Whoever asks for a key that is being computed waits, without a bound, and gets the same value, or the same
    exception. Nothing is kept: the next to ask has it computed anew. If what ends a computation is no Exception
    (KeyboardInterrupt, SystemExit), it is its caller's alone, and one of those who wait computes instead. A
    computation that asks for its own key, directly or over others that wait for each other, computes it directly.
    """

    def run(
        self, key: Hashable, compute: Callable[[], T], store: Callable[[T], object] | None = None
    ) -> tuple[T, bool]:
        """Return the value, and whether it is that of a computation that somebody else had begun.

        `store(value)` is called before anybody gets the value, unless the key was forgotten meanwhile.
        """
        flight = _ThreadFlight()
        within = _innermost.get()
        try:
            while (current := self._board(key, flight)) is not flight:
                if not _needs.add(within, current):
                    return compute(), False
                try:
                    self._wait(current)
                finally:
                    _needs.remove(within, current)
                if current.has_outcome:
                    return current.value, True
                if current.error is not None:
                    try:
                        raise current.error
                    finally:
                        del current  # or the error would have this frame, and be had by it
            del current
            _needs.add(within, flight)
            try:
                return self._fly(flight, compute, store), False
            finally:
                _needs.remove(within, flight)
        finally:
            # Here, so that an interruption anywhere above leaves nobody waiting.
            self._drop(key, flight)
            flight.done.set()
            del flight

    def start(
        self,
        key: Hashable,
        compute: Callable[[], T],
        store: Callable[[T], object] | None = None,
        *,
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> bool:
        """Compute in a thread of its own that nobody waits for; False if the key is being computed already.

        Its exception is given to `failed`, and to those who ask for the key meanwhile. The thread is a daemon and has
        a copy of the caller's context. False also where no thread can be started.
        """
        flight = _ThreadFlight()
        if self._board(key, flight) is not flight:
            return False

        def fly() -> None:
            try:
                self._fly(flight, compute, store)
            except Exception as error:
                failed(error)
            finally:
                self._drop(key, flight)
                flight.done.set()

        thread = threading.Thread(target=copy_context().run, args=(fly,), name=self.name, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            self._drop(key, flight)
            flight.done.set()
            return False
        return True

    def forget(self, key: Hashable) -> None:
        """Have the value that is being computed not stored, and those who ask from now on not given it."""
        self._forget([key])

    def _board(self, key: Hashable, flight: _ThreadFlight) -> _ThreadFlight:
        with self._lock:
            return self._flights.setdefault(key, flight)  # type: ignore[no-any-return]

    def _wait(self, flight: _ThreadFlight) -> None:
        with self._lock:
            flight.waiters += 1
        try:
            flight.done.wait()
        finally:
            with self._lock:
                flight.waiters -= 1

    @staticmethod
    def _fly(flight: _ThreadFlight, compute: Callable[[], T], store: Callable[[T], object] | None) -> T:
        token = _innermost.set(flight)
        try:
            value = compute()
            if store is not None:
                flight.keep(store, value)
            flight.value, flight.has_outcome = value, True
        except Exception as error:
            flight.error = error
            raise
        finally:
            _innermost.reset(token)
            del flight
        return value


class AsyncSingleFlight(_Flights):
    """Computes each key once at a time for all tasks of an event loop; loops share nothing.

    Each computation is a task of its own with a copy of the first caller's context, so that it outlives whichever
    caller is cancelled. The last one who is cancelled cancels it, and goes on when it has ended. Otherwise as
    `SingleFlight`; a computation that is cancelled by others is begun anew by one of those who wait. The design is
    that of async_lru. With `blocking_store` values are stored in a thread.
    """

    def __init__(self, *, blocking_store: bool = False, name: str = "single_flight") -> None:
        super().__init__(name=name)
        self._blocking_store = blocking_store
        self._tasks: set[asyncio.Task[Any]] = set()  # an event loop keeps none alive

    async def run(
        self, key: Hashable, compute: Callable[[], Awaitable[T]], store: Callable[[T], object] | None = None
    ) -> tuple[T, bool]:
        """Return the value, and whether it is that of a computation that somebody else had begun.

        `store(value)` is called before anybody gets the value, unless the key was forgotten meanwhile.
        """
        place = (asyncio.get_running_loop(), key)
        within = _innermost.get()
        while True:
            flight = self._flights.get(place)
            joined = flight is not None
            if flight is None:
                flight = self._begin(place, compute, store)
            if not _needs.add(within, flight):
                return await compute(), False
            flight.waiters += 1
            try:
                await asyncio.wait({flight.task})  # not cancelled with its caller, nor the caller with it
            finally:
                flight.waiters -= 1
                _needs.remove(within, flight)
                if not flight.waiters and not flight.task.done():
                    self._drop(place, flight)
                    flight.task.cancel()
                    await asyncio.wait({flight.task})
            if not joined or not flight.was_abandoned():
                try:
                    return flight.task.result(), joined
                finally:
                    del flight  # or an error would have this frame, and be had by it

    def start(
        self,
        key: Hashable,
        compute: Callable[[], Awaitable[T]],
        store: Callable[[T], object] | None = None,
        *,
        failed: Callable[[BaseException], object] = lambda error: None,
    ) -> bool:
        """Compute in a task that nobody waits for; False if the key is being computed already on this loop.

        Its exception is given to `failed`, and to those who ask for the key meanwhile.
        """
        place = (asyncio.get_running_loop(), key)
        if place in self._flights:
            return False
        flight = self._begin(place, compute, store)
        flight.waiters += 1  # nobody who could be cancelled
        flight.task.add_done_callback(partial(_report, failed))
        return True

    def forget(self, key: Hashable) -> None:
        """Have values that are being computed not stored, on any loop, and those who ask from now on not given them."""
        self._forget([place for place in list(self._flights) if place[1] == key])

    def _begin(
        self,
        place: tuple[asyncio.AbstractEventLoop, Hashable],
        compute: Callable[[], Awaitable[T]],
        store: Callable[[T], object] | None,
    ) -> _TaskFlight:
        flight = _TaskFlight()
        with self._lock:
            self._flights[place] = flight
        flight.task = place[0].create_task(self._fly(place, flight, compute, store), name=self.name)
        self._tasks.add(flight.task)
        flight.task.add_done_callback(self._ended)
        return flight

    async def _fly(
        self,
        place: Hashable,
        flight: _TaskFlight,
        compute: Callable[[], Awaitable[T]],
        store: Callable[[T], object] | None,
    ) -> T:
        _innermost.set(flight)
        try:
            value = await compute()
            if store is not None and self._blocking_store:
                await asyncio.to_thread(flight.keep, store, value)
            elif store is not None:
                flight.keep(store, value)
            return value
        finally:
            self._drop(place, flight)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Let go of a task, and take note of its exception, which asyncio would otherwise complain of."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def _report(failed: Callable[[BaseException], object], task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        failed(error)
