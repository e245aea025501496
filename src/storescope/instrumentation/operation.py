"""One operation's life: its span, its duration, its error, and what it was about."""

from __future__ import annotations

import asyncio
import itertools
import logging
from concurrent.futures import CancelledError
from contextvars import ContextVar
from time import perf_counter, thread_time
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.metrics import Histogram
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from storescope import semconv
from storescope.core.payload import text_size
from storescope.instrumentation.redaction import error_text
from storescope.instrumentation.telemetry import Telemetry
from storescope.stores import Described, Outcome, PatchTarget, Role, StoreAdapter, Style, Subject

_log = logging.getLogger(__name__)

_CANCELLATIONS: Final = (asyncio.CancelledError, CancelledError, GeneratorExit)
_TIMEOUTS: Final = (TimeoutError, asyncio.TimeoutError)

#: The operation under way here. Tasks and bridge threads that start inside it inherit it.
_current: ContextVar[Operation | None] = ContextVar("storescope.operation", default=None)


def current_operation() -> Operation | None:
    """Return the operation under way here. One that has ended, though its context lives on in a task, is none."""
    operation = _current.get()
    return None if operation is None or operation.closed else operation


class Tally:
    """How many operations ended, and how many of them in error: exact, whichever threads they ran in."""

    def __init__(self) -> None:
        self._operations = itertools.count()
        self._errors = itertools.count()
        self._reads = 0

    def add(self, *, error: bool) -> None:
        """Count one operation."""
        next(self._operations)
        if error:
            next(self._errors)

    def read(self) -> tuple[int, int]:
        """Return the operations and the errors so far."""
        operations, errors = next(self._operations) - self._reads, next(self._errors) - self._reads
        self._reads += 1
        return operations, errors


tally: Final = Tally()


def read_error(adapter: StoreAdapter, target: PatchTarget, error: BaseException) -> Outcome:
    """Tell what an exception means: cancellation and deadlines alike for all stores, the rest by the adapter."""
    if isinstance(error, _CANCELLATIONS):
        return Outcome(semconv.ERROR_CANCELLED)
    if isinstance(error, _TIMEOUTS):
        return Outcome(semconv.ERROR_TIMEOUT, str(error))
    return adapter.read_error(target, error)


class Operation:
    """An operation under way, from its construction to the first of `finish` and `fail`.

    Neither end may disturb the application: what goes wrong in them is logged, and they return.
    """

    kind = SpanKind.INTERNAL

    __slots__ = (
        "_adapter",
        "_attached",
        "_context",
        "_cpu_started",
        "_known_error",
        "_outer",
        "_request_size",
        "_span",
        "_started",
        "_telemetry",
        "closed",
        "described",
        "subject",
        "target",
    )

    def __init__(
        self, telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget, described: Described
    ) -> None:
        self._telemetry = telemetry
        self._adapter = adapter
        self._known_error: Outcome | None = None
        self.closed = False
        self.target = target
        self.described = described
        self.subject = subject = described.subject
        self._span = span = telemetry.tracer.start_span(subject.span_name, None, self.kind, subject.span_attributes)
        payload = described.payload
        self._request_size = text_size(payload) if payload is not None and span.is_recording() else None
        self._context = set_span_in_context(span)
        self._enter()
        self._cpu_started = thread_time() if target.style is Style.SYNC else 0.0
        self._started = perf_counter()

    def refine(self, subject: Subject) -> None:
        """Learn more about what this operation is about; its span and its record show it when it ends."""
        known = self.subject
        attributes = {**known.span_attributes, **subject.span_attributes}
        called = known.span_attributes.get(semconv.GEN_AI_TOOL_NAME)
        if called and called != attributes[semconv.GEN_AI_TOOL_NAME]:
            attributes[semconv.TOOL_ALIAS] = called
        self.subject = Subject(
            subject.span_name or known.span_name,
            attributes,
            {**known.metric_attributes, **subject.metric_attributes},
        )

    def started(self) -> None:
        """Look for a better name, now that the call cannot be delayed by it any more."""
        try:
            if self.described.resolve is not None:
                self.described.resolve(self.refine)
        except Exception:
            _log.warning("storescope could not look up a call of %s", self.target.name, exc_info=True)

    def know_error(self, outcome: Outcome) -> None:
        """Learn, from inside, why the operation is about to fail; the store may tell its caller less."""
        self._known_error = outcome

    def leave(self) -> None:
        """Make this operation no longer the current one here, whether or not it goes on elsewhere."""
        otel_context.detach(self._attached)
        _current.set(self._outer)

    def is_here(self) -> bool:
        """Tell whether this is the context in which the operation began; a coroutine can be closed from another."""
        return otel_context.get_current() is self._context

    def finish(self, result: Any) -> None:
        """End the operation with what the call returned."""
        elapsed = perf_counter() - self._started
        try:
            outcome = self._adapter.read_result(self.target, result)
            if outcome.error_type is not None and self._known_error is not None:
                outcome = self._known_error
            elif self.described.after is not None:
                self.described.after(result)
            self._close(outcome, elapsed)
        except Exception:
            _log.warning("storescope could not record %s", self.target.name, exc_info=True)

    def fail(self, error: BaseException) -> None:
        """End the operation with what the call raised."""
        elapsed = perf_counter() - self._started
        try:
            self._close(self._known_error or read_error(self._adapter, self.target, error), elapsed)
        except Exception:
            _log.warning("storescope could not record %s", self.target.name, exc_info=True)

    def _enter(self) -> None:
        self._attached = otel_context.attach(self._context)
        self._outer = _current.get()
        _current.set(self)

    def _close(self, outcome: Outcome, elapsed: float) -> None:
        """Describe the span while it is open, record the duration under it, and end it."""
        if self.closed:
            return
        self.closed = True
        span = self._span
        if span.is_recording():
            span.set_attributes(self._end_attributes(outcome))
            if outcome.error_type is not None:
                text = error_text(outcome.message) if self._telemetry.keep_error_text else ""
                span.set_status(Status(StatusCode.ERROR, text or None))
        self._record(outcome, elapsed)
        span.end()

    def _end_attributes(self, outcome: Outcome) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {}
        if self.target.style is Style.SYNC:
            attributes[semconv.THREAD_CPU_TIME] = thread_time() - self._cpu_started
        if self._request_size is not None:
            attributes[semconv.REQUEST_SIZE] = self._request_size
        if outcome.payload is not None and (size := text_size(outcome.payload)) is not None:
            attributes[semconv.RESPONSE_SIZE] = size
        if self.subject is not self.described.subject:
            self._span.update_name(self.subject.span_name)
            attributes.update(self.subject.span_attributes)
        if outcome.error_type is not None:
            attributes[semconv.ERROR_TYPE] = outcome.error_type
            attributes.update(outcome.attributes or {})
        return attributes

    def _record(self, outcome: Outcome, elapsed: float) -> None:
        attributes = self.subject.metric_attributes
        failed = outcome.error_type is not None
        if failed:
            attributes = {**attributes, semconv.ERROR_TYPE: str(outcome.error_type)}
        self._histogram(outcome).record(elapsed, attributes, self._context)
        tally.add(error=failed)

    def _histogram(self, outcome: Outcome) -> Histogram:
        return self._telemetry.operations


class Request(Operation):
    """A request to an MCP server. It is recorded among the requests if it got there."""

    kind = SpanKind.CLIENT

    __slots__ = ()

    def _histogram(self, outcome: Outcome) -> Histogram:
        telemetry = self._telemetry
        return telemetry.requests if outcome.reached_server else telemetry.operations


class Phase(Operation):
    """A part of the current operation: a child span and no record, for the operation's own has it in it."""

    __slots__ = ()

    def _enter(self) -> None:
        self._attached = otel_context.attach(self._context)
        self._outer = _current.get()

    def _record(self, outcome: Outcome, elapsed: float) -> None:
        if outcome.error_type is not None and self._outer is not None:
            self._outer.know_error(outcome)
