"""What is put around callables that are no operations: sessions, a library's own spans, bridges between threads."""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Callable, Generator
from contextlib import nullcontext
from time import perf_counter
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.trace import INVALID_SPAN, NoOpTracer, use_span

from storescope import semconv
from storescope.instrumentation.forks import lineage
from storescope.instrumentation.operation import Excluded, Operation, context_to_take_along, current_operation
from storescope.instrumentation.wrappers.observer import Observer
from storescope.instrumentation.wrappers.styles import Wrapper, passing_for_the_wrapped
from storescope.notices import warn_once
from storescope.stores import Args, Kwargs, inside_store


def session(observer: Observer) -> Wrapper:
    """Wrap a coroutine function that runs for as long as an MCP session of a store's."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        inside_store.set(True)  # for the task of which this is the whole
        started = perf_counter()
        error: BaseException | None = None
        try:
            return await wrapped(*args, **kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            _record_session(observer, instance, perf_counter() - started, error)

    return passing_for_the_wrapped(run)


#: When MCP sessions that are open were entered.
_entered: Final[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()


def enter(observer: Observer) -> Wrapper:
    """Wrap the `__aenter__` of an MCP session."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        result = await wrapped(*args, **kwargs)
        try:
            if observer.read(instance, args, kwargs) is not None:
                _entered[instance] = perf_counter()
        except Exception:
            warn_once("storescope could not follow a session of %s", observer.kind.adapter.name)
        return result

    return passing_for_the_wrapped(run)


def leave(observer: Observer) -> Wrapper:
    """Wrap the `__aexit__` of an MCP session."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            _leave(observer, instance, args[1] if len(args) > 1 else kwargs.get("exc_val"))

    return passing_for_the_wrapped(run)


def _leave(observer: Observer, instance: Any, error: BaseException | None) -> None:
    try:
        entered = _entered.pop(instance, None)
    except TypeError:
        return  # of a class whose instances have no hash: it was never noted
    if entered is not None:
        _record_session(observer, instance, perf_counter() - entered, error)


def _record_session(observer: Observer, instance: Any, elapsed: float, error: BaseException | None) -> None:
    try:
        described = observer.read(instance, (), {}) if observer.kind.telemetry.go_live() else None
        if described is None:
            return
        attributes = described.subject.metric_attributes
        if error is not None:
            outcome = observer.kind.read_error(error)
            attributes = {**attributes, semconv.ERROR_TYPE: str(outcome.error_type)}
        observer.kind.telemetry.sessions.record(elapsed, attributes)
    except Exception:
        warn_once("storescope could not record a session of %s", observer.kind.adapter.name)


def lent_span(observer: Observer) -> Wrapper:
    """Wrap what makes a library's own span: inside an operation it uses the operation's, which ends when that does."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        span = None
        try:
            operation = current_operation()
            if isinstance(operation, Excluded):
                return nullcontext(INVALID_SPAN)
            if isinstance(operation, Operation) and (described := observer.read(instance, args, kwargs)):
                span = operation.span_for(observer.kind.target.operation, described.subject)
        except Exception:
            warn_once("storescope could not lend %s a span", observer.kind.adapter.name)
        if span is None:
            return wrapped(*args, **kwargs)
        # What an exception says is redacted when the operation ends.
        return use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)

    return wrapper


class _Carried:
    """A coroutine that takes the context of its caller along into the thread in which it is awaited."""

    def __init__(self, coroutine: Any) -> None:
        self._coroutine = coroutine
        self._put_in_force = context_to_take_along(blocks_caller=True)

    def __await__(self) -> Generator[Any, Any, Any]:
        self._put_in_force()
        return (yield from self._coroutine.__await__())

    def close(self) -> None:
        """Close the coroutine, as the bridge does where it cannot run it."""
        self._coroutine.close()


def bridge(observer: Observer) -> Wrapper:
    """Wrap what has a coroutine run in another thread and waits for it, which blocks a running event loop."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        if observer.breaks_by_fork and lineage.unsure:
            lineage.look()
        if _get_running_loop() is not None and args and observer.kind.telemetry.live:
            args = (_Carried(args[0]), *args[1:])
        return wrapped(*args, **kwargs)

    return wrapper


def quiet_tracer(_observer: Observer) -> Wrapper:
    """Wrap a store's own way to its tracer: inside an operation of ours, its spans would double ours."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        return wrapped(*args, **kwargs) if current_operation() is None else NoOpTracer()

    return wrapper
