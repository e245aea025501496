"""What can go wrong in the core, as one short tree."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CoreError(Exception):
    """Something that the core refuses or gives up, apart from bad arguments (TypeError, ValueError)."""


class Closed(CoreError):
    """A pool, cache, batch or monitor is used after its `close()`."""


class UsedAfterFork(CoreError):
    """An object with threads or connections is used in a forked child: neither exists there."""


class WrongEventLoop(CoreError, RuntimeError):
    """An object that belongs to one event loop is used on another."""


class DeadlineExceeded(CoreError, TimeoutError):
    """An operation did not end before its deadline."""


class PoolError(CoreError):
    """A pool cannot hand out or take back what it was asked to."""


class PoolTimeout(PoolError, TimeoutError):
    """Nothing came free in the time that the caller would wait."""


class PoolClosed(PoolError, Closed):
    """A pool is used after its `close()`, or closed while the caller waits."""


class QueueFull(PoolError):
    """As many wait already as may wait."""


class ConnectFailed(PoolError, ConnectionError):
    """No connection can be opened; the cause says why."""


class ConnectionLost(CoreError, ConnectionError):
    """A connection ended under what it was used for; the message says how."""


class NotFromPool(PoolError):
    """An object is given back that the pool did not hand out, or was given back before."""


class UnknownPool(PoolError, KeyError):
    """No pool of that name was created."""

    __str__ = Exception.__str__  # a KeyError would show its message in quotes


class ToolFailed(CoreError):
    """A tool answered, and its result is marked as an error; the message is the tool's."""


class Cancelled(CoreError):
    """An operation was cancelled before it began."""


class NotRun(CoreError):
    """An operation's result is asked for before it has one."""


class WouldDeadlock(CoreError, RuntimeError):
    """A wait is refused that only the waiter itself could end."""


class RemoteError(CoreError):
    """What went wrong in another process, as text: a traceback, or what cannot be unpickled here."""


class BadPayload(CoreError, ValueError):
    """Stored bytes are not what this release writes: corrupt, too large, or of another format."""


class TaskErrors(CoreError):
    """Some tasks failed. `results` has one entry per task, None where it failed; `errors` has them by index."""

    def __init__(self, results: Sequence[Any], errors: dict[int, BaseException]) -> None:
        self.results = list(results)
        self.errors = dict(errors)
        index, first = next(iter(sorted(self.errors.items())))
        super().__init__(
            f"{len(self.errors)} of {len(self.results)} tasks failed; the first is task {index}: {first!r}"
        )

    def __reduce__(self) -> tuple[type[TaskErrors], tuple[list[Any], dict[int, BaseException]]]:
        """Let it cross from one process to another, which the default cannot: it is made of two arguments."""
        return type(self), (self.results, self.errors)
