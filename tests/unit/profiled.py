"""What the tests of the profilers share: work that uses the CPU, and the names that a profile shows."""

from __future__ import annotations

import time
from collections.abc import Callable

from storescope.core.profiling.profile import Profile


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


def names(profile: Profile | None) -> set[str]:
    """Return the functions of a profile, without the functions and classes around them."""
    assert profile is not None
    return {f.frame.function.rpartition(".")[2] for f in profile.functions}


def busy() -> int:
    return sum(sorted(range(2000)))


def spin(seconds: float) -> None:
    """Use the CPU, as this thread's own time tells."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def first_part(seconds: float) -> None:
    spin(seconds)


def second_part(seconds: float) -> None:
    spin(seconds)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until something has happened, 5 seconds at most."""
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "this has not happened in 5 s"
        time.sleep(0.002)
