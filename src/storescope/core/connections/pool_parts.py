"""What a pool of connections keeps account of: connections, those who wait for one, and work to be done."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Entry:
    """A connection that the pool owns."""

    __slots__ = (
        "_is_alive",
        "connection",
        "expires_at",
        "holder",
        "idle_since",
        "ping_at",
        "taken_at",
        "uses",
        "validate_after",
    )

    def __init__(self, connection: Any, now: float, lifetime: float, validate_after: float) -> None:
        self.connection = connection
        self._is_alive: Callable[[], bool] | None = getattr(connection, "is_alive", None)
        self.validate_after = validate_after if hasattr(connection, "ping") else math.inf
        self.expires_at = now + lifetime
        self.idle_since = now
        #: From when on it is not trusted without a ping.
        self.ping_at = now + self.validate_after
        #: Who has it, if anybody.
        self.holder: object = None
        self.taken_at = 0.0
        self.uses = 0

    def alive(self) -> bool:
        """Tell what the connection's own flag says; one that fails to tell is dead, one without a flag alive.

        The faces ask before they lock the pool, because even a look at a socket lets other threads run.
        """
        flag = self._is_alive
        try:
            return flag is None or flag()
        except Exception:
            return False

    def dead(self) -> bool:
        """Tell the opposite to the pool itself, which must go on whatever the flag raises."""
        try:
            return not self.alive()
        except BaseException:
            return True


class Waiter(ABC):
    """Somebody who waits for a connection, or for the pool to come into some state."""

    __slots__ = ("entry", "error", "since")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.error: Exception | None = None
        self.since = 0.0

    @abstractmethod
    def wake(self) -> None:
        """End the waiting; called once, by whoever changed the pool."""


class Action(enum.Enum):
    """What is done with a server, never while the pool is locked; but for `OPEN`, the connection's own method."""

    OPEN = "open"
    PING = "ping"
    CLOSE = "close"


#: Seconds after which work is given up. A frozen server must not hold places of the pool for ever.
LIMITS = {Action.OPEN: 120.0, Action.PING: 10.0, Action.CLOSE: 10.0}


class Job:
    """Work that the pool has decided upon."""

    __slots__ = ("action", "begun", "cancelled", "entry", "give_up_at", "target")

    def __init__(self, action: Action, target: Any = None, entry: Entry | None = None) -> None:
        self.action = action
        self.target = target
        self.entry = entry
        self.begun = self.give_up_at = 0.0
        #: Whether its task was told to end, where it is done by one.
        self.cancelled = False

    def begin(self, now: float) -> None:
        """Note when it begins, and so when it is to be given up."""
        self.begun = now
        self.give_up_at = now + LIMITS[self.action]

    def perform(self, connect: Callable[[], Any]) -> Any:
        """Do it, and return what came of it; for asyncio that may have to be awaited."""
        if self.action is Action.OPEN:
            return connect()
        method = getattr(self.target, self.action.value, None)
        return None if method is None else method()


@dataclass(slots=True)
class Counts:
    """What a pool counts, as in `ConnectionPoolStats`."""

    created: int = 0
    closed: int = 0
    #: Of the closed ones, those that had been handed out.
    closed_after_use: int = 0
    invalid: int = 0
    connect_errors: int = 0
    timeouts: int = 0
    rejected: int = 0
    checkouts: int = 0
    waited: int = 0
    wait_time: float = 0.0
    use_time: float = 0.0
    create_time: float = 0.0
