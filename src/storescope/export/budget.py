"""How long exports may take: as long as they like while the program runs, and hardly any time once it has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from storescope.core.forks import after_fork

#: The part of the time that is kept for writing what was not sent, and for the interpreter to end.
_RESERVE: Final = 0.25


class ExitBudget:
    """The time that all signals together may still take once the program has ended.

    It lasts `exit_timeout` seconds from the end, and as long again from each batch that a receiver
    acknowledges, up to `flush_timeout` seconds from the end. It is shared, so that a receiver that is dead for
    one signal is not waited for again by the next.
    """

    def __init__(
        self, exit_timeout: float, flush_timeout: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._patience = exit_timeout * (1 - _RESERVE)
        #: Seconds that it can last at most.
        self.longest = max(exit_timeout, flush_timeout)
        self._clock = clock
        self._changed = threading.Condition()
        self._begun = 0
        self._deadline: float | None = None
        self._latest = 0.0
        after_fork(self._renew)

    def __repr__(self) -> str:
        remaining = self.remaining()
        return f"<ExitBudget {'not begun' if remaining is None else f'{remaining:.3f} s left'}>"

    def begin(self) -> None:
        """Start the clock for good, also for exports that are already under way."""
        with self._changed:
            self._begun += 1
            if self._deadline is None:
                now = self._clock()
                self._deadline = now + self._patience
                self._latest = now + self.longest
                self._changed.notify_all()

    @contextmanager
    def window(self) -> Iterator[None]:
        """Bound what happens inside as an exit is bounded; the program may go on running afterwards."""
        self.begin()
        try:
            yield
        finally:
            with self._changed:
                self._begun -= 1
                if not self._begun:
                    self._deadline = None

    def acknowledged(self) -> None:
        """Prolong a budget that is not yet used up: a receiver has taken a batch."""
        with self._changed:
            now = self._clock()
            if self._deadline is not None and now < self._deadline:
                self._deadline = min(now + self._patience, self._latest)

    def remaining(self) -> float | None:
        """Return the seconds that are left, or None while the program runs."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    @property
    def exhausted(self) -> bool:
        """Whether the program has ended and there is no time left."""
        return self.remaining() == 0.0

    def wait(self, done: Callable[[], bool]) -> bool:
        """Wait until `done` and return True, or False once the budget is exhausted first."""
        with self._changed:
            while not done():
                remaining = self.remaining()
                if remaining == 0.0:
                    return False
                self._changed.wait(remaining)
            return True

    def notify(self) -> None:
        """Have everyone who waits look again whether he is done."""
        with self._changed:
            self._changed.notify_all()

    def _renew(self) -> None:
        # The thread that held the lock may not exist in the child.
        self._changed = threading.Condition()
