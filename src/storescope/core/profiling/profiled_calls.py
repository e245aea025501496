"""Functions of each kind, wrapped so that they are measured and stay of their kind."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any

from storescope.core.profiling.measurement import Measurement

Measure = Callable[[], Measurement]
Wrapped = Callable[..., Any]


def wrap(function: Wrapped, measure: Measure) -> Wrapped:
    """Return a function of the same kind, of each call of which a measurement is made.

    A function is measured from its beginning to its end, a coroutine with the time in which it waits, a generator only
    while it makes an item. Each is profiled only while its own code runs, and not while it waits.
    """
    called = (function, type(function).__call__)  # of an object with a method `__call__`, that is what counts
    wrap_kind = next((wrap_kind for is_kind, wrap_kind in _KINDS if any(map(is_kind, called))), _function)
    return functools.wraps(function)(wrap_kind(function, measure))


def _function(function: Wrapped, measure: Measure) -> Wrapped:
    def call(*args: Any, **kwargs: Any) -> Any:
        with measure():
            return function(*args, **kwargs)

    return call


def _coroutine_function(function: Wrapped, measure: Measure) -> Wrapped:
    async def call(*args: Any, **kwargs: Any) -> Any:
        measurement = measure()
        measurement.start_clock()
        failed = True
        try:
            steps = function(*args, **kwargs).__await__()
            result = await _awaited(steps, measurement.start_profile, measurement.stop_profile)
            failed = False
            return result
        finally:
            measurement.stop_clock()
            measurement.finish(failed=failed)

    return call


def _generator_function(function: Wrapped, measure: Measure) -> Wrapped:
    def call(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        measurement = measure()
        failed = True
        try:
            result = yield from _steps(function(*args, **kwargs), measurement.start, measurement.stop)
        except GeneratorExit:
            failed = False  # whoever iterates has had enough
            raise
        else:
            failed = False
            return result
        finally:
            measurement.finish(failed=failed)

    return types.coroutine(call) if _is_awaitable(function) else call


def _async_generator_function(function: Wrapped, measure: Measure) -> Wrapped:
    async def call(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        measurement = measure()
        failed = True
        try:
            items = function(*args, **kwargs)
            resume, value = items.asend, None
            while True:
                measurement.start_clock()
                try:
                    steps = resume(value)
                    item = await _awaited(steps, measurement.start_profile, measurement.stop_profile)
                except StopAsyncIteration:
                    break
                finally:
                    value = None
                    measurement.stop_clock()
                try:
                    value = yield item
                    resume = items.asend
                except BaseException as error:
                    resume, value = items.athrow, error
        except GeneratorExit:
            failed = False
            raise
        else:
            failed = False
        finally:
            measurement.finish(failed=failed)

    return call


def _steps(function: Any, start: Callable[[], None], stop: Callable[[], None]) -> Generator[Any, Any, Any]:
    """Do what `yield from` does, with a start and a stop around each step.

    Whatever comes in goes on to the function, closing too: GeneratorExit is thrown into it like any other exception.
    """
    send = getattr(function, "send", None) or (lambda _: next(function))  # `__await__` may give any iterator
    resume, value = send, None
    while True:
        start()
        try:
            item = resume(value)
        except StopIteration as end:
            return end.value
        finally:
            stop()
            value = None  # an exception that was thrown in must not be kept by its own traceback
        try:
            value = yield item
            resume = send
        except BaseException as error:
            if not hasattr(function, "throw"):
                raise
            resume, value = function.throw, error


_awaited = types.coroutine(_steps)


def _is_awaitable(function: Wrapped) -> bool:
    """Tell whether a generator function was made one of coroutines by `types.coroutine`."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


_KINDS: tuple[tuple[Callable[[Any], bool], Callable[[Wrapped, Measure], Wrapped]], ...] = (
    (inspect.iscoroutinefunction, _coroutine_function),
    (inspect.isasyncgenfunction, _async_generator_function),
    (inspect.isgeneratorfunction, _generator_function),
)
