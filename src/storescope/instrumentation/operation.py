"""One operation's life: its span, its duration, its error, and what it was about."""

from __future__ import annotations

import asyncio
import itertools
from concurrent.futures import CancelledError
from contextvars import ContextVar, Token
from time import perf_counter, thread_time
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from storescope import semconv
from storescope.core.payload import text_size
from storescope.instrumentation.redaction import error_text
from storescope.instrumentation.telemetry import Telemetry
from storescope.notices import warn_once
from storescope.semconv import ERROR_TYPE, REQUEST_SIZE, RESPONSE_SIZE, THREAD_CPU_TIME
from storescope.stores import Attributes, Described, Outcome, PatchTarget, Role, StoreAdapter, Style, Subject

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

    def add(self, recorded: Attributes) -> None:
        """Count an operation, by the attributes that its duration was recorded with."""
        next(self._operations)
        if ERROR_TYPE in recorded:
            next(self._errors)

    def read(self) -> tuple[int, int]:
        """Return the operations and the errors so far."""
        counts = next(self._operations) - self._reads, next(self._errors) - self._reads
        self._reads += 1
        return counts


tally: Final = Tally()


class OperationKind:
    """What all operations of one target have in common."""

    __slots__ = ("adapter", "is_request", "is_sync", "sent", "span_kind", "target", "telemetry", "unsent")

    def __init__(self, telemetry: Telemetry, adapter: StoreAdapter, target: PatchTarget) -> None:
        self.telemetry = telemetry
        self.adapter = adapter
        self.target = target
        self.is_request = target.role is Role.REQUEST
        self.is_sync = target.style is Style.SYNC
        self.span_kind = SpanKind.CLIENT if self.is_request else SpanKind.INTERNAL
        #: Where a duration is recorded: of a request that was sent, and of everything else.
        self.sent = telemetry.requests if self.is_request else telemetry.operations
        self.unsent = telemetry.operations

    def read_error(self, error: BaseException) -> Outcome:
        """Tell what an exception means: cancellation and deadlines alike for all stores, the rest by the adapter."""
        if isinstance(error, _CANCELLATIONS):
            return Outcome(semconv.ERROR_CANCELLED)
        if isinstance(error, _TIMEOUTS):
            return Outcome(semconv.ERROR_TIMEOUT, str(error))
        return self.adapter.read_error(self.target, error)


class Operation:
    """An operation under way, from its construction to the first of `finish` and `fail`.

    Neither end may disturb the application: what goes wrong in them is logged, and they return.
    """

    is_current = True

    __slots__ = (
        "_attached",
        "_context",
        "_cpu_started",
        "_described",
        "_known_error",
        "_outer",
        "_recording",
        "_request_size",
        "_span",
        "_started",
        "_subject",
        "closed",
        "kind",
    )

    def __init__(self, kind: OperationKind, described: Described, payload: object = None) -> None:
        self.kind = kind
        self.closed = False
        self._described = described
        self._known_error: Outcome | None = None
        self._subject = subject = described.subject
        self._span = span = kind.telemetry.tracer.start_span(
            subject.span_name, None, kind.span_kind, subject.span_attributes
        )
        self._recording = recording = span.is_recording()
        self._request_size = text_size(payload) if recording and payload is not None else None
        self._context = context = set_span_in_context(span)
        self._attached: Token[Context] | None = otel_context.attach(context)
        self._outer = _current.get()
        if self.is_current:
            _current.set(self)
        self._cpu_started = thread_time() if recording and kind.is_sync else None
        self._started = perf_counter()

    def refine(self, subject: Subject) -> None:
        """Learn more about what this operation is about; its span and its record show it when it ends."""
        known = self._subject
        attributes = {**known.span_attributes, **subject.span_attributes}
        called = known.span_attributes.get(semconv.GEN_AI_TOOL_NAME)
        if called and called != attributes[semconv.GEN_AI_TOOL_NAME]:
            attributes[semconv.TOOL_ALIAS] = called
        self._subject = Subject(
            subject.span_name or known.span_name,
            attributes,
            {**known.metric_attributes, **subject.metric_attributes},
        )

    def started(self) -> None:
        """Look for a better name, now that the call cannot be delayed by it any more."""
        try:
            if self._described.resolve is not None:
                self._described.resolve(self.refine)
        except Exception:
            warn_once("storescope could not look up a call of %s", self.kind.target.name)

    def know_error(self, outcome: Outcome) -> None:
        """Learn, from inside, why the operation is about to fail; the store may tell its caller less."""
        self._known_error = outcome

    def leave(self) -> None:
        """Make this operation no longer the current one here, whether or not it goes on elsewhere."""
        if self._attached is not None:
            otel_context.detach(self._attached)
            self._attached = None
            _current.set(self._outer)

    def finish(self, result: Any) -> None:
        """End the operation with what the call returned."""
        elapsed = perf_counter() - self._started
        try:
            adapter = self.kind.adapter
            target = self.kind.target
            outcome = adapter.read_result(target, result)
            if outcome is not None and outcome.error_type is not None:
                outcome = self._known_error or outcome
            elif self._described.after is not None:
                self._described.after(result)
            self._end(outcome, elapsed, adapter.read_response(target, result) if self._recording else None)
        except Exception:
            self._give_up()

    def fail(self, error: BaseException) -> None:
        """End the operation with what the call raised."""
        elapsed = perf_counter() - self._started
        if isinstance(error, GeneratorExit) and otel_context.get_current() is not self._context:
            self._attached = (
                None  # a coroutine that is closed from another context has nothing to leave there
            )
        try:
            self._end(self._known_error or self.kind.read_error(error), elapsed, None)
        except Exception:
            self._give_up()

    def _end(self, outcome: Outcome | None, elapsed: float, response: object) -> None:
        """Describe the span while it is open, record the duration under it, and end it."""
        self.closed = True
        span = self._span
        subject = self._subject
        histogram = self.kind.sent
        metric_attributes = subject.metric_attributes
        if outcome is not None:
            if outcome.error_type is not None:
                metric_attributes = {**metric_attributes, ERROR_TYPE: outcome.error_type}
            if not outcome.reached_server:
                histogram = self.kind.unsent
                response = None
        if self._recording:
            span.set_attributes(self._end_attributes(outcome, response))
        if self.is_current:
            histogram.record(elapsed, metric_attributes, self._context)
            tally.add(metric_attributes)
        span.end()
        self.leave()

    def _end_attributes(self, outcome: Outcome | None, response: object) -> dict[str, AttributeValue]:
        attributes: dict[str, AttributeValue] = {}
        if self._cpu_started is not None:
            attributes[THREAD_CPU_TIME] = thread_time() - self._cpu_started
        if self._request_size is not None:
            attributes[REQUEST_SIZE] = self._request_size
        if response is not None and (size := text_size(response)) is not None:
            attributes[RESPONSE_SIZE] = size
        if self._subject is not self._described.subject:
            self._span.update_name(self._subject.span_name)
            attributes.update(self._subject.span_attributes)
        if outcome is not None:
            self._describe_outcome(outcome, attributes)
        return attributes

    def _describe_outcome(self, outcome: Outcome, attributes: dict[str, AttributeValue]) -> None:
        attributes.update(outcome.attributes or {})
        if outcome.error_type is not None:
            attributes[ERROR_TYPE] = outcome.error_type
            text = error_text(outcome.message) if self.kind.telemetry.keep_error_text else ""
            self._span.set_status(Status(StatusCode.ERROR, text or None))

    def _give_up(self) -> None:
        warn_once("storescope could not record %s", self.kind.target.name)
        self.closed = True
        self._span.end()
        self.leave()


class Phase(Operation):
    """A part of the current operation: a child span and no record, for the operation's own has it in it."""

    is_current = False

    __slots__ = ()

    def _end(self, outcome: Outcome | None, elapsed: float, response: object) -> None:
        if outcome is not None and self._outer is not None:
            self._outer.know_error(outcome)
        super()._end(outcome, elapsed, response)
