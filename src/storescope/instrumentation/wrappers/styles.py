"""What is put around an operation's callable: one wrapper for each way of handing over a result."""

from __future__ import annotations

import inspect
from asyncio import CancelledError, Future, isfuture
from collections.abc import Callable
from functools import partial
from typing import Any

from storescope.instrumentation.in_flight import operations
from storescope.instrumentation.operation import Operation
from storescope.instrumentation.wrappers.observer import Observed, Observer
from storescope.notices import warn_once
from storescope.stores import Args, Kwargs

Wrapper = Callable[[Callable[..., Any], Any, Args, Kwargs], Any]


def _call(observer: Observer, see_through: Callable[[Observed, Any], None]) -> Wrapper:
    """Wrap a callable that does its work, or begins it, when it is called; its result is passed on as it is."""
    begin = observer.begin

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        operation = begin(instance, args, kwargs)
        if operation is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            operation.fail(error)
            raise
        see_through(operation, result)
        return result

    return wrapper


def sync(observer: Observer) -> Wrapper:
    """Wrap a callable that returns its result."""
    return _call(observer, lambda operation, result: operation.finish(result))


def future(observer: Observer) -> Wrapper:
    """Wrap a callable that returns a future of its result."""
    return _call(observer, _follow)


def _follow(operation: Observed, result: Any) -> None:
    """See an operation through whose work goes on in an `asyncio.Future`."""
    operation.leave()
    if not isfuture(result):
        operation.finish(result)
        return
    try:
        result.add_done_callback(_Follower(operation))
    except Exception:
        warn_once("storescope could not follow a %s", type(result).__name__)
    operation.started()


def coroutine(observer: Observer) -> Wrapper:
    """Wrap a coroutine function."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        operation = observer.begin(instance, args, kwargs)
        if observer.carries:
            args, kwargs = observer.carried(args, kwargs)
        if operation is None:
            return await wrapped(*args, **kwargs)
        try:
            result = await wrapped(*args, **kwargs)
        except BaseException as error:
            operation.fail(error)
            raise
        operation.finish(result)
        return result

    return passing_for_the_wrapped(run)


def passing_for_the_wrapped(run: Callable[..., Any]) -> Wrapper:
    """Wrap a coroutine function by `run(wrapped, instance, args, kwargs)`, as if it were the function itself.

    Bad arguments are refused at once, not when the coroutine is awaited. The wrapped function's own coroutine is made
    inside all the same: one that is closed before its first step would be reported as never awaited.
    """
    signatures: list[inspect.Signature | None] = []

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        if not signatures:
            signatures.append(_signature(wrapped))
        if not _fit(signatures[0], args, kwargs):
            return wrapped(*args, **kwargs)
        coroutine = run(wrapped, instance, args, kwargs)
        function = wrapped.func if isinstance(wrapped, partial) else wrapped
        coroutine.__name__ = getattr(function, "__name__", coroutine.__name__)
        coroutine.__qualname__ = getattr(function, "__qualname__", coroutine.__qualname__)
        return coroutine

    return wrapper


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # native, and it does not tell
        return None


def _fit(signature: inspect.Signature | None, args: Args, kwargs: Kwargs) -> bool:
    """Tell whether a call will not be refused for its arguments.

    The call itself is made elsewhere: what it raises inside an `except` would have our TypeError behind it.
    """
    if signature is not None:
        try:
            signature.bind(*args, **kwargs)
        except TypeError:
            return False
    return True


class _Follower:
    """Ends an operation with its future; where that is destroyed undone, as by the end of its loop, gives it up."""

    __slots__ = ("_operation",)

    def __init__(self, operation: Observed) -> None:
        self._operation: Observed | None = operation

    def __call__(self, future: Future[Any]) -> None:
        operation, self._operation = self._operation, None
        if operation is not None:
            _end(operation, future)

    def __del__(self) -> None:
        if isinstance(self._operation, Operation):
            operations.give_up(self._operation)


def _end(operation: Observed, future: Future[Any]) -> None:
    if future.cancelled():
        operation.fail(CancelledError())
        return
    # `exception()` would mark the exception as retrieved, and asyncio would no longer report one that the
    # application forgets.
    error = future._exception
    if error is None:
        operation.finish(future.result())
    else:
        operation.fail(error)
