"""What the pools for threads and for asyncio have in common: their options, and what they tell about themselves."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

from storescope.core import checks
from storescope.core.connections.pool_logic import PoolLogic
from storescope.core.connections.pool_options import PoolOptions, check_sizes
from storescope.core.connections.pool_parts import Entry
from storescope.core.errors import CoreError, PoolError
from storescope.core.forks import check_process, current_process
from storescope.core.stats import ConnectionPoolStats

#: Errors after which nobody knows what is still under way on a connection.
BREAKING = (ConnectionError, EOFError, TimeoutError, asyncio.TimeoutError)  # the last is another before 3.11

#: Seconds that `close` gives connections to close themselves, once nobody uses them.
CLOSING_TIME = 5.0


class PoolFace(ABC):
    """A pool without its ways of waiting and working."""

    def __init__(
        self,
        service_config: Mapping[str, Any] | None = None,
        min_size: int = 2,
        max_size: int = 10,
        max_idle_time: float = 300,
        *,
        timeout: float = 30.0,
        max_lifetime: float = 3600.0,
        max_waiting: int = 0,
        validate_after: float = 30.0,
        factory: Callable[[], Any] | None = None,
        name: str = "pool",
        clock: Callable[[], float] = time.monotonic,
        rng: Callable[[], float] = random.random,
    ) -> None:
        check_sizes(min_size, max_size)
        options = PoolOptions(max_idle_time, max_lifetime, max_waiting, validate_after, name)
        self._timeout = checks.number("timeout", timeout)
        self._options = options
        self._service_config = self._checked_config(service_config, factory)
        self._connect = self._connector(self._service_config) if factory is None else factory
        self._clock = checks.function("clock", clock)
        self._made_in = current_process()
        # A signal handler or a finalizer may interrupt a thread that has the lock, and then use the pool itself:
        # `_inside` tells, and what is under way in this thread is left to finish first.
        self._lock = threading.RLock()
        self._inside: Callable[[], bool] = cast("Any", self._lock)._is_owned
        self._logic = PoolLogic(min_size, max_size, options, checks.function("rng", rng))
        self._begin()

    @abstractmethod
    def _begin(self) -> None:
        """Begin to do what the logic decides."""

    @abstractmethod
    def _check(self) -> None:
        """Raise where the pool cannot be used: in another process, on another event loop."""

    @staticmethod
    @abstractmethod
    def _connector(service_config: dict[str, Any]) -> Callable[[], Any]:
        """Return what opens connections to a service."""

    @staticmethod
    def _checked_config(
        config: Mapping[str, Any] | None, factory: Callable[[], Any] | None
    ) -> dict[str, Any]:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"service_config must be a dict, not {type(config).__name__}")
        if factory is not None:
            checks.function("factory", factory)
        elif not config:
            raise ValueError(f"service_config must name a service where there is no factory, not {config!r}")
        return dict(config or {})

    @property
    def name(self) -> str:
        """Its name in errors and threads."""
        return self._options.name

    @property
    def service_config(self) -> dict[str, Any]:
        """What connections are opened to."""
        return dict(self._service_config)

    @property
    def min_size(self) -> int:
        """How many connections are kept open at least."""
        return self._logic.min_size

    @property
    def max_size(self) -> int:
        """How many connections are open at most."""
        return self._logic.max_size

    @property
    def max_idle_time(self) -> float:
        """Seconds after which an idle connection above `min_size` is closed."""
        return self._options.max_idle_time

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._logic.closed

    def release(self, connection: Any, *, broken: bool = False) -> None:
        """Give back what `acquire` returned; it is closed if `broken`. Never blocks.

        Raises NotFromPool for anything else, and for what was given back before.
        """
        self._check()
        with self._lock:
            entry = self._logic.held_as(connection, ByHand)
            holder = entry and entry.holder
        if entry is not None:
            self._give(entry, holder, broken)

    def resize(self, min_size: int, max_size: int) -> None:
        """Change the sizes. Never blocks: what is missing is opened, what is too many closed, in the background."""
        self._check()
        self._check_outside()
        check_sizes(min_size, max_size)
        with self._lock:
            self._logic.resize(min_size, max_size, self._clock())

    def stats(self) -> ConnectionPoolStats:
        """Return what the pool holds now and what it did since it was made; from any thread."""
        check_process(self._made_in, self)
        with self._lock:
            return self._logic.stats()

    def get_stats(self) -> dict[str, Any]:
        """Return the most important of `stats` as a dict; `usage_rate` is open connections by `max_size`."""
        stats = self.stats()
        return {
            "active_connections": stats.in_use,
            "idle_connections": stats.idle,
            "total_connections": stats.total,
            "max_size": stats.max_size,
            "min_size": stats.min_size,
            "usage_rate": stats.total / stats.max_size,
            "created": stats.created,
            "reused": stats.reused,
            "closed": stats.closed,
            "timeouts": stats.timeouts,
        }

    def _take(self, holder: object) -> Entry | None:
        """Hand out a connection that is idle and alive; None where there is none."""
        self._check()
        if self._inside():
            self._check_outside()
        while True:
            with self._lock:
                entry = self._logic.take(holder, self._clock())
            healthy = False
            try:
                if entry is None or (healthy := entry.alive()):
                    return entry
            finally:  # also where the flag is asked in vain, because of an interrupt
                if entry is not None and not healthy:
                    with self._lock:
                        self._logic.reject(entry, self._clock())

    def _give(self, entry: Entry, holder: object, broken: bool) -> None:
        healthy = False
        try:
            healthy = not broken and entry.alive()
        finally:  # also where the flag is asked in vain, because of an interrupt
            if self._inside():
                self._logic.give_later(entry, holder, healthy)
            else:
                with self._lock:
                    self._logic.give(entry, holder, self._clock(), healthy)

    def _undo(self, holder: object, error: BaseException) -> None:
        """Take back what somebody asked for who was interrupted or cancelled."""
        if isinstance(error, CoreError):
            return  # nothing is left to be undone; and in a forked child the lock may be held for ever
        with self._lock:
            self._logic.withdraw(holder, self._clock())

    def _check_outside(self) -> None:
        if self._inside():
            raise PoolError(
                f"{self!r} was interrupted in the middle of something by this signal handler or finalizer, which "
                "can only give back, close, and ask for stats"
            )

    def __repr__(self) -> str:
        logic = self._logic
        state = "closed, " if logic.closed else ""
        numbers = f"{logic.in_use} in use, {len(logic.idle)} idle, {logic.opening} opening, {logic.max_size} at most"
        return f"<{type(self).__name__} {self.name!r}: {state}{numbers}, {len(logic.waiters)} waiting>"


class ByHand:
    """Whoever holds a connection from `acquire` to `release`."""

    __slots__ = ()


#: Stands in a lease for the connection that it waits for.
AWAITED = Entry(None, 0.0, 0.0, 0.0)


class Lease:
    """A connection for the time of a block; what the two kinds of it have in common."""

    __slots__ = ("_entry", "_pool", "_timeout")

    def __init__(self, pool: Any, timeout: float | None) -> None:
        self._pool = pool
        self._timeout = pool._timeout if timeout is None else checks.number("timeout", timeout)
        self._entry: Entry | None = None

    def _in_use(self) -> PoolError:
        does = "waits for" if self._entry is AWAITED else "has"
        return PoolError(f"this {does} a connection already: ask get_connection() for another")

    def _end(self, error: type[BaseException] | None) -> None:
        entry = self._entry
        pool = self._pool
        if entry is not None and pool._made_in == current_process():  # a child leaves the parent's alone
            try:
                pool._give(entry, self, error is not None and _breaks(error))
            except BaseException:  # an interrupt, which must not cost the pool a place
                if entry.holder is self:
                    pool._give(entry, self, True)
                self._entry = None
                raise
        self._entry = None


def _breaks(error: type[BaseException]) -> bool:
    """Tell whether a connection is not to be used after an error inside its block; a pool's error is not its own."""
    return (issubclass(error, BREAKING) and not issubclass(error, PoolError)) or not issubclass(
        error, Exception
    )
