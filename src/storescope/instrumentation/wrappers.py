"""What is put around a store's callables: one wrapper for each way of handing over a result."""

from __future__ import annotations

import inspect
import sys
from asyncio import CancelledError, Future, _get_running_loop, isfuture
from collections.abc import Callable, Generator, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.context import get_current
from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.propagate import inject
from opentelemetry.trace import NoOpTracer, use_span

from storescope import semconv
from storescope.instrumentation.forks import breaks_by_fork, lineage
from storescope.instrumentation.operation import (
    Excluded,
    Operation,
    OperationKind,
    context_to_take_along,
    current_operation,
    method_of,
)
from storescope.instrumentation.telemetry import Telemetry
from storescope.instrumentation.variants import BorrowingOperation, Phase
from storescope.notices import warn_once
from storescope.stores import Args, Kwargs, PatchTarget, Role, StoreAdapter, Style, inside_store

Wrapper = Callable[[Callable[..., Any], Any, Args, Kwargs], Any]


class Inside:
    """An inner observer of an operation: it opens no span and lends its knowledge to the outermost."""

    __slots__ = ("_kind", "_outer")

    def __init__(self, kind: OperationKind, outer: Operation) -> None:
        self._kind = kind
        self._outer = outer

    def started(self) -> None:
        """Do nothing: what could be read has been."""

    def finish(self, result: Any) -> None:
        """Do nothing: the outermost observer sees the result that counts."""

    def fail(self, error: BaseException) -> None:
        """Tell the operation why it is about to fail."""
        try:
            self._outer.know_error(self._kind.read_error(error))
        except Exception:
            warn_once("storescope could not read an error of %s", self._kind.target.name)

    def leave(self) -> None:
        """Do nothing: the operation remains the current one."""


#: A call that is observed, in whichever way: it is told how the call ends.
Observed = Operation | Inside | Excluded


class Observer:
    """Decides what a call of one target is to the agent: an operation, something inside one, or nothing."""

    def __init__(self, kind: OperationKind) -> None:
        self.kind = kind
        self.breaks_by_fork = breaks_by_fork(kind.adapter, kind.target)
        self.read = kind.adapter.reader(kind.target)
        role = kind.target.role
        parameters, self._payload = kind.target.parameters, kind.target.payload
        self._payload_position = parameters.index(self._payload) if self._payload else sys.maxsize
        self._opens = role in (Role.REQUEST, Role.OPERATION)
        self.carries = kind.target.carry is not None

    def begin(self, instance: Any, args: Args, kwargs: Kwargs) -> Observed | None:
        """Observe a call that is about to run; None leaves it alone."""
        try:
            if self.breaks_by_fork and lineage.unsure:
                lineage.look()
            telemetry = self.kind.telemetry
            if not (telemetry.live or telemetry.go_live()):
                return None
            if get_current() and not is_instrumentation_enabled():  # an empty context suppresses nothing
                return None
            outer = current_operation()
            if outer is not None:
                return self._begin_inside(outer, instance, args, kwargs)
            if not self._opens:
                return None
            described = self.read(instance, args, kwargs)
            if described is None or not described.opens:
                return None
            if telemetry.exclusions is not None and telemetry.excludes(described.subject):
                return Excluded()
            position = self._payload_position
            payload = args[position] if position < len(args) else kwargs.get(self._payload, described.payload)
            return (BorrowingOperation if described.borrows_span else Operation)(
                self.kind, described, payload
            )
        except Exception:
            warn_once("storescope could not read a call of %s", self.kind.target.name)
            return None

    def _begin_inside(
        self, outer: Operation | Excluded, instance: Any, args: Args, kwargs: Kwargs
    ) -> Observed | None:
        if isinstance(outer, Excluded) or outer.excluded or self._is_other(outer):
            return None
        described = self.read(instance, args, kwargs)
        if described is None or not (
            self.kind.target.operation or method_of(described.subject) == outer.operation
        ):
            return None
        if described.outer is not None and outer.kind.is_request:
            outer.refine(described.outer)
        if self.kind.target.role is Role.PHASE:
            return Phase(self.kind, described)
        outer.refine(described.subject)
        return Inside(self.kind, outer)

    def _is_other(self, outer: Operation) -> bool:
        """Whether this is work that the store does on its own account inside another operation."""
        target = self.kind.target
        if target.role is Role.PHASE or not target.operation:
            return False
        return target.operation != outer.operation

    def carried(self, args: Args, kwargs: Kwargs) -> tuple[Args, Kwargs]:
        """Return the arguments with which the call tells the server of the operation that it is a part of."""
        carry = self.kind.target.carry
        operation = current_operation()
        if carry is None or not isinstance(operation, Operation) or operation.excluded:
            return args, kwargs
        try:
            fields: dict[str, str] = {}
            inject(fields, operation.context)
            return carry(fields, args, kwargs) if fields else (args, kwargs)
        except Exception:
            warn_once("storescope could not put trace context into a call of %s", self.kind.target.name)
            return args, kwargs


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


def _sync(observer: Observer) -> Wrapper:
    return _call(observer, lambda operation, result: operation.finish(result))


def _future(observer: Observer) -> Wrapper:
    return _call(observer, _follow)


def _follow(operation: Observed, result: Any) -> None:
    """See an operation through whose work goes on in an `asyncio.Future`."""
    operation.leave()
    if not isfuture(result):
        operation.finish(result)
        return
    try:
        result.add_done_callback(partial(_end, operation))
    except Exception:
        warn_once("storescope could not follow a %s", type(result).__name__)
    operation.started()


def _coroutine(observer: Observer) -> Wrapper:
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

    return _passing_for_the_wrapped(run)


def _passing_for_the_wrapped(run: Callable[..., Any]) -> Wrapper:
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


def _session(observer: Observer) -> Wrapper:
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

    return _passing_for_the_wrapped(run)


#: When MCP sessions that are open were entered.
_entered: Final[WeakKeyDictionary[Any, float]] = WeakKeyDictionary()


def _enter(observer: Observer) -> Wrapper:
    """Wrap the `__aenter__` of an MCP session."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        result = await wrapped(*args, **kwargs)
        try:
            if observer.read(instance, args, kwargs) is not None:
                _entered[instance] = perf_counter()
        except Exception:
            warn_once("storescope could not follow a session of %s", observer.kind.adapter.name)
        return result

    return _passing_for_the_wrapped(run)


def _exit(observer: Observer) -> Wrapper:
    """Wrap the `__aexit__` of an MCP session."""

    async def run(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        try:
            return await wrapped(*args, **kwargs)
        finally:
            entered = _entered.pop(instance, None)
            if entered is not None:
                error = args[1] if len(args) > 1 else kwargs.get("exc_val")
                _record_session(observer, instance, perf_counter() - entered, error)

    return _passing_for_the_wrapped(run)


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


def _lent_span(observer: Observer) -> Wrapper:
    """Wrap what makes a library's own span, of the same name and scope: an operation ends it when it has its result."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        operation = current_operation()
        if not isinstance(operation, BorrowingOperation):
            return wrapped(*args, **kwargs)
        try:
            described = observer.read(instance, args, kwargs)
            if described is None:
                return wrapped(*args, **kwargs)
            span = operation.borrow(observer.kind.target.operation, described.subject)
        except Exception:
            warn_once("storescope could not take over a span of %s", observer.kind.adapter.name)
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


def _bridge(observer: Observer) -> Wrapper:
    """Wrap what has a coroutine run in another thread and waits for it, which blocks a running event loop."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        if observer.breaks_by_fork and lineage.unsure:
            lineage.look()
        if _get_running_loop() is not None and args and observer.kind.telemetry.live:
            args = (_Carried(args[0]), *args[1:])
        return wrapped(*args, **kwargs)

    return wrapper


def _quiet_tracer(_observer: Observer) -> Wrapper:
    """Wrap a store's own way to its tracer: inside an operation of ours, its spans would double ours."""

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        return wrapped(*args, **kwargs) if current_operation() is None else NoOpTracer()

    return wrapper


_BY_STYLE: Final[Mapping[Style, Callable[[Observer], Wrapper]]] = {
    Style.SYNC: _sync,
    Style.COROUTINE: _coroutine,
    Style.FUTURE: _future,
}
_BY_ROLE: Final[Mapping[Role, Callable[[Observer], Wrapper]]] = {
    Role.SESSION: _session,
    Role.ENTER: _enter,
    Role.EXIT: _exit,
    Role.SPAN: _lent_span,
    Role.BRIDGE: _bridge,
    Role.TRACER: _quiet_tracer,
}


def make_wrapper(telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget) -> Wrapper:
    """Return what wrapt puts around a target."""
    observer = Observer(OperationKind(telemetry, adapter, target))
    return _BY_ROLE.get(target.role, _BY_STYLE[target.style or Style.SYNC])(observer)
