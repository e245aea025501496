"""When to try again what failed: ever later, and not all at once."""

from __future__ import annotations

from collections.abc import Callable


def exponential(failures: int, *, first: float, longest: float) -> float:
    """Return the seconds to wait after so many failures: `first`, then twice as long each time, up to `longest`.

    Without jitter: whoever waits with others adds it.
    """
    return min(longest, first * 2.0 ** min(failures - 1, 1000))  # above that a float has no such power


class Backoff:
    """Delays that double from `first` to `longest` seconds, each shortened by up to a half at random.

    After "Exponential Backoff And Jitter" (M. Brooker, AWS Architecture Blog, 2015), there called equal jitter.
    `rng` gives numbers from 0 to 1. Not thread-safe.
    """

    def __init__(self, rng: Callable[[], float], *, first: float = 0.1, longest: float = 5.0) -> None:
        self._rng = rng
        self._first = first
        self._longest = longest
        #: How many times it was put off: less than failures, where several fail together.
        self._rounds = 0
        #: Attempts that failed since one succeeded, what the last failed with, and when to try again.
        self.failures = 0
        self.error: BaseException | None = None
        self.retry_at = 0.0

    def failed(self, error: BaseException, now: float) -> None:
        """Put the next attempt off; attempts that began together and fail together do it once."""
        self.failures += 1
        self.error = error
        if now >= self.retry_at:
            self._rounds += 1
            delay = exponential(self._rounds, first=self._first, longest=self._longest)
            self.retry_at = now + delay * (1 - self._rng() / 2)

    def succeeded(self) -> None:
        """Start anew."""
        self.failures = 0
        self.error = None
        self._rounds = 0
        self.retry_at = 0.0
