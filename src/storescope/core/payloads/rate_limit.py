"""A rate limit: so many bytes a second, or calls, or whatever else is counted."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Final

from storescope.core import checks, forks
from storescope.core.errors import DeadlineExceeded

_NO_WAIT: Final = 0.0


class TokenBucket:
    """Let `rate` tokens through each second in the mean, and up to `burst` at once; a token may be a byte.

    Callers are served in the order in which they come, threads and tasks alike: each takes its tokens at once, if need
    be from what is yet to flow in, and then waits until that is there. So an amount above `burst` is no error: it
    waits for the part that the bucket never holds, and the rate is kept. (The token bucket of RFC 3290, 5.1.1, with
    the loans of Guava's RateLimiter, but paid by the borrower.)

    Thread-safe; nothing waits while it holds the lock. A forked child goes on with a copy: the limit is per process.
    """

    def __init__(
        self,
        rate: float,
        burst: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
        async_sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        name: str = "bucket",
    ) -> None:
        """Make a full bucket; `burst` is what flows in within a second unless it is given.

        Raises TypeError and ValueError for what is not finite and above 0.
        """
        self._rate = checks.finite("rate", rate)
        self._burst = self._rate if burst is None else checks.finite("burst", burst)
        self._clock: Callable[[], float] = checks.function("clock", clock)
        self._sleep: Callable[[float], object] = checks.function("sleep", sleep)
        self._async_sleep: Callable[[float], Awaitable[object]] = checks.function("async_sleep", async_sleep)
        self._name = checks.text("name", name)
        self._lock = Lock()
        #: Below 0 where tokens are promised that have not flowed in.
        self._tokens = self._burst
        self._filled_at = self._clock()
        #: How many times tokens were taken: whether anybody came after a caller.
        self._taken = 0
        forks.after_fork(self._in_child)

    def try_acquire(self, amount: float = 1) -> bool:
        """Take tokens if they are there and nobody waits; never blocks.

        Raises ValueError for an amount above `burst`, which is never there.
        """
        amount = checks.finite("amount", amount)
        if amount > self._burst:
            raise ValueError(
                f"amount must be {self._burst:g} or less, the burst, not {amount:g}: acquire() waits for it"
            )
        with self._lock:
            self._fill()
            if amount > self._tokens:
                return False
            self._tokens -= amount
            self._taken += 1
            return True

    def acquire(self, amount: float = 1, timeout: float | None = None) -> float:
        """Take tokens, and block until they are there; returns the seconds that this was told to wait.

        Raises DeadlineExceeded, at once and without taking any, where that would be more than `timeout` seconds.
        """
        wait, turn = self._take(amount, timeout)
        if wait > _NO_WAIT:
            try:
                self._sleep(wait)
            except BaseException:
                self._give_back(amount, turn)
                raise
        return wait

    async def acquire_async(self, amount: float = 1, timeout: float | None = None) -> float:
        """Do what `acquire` does, without blocking the event loop; one that is cancelled gives back what it can."""
        wait, turn = self._take(amount, timeout)
        if wait > _NO_WAIT:
            try:
                await self._async_sleep(wait)
            except BaseException:
                self._give_back(amount, turn)
                raise
        return wait

    @property
    def available(self) -> float:
        """How many tokens are there now, 0 where callers wait."""
        with self._lock:
            self._fill()
            return max(0.0, self._tokens)

    def __repr__(self) -> str:
        return f"TokenBucket({self._name!r}, {self.available:g} of {self._burst:g}, {self._rate:g}/s)"

    def _take(self, amount: float, timeout: float | None) -> tuple[float, int]:
        """Take tokens, there or promised; returns in how many seconds they will be there, and whose turn it is."""
        amount = checks.finite("amount", amount)
        longest = math.inf if timeout is None else checks.number("timeout", timeout)
        with self._lock:
            self._fill()
            wait = max(_NO_WAIT, (amount - self._tokens) / self._rate)
            if wait > longest:
                raise DeadlineExceeded(
                    f"{amount:g} of {self._name} would take {wait:.3f} s at {self._rate:g} a second, "
                    f"which is more than {longest:g} s"
                )
            self._tokens -= amount
            self._taken += 1
            return wait, self._taken

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + max(0.0, now - self._filled_at) * self._rate)
        self._filled_at = now

    def _give_back(self, amount: float, turn: int) -> None:
        """Put tokens back, unless somebody waits behind: a newcomer would overtake them by what they cannot use."""
        with self._lock:
            if turn == self._taken:
                self._tokens = min(self._burst, self._tokens + amount)

    def _in_child(self) -> None:
        self._lock = Lock()
