"""Deadlines: what is waited for no longer, and what is passed on as it is."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar
from typing import Any

import pytest

from storescope.core.batching.deadline import Deadline, await_within, call_within
from storescope.core.errors import DeadlineExceeded

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def fail(error: BaseException) -> None:
    raise error


def test_a_call_in_time_returns_what_it_returns() -> None:
    """With a deadline or without, positional and keyword arguments reach the function."""
    assert call_within(None, dict, [("a", 1)], b=2) == {"a": 1, "b": 2}
    assert call_within(60, dict, [("a", 1)], b=2) == {"a": 1, "b": 2}
    assert call_within(float("inf"), int, "7") == 7


def test_a_late_call_is_given_up_and_goes_on() -> None:
    """The caller gets DeadlineExceeded with name and seconds; the call ends later, in a daemon thread."""
    release, ended = threading.Event(), threading.Event()

    def work() -> None:
        assert threading.current_thread().daemon
        release.wait(30)
        ended.set()

    with pytest.raises(
        DeadlineExceeded, match=r"work did not end within 0\.02 s; the call goes on"
    ) as raised:
        call_within(0.02, work)
    assert isinstance(raised.value, TimeoutError)
    assert not ended.is_set()
    release.set()
    assert ended.wait(30)


@pytest.mark.parametrize("error", [ValueError("bad"), TimeoutError("its own"), SystemExit(3)])
def test_what_a_call_raises_is_passed_on(error: BaseException) -> None:
    """The very same exception, also where it looks like a deadline."""
    with pytest.raises(type(error)) as raised:
        call_within(60, fail, error)
    assert raised.value is error


def test_a_call_sees_the_callers_context() -> None:
    """Context variables reach the thread; what the call sets stays there."""
    tenant.set("alice")

    def look() -> str:
        seen = tenant.get()
        tenant.set("bob")
        return seen

    assert call_within(60, look) == "alice"
    assert tenant.get() == "alice"


def test_nothing_is_called_when_no_time_is_left() -> None:
    """Zero seconds are a deadline that has passed."""
    calls: list[int] = []
    with pytest.raises(DeadlineExceeded, match="was not called"):
        call_within(0, calls.append, 1)
    assert calls == []


@pytest.mark.parametrize("seconds", [-1, float("nan"), True, "1"])
def test_bad_seconds_are_refused(seconds: Any) -> None:
    """The error names the argument and its value."""
    with pytest.raises((TypeError, ValueError), match="seconds must be .*" + repr(seconds)):
        call_within(seconds, print)
    with pytest.raises((TypeError, ValueError), match="seconds must be .*" + repr(seconds)):
        Deadline(seconds)


def test_a_late_awaitable_is_cancelled() -> None:
    """And it has ended when the caller is told."""
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.01 s"):
        asyncio.run(await_within(0.01, work()))
    assert ended == ["cancelled"]


def test_an_awaitable_in_time_is_passed_on() -> None:
    """Values and errors, a TimeoutError of its own too; futures that run already are awaited likewise."""

    async def main() -> None:
        assert await await_within(60, asyncio.sleep(0, "value")) == "value"
        assert await await_within(None, asyncio.sleep(0, "value")) == "value"
        future = asyncio.get_running_loop().create_future()
        future.set_exception(TimeoutError("its own"))
        with pytest.raises(TimeoutError, match="its own") as raised:
            await await_within(60, future)
        assert not isinstance(raised.value, DeadlineExceeded)
        with pytest.raises(DeadlineExceeded):
            await await_within(0, asyncio.sleep(60))

    asyncio.run(main())


def test_cancelling_the_caller_cancels_what_it_awaits() -> None:
    """Cancellation is no deadline."""

    async def main() -> None:
        inner = asyncio.ensure_future(asyncio.sleep(60))
        outer = asyncio.ensure_future(await_within(60, inner))
        await asyncio.sleep(0)
        outer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await outer
        assert inner.cancelled()

    asyncio.run(main())


def test_a_deadline_counts_down_on_the_clock_that_it_is_given() -> None:
    """Remaining seconds never fall below 0; without seconds there is no end."""
    now = [100.0]
    deadline = Deadline(5, clock=lambda: now[0])
    assert (deadline.remaining(), deadline.passed()) == (5.0, False)
    now[0] = 104.0
    assert repr(deadline) == "<Deadline in 1.000 s>"
    now[0] = 106.0
    assert (deadline.remaining(), deadline.passed()) == (0.0, True)
    assert (Deadline(None).remaining(), Deadline(None).passed()) == (None, False)
