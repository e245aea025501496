"""Deadlines: calls and awaitables that are waited for so long and no longer."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout  # not the built-in one before 3.11
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar

from storescope.core.checks import number, optional
from storescope.core.errors import DeadlineExceeded

T = TypeVar("T")


class Deadline:
    """A moment by which something is to end; `None` seconds is never."""

    __slots__ = ("_clock", "_moment", "seconds")

    def __init__(self, seconds: float | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds: float | None = optional(number, "seconds", seconds)
        self._clock = clock
        self._moment = None if self.seconds is None else clock() + self.seconds

    def remaining(self) -> float | None:
        """Return the seconds that are left, 0 when it has passed, None where there is no deadline."""
        return None if self._moment is None else max(0.0, self._moment - self._clock())

    def passed(self) -> bool:
        """Whether nothing is left."""
        return self._moment is not None and self._clock() >= self._moment

    def __repr__(self) -> str:
        remaining = self.remaining()
        return "<Deadline never>" if remaining is None else f"<Deadline in {remaining:.3f} s>"


#: The deadline of the call that the current code is part of.
_current: ContextVar[Deadline | None] = ContextVar("storescope_deadline", default=None)


def time_left() -> float | None:
    """Return the seconds that `call_within` still waits for the code that asks; None where nobody waits so.

    What blocks in there may end by itself then: a call that nobody waits for holds what it uses all the same.
    """
    deadline = _current.get()
    return None if deadline is None else deadline.remaining()


def call_within(seconds: float | None, function: Callable[..., T], /, *args: Any, **kwargs: Any) -> T:
    """Call a function and return what it returns, or raise DeadlineExceeded after `seconds`.

    Python cannot stop a function from outside: past the deadline the call *goes on* in its own thread, whatever it
    does still happens, and what it returns or raises is dropped. That thread is a daemon: it does not hold up the
    end of the program. A thread is started for each call (about 50 us) that sees the caller's context variables;
    what the call changes in them stays there. With `None` seconds the function is called directly; with 0 the
    deadline has passed and it is not called.
    """
    limit = optional(number, "seconds", seconds)
    if limit is None:
        return function(*args, **kwargs)
    if limit == 0:
        raise DeadlineExceeded(f"{_name(function)} was not called: its deadline had passed")
    outcome: Future[T] = Future()
    context = copy_context()
    context.run(_current.set, Deadline(limit))

    def run() -> None:
        try:
            outcome.set_result(context.run(function, *args, **kwargs))
        except BaseException as error:  # the caller gets it, whatever it is
            outcome.set_exception(error)

    threading.Thread(target=run, name=f"storescope-deadline-{_name(function)}", daemon=True).start()
    try:
        outcome.exception(min(limit, threading.TIMEOUT_MAX))
    except FutureTimeout:
        raise DeadlineExceeded(
            f"{_name(function)} did not end within {limit:g} s; the call goes on in its thread"
        ) from None
    return outcome.result()


async def await_within(seconds: float | None, awaitable: Awaitable[T]) -> T:
    """Await something, or cancel it after `seconds` and raise DeadlineExceeded.

    Waits for the cancelled one to end, so nothing of it goes on. A TimeoutError of its own is passed on as it is.
    With `None` seconds it is awaited directly; with 0 it is cancelled before it has begun.
    """
    limit = optional(number, "seconds", seconds)
    if limit is None:
        return await awaitable
    task = asyncio.ensure_future(awaitable)
    try:
        return await asyncio.wait_for(task, limit)
    except asyncio.TimeoutError:  # not the built-in one before 3.11
        if not task.cancelled():
            raise
        raise DeadlineExceeded(f"no answer within {limit:g} s; the call was cancelled") from None


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", None) or type(function).__qualname__
