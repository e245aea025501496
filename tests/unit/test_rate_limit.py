"""The token bucket: how much it lets through, in which order, and what it refuses."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storescope.core.errors import DeadlineExceeded
from storescope.core.payloads.rate_limit import TokenBucket


class Clock:
    """A clock that only sleeping and tests move."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def async_sleep(self, seconds: float) -> None:
        self.sleep(seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bucket(clock: Clock, rate: float, burst: float | None = None) -> TokenBucket:
    return TokenBucket(rate, burst, clock=clock, sleep=clock.sleep, async_sleep=clock.async_sleep)


def test_a_burst_passes_at_once_and_the_rest_at_the_rate(clock: Clock) -> None:
    """A full bucket lets its burst through; from then on each amount waits for as long as it takes to flow in."""
    limit = bucket(clock, 100, 50)
    assert [limit.acquire(amount) for amount in (20, 30, 10, 100)] == pytest.approx([0, 0, 0.1, 1.0])
    assert clock.slept == pytest.approx([0.1, 1.0])


def test_the_burst_is_a_second_of_the_rate_by_default(clock: Clock) -> None:
    """Without `burst`, what flows in within a second passes at once."""
    limit = bucket(clock, 8)
    assert limit.acquire(8) == 0
    assert limit.acquire(4) == 0.5


def test_more_than_the_burst_waits_for_the_rest(clock: Clock) -> None:
    """An amount above the burst is let through when the rate allows it, and what follows pays for it as well."""
    limit = bucket(clock, 1_000, 100)
    assert limit.acquire(10_100) == pytest.approx(10)
    assert limit.acquire(50) == pytest.approx(0.05)


def test_idling_fills_the_bucket_and_no_more(clock: Clock) -> None:
    """However long nobody came, no more than the burst passes at once."""
    limit = bucket(clock, 10, 20)
    limit.acquire(20)
    clock.now += 1
    assert limit.available == pytest.approx(10)
    clock.now += 3_600
    assert limit.available == 20


def test_a_clock_that_steps_back_takes_nothing_away(clock: Clock) -> None:
    """A clock that goes backwards leaves the tokens as they are."""
    limit = bucket(clock, 10, 20)
    limit.acquire(5)
    clock.now -= 100
    assert limit.available == pytest.approx(15)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0.1, 100), st.booleans()), max_size=30),
    st.floats(0.5, 50),
    st.floats(1, 50),
)
def test_no_window_lets_more_through_than_it_may(
    calls: list[tuple[float, float, bool]], rate: float, burst: float
) -> None:
    """Between any two moments no more passes than the burst, or the larger amount of one call, and what flowed in."""
    clock = Clock()
    limit = bucket(clock, rate, burst)
    passed: list[tuple[float, float]] = []
    for idle, amount, blocking in calls:
        clock.now += idle
        if blocking:
            limit.acquire(amount)
            passed.append((clock.now, amount))
        elif amount <= burst and limit.try_acquire(amount):
            passed.append((clock.now, amount))
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            window = passed[last][0] - passed[first][0]
            total = sum(amount for _, amount in passed[first : last + 1])
            allowed = max(burst, passed[first][1]) + rate * window
            assert total <= allowed * (1 + 1e-9) + 1e-6


def test_try_acquire_never_waits_and_never_overtakes(clock: Clock) -> None:
    """`try_acquire` takes what is there, and nothing while somebody waits for what is to come."""
    limit = TokenBucket(10, 10, clock=clock, sleep=lambda seconds: None)
    assert limit.try_acquire(10)
    assert not limit.try_acquire(1)
    limit.acquire(10)  # it waits for a second from now on
    clock.now += 0.5
    assert not limit.try_acquire(1)
    clock.now += 0.6
    assert limit.try_acquire(1)


def test_try_acquire_refuses_what_can_never_be_there(clock: Clock) -> None:
    """An amount above the burst is an error for `try_acquire`: a loop around it would never end."""
    with pytest.raises(ValueError, match="amount must be 10 or less, the burst, not 11: "):
        bucket(clock, 10, 10).try_acquire(11)


def test_a_wait_above_the_timeout_is_refused_at_once(clock: Clock) -> None:
    """Where the wait would be too long, the error comes at once, says how long, and costs no tokens."""
    limit = bucket(clock, 10, 10)
    with pytest.raises(DeadlineExceeded, match=r"30 of bucket would take 2\.000 s at 10 a second, .* 1 s"):
        limit.acquire(30, timeout=1)
    assert clock.slept == []
    assert limit.available == 10
    assert limit.acquire(30, timeout=2) == 2


def test_threads_are_served_in_order_of_arrival(clock: Clock) -> None:
    """Each thread waits until all that came before it have their tokens; none is served twice before another."""
    waits: list[float] = []
    limit = TokenBucket(10, 1, clock=clock, sleep=waits.append)
    for _ in range(5):
        limit.acquire(1)
    assert waits == pytest.approx([0.1, 0.2, 0.3, 0.4])


def test_many_threads_together_keep_the_rate() -> None:
    """What threads take together, on a real clock, is no more than the rate allows."""
    limit = TokenBucket(2_000, 100)
    begin = time.monotonic()
    threads = [threading.Thread(target=lambda: [limit.acquire(10) for _ in range(10)]) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begin >= 0.199  # 500 tokens, of which 100 were there
    assert limit.available < 100


def test_tasks_wait_without_blocking_their_loop(clock: Clock) -> None:
    """The async face keeps the same bucket and order, and lets other tasks run meanwhile."""

    async def main() -> list[str]:
        limit = TokenBucket(100, 1)
        done: list[str] = []

        async def take(name: str) -> None:
            await limit.acquire_async(1)
            done.append(name)

        async def beat() -> None:
            done.append("beat")

        await asyncio.gather(take("a"), take("b"), take("c"), beat())
        return done

    assert asyncio.run(main()) == ["a", "beat", "b", "c"]
    limit = bucket(clock, 10, 10)
    assert asyncio.run(limit.acquire_async(20)) == 1


def test_a_cancelled_task_gives_back_what_nobody_waits_behind() -> None:
    """Tokens of a cancelled wait return to the bucket, unless somebody came later: nobody overtakes that one."""

    async def cancelled(behind: bool) -> float:
        clock = Clock()
        limit = TokenBucket(1, 1, clock=clock, async_sleep=asyncio.sleep)
        waiting = asyncio.create_task(limit.acquire_async(101))
        await asyncio.sleep(0)
        last = asyncio.create_task(limit.acquire_async(1)) if behind else None
        await asyncio.sleep(0)
        for task in (waiting, last):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        with pytest.raises(DeadlineExceeded) as refused:
            limit.acquire(1_000, timeout=0)
        return float(str(refused.value).split("take ")[1].split(" ")[0])

    assert asyncio.run(cancelled(behind=False)) == 999
    assert asyncio.run(cancelled(behind=True)) == 1_100


def test_an_interrupted_wait_gives_back_its_tokens(clock: Clock) -> None:
    """A `KeyboardInterrupt` while it sleeps passes through, and the tokens are there again."""

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    limit = TokenBucket(10, 10, clock=clock, sleep=interrupt)
    with pytest.raises(KeyboardInterrupt):
        limit.acquire(20)
    assert limit.available == 10


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
def test_bad_numbers_are_refused(clock: Clock, bad: Any) -> None:
    """Rates, bursts and amounts that are no finite number above 0 are errors that name argument and value."""
    with pytest.raises((TypeError, ValueError), match=f"rate must be .*{bad!r}"):
        TokenBucket(bad)
    if bad is not None:
        with pytest.raises((TypeError, ValueError), match=f"burst must be .*{bad!r}"):
            TokenBucket(1, bad)
    limit = bucket(clock, 1)
    for take in (limit.acquire, limit.try_acquire, lambda amount: asyncio.run(limit.acquire_async(amount))):
        with pytest.raises((TypeError, ValueError), match=f"amount must be .*{bad!r}"):
            take(bad)
    assert limit.available == 1


@pytest.mark.parametrize("bad", [-1, math.nan, True, "1"])
def test_bad_timeouts_are_refused(clock: Clock, bad: Any) -> None:
    """A timeout that is no number of seconds is an error and takes nothing."""
    with pytest.raises((TypeError, ValueError), match=f"timeout must be .*{bad!r}"):
        bucket(clock, 1).acquire(1, timeout=bad)


def test_repr_shows_what_is_there(clock: Clock) -> None:
    """Its repr shows name, tokens and rate."""
    limit = TokenBucket(1_000, 500, clock=clock, name="uplink")
    limit.acquire(100)
    assert repr(limit) == "TokenBucket('uplink', 400 of 500, 1000/s)"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child_goes_on(clock: Clock) -> None:
    """A child that is forked while a thread holds the lock is not stuck, and has a bucket of its own."""
    limit = bucket(clock, 10, 10)
    with limit._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if limit.try_acquire(4) and limit.available == 6 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert limit.available == 10
