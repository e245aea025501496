"""What a pool of connections holds, counts, and can tell about itself."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from storescope.core.backoff import Backoff
from storescope.core.connections.pool_options import PoolOptions
from storescope.core.connections.pool_parts import Counts, Entry, Job, Waiter
from storescope.core.errors import ConnectFailed, PoolClosed, PoolError, PoolTimeout
from storescope.core.stats import ConnectionPoolStats


class PoolState:
    """The state of a pool; read and changed with the pool's lock held."""

    def __init__(self, min_size: int, max_size: int, options: PoolOptions, rng: Callable[[], float]) -> None:
        self.min_size = min_size
        self.max_size = max_size
        self.closed = False
        #: Set, without the lock, where the pool was dropped without being closed.
        self.abandoned = False
        self.entries: dict[int, Entry] = {}  # by the identity of their connections
        self.idle: list[Entry] = []  # the one used last is taken first
        self.waiters: OrderedDict[object, Waiter] = OrderedDict()  # by who will hold the connection
        self.jobs: list[Job] = []  # decided upon, and not begun
        self.running: set[Job] = set()
        self.counts = Counts()
        self._options = options
        self._backoff = Backoff(rng)
        self._opening = 0
        self._pinging = 0

    @property
    def total(self) -> int:
        """Connections that are open or being opened."""
        return len(self.entries) + self._opening

    @property
    def in_use(self) -> int:
        """Connections that somebody holds."""
        return len(self.entries) - len(self.idle) - self._pinging

    @property
    def opening(self) -> int:
        """Connections that are being opened or pinged."""
        return self._opening + self._pinging

    @property
    def filled(self) -> bool:
        """Whether as many are open as there should be at least."""
        return len(self.entries) >= self.min_size

    @property
    def over(self) -> bool:
        """Whether nothing is left to be begun, ever."""
        return self.closed and not self.entries and not self.jobs

    @property
    def quiet(self) -> bool:
        """Whether all work has ended besides."""
        return self.over and not self.running

    def check_open(self) -> None:
        """Raise PoolClosed after `close`."""
        if self.closed:
            raise PoolClosed(f"{self._options.name!r} is closed")

    def failure(self, timeout: float) -> PoolError:
        """Make the error that says why there is no connection after so many seconds."""
        said = f"no connection of {self._options.name!r} after {float(timeout)} s"
        numbers = f"({self.in_use} in use, {self.opening} opening, {len(self.waiters)} waiting)"
        cause = self._backoff.error
        if cause is None:
            return PoolTimeout(f"{said} {numbers}")
        attempts = (
            f"{self._backoff.failures} attempt{'s' if self._backoff.failures > 1 else ''} to open one failed"
        )
        error = (PoolTimeout if self.entries else ConnectFailed)(
            f"{said}: {attempts}, the last with {type(cause).__name__}: {cause} {numbers}"
        )
        error.__cause__ = cause
        return error

    def stats(self) -> ConnectionPoolStats:
        """Return what is held now, and what was counted."""
        counts = self.counts
        used = sum(entry.uses > 0 for entry in self.entries.values())
        return ConnectionPoolStats(
            min_size=self.min_size,
            max_size=self.max_size,
            total=self.total,
            in_use=self.in_use,
            idle=len(self.idle),
            opening=self.opening,
            waiting=len(self.waiters),
            created=counts.created,
            reused=counts.checkouts - used - counts.closed_after_use,
            closed=counts.closed,
            invalid=counts.invalid,
            connect_errors=counts.connect_errors,
            timeouts=counts.timeouts,
            rejected=counts.rejected,
            checkouts=counts.checkouts,
            waited=counts.waited,
            wait_time=counts.wait_time,
            use_time=counts.use_time,
            create_time=counts.create_time,
        )
