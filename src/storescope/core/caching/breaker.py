"""A circuit breaker: what fails again and again is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

from storescope.core import checks, forks
from storescope.core.backoff import exponential


class Breaker:
    """Tell whether to try what has failed, after M. Nygard, "Release It!" (2007).

    - `closed`: every request is let through, until `failures` of them in a row have failed.
    - `open`: none is, for `first` seconds.
    - `half-open`: one is, and it decides: success closes the breaker, failure opens it for twice as long as before,
      at most `longest` seconds. If nothing is heard of it, the next one is let through after that same time.

    Thread-safe; a forked child goes on with what its parent knew.
    """

    def __init__(
        self,
        failures: int = 3,
        *,
        first: float = 0.5,
        longest: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = checks.whole("failures", failures)
        self._first = checks.finite("first", first)
        self._longest = checks.number("longest", longest, self._first)
        self._clock: Callable[[], float] = checks.function("clock", clock)
        self._lock = Lock()
        self._in_a_row = 0
        #: None while closed.
        self._opened_at: float | None = None
        self._probing = False
        #: How many times it opened, or stayed open after a probe, since it was closed.
        self._openings = 0
        self._retry_at = 0.0
        forks.after_fork(self._in_child)

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        with self._lock:
            if self._opened_at is None:
                return "closed"
            return "half-open" if self._probing else "open"

    def allow(self) -> bool:
        """Tell whether to try now; whoever was told so reports `succeeded` or `failed`."""
        if self._opened_at is None:  # without the lock: a request more or less does no harm
            return True
        with self._lock:
            if self._opened_at is None:
                return True
            now = self._clock()
            if now < self._retry_at:
                return False
            self._probing = True
            self._put_off(now)
            return True

    def succeeded(self) -> float | None:
        """Close; returns for how many seconds it was open, None where it was not."""
        if self._opened_at is None and self._in_a_row == 0:
            return None
        with self._lock:
            opened_at, self._opened_at = self._opened_at, None
            self._in_a_row = 0
            self._probing = False
            self._openings = 0
            return None if opened_at is None else self._clock() - opened_at

    def failed(self) -> bool:
        """Count a failure; returns whether this one has opened it. What began before it opened no longer counts."""
        with self._lock:
            now = self._clock()
            if self._opened_at is None:
                self._in_a_row += 1
                if self._in_a_row < self._failures:
                    return False
                self._opened_at = now
                self._openings = 1
                self._put_off(now)
                return True
            if self._probing:
                self._probing = False
                self._openings += 1
                self._put_off(now)
            return False

    def _put_off(self, now: float) -> None:
        self._retry_at = now + exponential(self._openings, first=self._first, longest=self._longest)

    def __repr__(self) -> str:
        return f"Breaker({self.state}, {self._in_a_row} failures in a row)"

    def _in_child(self) -> None:
        self._lock = Lock()
