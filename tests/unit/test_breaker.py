"""The circuit breaker: when it lets requests through."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest

from storescope.core.caching.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(3, first=1, longest=4, clock=clock)
    assert [breaker.failed() for _ in range(4)] == [False, False, True, False]
    return breaker


def test_failures_in_a_row_open_it(clock: Clock) -> None:
    """It opens at the third failure in a row; a success in between starts the count anew."""
    breaker = Breaker(3, clock=clock)
    for _ in range(5):
        assert not breaker.failed()
        assert not breaker.failed()
        assert breaker.succeeded() is None
        assert breaker.state == "closed"
        assert breaker.allow()
    assert opened(clock).state == "open"


def test_an_open_one_lets_nothing_through_for_a_while(clock: Clock) -> None:
    """No request passes before the first delay is over, and then one does, alone."""
    breaker = opened(clock)
    clock.now = 0.99
    assert not breaker.allow()
    clock.now = 1.0
    assert [breaker.allow() for _ in range(5)] == [True, False, False, False, False]
    assert breaker.state == "half-open"


def test_success_closes_it(clock: Clock) -> None:
    """The probe's success closes it, and tells how long it was open."""
    breaker = opened(clock)
    clock.now = 1.5
    assert breaker.allow()
    assert breaker.succeeded() == 1.5
    assert breaker.state == "closed"
    assert breaker.allow()
    assert [breaker.failed() for _ in range(3)] == [False, False, True]


def test_failing_probes_come_ever_later(clock: Clock) -> None:
    """Each failing probe doubles the delay up to the longest, for good; success sets it back."""
    breaker = opened(clock)
    delays = []
    for _ in range(4):
        begin = clock.now
        while not breaker.allow():
            clock.now += 0.25
        delays.append(clock.now - begin)
        assert not breaker.failed()
    assert delays == [1, 2, 4, 4]
    for _ in range(2000):  # more than a float has powers of two
        clock.now += 4
        assert breaker.allow()
        assert not breaker.failed()
    clock.now += 3.75
    assert not breaker.allow()
    clock.now += 0.25
    assert breaker.allow()
    assert breaker.succeeded() is not None
    assert [breaker.failed() for _ in range(3)] == [False, False, True]
    clock.now += 1
    assert breaker.allow()


def test_a_probe_that_is_never_heard_of_does_not_stop_it(clock: Clock) -> None:
    """Where the probe reports neither success nor failure, another one is let through after the delay."""
    breaker = opened(clock)
    clock.now = 1
    assert breaker.allow()
    clock.now = 1.9
    assert not breaker.allow()
    clock.now = 2
    assert breaker.allow()


def test_late_failures_change_nothing(clock: Clock) -> None:
    """Requests that began before it opened and fail afterwards neither prolong nor announce the outage."""
    breaker = opened(clock)
    clock.now = 0.9
    assert not breaker.failed()
    clock.now = 1
    assert breaker.allow()


def test_one_of_many_threads_probes_and_one_opens(clock: Clock) -> None:
    """Of threads that fail together one opens it, and of threads that ask together one is let through."""
    breaker = Breaker(3, first=1, clock=clock)
    opening: list[bool] = []
    probing: list[bool] = []

    def together(work: Any) -> None:
        barrier = threading.Barrier(8)
        threads = [threading.Thread(target=lambda: (barrier.wait(), work())) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    together(lambda: opening.append(breaker.failed()))
    clock.now = 1
    together(lambda: probing.append(breaker.allow()))
    assert (sum(opening), sum(probing)) == (1, 1)


@pytest.mark.parametrize(
    "options",
    [{"failures": 0}, {"failures": True}, {"first": 0}, {"first": math.nan}, {"longest": 0.1}, {"clock": 1}],
    ids=repr,
)
def test_bad_options_are_refused(options: dict[str, Any]) -> None:
    """Each error names the argument."""
    with pytest.raises((TypeError, ValueError), match=next(iter(options))):
        Breaker(**options)


def test_repr_shows_its_state(clock: Clock) -> None:
    """Its repr says whether it is open."""
    assert repr(opened(clock)) == "Breaker(open, 3 failures in a row)"
