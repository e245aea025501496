"""What is put around a store's callables: one wrapper for each way of handing over a result."""

from __future__ import annotations

import logging
from asyncio import CancelledError, Future, isfuture
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from time import perf_counter
from typing import Any, Final

from opentelemetry.instrumentation.utils import is_instrumentation_enabled
from opentelemetry.trace import NoOpTracer

from storescope import semconv
from storescope.instrumentation.operation import Operation, Phase, Request, current_operation, read_error
from storescope.instrumentation.telemetry import Telemetry
from storescope.stores import PatchTarget, Role, StoreAdapter, Style

_log = logging.getLogger(__name__)

Args = tuple[Any, ...]
Kwargs = dict[str, Any]
Wrapper = Callable[[Callable[..., Any], Any, Args, Kwargs], Any]

_OPERATIONS: Final[Mapping[Role, type[Operation]]] = {
    Role.REQUEST: Request,
    Role.OPERATION: Operation,
    Role.PHASE: Phase,
}


class Inside:
    """An inner observer of an operation: it opens no span and lends its knowledge to the outermost."""

    __slots__ = ("_adapter", "_outer", "_target")

    def __init__(self, outer: Operation, adapter: StoreAdapter, target: PatchTarget) -> None:
        self._outer = outer
        self._adapter = adapter
        self._target = target

    def started(self) -> None:
        """Do nothing: what could be read has been."""

    def finish(self, result: Any) -> None:
        """Do nothing: the outermost observer sees the result that counts."""

    def fail(self, error: BaseException) -> None:
        """Tell the operation why it is about to fail."""
        try:
            self._outer.know_error(read_error(self._adapter, self._target, error))
        except Exception:
            _log.warning("storescope could not read an error of %s", self._target.name, exc_info=True)

    def leave(self) -> None:
        """Do nothing: the operation remains the current one."""

    def is_here(self) -> bool:
        """Say that there is nothing to leave."""
        return False


class Observer:
    """Decides what a call of one target is to the agent: an operation, something inside one, or nothing."""

    def __init__(self, telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget) -> None:
        self.telemetry = telemetry
        self.adapter = adapter
        self.target = target
        self.read = adapter.reader(target)
        self._operation = _OPERATIONS.get(target.role)
        self._is_part = target.role in (Role.PHASE, Role.DETAIL)

    def begin(self, instance: Any, args: Args, kwargs: Kwargs) -> Operation | Inside | None:
        """Observe a call that is about to run; None leaves it alone."""
        try:
            if not self.telemetry.is_on() or not is_instrumentation_enabled():
                return None
            outer = current_operation()
            if self._is_part if outer is None else self._is_other(outer):
                return None
            described = self.read(instance, args, kwargs)
            if described is None:
                return None
            if described.outer is not None and isinstance(outer, Request):
                outer.refine(described.outer)
            if self._operation is not None and (outer is None or self._operation is Phase):
                return self._operation(self.telemetry, self.adapter, self.target, described)
            assert outer is not None
            outer.refine(described.subject)
            return Inside(outer, self.adapter, self.target)
        except Exception:
            _log.warning("storescope could not read a call of %s", self.target.name, exc_info=True)
            return None

    def _is_other(self, outer: Operation) -> bool:
        """Whether this is work that the store does on its own account inside another operation."""
        if self.target.role is Role.DETAIL:
            return not isinstance(outer, Request)
        return self._operation is not Phase and self.target.operation != outer.target.operation


def _sync(observer: Observer) -> Wrapper:
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
        else:
            operation.finish(result)
            return result
        finally:
            operation.leave()

    return wrapper


def _coroutine(observer: Observer) -> Wrapper:
    async def run(coroutine: Coroutine[Any, Any, Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        operation = observer.begin(instance, args, kwargs)
        if operation is None:
            return await coroutine
        try:
            result = await coroutine
        except GeneratorExit as error:
            operation.fail(error)
            if operation.is_here():
                operation.leave()
            raise
        except BaseException as error:
            operation.fail(error)
            operation.leave()
            raise
        operation.finish(result)
        operation.leave()
        return result

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        # Made here, not in `run`, so that bad arguments are refused when the application would see them refused.
        return run(wrapped(*args, **kwargs), instance, args, kwargs)

    return wrapper


def _future(observer: Observer) -> Wrapper:
    """Wrap a callable whose work has begun when it returns an `asyncio.Future`; that same future is passed on."""
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
        finally:
            operation.leave()
        if isfuture(result):
            result.add_done_callback(partial(_end, operation))
            operation.started()
        else:
            operation.finish(result)
        return result

    return wrapper


def _end(operation: Operation | Inside, future: Future[Any]) -> None:
    if future.cancelled():
        operation.fail(CancelledError())
        return
    # `exception()` would mark the exception as retrieved, and asyncio would no longer report one that the
    # application forgets.
    error = future._exception  # type: ignore[attr-defined]
    if error is None:
        operation.finish(future.result())
    else:
        operation.fail(error)


def _session(observer: Observer) -> Wrapper:
    """Wrap a coroutine function that runs for as long as an MCP session."""

    async def run(coroutine: Coroutine[Any, Any, Any], instance: Any) -> Any:
        started = perf_counter()
        error: BaseException | None = None
        try:
            return await coroutine
        except BaseException as raised:
            error = raised
            raise
        finally:
            _record_session(observer, instance, perf_counter() - started, error)

    def wrapper(wrapped: Callable[..., Any], instance: Any, args: Args, kwargs: Kwargs) -> Any:
        return run(wrapped(*args, **kwargs), instance)

    return wrapper


def _record_session(observer: Observer, instance: Any, elapsed: float, error: BaseException | None) -> None:
    try:
        described = observer.read(instance, (), {}) if observer.telemetry.is_on() else None
        if described is None:
            return
        attributes = described.subject.metric_attributes
        if error is not None:
            outcome = read_error(observer.adapter, observer.target, error)
            attributes = {**attributes, semconv.ERROR_TYPE: str(outcome.error_type)}
        observer.telemetry.sessions.record(elapsed, attributes)
    except Exception:
        _log.warning("storescope could not record a session of %s", observer.adapter.name, exc_info=True)


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
    Role.TRACER: _quiet_tracer,
}


def make_wrapper(telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget) -> Wrapper:
    """Return what wrapt puts around a target."""
    observer = Observer(telemetry, adapter, target)
    return _BY_ROLE.get(target.role, _BY_STYLE[target.style])(observer)
