"""One operation's life: its span, its duration, its error, and what it was about."""

from __future__ import annotations

import asyncio
import math
from asyncio import _get_running_loop
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from contextvars import ContextVar, Token
from time import perf_counter, thread_time
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue

from storescope import semconv
from storescope.core.payloads.payload import text_size
from storescope.instrumentation.hooks import Call
from storescope.instrumentation.in_flight import operations
from storescope.instrumentation.tally import tally
from storescope.instrumentation.telemetry import Telemetry
from storescope.notices import warn_once
from storescope.semconv import (
    ERROR_TYPE,
    EVENT_LOOP_BLOCKED,
    GEN_AI_TOOL_NAME,
    MCP_RESOURCE_URI,
    RESPONSE_SIZE,
    THREAD_CPU_TIME,
)
from storescope.stores import (
    UNKNOWN,
    Attributes,
    Described,
    Outcome,
    PatchTarget,
    Role,
    StoreAdapter,
    Style,
    Subject,
)

_CANCELLATIONS: Final = (asyncio.CancelledError, CancelledError, GeneratorExit)
_TIMEOUTS: Final = (TimeoutError, asyncio.TimeoutError)

#: The operation under way here. Tasks and bridge threads that start inside it inherit it.
_current: ContextVar[Operation | Excluded | None] = ContextVar("storescope.operation", default=None)
#: Whether the thread that waits for what runs here has a running event loop, which it blocks.
_blocks_caller: ContextVar[bool] = ContextVar("storescope.blocks_caller", default=False)


def current_operation() -> Operation | Excluded | None:
    """Return the operation under way here. One that has ended, though its context lives on in a task, is none."""
    operation = _current.get()
    return None if operation is None or operation.closed else operation


def context_to_take_along(*, blocks_caller: bool) -> Callable[[], None]:
    """Return what puts the operation and the trace that are current here in force elsewhere, in a task of their own."""
    context, operation = otel_context.get_current(), _current.get()

    def put_in_force() -> None:
        otel_context.attach(context)
        _current.set(operation)
        _blocks_caller.set(blocks_caller)

    return put_in_force


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
        try:
            if isinstance(error, _CANCELLATIONS) or _is_trios(error):
                return Outcome(semconv.ERROR_CANCELLED)
            if isinstance(error, _TIMEOUTS):
                return Outcome(semconv.ERROR_TIMEOUT, str(error))
            return self.adapter.read_error(self.target, error) or Outcome(type(error).__qualname__)
        except Exception:  # it is an error all the same, of a type that is known
            warn_once("storescope could not read an error of %s", self.target.name)
            return Outcome(type(error).__qualname__)


class Excluded:
    """A call that is not to be recorded, nor anything that the store does for it."""

    __slots__ = ("_outer", "closed")

    def __init__(self) -> None:
        self.closed = False
        self._outer = current_operation()  # none that has ended: each would keep the one before it
        _current.set(self)

    def started(self) -> None:
        """Do nothing: there is nothing to be learnt."""

    def finish(self, result: Any) -> None:
        """Let what comes after be recorded again."""
        self.leave()

    def fail(self, error: BaseException) -> None:
        """Let what comes after be recorded again."""
        self.leave()

    def leave(self) -> None:
        """Be no longer the current one here."""
        self.closed = True
        if _current.get() is self:
            _current.set(self._outer)


class Operation:
    """An operation under way, from its construction to the first of `finish`, `fail` and `abandon`.

    None of these may disturb the application: what goes wrong in them is logged, and they return.
    """

    is_part = False

    __slots__ = (
        "_attached",
        "_attributes",
        "_call",
        "_canonical",
        "_cpu_started",
        "_described",
        "_known_error",
        "_outer",
        "_recording",
        "_span",
        "_subject",
        "closed",
        "context",
        "excluded",
        "kind",
        "started_at",
    )

    def __init__(
        self,
        kind: OperationKind,
        described: Described,
        outer: Operation | Excluded | None,
        payload: object = UNKNOWN,
    ) -> None:
        self.kind = kind
        self.started_at = math.inf  # until the call begins; other threads may look
        self.closed = False
        #: Whether its name, once it is known, is one that is not to be recorded: nothing of it is.
        self.excluded = False
        self._described = described
        self._known_error: Outcome | None = None
        self._subject = described.subject
        self._call: Call | None = None
        self._canonical: list[Any] | None = None
        #: What only this call has, beside what all calls of its subject share.
        self._attributes: dict[str, AttributeValue] = {}
        self._outer = outer  # none that has ended: each would keep the one before it
        self._attached: Token[Context] | None = None
        if not self.is_part:
            _current.set(self)
        try:
            self._open(payload)
        except BaseException:  # or every later call would seem to be made inside this one
            self.closed = True
            self.leave()
            raise
        self._cpu_started = thread_time() if self._recording and kind.is_sync else None
        operations.add(self)
        self.started_at = perf_counter()

    def _open(self, payload: object) -> None:
        subject = self._subject
        kind = self.kind
        span = kind.telemetry.tracer.start_span(
            subject.span_name, None, kind.span_kind, subject.span_attributes
        )
        self.context = context = set_span_in_context(span)
        self._attached = otel_context.attach(context)
        self._use(span, payload)

    def _use(self, span: Span, payload: object) -> None:
        """Make a span this operation's own, and read what has to be read before the call runs."""
        self._span = span
        self._recording = span.is_recording()
        if not self._recording:
            return
        try:
            attributes = self._attributes
            telemetry = self.kind.telemetry
            tool = self._subject.span_attributes.get(GEN_AI_TOOL_NAME)
            if tool is not None and payload is not UNKNOWN:
                self._canonical = telemetry.payloads.read_arguments(payload, attributes)
            if (self.kind.is_sync and _get_running_loop() is not None) or _blocks_caller.get():
                attributes[EVENT_LOOP_BLOCKED] = True
            if telemetry.hooks is not None and not self.is_part:
                telemetry.hooks.on_request(span, self._seen_by_hooks(payload))
        except Exception:
            warn_once("storescope could not describe a call of %s", self.kind.target.name)

    def _seen_by_hooks(self, payload: object) -> Call:
        known: Mapping[str, Any] = self._subject.span_attributes
        service, tool = known.get(semconv.SERVICE_NAME), known.get(GEN_AI_TOOL_NAME)
        self._call = Call(self.operation, service, tool, None if payload is UNKNOWN else payload)
        return self._call

    @property
    def span_name(self) -> str:
        """What the operation is called, as far as it is known by now."""
        return self._subject.span_name

    @property
    def metric_attributes(self) -> Attributes:
        """What its duration is recorded by."""
        return self._subject.metric_attributes

    @property
    def operation(self) -> str:
        """The MCP method, or the operation of the store."""
        return self.kind.target.operation or method_of(self._subject)

    def refine(self, subject: Subject) -> None:
        """Learn more about what this operation is about; its span and its record show it when it ends."""
        known = self._subject
        attributes = {**known.span_attributes, **subject.span_attributes}
        called = known.span_attributes.get(GEN_AI_TOOL_NAME)
        if called and called != attributes[GEN_AI_TOOL_NAME]:
            attributes[semconv.TOOL_ALIAS] = called
        self._subject = Subject(
            subject.span_name or known.span_name,
            attributes,
            {**known.metric_attributes, **subject.metric_attributes},
        )
        self.excluded = self.kind.telemetry.excludes(self._subject)

    def started(self) -> None:
        """Look for a better name, now that the call cannot be delayed by it any more."""
        try:
            if self._described.resolve is not None:
                self._described.resolve(self.refine)
        except Exception:
            warn_once("storescope could not look up a call of %s", self.kind.target.name)

    def span_for(self, _scope: str, subject: Subject) -> Span | None:
        """Return the span for a library to use in place of its own; None where its own is about something else."""
        if method_of(subject) != self.operation:
            return None
        self._span.set_attributes(subject.span_attributes)
        return self._span

    def know_error(self, outcome: Outcome) -> None:
        """Learn, from inside, why the operation is about to fail; the store may tell its caller less."""
        self._known_error = outcome

    def leave(self) -> None:
        """Make this operation no longer the current one here, whether or not it goes on elsewhere."""
        if self._attached is not None:
            otel_context.detach(self._attached)
            self._attached = None
        if not self.is_part and _current.get() is self:
            _current.set(self._outer)

    def finish(self, result: Any) -> None:
        """End the operation with what the call returned."""
        elapsed = perf_counter() - self.started_at
        try:
            if operations.claim(self):
                adapter = self.kind.adapter
                target = self.kind.target
                outcome = adapter.read_result(target, result)
                if outcome is not None and outcome.error_type is not None:
                    outcome = self._known_error or outcome
                elif self._described.after is not None:
                    self._described.after(result)
                response = adapter.read_response(target, result) if self._recording else None
                self._end(outcome, elapsed, response, result)
        except Exception:
            self._give_up()
        finally:  # whatever a hook, or a handler of a signal, raises meanwhile
            self.closed = True
            self.leave()

    def fail(self, error: BaseException) -> None:
        """End the operation with what the call raised."""
        elapsed = perf_counter() - self.started_at
        if isinstance(error, GeneratorExit) and otel_context.get_current() is not self.context:
            self._attached = None  # a coroutine that is closed from another context leaves nothing there
        try:
            if operations.claim(self):
                self._end(self._known_error or self.kind.read_error(error), elapsed, None, error)
        except Exception:
            self._give_up()
        finally:
            self.closed = True
            self.leave()

    def abandon(self, why: str) -> None:
        """End the operation although its call has not returned: what hangs must be seen.

        May run in another thread than the call, and leaves that one's context alone.
        """
        if not operations.claim(self):
            return
        elapsed = perf_counter() - self.started_at
        self._call = None
        self._cpu_started = None
        self._attributes[semconv.OPERATION_AGE] = elapsed
        try:
            message = f"{why} when this had run for {elapsed:.3f} s"
            self._end(Outcome(semconv.ERROR_UNFINISHED, message), elapsed, None, None)
        except Exception:
            self._give_up()
        self.closed = True

    def _end(self, outcome: Outcome | None, elapsed: float, response: object, returned: object) -> None:
        """Describe the span while it is open, record the duration under it, and end it."""
        telemetry = self.kind.telemetry
        subject = self._subject
        if self.excluded:
            return  # what is never ended is never exported
        histogram = self.kind.sent
        reached = outcome is None or (outcome.error_type is None and outcome.reached_server)
        metric_attributes = telemetry.bounded(subject.metric_attributes, exists=reached)
        if outcome is not None:
            if outcome.error_type is not None:
                metric_attributes = {**metric_attributes, ERROR_TYPE: outcome.error_type}
            if not outcome.reached_server:
                histogram = self.kind.unsent
                response = None
        if self._recording:
            self._describe(outcome, response)
            if self._call is not None and telemetry.hooks is not None:
                telemetry.hooks.on_response(self._span, self._seen_by_hooks(self._call.arguments), returned)
        if not self.is_part:
            histogram.record(elapsed, metric_attributes, self.context)
            tally.add(metric_attributes)
        self._span.end()

    def _describe(self, outcome: Outcome | None, response: object) -> None:
        attributes = self._attributes
        if self._cpu_started is not None:
            attributes[THREAD_CPU_TIME] = thread_time() - self._cpu_started
        payloads = self.kind.telemetry.payloads
        if response is not None:
            if (size := text_size(response)) is not None:
                attributes[RESPONSE_SIZE] = size
            if payloads.captures_results:
                payloads.read_result(response, attributes)
        if self._canonical is not None:
            payloads.add_digest(self._canonical, self._subject.span_attributes, attributes)
        if self._subject is not self._described.subject:
            self._rename()
            attributes.update(self._subject.span_attributes)
        if outcome is not None:
            attributes.update(outcome.attributes or {})
            if outcome.error_type is not None:
                attributes[ERROR_TYPE] = outcome.error_type
                self._span.set_status(Status(StatusCode.ERROR, payloads.error_text(outcome.message)))
        if self._canonical is None:
            self._redact_uri(attributes)
        self._span.set_attributes(attributes)

    def _redact_uri(self, attributes: dict[str, AttributeValue]) -> None:
        uri = attributes.get(MCP_RESOURCE_URI) or self._subject.span_attributes.get(MCP_RESOURCE_URI)
        if uri is not None:
            attributes[MCP_RESOURCE_URI] = self.kind.telemetry.payloads.text(str(uri))

    def _rename(self) -> None:
        self._span.update_name(self._subject.span_name)

    def _give_up(self) -> None:
        warn_once("storescope could not record %s", self.kind.target.name)
        self._span.end()


def _is_trios(error: BaseException) -> bool:
    """Tell whether this is how trio cancels, known by name: importing trio is the application's business."""
    kind = type(error)
    return kind.__qualname__ == "Cancelled" and kind.__module__.partition(".")[0] == "trio"


def method_of(subject: Subject) -> str:
    """Return the MCP method of a request; "" of anything else."""
    return str(subject.span_attributes.get(semconv.MCP_METHOD_NAME, ""))
